"""Measure the agreement between a backbone and a cheaper copy of it, on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.backbones.file import Backbone
from featx.backbones.graph import tap
from featx.recipes.verify import run_logits
from featx.session import Session
from featx.similarity import cosine_rows

__all__ = ["Fidelity", "compute_features", "measure_fidelity"]

_BATCH_SIZE = 8


@dataclass(frozen=True)
class Fidelity:
    """Agreement between a backbone and a cheaper copy of it.

    Parameters
    ----------
    n_images : int
        Number of images compared.
    cosine : float
        Cosine between the two feature rows of an image, averaged over images.
    smallest_cosine : float
        Smallest of these cosines.
    same_class : float or None
        Share of images that both networks' own classifiers put into the same class; None
        without a classifier.
    accuracy, reference_accuracy : float or None
        Cross-validated accuracy of a logistic regression on the copy's features and
        on the original's; None without labels.
    """

    n_images: int
    cosine: float
    smallest_cosine: float
    same_class: float | None
    accuracy: float | None = None
    reference_accuracy: float | None = None

    def __str__(self) -> str:
        text = f"{self.n_images} held-out images: cosine {self.cosine:.4f} (smallest {self.smallest_cosine:.4f})"
        if self.same_class is not None:
            text += f", same class {self.same_class:.3f}"
        if self.accuracy is not None:
            text += f", accuracy of a head {self.accuracy:.3f} (before {self.reference_accuracy:.3f})"
        return text


def measure_fidelity(
    reference: Backbone, copy: Backbone, pixels: npt.NDArray[np.uint8], labels: Sequence[Any] | None = None
) -> Fidelity:
    """Compare a backbone and its copy on the CPU, on images on the canvas and their labels, if any."""
    original, copied = (compute_features(backbone, pixels) for backbone in (reference, copy))
    cosines = cosine_rows(original, copied)
    scores = [run_logits(backbone, pixels, _BATCH_SIZE) for backbone in (reference, copy)]
    has_classes = scores[0].ndim == 2
    return Fidelity(
        len(pixels),
        float(cosines.mean()),
        float(cosines.min()),
        float((scores[0].argmax(1) == scores[1].argmax(1)).mean()) if has_classes else None,
        *([_estimate_accuracy(features, labels) for features in (copied, original)] if labels is not None else []),
    )


def compute_features(
    backbone: Backbone, pixels: npt.NDArray[np.uint8], batch_size: int = _BATCH_SIZE
) -> npt.NDArray[np.float64]:
    """Compute the default features of images on the canvas, on the CPU."""
    session = Session(tap(backbone, None, "avg", False), "cpu")
    batches = (pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size))
    return np.concatenate([session.run(batch) for batch in batches]).astype(np.float64)


def _estimate_accuracy(features: npt.NDArray[np.float64], labels: Sequence[Any]) -> float:
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = int(min(5, *np.unique(np.asarray(labels), return_counts=True)[1]))
    return float(cross_val_score(head, features, labels, cv=max(2, folds)).mean())
