"""How near the features of one backbone come to those of another, on images neither was made with."""

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

from featx.backbones import Backbone, tap
from featx.recipes.verify import run_logits
from featx.session import Session
from featx.similarity import cosine_rows

__all__ = ["Fidelity", "measure_fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """What is left of a backbone's features in a cheaper copy of it.

    Parameters
    ----------
    n_images : int
        How many were compared.
    cosine : float
        Mean cosine between the two features of an image.
    smallest_cosine : float
        Of the image that fares worst.
    same_class : float or None
        Share of images to which the networks' own classifiers give the same class; None
        for a backbone without one.
    accuracy, reference_accuracy : float or None
        Cross-validated accuracy of logistic regression, fitted on the copy's features and
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
    """Compare two backbones of one preprocessing on the CPU.

    Parameters
    ----------
    reference, copy : Backbone
        The original and what was made of it.
    pixels : ndarray of uint8, shape (n, 3, height, width)
        Images on the canvas.
    labels : sequence or None
        One for each image.
    """
    theirs, ours = (_run(_features(backbone), pixels) for backbone in (reference, copy))
    cosines = cosine_rows(theirs, ours)
    scores = [_run(lambda some, of=of: run_logits(of, some), pixels) for of in (reference, copy)]
    classified = scores[0].ndim == 2
    return Fidelity(
        len(pixels),
        float(cosines.mean()),
        float(cosines.min()),
        float((scores[0].argmax(1) == scores[1].argmax(1)).mean()) if classified else None,
        *([_accuracy(features, labels) for features in (ours, theirs)] if labels is not None else []),
    )


def _features(backbone: Backbone) -> Any:
    return Session(tap(backbone, None, "avg", False), "cpu").run


def _run(compute: Any, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.concatenate([compute(pixels[i : i + 8]) for i in range(0, len(pixels), 8)]).astype(np.float64)


def _accuracy(features: npt.NDArray[np.float64], labels: Sequence[Any]) -> float:
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = int(min(5, *np.unique(np.asarray(labels), return_counts=True)[1]))
    return float(cross_val_score(head, features, labels, cv=max(2, folds)).mean())
