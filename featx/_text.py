"""Escape untrusted text so that it is safe to print on one line."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["one_line", "printable"]

_JOINERS = "\u200c\u200d"  # they shape words and emoji, and move nothing


def printable(value: Any) -> str:
    r"""Escape line ends, the control characters that a terminal obeys, and lone surrogates, as `ascii` does.

    Examples
    --------
    >>> from featx._text import printable
    >>> print(printable("été\x1b[2J\n.jpg"))
    été\x1b[2J\n.jpg
    """
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in str(value))


def one_line(value: Any) -> str:
    r"""Join the lines of a message, and escape it as `printable` does.

    Examples
    --------
    >>> from featx._text import one_line
    >>> print(one_line("the graph is malformed\n  at node 3"))
    the graph is malformed at node 3
    """
    return printable(" ".join(str(value).split()))


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
