"""Explain answers: split each score among the cells of an image, the words of a text, or kinds of columns."""

from featx.explanation.explain import Explanation, explain
from featx.explanation.explainer import METHODS, Explainer
from featx.explanation.kinds import Detail, KindExplainer, wrap_texts
from featx.explanation.rows import RowExplanation

__all__ = ["METHODS", "Detail", "Explainer", "Explanation", "KindExplainer", "RowExplanation", "explain", "wrap_texts"]
