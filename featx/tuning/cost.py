"""Estimate the time of a tuning from a part of its images before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from featx.extractor import FeatureExtractor
from featx.inference.workers import count_threads
from featx.tuning.activations import cut_for, embed_activations, limit_views
from featx.tuning.train import tune_tail

__all__ = ["describe_cost"]

#: Number of images from which on the time is estimated. With fewer images a tuning takes minutes, and the estimate
#: would take a noticeable part of them.
_MIN_IMAGES = 1000
_IMAGES_PER_THREAD = 64
_VIEWS = 2
_EPOCHS = 3


def describe_cost(
    items: Sequence[Any],
    extractor: FeatureExtractor,
    depth: str,
    epochs: int,
    n_trained: Sequence[int],
    *,
    n_views: int,
    max_bytes: int,
) -> str:
    """Return a sentence with the time and disk space of a tuning, or an empty string for few images.

    A few images are run through the frozen layers, and two epochs of training on them are timed.

    Parameters
    ----------
    items : sequence
        The images.
    extractor : FeatureExtractor
        The frozen network.
    depth : str
        Layer after which the network is tuned.
    epochs : int
        Passes over the images of each training.
    n_trained : sequence of int
        Number of images of each training.
    n_views : int
        Views of each image to tune on.
    max_bytes : int
        Largest number of bytes on disk.
    """
    if len(items) < _MIN_IMAGES:
        return ""
    n = _IMAGES_PER_THREAD * count_threads(extractor.n_threads)
    rows = np.linspace(0, len(items) - 1, min(n, len(items))).astype(int)
    began = time.monotonic()
    activations = embed_activations([items[row] for row in rows], extractor, depth, n_views=_VIEWS)
    seconds_per_view = (time.monotonic() - began) / (_VIEWS * len(rows))
    backbone = activations.trunk.backbone
    history = tune_tail(  # the target does not change the cost of a step; the first epoch warms up
        *(backbone, depth, activations, np.arange(len(rows))),
        task="regression",
        epochs=_EPOCHS,
        device=extractor.device,
        n_threads=extractor.n_threads,
    ).history
    seconds_per_image = (history[-1].seconds - history[1].seconds) / ((_EPOCHS - 1) * len(rows))
    n_views = limit_views(cut_for(extractor, depth), len(items), n_views, max_bytes)
    frozen, training = seconds_per_view * n_views * len(items), seconds_per_image * epochs * sum(n_trained)
    size = n_views * len(items) * activations.trunk.n_bytes / 1e9
    return (
        f"about {_show(frozen + training)}: {_show(frozen)} for {n_views} views of {len(items):,} images "
        f"through the frozen layers ({size:.1f} GB on disk), {_show(training)} for {len(n_trained)} trainings of "
        f"{epochs} epochs; more if a deeper layer or more epochs are tried"
    )


def _show(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
