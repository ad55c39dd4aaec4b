"""Draw the results of a classification: the confusion matrix, and correct and wrong predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import ConfusionMatrixDisplay

from featx._files import write_whole
from featx._optional import import_optional
from featx.images.decode import decode

__all__ = ["draw_classification"]

_CORRECT_COLOR, _WRONG_COLOR = "#2a6f4e", "#a33a2c"
_MAX_CLASSES_WITH_COUNTS = 40


def draw_classification(
    path: Path,
    title: str,
    confusion: Sequence[Sequence[int]],
    classes: Sequence[str],
    images: Sequence[Any],
    y_true: npt.NDArray[np.str_],
    y_pred: npt.NDArray[np.str_],
    confidence: npt.NDArray[np.float64],
) -> None:
    """Draw a confusion matrix (rows are true classes) beside images, and write both as a PNG.

    ``confidence`` is the probability of each predicted class. The images are the least certain correct predictions and
    the most certain wrong predictions.
    """
    figure_module = import_optional("matplotlib.figure", "plot")
    n = len(classes)
    side = max(4.2, min(12.0, 0.5 * n + 1.6))
    figure = figure_module.Figure(figsize=(side + 6.6, max(side, 5.0)), layout="constrained")
    figure.suptitle(title, fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=[side, 6.6])
    display = ConfusionMatrixDisplay(np.asarray(confusion), display_labels=list(classes))
    display.plot(
        ax=left.subplots(),
        cmap="Blues",
        xticks_rotation=45,
        values_format="d",
        include_values=n <= _MAX_CLASSES_WITH_COUNTS,
        colorbar=False,
    )

    wrong = np.flatnonzero(y_true != y_pred)
    correct = np.flatnonzero(y_true == y_pred)
    rows = [
        (
            "correct, least certain first (with the probability)",
            correct[np.argsort(confidence[correct], kind="stable")][:10],
            _CORRECT_COLOR,
        ),
        (
            "wrong, most certain first (with the probability)",
            wrong[np.argsort(-confidence[wrong], kind="stable")][:10],
            _WRONG_COLOR,
        ),
    ]
    for block, (name, chosen, color) in zip(right.subfigures(2, 1), rows, strict=True):
        block.suptitle(name, fontsize=11, color=color)
        axes = block.subplots(2, 5).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, i in zip(axes, chosen, strict=False):
            axis.imshow(np.asarray(decode(images[i])))
            text = str(y_pred[i]) if y_true[i] == y_pred[i] else f"{y_pred[i]}\n(is {y_true[i]})"
            axis.set_title(f"{text}\n{confidence[i]:.2f}", fontsize=8, color=color)
    with write_whole(path) as scratch:
        figure.savefig(scratch, dpi=110, format="png")
