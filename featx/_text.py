"""Text as it may be printed: on one line, and nothing in it that a terminal obeys."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["printable"]

_JOINERS = "\u200c\u200d"  # they shape words and emoji, and move nothing


def printable(value: Any) -> str:
    r"""Escape what starts a line, what a terminal would obey, and bytes that are no text.

    Parameters
    ----------
    value : object
        A file's name, a label or a message; what is no string is made one.

    Returns
    -------
    str
        The same text with its control and formatting characters, line ends and lone surrogates escaped as in
        Python's `ascii`.

    Examples
    --------
    >>> from featx._text import printable
    >>> print(printable("été\x1b[2J\n.jpg"))
    été\x1b[2J\n.jpg
    """
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in str(value))


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
