"""Write the explanation of rows and texts as one HTML page, without script and without network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._text import cut_text, find_cut, printable, show_html

if TYPE_CHECKING:
    from featx.explanation.kinds import Detail
    from featx.explanation.rows import RowExplanation

__all__ = ["PARTS_STYLE", "show_cell", "write_page", "write_parts", "write_text"]

#: Alpha of the strongest colour. Text on it stays readable in the light and the dark mode.
_MAX_ALPHA = 0.6
#: Largest number of characters of a cell in the table of contributions.
_MAX_CELL = 60
#: Style of `write_parts` and `write_text`; it needs the variables ``--line`` and ``--soft``.
PARTS_STYLE = """
:root { --for: 214, 69, 65; --against: 45, 116, 200; }
td.number { text-align: right; white-space: nowrap; width: 6rem; } td.bar { width: 35%; }
tr.part th { padding-left: 1.2rem; color: var(--soft); }
.track { position: relative; display: block; height: 1rem; margin-top: .3rem; }
.track::before { content: ""; position: absolute; left: 50%; top: -.2rem; bottom: -.2rem;
  border-left: 1px solid var(--line); }
.track span { position: absolute; top: 0; bottom: 0; border-radius: 2px; }
.for { background: rgb(var(--for)); } .against { background: rgb(var(--against)); }
mark { color: inherit; border-radius: 3px; padding: .05em 0; background: none; }
@media (max-width: 30rem) { td.bar { width: 25%; } td.number { width: 4.5rem; } }
"""
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent);
  --soft: color-mix(in srgb, currentColor 65%, transparent); }
* { box-sizing: border-box; }
body { font: 16px/1.6 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem;
  background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 0; }
article { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .5rem .2rem 0; font-weight: 400; vertical-align: top;
  border-bottom: 1px solid var(--line); }
figure { margin: .6rem 0; } figure img { max-width: 100%; max-height: 22rem; border-radius: 4px; }
@media print { article { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(explanation: RowExplanation, label: Any, against: Any, pngs: Mapping[tuple[int, str], bytes]) -> str:
    """Return the page as HTML; ``pngs`` are the drawn heat maps by row and column."""
    articles = "\n".join(_write_row(explanation, i, label, against, pngs) for i in range(len(explanation.names)))
    failed = "".join(f"<li>{show_html(failure)}</li>" for failure in explanation.failures)
    failed = f"<h2>Could not be read</h2><ul>{failed}</ul>" if failed else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>Why</title>
<style>{_STYLE}{PARTS_STYLE}</style></head>
<body><main><h1>Why these answers</h1>
<p class="soft">{show_html(explanation.summary)}. Red speaks for the answer, blue against it.
The bars of a row have one scale.</p>
{articles}
{failed}</main></body></html>
"""


def _write_row(
    explanation: RowExplanation, i: int, label: Any, against: Any, pngs: Mapping[tuple[int, str], bytes]
) -> str:
    weights = explanation.weigh(i, label, against)
    predicted = show_html(show_cell(explanation.predicted[i]))
    why = "" if label is None else f", explained for {show_html(label)}"
    why += "" if against is None else f" against {show_html(against)}"
    texts = "".join(write_text(one, one.words @ weights) for one in explanation.details[i] if one.words is not None)
    figures = "".join(
        f"<figure><img alt='Heat map of {show_html(column)}' "
        f"src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        f"<figcaption>{show_html(column)}</figcaption></figure>"
        for (row, column), png in pngs.items()
        if row == i
    )
    table = write_parts(explanation, i, label, against)
    title = f"{show_html(explanation.names[i])}: predicted {predicted}{why}"
    return f"<article><h2>{title}</h2>{table}{texts}{figures}</article>"


