"""Write the cards of a page: the mistakes, surest first, the least sure right answers, or the largest residuals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_metric
from featx._text import show_html
from featx.page.answers import Answers
from featx.page.contents import Contents

__all__ = ["shorten", "write_cards"]

_MAX_CARDS, _MAX_UNSURE = 24, 12


def write_cards(answers: Answers, contents: Contents, events: Events | None = None) -> Iterator[str]:
    """Yield the mistakes, surest first, and the least sure right answers, or the largest residuals."""
    legend = f'<p class="soft">{contents.legend}</p>' if contents.is_shown and answers.several is None else ""
    cards = _Cards(answers, contents, events)
    if answers.classes is None:
        residuals = np.abs(answers.true.astype(float) - answers.predicted.astype(float))
        rows = np.argsort(-residuals, kind="stable")[:_MAX_CARDS]
        yield f"<h2>Largest residuals</h2>{legend}{cards.write(rows)}"
        return
    sure = answers.confidence
    wrong = np.flatnonzero(~answers.right)
    if sure is not None:
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    more = f" The first {_MAX_CARDS} of {len(wrong)} are shown." if len(wrong) > _MAX_CARDS else ""
    order = "" if sure is None else ", surest first"
    text = f"<p>{len(wrong)} mistakes{order}.{more}</p>" if len(wrong) else "<p>There are none.</p>"
    text += legend if len(wrong) else ""
    yield f'<h2 id="mistakes">Mistakes</h2>{text}{cards.write(wrong[:_MAX_CARDS])}'
    if sure is not None:
        right = np.flatnonzero(answers.right)
        unsure = right[np.argsort(sure[right], kind="stable")][:_MAX_UNSURE]
        if len(unsure):
            yield f"<h2>Least sure right answers</h2>{cards.write(unsure)}"


class _Cards:
    """Write cards of inputs, which colours explain for the given and for the right answer."""

    def __init__(self, answers: Answers, contents: Contents, events: Events | None) -> None:
        self._answers, self._contents, self._events = answers, contents, events

    def write(self, rows: npt.NDArray[np.intp]) -> str:
        """Return a list of cards."""
        if not len(rows):
            return ""
        if self._answers.several is None:  # a set of labels has no score of its own
            self._contents.explain(rows.tolist(), self._events)
        return f'<ul class="cards">{"".join(map(self._write_card, rows.tolist()))}</ul>'

    def _write_card(self, row: int) -> str:
        answers, contents = self._answers, self._contents
        true, predicted = answers.true[row], answers.predicted[row]
        figures = []
        if contents.is_shown:
            labels = [predicted] if answers.classes is None else contents.list_labels(true, predicted)
            for label in labels:
                drawn = contents.draw(row, None if answers.classes is None else label)
                figures.append(f"<figure>{drawn}<figcaption>{self._caption(row, label)}</figcaption></figure>")
        else:
            figures.append(f"<div>{self._caption(row, predicted)}</div>")
        if answers.classes is None:
            caption = f"true {format_metric(float(true))}"
        else:
            caption = f"true {show_html(true)}" if true != predicted else "right"
        kind = "pair" if contents.is_image else "stacked"
        body = f'<div class="{kind}">{"".join(figures)}</div><div>{caption}</div>'
        return f'<li class="card">{body}<div class="name">{show_html(shorten(contents, row))}</div></li>'

    def _caption(self, row: int, label: Any) -> str:
        answers = self._answers
        if answers.classes is None:
            return f"predicted {format_metric(float(label))}"
        if answers.probabilities is None:
            return show_html(label)
        probability = answers.probabilities[row, list(answers.classes).index(label)]
        return f"{show_html(label)} {probability:.3f}"


def shorten(contents: Contents, row: int) -> str:
    """Return the name of an input; for an image, its folder and file."""
    name = contents.names[row]
    return "/".join(name.replace("\\", "/").split("/")[-2:]) if contents.model.kind == "image" else name
