"""Refuse requests that a page of another site makes in the browser of its reader.

Such a page can reach a server that only the reader's machine reaches: it posts forms without asking, and after DNS
rebinding it also reads the answers under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from featx.errors import InputError

__all__ = ["Origins"]

_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HINT = "pages of this origin are allowed with --allow-origin (in Python allow_origins)"


@dataclass(frozen=True)
class Origins:
    """Names that requests may use for this server, and origins whose pages may use it.

    Parameters
    ----------
    hosts : frozenset of str or None
        Host names without a port; None allows every name.
    allowed : tuple of str
        Origins such as ``"https://example.org"``; ``"*"`` is every origin.

    Examples
    --------
    >>> from featx.serve.origins import Origins
    >>> origins = Origins.of("127.0.0.1", is_local=True)
    >>> origins.refuse("GET", "/", {"host": "127.0.0.1:8000"})
    >>> origins.refuse("GET", "/", {"host": "evil.example:8000"})
    "host 'evil.example:8000' is not a name of this machine; expected 127.0.0.1, [::1] or localhost"
    """

    hosts: frozenset[str] | None = None
    allowed: tuple[str, ...] = ()

    @classmethod
    def of(cls, host: str, *, is_local: bool, allow_origins: Iterable[str] = ()) -> Origins:
        """Check the origins, and return the rules of a server on this address.

        On an address that only this machine reaches, requests must name this machine, or the host of an allowed
        origin, which a reverse proxy may pass on.
        """
        if isinstance(allow_origins, str):
            allow_origins = (allow_origins,)
        allowed = tuple(_check(origin) for origin in allow_origins)
        if not is_local:
            return cls(None, allowed)
        own = f"[{host}]" if ":" in host else host
        return cls(_LOCAL | {own.lower()} | {_name_of(urlsplit(one).netloc) for one in allowed if one != "*"}, allowed)

    def refuse(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """Return the reason to refuse a request, or None."""
        host, origin = headers.get("host"), headers.get("origin")
        if self.hosts is not None and host is not None and _name_of(host) not in self.hosts:
            *first, last = sorted(self.hosts)
            return f"host {host!r} is not a name of this machine; expected {', '.join(first)} or {last}"
        if "*" in self.allowed or (origin is not None and origin.lower() in self.allowed):
            return None
        if origin is not None and urlsplit(origin.lower()).netloc != (host or "").lower():
            return f"origin {origin!r}: requests of another site's pages are refused; {_HINT}"
        is_link = method == "GET" and path == "/" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site") == "cross-site" and not is_link:  # following a link to the page is harmless
            return f"a request of another site's page is refused; {_HINT}"
        return None


def _check(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin, re.IGNORECASE):
        raise InputError(f"allow_origin={origin!r}: expected an origin such as 'https://example.org:8443', or '*'")
    return origin.lower()


def _name_of(host: str) -> str:
    """Return a host without its port."""
    return re.sub(r":\d*$", "", host.strip().lower())
