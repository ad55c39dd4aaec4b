"""Read the boxes of ISO files: JPEG 2000, AVIF and HEIF."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["iso_boxes", "read_brands"]


def read_brands(data: bytes) -> set[bytes]:
    """Return the brands that a file of ISO boxes lists at its beginning."""
    content = data[8 : min(int.from_bytes(data[:4]), 1024)]
    return {content[i : i + 4] for i in range(0, len(content), 4) if i != 4}


def iso_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box, as JPEG 2000, AVIF and HEIF have them.

    Examples
    --------
    >>> from featx.images.formats import iso_boxes
    >>> list(iso_boxes(bytes([0, 0, 0, 12]) + b"ftypavif", 0, 12))
    [(b'ftyp', 8, 12)]
    """
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        last = end if size == 0 else start + size
        if (size and size < head) or last > end:
            return
        yield kind, start + head, last
        start = last
