"""An image of a classification: confusion matrix, and some right and wrong predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx._optional import import_optional
from featx.images.decode import decode

__all__ = ["check", "draw_classification"]

_RIGHT, _WRONG = "#2a6f4e", "#a33a2c"


def check() -> None:
    """Raise MissingDependencyError unless matplotlib is installed."""
    import_optional("matplotlib.figure", "plot")


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
    """Write a PNG.

    Parameters
    ----------
    path : pathlib.Path
        Where to.
    title : str
        One line above all.
    confusion : matrix of int
        Rows true, columns predicted, in the order of ``classes``.
    classes : sequence of str
        Their names.
    images : sequence
        What `featx.images.decode.decode` takes.
    y_true, y_pred : ndarray of str
        For each image.
    confidence : ndarray of float
        Probability of the predicted class: the least sure of the right
        predictions and the surest of the wrong ones are shown.
    """
    figure_module = import_optional("matplotlib.figure", "plot")
    n = len(classes)
    side = max(4.2, min(12.0, 0.5 * n + 1.6))
    figure = figure_module.Figure(figsize=(side + 6.6, max(side, 5.0)), layout="constrained")
    figure.suptitle(title, fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=[side, 6.6])
    _draw_confusion(left.subplots(), np.asarray(confusion), classes)

    wrong = np.flatnonzero(y_true != y_pred)
    rightly = np.flatnonzero(y_true == y_pred)
    rows = [
        (
            "right, least sure first (with its probability)",
            rightly[np.argsort(confidence[rightly], kind="stable")][:10],
            _RIGHT,
        ),
        (
            "wrong, surest first (with its probability)",
            wrong[np.argsort(-confidence[wrong], kind="stable")][:10],
            _WRONG,
        ),
    ]
    for block, (name, chosen, colour) in zip(right.subfigures(2, 1), rows, strict=True):
        block.suptitle(name, fontsize=11, color=colour)
        axes = block.subplots(2, 5).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, i in zip(axes, chosen, strict=False):
            axis.imshow(np.asarray(decode(images[i])))
            text = str(y_pred[i]) if y_true[i] == y_pred[i] else f"{y_pred[i]}\n(is {y_true[i]})"
            axis.set_title(f"{text}\n{confidence[i]:.2f}", fontsize=8, color=colour)
    with write_whole(path) as scratch:
        figure.savefig(scratch, dpi=110, format="png")


def _draw_confusion(axis: Any, matrix: npt.NDArray[np.int_], classes: Sequence[str]) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(range(len(classes)), classes, fontsize=9)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    for row, column in np.argwhere(matrix) if len(classes) <= 40 else ():
        dark = shares[row, column] > 0.5
        axis.text(
            column, row, matrix[row, column], ha="center", va="center", fontsize=9, color="white" if dark else "black"
        )
