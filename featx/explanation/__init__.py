"""Explain answers: split each score among the cells of the map that the network saw."""

from featx.explanation.explain import Explanation, explain
from featx.explanation.explainer import METHODS, Explainer

__all__ = ["METHODS", "Explainer", "Explanation", "explain"]
