"""Hold the scores of rows or texts, split among kinds of columns, and each kind among columns, words and cells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx._results import format_html, to_plain
from featx._text import printable
from featx.errors import Failure, InputError
from featx.explanation.kinds import Detail
from featx.explanation.row_page import show_cell, write_page
from featx.explanation.scores import find_class
from featx.images.decode import decode, read
from featx.images.heat import draw_heat, to_png

__all__ = ["RowExplanation"]

_REFERENCES = {
    "fit": "the average row of the fit",
    "train": "the average of the training rows",
    "rows": "the average of these rows",
}
#: Largest number of rows, and of marked words per text, in ``str``.
_MAX_ROWS, _MAX_WORDS = 20, 8


@dataclass(frozen=True, repr=False, eq=False)
class RowExplanation:
    """Scores of rows or texts, split among the kinds of columns, and each kind among columns, words and cells.

    Parameters
    ----------
    names : tuple of str
        Name of each row that could be read.
    classes : tuple or None
        Labels of the scores; None for a regression.
    predicted : ndarray, shape (n_rows,)
        Predicted class or number of each row.
    scores : ndarray of float64, shape (n_rows, n_scores)
        One score per class, or one for a regression.
    base : ndarray of float64, shape (n_scores,)
        Score of the reference row, which contributions are measured against; see ``reference``.
    kinds : tuple of str
        Members of the stack, or kinds of columns.
    contributions : ndarray of float64, shape (n_rows, n_scores, n_kinds)
        Contribution of each kind. ``base + contributions.sum(axis=2)`` is ``scores``.
    details : tuple of tuple of Detail
        For each row, the columns of each kind with their words and heat maps. Empty for a kind whose head is not
        linear.
    rests : tuple of mapping of str to ndarray
        For each row and kind, the part of its contribution that the details do not cover.
    quantity : str
        Kind of the scores: ``"decision"`` (log odds of a logistic regression, less the mean over the classes),
        ``"value"``, ``"logarithm"`` or ``"transformed value"``.
    method : str
        ``"linear"``, or ``"shapley"`` for a final estimator that is not linear.
    reference : str
        Rows whose average is the base: ``"fit"``, the rows of the fit; ``"train"``, the given rows; ``"rows"``, the
        explained rows.
    error : float
        Largest difference between ``base + contributions.sum(axis=2)`` and ``scores``, relative to the largest score.
    failures : tuple of Failure
        Rows that could not be read.
    images : mapping of (int, str) to object
        The images, by row and column, to draw on.

    See Also
    --------
    featx.explain : Makes it; its example shows one.
    """

    names: tuple[str, ...]
    classes: tuple[Any, ...] | None
    predicted: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    base: npt.NDArray[np.float64]
    kinds: tuple[str, ...]
    contributions: npt.NDArray[np.float64]
    details: tuple[tuple[Detail, ...], ...]
    rests: tuple[Mapping[str, npt.NDArray[np.float64]], ...]
    quantity: str
    method: str
    reference: str
    error: float
    failures: tuple[Failure, ...]
    images: Mapping[tuple[int, str], Any]

    def select(self, i: int, label: Any = None, against: Any = None) -> dict[str, float]:
        """Return the contribution of each kind to the score of one row, by default of the predicted label.

        Parameters
        ----------
        i : int
            Number of the row.
        label : label or None, default=None
            Class whose score is split; None is the predicted one.
        against : label or None, default=None
            Class whose contributions are subtracted: why ``label`` and not this one.

        Returns
        -------
        dict of str to float
        """
        weights = self.weigh(i, label, against)
        return dict(zip(self.kinds, (weights @ self.contributions[i]).tolist(), strict=True))

    def draw(self, i: int, column: str, label: Any = None, against: Any = None, *, limit: float | None = None) -> Any:
        """Draw the heat map of an image: red speaks for the label, blue against it.

        Parameters
        ----------
        i : int
            Number of the row.
        column : str
            Column of the image.
        label, against
            As for `select`.
        limit : float or None, default=None
            Contribution at the end of the colour scale; None takes the largest of this column in all rows.

        Returns
        -------
        PIL.Image.Image

        Raises
        ------
        InputError
            If no image of this row and column has a heat map.
        """
        if (i, column) not in self.images:
            raise InputError(f"column={column!r}: no image of row {i} has a heat map")
        maps = [
            (row, one)
            for row, details in enumerate(self.details)
            for one in details
            if one.column == column and one.heat_map is not None
        ]
        own = next(one for row, one in maps if row == i)
        weights = self.weigh(i, label, against)
        if limit is None:
            limit = max(float(np.abs(one.heat_map).max()) for _, one in maps if one.heat_map is not None)
        heat = np.tensordot(weights, np.asarray(own.heat_map), axes=1)
        assert own.box is not None
        return draw_heat(decode(read(self.images[i, column])), heat, own.box, limit)

    def save(self, folder: str | os.PathLike[str], label: Any = None, against: Any = None) -> list[str]:
        """Write ``why.html``, ``why.json`` and a PNG per image into a folder.

        Parameters
        ----------
        folder : str or path
            Folder, which is made if it does not exist.
        label, against
            As for `select`.

        Returns
        -------
        list of str
            Paths of the page and of the images.
        """
        for i in range(len(self.names)):
            self.weigh(i, label, against)  # raises before a file is written, if there is no such class
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        pngs = {
            key: to_png(self.draw(*key, label, against))
            for key in self.images
            if any(one.column == key[1] and one.heat_map is not None for one in self.details[key[0]])
        }
        paths = [str(target / "why.html")]
        for (i, column), content in pngs.items():
            name = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{i + 1}-{column}")[:80]
            with write_whole(target / f"{name}.png") as scratch:
                scratch.write_bytes(content)
            paths.append(str(target / f"{name}.png"))
        with write_whole(target / "why.html") as scratch:
            scratch.write_text(write_page(self, label, against, pngs), encoding="utf-8")
        with write_whole(target / "why.json") as scratch:
            scratch.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain values, which JSON can hold."""
        rows = []
        for i, name in enumerate(self.names):
            kinds: dict[str, Any] = {}
            for k, kind in enumerate(self.kinds):
                kinds[kind] = {"contribution": self.contributions[i, :, k]}
                columns = {one.column: _to_dict(one) for one in self.details[i] if one.kind == kind}
                kinds[kind] |= {"columns": columns, "rest": self.rests[i][kind]} if columns else {}
            rows.append({"name": name, "predicted": self.predicted[i], "scores": self.scores[i], "kinds": kinds})
        names = ("quantity", "method", "reference", "classes", "base", "error")
        return dict(
            to_plain({**{name: getattr(self, name) for name in names}, "rows": rows, "failures": self.failures})
        )

    def describe(self, i: int, label: Any = None, against: Any = None, *, colour: bool = False) -> list[str]:
        """Return lines of text about one row: kinds, columns, and texts with marked words.

        Parameters
        ----------
        i : int
            Number of the row.
        label, against
            As for `select`.
        colour : bool, default=False
            Mark words by the colours of a terminal instead of ``[+`` and ``[-``.

        Returns
        -------
        list of str
        """
        weights = self.weigh(i, label, against)
        own = self.select(i, label, against)
        base, score = float(weights @ self.base), float(weights @ self.scores[i])
        sums = " ".join(f"{value:+.3g} ({kind})" for kind, value in own.items())
        lines = [f"{printable(self.names[i])}\t{show_cell(self.predicted[i])}", f"  {score:.4g} = {base:.4g} {sums}"]
        for kind in self.kinds:
            own_details = [detail for detail in self.details[i] if detail.kind == kind]
            lines += [self._describe(detail, weights, colour) for detail in own_details]
            rest = float(weights @ self.rests[i][kind]) if own_details else 0.0
            if abs(rest) > 0.01 * max(map(abs, own.values())):
                lines.append(f"  {rest:+.3g}  rest of {kind}")
        return lines

    def _describe(self, detail: Detail, weights: npt.NDArray[np.float64], colour: bool) -> str:
        """Return a line about a column."""
        value = float(weights @ detail.contribution)
        if detail.spans is not None and detail.words is not None:
            text = _mark_words(str(detail.value), detail.spans, detail.words @ weights, colour=colour)
            return f"  {value:+.3g}  {detail.kind}: {text}"
        shown = "" if detail.heat_map is not None else f" = {show_cell(detail.value)}"
        return f"  {value:+.3g}  {printable(detail.column)}{shown}"

    def weigh(self, i: int, label: Any = None, against: Any = None) -> npt.NDArray[np.float64]:
        """Return the weights of the scores: 1 for a label and, if given, -1 for ``against``.

        Parameters
        ----------
        i, label, against
            As for `select`.

        Returns
        -------
        ndarray of float64, shape (n_scores,)
        """
        weights = np.zeros(len(self.base))
        weights[find_class(self.classes, self.predicted[i] if label is None else label, "label")] = 1
        if against is not None:
            weights[find_class(self.classes, against, "against")] -= 1
        return weights

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        n = len(self.names)
        return f"RowExplanation({n} row{'' if n == 1 else 's'}, {', '.join(self.kinds)}{failed})"

    def __str__(self) -> str:
        lines = [line for i in range(min(len(self.names), _MAX_ROWS)) for line in self.describe(i)]
        return "\n".join([*lines, self.summary])

    @property
    def summary(self) -> str:
        """Sentence with the quantity, the base and the check of the sum."""
        return (
            f"{self!r}: {self.quantity}; the base is {_REFERENCES[self.reference]}; "
            f"base + kinds = score, error {self.error:.1e} of the largest score"
        )

    def _repr_html_(self) -> str:
        rows = [
            {"row": name, "predicted": show_cell(self.predicted[i]), **self.select(i)}
            for i, name in enumerate(self.names[:_MAX_ROWS])
        ]
        return format_html(self.summary, rows)


