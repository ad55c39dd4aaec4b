"""Keep bytes of a source in a temporary file."""

from __future__ import annotations

import tempfile
import weakref

from featx.errors import SourceError

__all__ = ["Scratch"]


class Scratch:
    """Keep a source that is read forward in a temporary file, for images in any order; one thread at a time."""

    def __init__(self, given: str) -> None:
        self.given, self.size = given, 0
        self._file = tempfile.TemporaryFile(prefix="featx-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def append(self, data: bytes) -> None:
        """Write bytes at the end."""
        try:
            self._file.seek(self.size)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise SourceError(
                f"{self.given}: cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); "
                "unpack it yourself, or set TMPDIR to a folder with more space"
            ) from None
        self.size += len(data)

    def read(self, start: int, size: int) -> bytes:
        """Read bytes that were appended."""
        self._file.seek(start)
        return self._file.read(size)
