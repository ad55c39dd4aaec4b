"""Choose a backbone, layer, pooling, crop and head for labelled images."""

from featx.selection.candidates import Candidate
from featx.selection.compare import compare
from featx.selection.duplicates import Duplicates, find_duplicates, group_duplicates
from featx.selection.head_result import HeadComparison, HeadScore
from featx.selection.heads import compare_heads
from featx.selection.result import Comparison
from featx.selection.search import search
from featx.selection.search_result import SearchCost, SearchResult

__all__ = [
    "Candidate",
    "Comparison",
    "Duplicates",
    "HeadComparison",
    "HeadScore",
    "SearchCost",
    "SearchResult",
    "compare",
    "compare_heads",
    "find_duplicates",
    "group_duplicates",
    "search",
]