def _mark_words(text: str, spans: Any, values: npt.NDArray[np.float64], *, colour: bool = False) -> str:
    """Return a text on one line with its strongest words marked.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.explanation.rows import _mark_words
    >>> _mark_words("a good car", [(0, 1), (2, 6), (7, 10)], np.array([0.0, 1.0, -0.5]))
    'a [+good] [-car]'
    """
    limit = np.sort(np.abs(values))[::-1][:_MAX_WORDS].min(initial=np.inf)
    pieces, end = [], 0
    for (start, stop), value in zip(spans, values.tolist(), strict=True):
        pieces.append(printable(text[end:start]))
        word, end = printable(text[start:stop]), stop
        if value == 0 or abs(value) < max(float(limit), np.abs(values).max() / 10):
            pieces.append(word)
        elif colour:
            pieces.append(f"\033[{41 if value > 0 else 44};97m{word}\033[0m")
        else:
            pieces.append(f"[{'+' if value > 0 else '-'}{word}]")
    return "".join([*pieces, printable(text[end:])])


def _to_dict(detail: Detail) -> dict[str, Any]:
    """Return a detail as plain values."""
    found: dict[str, Any] = {"contribution": detail.contribution}
    if detail.heat_map is not None:
        return found | {"box": detail.box, "cells": detail.heat_map}
    found["value"] = detail.value if isinstance(detail.value, (str, int, float)) else str(detail.value)
    if isinstance(detail.value, float) and not np.isfinite(detail.value):
        found["value"] = None
    if detail.spans is not None and detail.words is not None:
        text = str(detail.value)
        pairs = zip(detail.spans, detail.words, strict=True)
        found["words"] = [
            {"word": text[start:stop], "start": start, "stop": stop, "contribution": own}
            for (start, stop), own in pairs
        ]
        found["words_add_up"] = detail.is_exact
    return found
