"""Convert results to text, to HTML for notebooks, to plain dicts and to data frames."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx._optional import import_optional

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["format_html", "format_metric", "format_table", "make_frame", "to_plain"]


def to_plain(value: Any) -> Any:
    """Convert a result to dicts, lists, strings and numbers, which JSON can hold.

    Dataclasses and named tuples become dicts, arrays become lists, and anything else that JSON
    does not know (an estimator) becomes its ``repr``.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import Failure
    >>> from featx._results import to_plain
    >>> to_plain({"n": np.int64(2), "failures": [Failure(0, "a.png", "empty")]})
    {'n': 2, 'failures': [{'index': 0, 'source': 'a.png', 'reason': 'empty'}]}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): to_plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(one) for one in value]
    return repr(value)


def format_metric(value: float | int | None) -> str:
    """Format a metric for reading: counts whole, fractions with three decimals, large values rounded.

    Examples
    --------
    >>> from featx._results import format_metric
    >>> [format_metric(value) for value in (153, 0.9477, 274492.3, None)]
    ['153', '0.948', '274,492', '-']
    """
    if value is None:
        return "-"
    if isinstance(value, (int, np.integer)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def format_html(title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Format rows as an HTML table under a title; numbers as `format_metric` does, all text escaped.

    Examples
    --------
    >>> from featx._results import format_html
    >>> "<td>0.948</td>" in format_html("Evaluation", [{"metric": "accuracy", "value": 0.9477}])
    True
    """

    def cell(value: Any) -> str:
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        return html.escape(format_metric(value) if is_number or value is None else str(value))

    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{cell(row.get(name))}</td>" for name in names) + "</tr>" for row in rows)
    lines = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p><b>{html.escape(title)}</b></p>{table}{lines}</div>"


def format_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Align columns under their names: the first and the last on the left, the others on the right.

    A column without values is left out.

    Examples
    --------
    >>> from featx._results import format_table
    >>> format_table([{"head": "knn", "score": "0.9", "tied": ""}, {"head": "ridge", "score": "0.85", "tied": ""}])
    ['head   score', 'knn      0.9', 'ridge   0.85']
    """
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(row[name]) for row in [*rows, {name: name}]) for name in names}
    return [
        "  ".join(
            row[name].ljust(widths[name] if name == names[0] else 0)
            if name in (names[0], names[-1])
            else row[name].rjust(widths[name])
            for name in names
        )
        for row in [{name: name for name in names}, *rows]
    ]


def make_frame(rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Make a pandas DataFrame of rows, or of columns.

    Raises
    ------
    MissingDependencyError
        When pandas is not installed (extra ``pandas``).
    """
    return import_optional("pandas", "pandas").DataFrame(rows)
