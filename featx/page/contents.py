"""Show the inputs of a page: images, texts, and rows of several kinds of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx._events import Events
from featx._text import cut_text, show_html
from featx.errors import ImageError, InputError, TextError
from featx.explanation import Explanation, RowExplanation
from featx.explanation.row_page import show_cell, write_parts, write_text
from featx.fitting.explain import explain
from featx.fitting.model import FittedModel
from featx.images.thumbnails import make_thumbnail
from featx.page.thumbnails import embed_image, make_thumbnails, read_image, to_uri
from featx.pipelines import make_frame_of_rows

__all__ = ["Contents", "make_contents"]

_CARD_SIDE = 288
#: Largest number of characters of a text on a card, in the gallery and in a title.
_MAX_CARD, _MAX_PREVIEW, _MAX_TITLE = 800, 160, 60
#: Number of a row's cells that the gallery shows.
_MAX_CELLS = 4


class Contents:
    """Hold the inputs of a page without showing their content; subclasses show it.

    Parameters
    ----------
    model : FittedModel
        The model, which explains the answers.
    names : sequence of str
        Name of each input.
    items : sequence or None
        Inputs in the form that the model's extractor takes.
    """

    #: True if cards and gallery show the inputs.
    is_shown = False
    #: True if each input is one image, with a thumbnail on the map.
    is_image = False
    #: Explanation of the colours.
    legend = ""

    def __init__(self, model: FittedModel, names: Sequence[str], items: Sequence[Any] | None) -> None:
        self.model, self.names = model, names
        self._items: Sequence[Any] = () if items is None else items
        self._found: Explanation | RowExplanation | None = None
        self._places: dict[int, int] = {}

    def title(self, row: int) -> str:
        """Return the name of an input, and the first words of a text."""
        return self.names[row]

    def preview(self, rows: Sequence[int], side: int) -> list[str]:
        """Return the HTML of small previews; ``side`` is the longer side of an image in pixels."""
        return [""] * len(rows)

    def explain(self, rows: Sequence[int], events: Events | None = None) -> None:
        """Explain the answers for some inputs, for `draw`."""
        self._found, self._places = None, {}
        if not self.is_shown:
            return
        try:
            self._found = explain(self.model, self._take(rows), events=events)
        except (InputError, ImageError, TextError):  # a head without scores, or files that no longer exist
            return
        lost = {failure.index for failure in self._found.failures}
        kept = [row for at, row in enumerate(rows) if at not in lost]
        self._places = {row: at for at, row in enumerate(kept)}

    def list_labels(self, true: Any, predicted: Any) -> list[Any]:
        """Return the labels that a card explains: the answer, and the right label if the answer is wrong."""
        return [predicted] if true == predicted else [predicted, true]

    def draw(self, row: int, label: Any) -> str:
        """Return the HTML of an input with colours for and against a label, or a number if the label is None."""
        return ""

    def _take(self, rows: Sequence[int]) -> Any:
        return [self._items[row] for row in rows]


class _Images(Contents):
    is_shown = True
    is_image = True
    legend = (
        "Red speaks for the label under the image, blue against it. The network did not see hatched parts. A "
        "cell depends on more of the image than its square."
    )

    def preview(self, rows: Sequence[int], side: int) -> list[str]:
        return _write_images(self._take(rows), side)

    def draw(self, row: int, label: Any) -> str:
        at = self._places.get(row)
        if at is None or not isinstance(self._found, Explanation):
            image = read_image(self._items[row])
        else:
            image = self._found.draw(at, label)
        alt = f"{self.names[row]}: explanation of {'the value' if label is None else label}"
        return "" if image is None else embed_image(make_thumbnail(image, _CARD_SIDE), alt)


class _Rows(Contents):
    """Show rows, each a dict from columns to cells."""

    is_shown = True
    legend = "Red speaks for the answer under a card's words or bars, blue against it."

    def __init__(self, *parameters: Any, kinds: Mapping[str, str]) -> None:
        super().__init__(*parameters)
        self._kinds = kinds
        self._texts = [name for name, kind in kinds.items() if kind == "text"]
        self._images = [name for name, kind in kinds.items() if kind == "image"]
        self._others = [name for name in kinds if name not in (*self._texts, *self._images)]

    def title(self, row: int) -> str:
        texts = [str(self._items[row][name]) for name in self._texts]
        return ": ".join([self.names[row], *(cut_text(text, _MAX_TITLE) for text in texts)])

    def preview(self, rows: Sequence[int], side: int) -> list[str]:
        images = [""] * len(rows)
        if self._images:  # the first image of each row
            first = [next(filter(_is_there, map(self._items[row].get, self._images)), None) for row in rows]
            images = _write_images(first, side)
        written = []
        for row, image in zip(rows, images, strict=True):
            cells = "; ".join(f"{name} {show_cell(self._items[row][name])}" for name in self._others[:_MAX_CELLS])
            texts = "".join(_write_plain(self._items[row][name], _MAX_PREVIEW) for name in self._texts)
            written.append(image + texts + (f"<div>{show_html(cut_text(cells, _MAX_PREVIEW))}</div>" if cells else ""))
        return written

    def list_labels(self, true: Any, predicted: Any) -> list[Any]:
        # for two classes, exchanging the colours of one explanation makes the other
        is_mirrored = self.model.classes is not None and len(self.model.classes) < 3
        return super().list_labels(true, predicted)[: 1 if is_mirrored else 2]

    def draw(self, row: int, label: Any) -> str:
        at = self._places.get(row)
        if at is None or not isinstance(self._found, RowExplanation):
            return self._draw_plain(row)
        found, parts = self._found, []
        weights = found.weigh(at, label)
        details = found.details[at]
        if len(self._kinds) > 1 or len(found.kinds) > 1:
            parts.append(write_parts(found, at, label))
        parts += [write_text(one, one.words @ weights, _MAX_CARD) for one in details if one.words is not None]
        coloured = {one.column for one in details if one.words is not None}
        parts += [_write_plain(self._items[row][name], _MAX_CARD) for name in self._texts if name not in coloured]
        for name in self._images:
            image = found.draw(at, name, label) if (at, name) in found.images else _read_cell(self._items[row][name])
            if image is not None:
                parts.append(embed_image(make_thumbnail(image, _CARD_SIDE), f"{self.names[row]}: {name}"))
        return "".join(parts)

    def _draw_plain(self, row: int) -> str:
        """Return the cells of a row without colours."""
        item = self._items[row]
        cells = [(name, show_html(show_cell(item[name]))) for name in self._others]
        rows = "".join(f"<tr><th scope='row'>{show_html(name)}</th><td>{cell}</td></tr>" for name, cell in cells)
        texts = "".join(_write_plain(item[name], _MAX_CARD) for name in self._texts)
        images = "".join(_write_images([item[name] for name in self._images], _CARD_SIDE))
        return (f"<table>{rows}</table>" if rows else "") + texts + images

    def _take(self, rows: Sequence[int]) -> Any:
        return make_frame_of_rows([self._items[row] for row in rows], self._kinds)


class _Texts(_Rows):
    """Show texts."""

    def __init__(self, model: FittedModel, names: Sequence[str], items: Sequence[Any]) -> None:
        self._texts_given = items
        super().__init__(model, names, [{"text": item} for item in items], kinds={"text": "text"})

    def _take(self, rows: Sequence[int]) -> Any:
        return [self._texts_given[row] for row in rows]


def make_contents(model: FittedModel, names: Sequence[str], items: Sequence[Any] | None, shown: bool) -> Contents:
    """Return the contents of a page; if ``shown`` is False, they show only names."""
    kinds = getattr(model.extractor, "kinds", None)
    if items is None or not shown:
        return Contents(model, names, None)
    if kinds is None:
        return (_Images if model.kind == "image" else _Texts)(model, names, items)
    if len(items) and not isinstance(items[0], Mapping):  # texts of a column, from the fit
        (column,) = kinds
        items = [{column: item} for item in items]
    return _Rows(model, names, items, kinds=kinds)


def _write_plain(text: Any, n: int) -> str:
    return f"<p dir='auto'>{show_html(cut_text(str(text), n))}</p>"


def _write_images(items: Sequence[Any], side: int) -> list[str]:
    there = [i for i, item in enumerate(items) if _is_there(item)]
    written = [""] * len(items)
    for i, content in zip(there, make_thumbnails([items[i] for i in there], side), strict=True):
        written[i] = "" if content is None else f'<img src="{to_uri(content)}" alt="">'
    return written


def _is_there(item: Any) -> bool:
    return item is not None and not (isinstance(item, float) and np.isnan(item))


def _read_cell(item: Any) -> Any:
    """Return the image of a cell; None if the cell is empty or cannot be read."""
    return read_image(item) if _is_there(item) else None
