"""Read JPEG, except files of hundreds of scans."""

from __future__ import annotations

import io

from PIL import ImageFile, JpegImagePlugin

from featx.errors import UnreadableError

__all__ = ["MAX_SCANS", "open_jpeg"]

#: Largest number of scans of a JPEG. Encoders write about ten. A file may repeat the last scan at will, and each scan
#: takes time in proportion to the size of the image.
MAX_SCANS = 100


def open_jpeg(file: io.BytesIO) -> ImageFile.ImageFile:
    """Open a JPEG or MPO; raise UnreadableError if it has more scans than `MAX_SCANS`."""
    image = JpegImagePlugin.jpeg_factory(file)
    data = file.getvalue()
    start = data.rfind(b"\xff\xda", 0, file.tell()) if file.tell() else -1
    start = data.find(b"\xff\xda") if start < 0 else start
    is_one_scan = not image.info.get("progressive") and data[start + 4 : start + 5] == bytes([image.layers])
    if not is_one_scan and (n := _count_scans(data, start)) > MAX_SCANS:
        raise UnreadableError(f"a JPEG of {n} scans, more than {MAX_SCANS}, which takes too long; save it again")
    return image


def _count_scans(data: bytes, place: int) -> int:
    """Count the scans of a JPEG from its first scan to the end of its image, which other images may follow."""
    if data.count(b"\xff\xda", place) <= MAX_SCANS:
        return 0
    n = 0
    while 0 <= place < len(data) - 3:
        marker = data[place + 1]
        if marker == 0xD9:
            break
        if marker in (0x00, 0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed, filled, or without content
            place = data.find(b"\xff", place + (1 if marker == 0xFF else 2))
            continue
        n += marker == 0xDA
        place = data.find(b"\xff", place + 2 + int.from_bytes(data[place + 2 : place + 4]))
    return n