def write_parts(explanation: RowExplanation, i: int, label: Any = None, against: Any = None) -> str:
    """Return a table of the kinds of a row and of their columns, with a bar for each contribution."""
    weights = explanation.weigh(i, label, against)
    kinds = explanation.select(i, label, against)
    details = explanation.details[i]
    values = [*kinds.values(), *(float(weights @ one.contribution) for one in details)]
    limit = max(map(abs, values), default=0.0) or 1.0
    rows = [f"<tr><th scope='row'>base</th><td class='bar'></td>{_number(float(weights @ explanation.base))}</tr>"]
    for kind, value in kinds.items():
        rows.append(_write_part(kind, value, limit, ""))
        own = [one for one in details if one.kind == kind]
        if len(own) > 1 or (own and own[0].words is None and own[0].heat_map is None):
            for one in own:
                is_plain = one.heat_map is None and one.words is None
                shown = f" = {cut_text(show_cell(one.value), _MAX_CELL)}" if is_plain else ""
                rows.append(_write_part(f"{one.column}{shown}", float(weights @ one.contribution), limit, "part"))
            rest = float(weights @ explanation.rests[i][kind])
            if abs(rest) > 1e-3 * limit:
                rows.append(_write_part("rest", rest, limit, "part"))
    rows.append(
        f"<tr><th scope='row'>score</th><td class='bar'></td>{_number(float(weights @ explanation.scores[i]))}</tr>"
    )
    return f"<table>{''.join(rows)}</table>"


def show_cell(value: Any) -> str:
    """Return a cell of a table as text on one line.

    Examples
    --------
    >>> from featx.explanation.row_page import show_cell
    >>> show_cell(1234.5678), show_cell(float("nan")), show_cell("a")
    ('1234.57', 'missing', 'a')
    """
    if value is None or value != value:
        return "missing"
    return f"{float(value):.6g}" if isinstance(value, (float, np.floating)) else printable(value)


def _number(value: float) -> str:
    return f"<td class='number'>{value:.4g}</td>"


def _write_part(name: str, value: float, limit: float, kind: str) -> str:
    width = 50 * abs(value) / limit
    side = f"left:50%;width:{width:.1f}%" if value >= 0 else f"right:50%;width:{width:.1f}%"
    colour = "for" if value >= 0 else "against"
    return (
        f"<tr class='{kind}'><th scope='row'>{show_html(name)}</th>"
        f"<td class='bar'><span class='track'><span class='{colour}' style='{side}'></span></span></td>"
        f"<td class='number'>{value:+.3g}</td></tr>"
    )


def write_text(detail: Detail, values: npt.NDArray[np.float64], max_letters: int | None = None) -> str:
    """Return a text whose words are coloured by their contribution.

    Of a text with more than ``max_letters`` characters, only the part whose words contribute most is shown.
    """
    text, limit = str(detail.value), float(np.abs(values).max(initial=0)) or 1.0
    spans = detail.spans or ()
    start, stop = 0, len(text)
    if max_letters is not None and len(text) > max_letters:
        start = _find_start(spans, np.abs(values), max_letters)
        stop = start + find_cut(text[start:], max_letters)
    pieces, end = ["… " if start else ""], start
    for (first, last), value in zip(spans, values.tolist(), strict=True):
        if first < start or last > stop:
            continue
        pieces.append(show_html(text[end:first]))
        colour = "--for" if value > 0 else "--against"
        alpha = _MAX_ALPHA * abs(value) / limit
        pieces.append(
            f"<mark style='background:rgba(var({colour}), {alpha:.2f})' title='{value:+.3g}'>"
            f"{show_html(text[first:last])}</mark>"
        )
        end = last
    left = len(text) - (stop - start)
    pieces.append(show_html(text[end:stop]) + (" …" if stop < len(text) else ""))
    how = "words add up" if detail.is_exact else "the colour of a word is the fall of the score without it"
    how += f"; {left} characters are left out" if left else ""
    return (
        f"<p dir='auto'>{''.join(pieces)}</p><p class='soft'>{show_html(f'{detail.column}, {detail.kind}: {how}')}</p>"
    )


def _find_start(spans: Sequence[tuple[int, int]], strength: npt.NDArray[np.float64], n: int) -> int:
    """Return the start of the ``n`` characters whose words are strongest; it is the start of the text or of a word."""
    if not spans:
        return 0
    starts, stops = np.array(spans).T
    sums = np.concatenate([[0.0], np.cumsum(strength)])
    found = sums[np.searchsorted(stops, starts + n, "right")] - sums[:-1]
    first = sums[np.searchsorted(stops, n, "right")]
    best = int(found.argmax())
    return int(starts[best]) if found[best] > first else 0
