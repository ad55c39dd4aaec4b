"""Decode images and prepare them for a backbone."""

from featx.images.preprocess import Preprocess, to_canvas

__all__ = ["Preprocess", "to_canvas"]
