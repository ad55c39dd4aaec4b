"""Which backbone, layer and pooling suit these pictures: estimated on a part of them, before anything is fitted."""

from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.duplicates import group_duplicates
from featx.selection.result import Comparison
from featx.selection.search import Found, search

__all__ = ["Candidate", "Comparison", "Found", "compare", "group_duplicates", "search"]
