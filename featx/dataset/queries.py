"""Embed texts as queries for a dataset of texts or images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.dataset.manifest import Features
from featx.errors import DatasetError

__all__ = ["embed_queries"]


def embed_queries(
    features: Features, where: object, texts: Sequence[str], backbone: Any = None, **running: Any
) -> npt.NDArray[np.float32]:
    """Embed texts with the encoder of a dataset; see `Dataset.embed_texts`."""
    if features.kind == "image":
        raise DatasetError(
            f"{where}: holds images, and their network {features.backbone} has no text tower; give images as queries"
        )
    extractor = features.make_extractor(where, backbone, **running)
    return np.asarray(extractor.transform(list(texts)), np.float32)
