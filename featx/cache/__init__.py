"""Cache features on disk and decoded images in memory."""

from featx.cache.keys import cache_folder
from featx.cache.store import FeatureCache

__all__ = ["FeatureCache", "cache_folder"]
