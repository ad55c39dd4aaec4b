"""Embed texts as queries for a dataset of texts or images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones.catalogue import find_text_tower, open_backbone
from featx.backbones.file import Backbone
from featx.backbones.tokenization import Tokenization
from featx.dataset.manifest import Features
from featx.errors import DatasetError
from featx.text import TextExtractor

__all__ = ["embed_queries"]


def embed_queries(
    features: Features, where: object, texts: Sequence[str], backbone: Any = None, **running: Any
) -> npt.NDArray[np.float32]:
    """Embed texts with the encoder of a dataset; see `Dataset.embed_texts`."""
    if features.kind == "image":
        tower = _find_tower(features, where, backbone)
        extractor: Any = TextExtractor(os.fspath(tower.path), l2_normalize=features.values["l2_normalize"], **running)
    else:
        extractor = features.make_extractor(where, backbone, **running)
    return np.asarray(extractor.transform(list(texts)), np.float32)


def _find_tower(features: Features, where: object, backbone: Any) -> Backbone:
    """Return the text tower of a dataset of images; ``backbone`` is the file of one of the two towers, or None."""
    given = None if backbone is None else open_backbone(backbone, kind="text", download=False)
    is_tower = given is not None and given.recipe.get("pair") and isinstance(given.preprocess, Tokenization)
    image = features.make_extractor(where, None if is_tower else backbone)
    if isinstance(image.backbone, (list, tuple)):
        raise DatasetError(f"{where}: holds the features of several networks; texts share those of one alone")
    network = open_backbone(image.backbone, image.precision, download=False)
    tower = given if is_tower and given else find_text_tower(network)
    if tower is None or tower.recipe["pair"] != network.recipe.get("pair"):
        reason = f" ({network.recipe['text_tower']})" if "text_tower" in network.recipe else ""
        raise DatasetError(
            f"{where}: holds images, and their network {features.backbone} has no text tower{reason}; give images as "
            "queries"
        )
    layers, shared = features.values["layer"], network.layer("projection").name
    if layers != [shared] or features.values["pooling"] not in ("avg", "max"):
        raise DatasetError(
            f"{where}: holds layer={layers} with pooling={features.values['pooling']!r}, and texts share the layer "
            "'projection'; embed the images with layer='projection'"
        )
    return tower
