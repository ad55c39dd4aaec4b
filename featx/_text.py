"""Show text on one line: escaped, cut, and joined."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection
from itertools import islice
from typing import Any

__all__ = ["cut_text", "find_cut", "join_first", "one_line", "printable", "show_html"]

_JOINERS = "\u200c\u200d"  # joiners shape words and emoji, and do not move the cursor


def printable(value: Any) -> str:
    r"""Escape line ends, control characters of a terminal, and lone surrogates, as `ascii` does.

    Examples
    --------
    >>> from featx._text import printable
    >>> print(printable("été\x1b[2J\n.jpg"))
    été\x1b[2J\n.jpg
    """
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in str(value))


def one_line(value: Any) -> str:
    r"""Join the lines of a message, and escape it like `printable`.

    Examples
    --------
    >>> from featx._text import one_line
    >>> print(one_line("the graph is malformed\n  at node 3"))
    the graph is malformed at node 3
    """
    return printable(" ".join(str(value).split()))


def show_html(value: Any) -> str:
    r"""Return untrusted text as HTML on one line: markup and control characters are escaped.

    Examples
    --------
    >>> from featx._text import show_html
    >>> print(show_html("<b>\x00 a\nb"))
    &lt;b&gt;\x00 a b
    """
    return html.escape(printable(re.sub(r"\s", " ", str(value))))


def join_first(values: Collection[Any], n: int = 5) -> str:
    """Join the first ``n`` values with commas; ``...`` stands for the others.

    Examples
    --------
    >>> from featx._text import join_first
    >>> join_first(["ant", "bee"]), join_first(range(9), 3)
    ('ant, bee', '0, 1, 2, ...')
    """
    return ", ".join([*map(str, islice(values, n)), *(["..."] if len(values) > n else [])])


def find_cut(text: str, n: int) -> int:
    """Return the length of the longest beginning of a text that has at most ``n`` characters and ends with a word.

    If the last word is longer than half of ``n``, it is cut, but no letter is separated from its accents.

    Examples
    --------
    >>> from featx._text import find_cut
    >>> find_cut("a red car", 100), find_cut("a red car", 7), find_cut("x" * 20, 7)
    (9, 5, 7)
    """
    if len(text) <= n:
        return len(text)
    spaces = [match.start() for match in re.finditer(r"\s+", text[: n + 1]) if match.start() >= n // 2]
    if spaces:
        return spaces[-1]
    while n > 1 and (unicodedata.combining(text[n]) or text[n] in _JOINERS or text[n - 1] in _JOINERS):
        n -= 1
    return n


def cut_text(text: str, n: int) -> str:
    """Return the beginning of a text as `find_cut` finds it, with an ellipsis if the text is longer.

    Examples
    --------
    >>> from featx._text import cut_text
    >>> cut_text("a red car", 100), cut_text("a red car", 7)
    ('a red car', 'a red …')
    """
    end = find_cut(text, n)
    return text if end == len(text) else f"{text[:end]} …"


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
