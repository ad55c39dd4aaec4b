"""Which backbone, layer and pooling suit these images: estimated on a part of them, before anything is fitted."""

from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.duplicates import group_duplicates
from featx.selection.result import Comparison
from featx.selection.search import SearchResult, search

__all__ = ["Candidate", "Comparison", "SearchResult", "compare", "group_duplicates", "search"]
