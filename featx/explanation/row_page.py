"""Write the explanation of rows and texts as one HTML page, without script and without network."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._text import printable

if TYPE_CHECKING:
    from featx.explanation.kinds import Detail
    from featx.explanation.rows import RowExplanation

__all__ = ["show_cell", "write_page"]

#: Alpha of the strongest colour: text stays readable on it in both modes.
_STRONGEST = 0.6
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent);
  --soft: color-mix(in srgb, currentColor 65%, transparent); --for: 214, 69, 65; --against: 45, 116, 200; }
* { box-sizing: border-box; }
body { font: 16px/1.6 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem;
  background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 0; }
article { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .5rem .2rem 0; font-weight: 400; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td.number { text-align: right; white-space: nowrap; width: 6rem; } td.bar { width: 35%; }
tr.part th { padding-left: 1.2rem; color: var(--soft); }
.track { position: relative; display: block; height: 1rem; margin-top: .3rem; }
.track::before { content: ""; position: absolute; left: 50%; top: -.2rem; bottom: -.2rem;
  border-left: 1px solid var(--line); }
.track span { position: absolute; top: 0; bottom: 0; border-radius: 2px; }
.for { background: rgb(var(--for)); } .against { background: rgb(var(--against)); }
mark { color: inherit; border-radius: 3px; padding: .05em 0; background: none; }
figure { margin: .6rem 0; } figure img { max-width: 100%; max-height: 22rem; border-radius: 4px; }
@media print { article { break-inside: avoid; } }
@media (max-width: 30rem) { td.bar { width: 25%; } td.number { width: 4.5rem; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(found: RowExplanation, label: Any, against: Any, pngs: Mapping[tuple[int, str], bytes]) -> str:
    """Return the page; ``pngs`` are the drawn heat maps by row and column."""
    articles = "\n".join(_write_row(found, i, label, against, pngs) for i in range(len(found.names)))
    failed = "".join(f"<li>{html.escape(str(failure))}</li>" for failure in found.failures)
    failed = f"<h2>Could not be read</h2><ul>{failed}</ul>" if failed else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>Why</title><style>{_STYLE}</style></head>
<body><main><h1>Why these answers</h1>
<p class="soft">{html.escape(found.summary)}. Red speaks for the answer, blue against it.
The bars of a row have one scale.</p>
{articles}
{failed}</main></body></html>
"""


def _write_row(found: RowExplanation, i: int, label: Any, against: Any, pngs: Mapping[tuple[int, str], bytes]) -> str:
    weights = found.weigh(i, label, against)
    kinds = found.select(i, label, against)
    details = found.details[i]
    values = [*kinds.values(), *(float(weights @ one.contribution) for one in details)]
    limit = max(map(abs, values), default=0.0) or 1.0
    rows = [f"<tr><th scope='row'>base</th><td class='bar'></td>{_number(float(weights @ found.base))}</tr>"]
    for kind, value in kinds.items():
        rows.append(_write_part(kind, value, limit, ""))
        own = [one for one in details if one.kind == kind]
        if len(own) > 1 or (own and own[0].words is None and own[0].heat_map is None):
            for one in own:
                shown = "" if one.heat_map is not None or one.words is not None else f" = {show_cell(one.value)}"
                rows.append(_write_part(f"{one.column}{shown}", float(weights @ one.contribution), limit, "part"))
            rest = float(weights @ found.rests[i][kind])
            if abs(rest) > 1e-3 * limit:
                rows.append(_write_part("rest", rest, limit, "part"))
    rows.append(f"<tr><th scope='row'>score</th><td class='bar'></td>{_number(float(weights @ found.scores[i]))}</tr>")
    told = html.escape(show_cell(found.predicted[i]))
    why = "" if label is None else f", explained for {html.escape(str(label))}"
    why += "" if against is None else f" against {html.escape(str(against))}"
    texts = "".join(_write_text(one, one.words @ weights) for one in details if one.words is not None)
    figures = "".join(
        f"<figure><img alt='Heat map of {html.escape(column, quote=True)}' "
        f"src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        f"<figcaption>{html.escape(column)}</figcaption></figure>"
        for (row, column), png in pngs.items()
        if row == i
    )
    return (
        f"<article><h2>{html.escape(found.names[i])}: {told}{why}</h2>"
        f"<table>{''.join(rows)}</table>{texts}{figures}</article>"
    )


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
        f"<tr class='{kind}'><th scope='row'>{html.escape(name)}</th>"
        f"<td class='bar'><span class='track'><span class='{colour}' style='{side}'></span></span></td>"
        f"<td class='number'>{value:+.3g}</td></tr>"
    )


def _write_text(detail: Detail, values: npt.NDArray[np.float64]) -> str:
    """Return a text whose words are coloured by their contribution."""
    text, limit = str(detail.value), float(np.abs(values).max(initial=0)) or 1.0
    pieces, end = [], 0
    for (start, stop), value in zip(detail.spans or (), values.tolist(), strict=True):
        pieces.append(html.escape(text[end:start]))
        colour = "--for" if value > 0 else "--against"
        alpha = _STRONGEST * abs(value) / limit
        pieces.append(
            f"<mark style='background:rgba(var({colour}), {alpha:.2f})' title='{value:+.3g}'>"
            f"{html.escape(text[start:stop])}</mark>"
        )
        end = stop
    pieces.append(html.escape(text[end:]))
    how = "words add up" if detail.is_exact else "a word's number is the fall of the score without it"
    told = html.escape(f"{detail.column}, {detail.kind}: {how}")
    return f"<p>{''.join(pieces)}</p><p class='soft'>{told}</p>"
