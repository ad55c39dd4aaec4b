"""Explain answers: split each score among the cells of the map that the network saw."""

from featx.explanation.explain import METHODS, Explanation, explain

__all__ = ["METHODS", "Explanation", "explain"]
