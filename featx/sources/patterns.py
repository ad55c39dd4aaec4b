"""Select images by the ``include`` and ``exclude`` patterns."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Sequence

from featx.errors import InputError, SourceError

__all__ = ["Patterns"]


class Patterns:
    """Select images of some sources by glob patterns on their keys; ``*`` matches slashes as well.

    Examples
    --------
    >>> from featx.sources.patterns import Patterns
    >>> patterns = Patterns("*.jpg", ["drafts/*"])
    >>> [patterns.select(key) for key in ("ants/1.jpg", "ants/1.png", "drafts/1.jpg")]
    [True, False, False]
    """

    def __init__(self, include: str | Sequence[str], exclude: str | Sequence[str], n_sources: int = 1) -> None:
        self.include, self.exclude = _read_patterns("include", include), _read_patterns("exclude", exclude)
        self._unmatched = [(pattern, re.compile(_translate(pattern)).match) for pattern in self.include]
        self._include, self._exclude = _compile(self.include), _compile(self.exclude)
        self._n_sources, self._n_selected = n_sources, 0
        self._example: str | None = None
        self._listed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def select(self, key: str) -> bool:
        """Return True if an image of this key is selected, and take note of the key."""
        key = unicodedata.normalize("NFC", key)
        self._example = self._example or key
        if self._unmatched:
            self._unmatched = [(pattern, match) for pattern, match in self._unmatched if not match(key)]
        selected = self.matches(key)
        self._n_selected += selected
        return selected

    def matches(self, key: str) -> bool:
        """Return True if an image of this key is selected."""
        key = unicodedata.normalize("NFC", key)
        return (not self.include or self._include(key) is not None) and not (self.exclude and self._exclude(key))

    def finish(self, given: str, token: str) -> None:
        """Raise SourceError after the last source if a pattern of ``include`` matched nothing, or nothing is left.

        ``given`` is the name of the source that was listed, and ``token`` tells it from the others.
        """
        self._listed.add(token)
        if len(self._listed) < self._n_sources:
            return
        if self._unmatched:
            raise SourceError(
                f"{given}: include={self._unmatched[0][0]!r} matches no image; "
                f"patterns apply to names such as {self._example!r}"
            )
        if not self._n_selected:
            raise SourceError(f"{given}: exclude={', '.join(self.exclude)!r} leaves no image")


def _read_patterns(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise InputError(f"{name}={value!r}: expected a glob pattern or a list of them")
    return patterns


def _compile(patterns: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(map(_translate, patterns))).match


def _translate(pattern: str) -> str:
    return fnmatch.translate(unicodedata.normalize("NFC", pattern))
