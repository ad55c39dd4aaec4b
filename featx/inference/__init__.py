"""Turn images into features: specification, engine, cache stage, worker processes, self-check and timing."""

from featx.inference.self_check import check_canonical
from featx.inference.spec import list_backbones
from featx.inference.timing import Profile

__all__ = ["Profile", "check_canonical", "list_backbones"]
