"""Hold the targets of a training, and compute its loss and its score on left-out images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_sample_weight

from featx.errors import InputError

__all__ = ["Targets"]

Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]


class Targets:
    """Hold the targets of all images, class numbers or scaled numbers, and compute the loss."""

    def __init__(self, y: npt.NDArray[Any], rows: Indices, task: str, class_weight: Any) -> None:
        self.rows, self.task = rows, task
        self.classes: npt.NDArray[Any] | None = None
        self.target = (0.0, 1.0)
        known = y[rows]
        if task == "classification":
            self.classes = np.unique(known)
            if len(self.classes) < 2:
                raise InputError(f"y: got only the class {self.classes[0]!r}; expected at least two classes")
            codes = {value: i for i, value in enumerate(self.classes.tolist())}
            self.values = np.array([codes.get(value, -1) for value in y.tolist()], np.int64)
            self.weights = np.ones(len(y), np.float32)
            self.weights[rows] = compute_sample_weight(class_weight, known)
            self.weights /= self.weights[rows].mean()
            return
        if class_weight is not None:
            raise InputError("class_weight: only for a classification; leave it out")
        numbers = y.astype(np.float64)
        self.target = float(numbers[rows].mean()), float(numbers[rows].std()) or 1.0
        self.values = ((numbers - self.target[0]) / self.target[1]).astype(np.float32)
        self.weights = np.ones(len(y), np.float32)

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None for a regression."""
        return None if self.classes is None else len(self.classes)

    def loss(self, torch: Any, scores: Any, rows: Indices) -> Any:
        """Return the mean weighted loss of a batch."""
        true = torch.from_numpy(self.values[rows]).to(scores.device)
        weights = torch.from_numpy(self.weights[rows]).to(scores.device)
        if self.classes is None:
            losses = (scores[:, 0] - true) ** 2
        else:
            losses = torch.nn.functional.cross_entropy(scores, true, reduction="none")
        return (losses * weights).mean()

    def measure(self, scores: Floats, rows: Indices) -> tuple[float, float]:
        """Return loss and score (accuracy or R2) of left-out images; images of an unknown class count as wrong."""
        true = self.values[rows]
        if self.classes is None:
            errors = float(((scores[:, 0] - true) ** 2).mean())
            return errors, 1 - errors / (float(true.var()) or 1.0)
        known = true >= 0
        losses = -log_softmax(scores.astype(np.float64), axis=1)[known, true[known]]
        loss = float(losses.mean()) if known.any() else math.inf
        return loss, float((scores.argmax(axis=1) == true).mean())
