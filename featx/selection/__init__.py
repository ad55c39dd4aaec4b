"""Choose a backbone, layer, pooling, crop and head for labelled images."""

from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.duplicates import Duplicates, find_duplicates, group_duplicates
from featx.selection.result import Comparison, HeadScore, SearchResult
from featx.selection.search import search

__all__ = [
    "Candidate",
    "Comparison",
    "Duplicates",
    "HeadScore",
    "SearchResult",
    "compare",
    "find_duplicates",
    "group_duplicates",
    "search",
]
