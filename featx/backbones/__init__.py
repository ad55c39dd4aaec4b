"""Backbones: what a file says about itself, where files are found, and how a graph is cut. Runs nothing."""

from featx.backbones.catalogue import find_by_identity, list_backbones, open_backbone
from featx.backbones.file import Backbone, Layer
from featx.backbones.graph import tap
from featx.backbones.pooling import POOLINGS

__all__ = ["POOLINGS", "Backbone", "Layer", "find_by_identity", "list_backbones", "open_backbone", "tap"]
