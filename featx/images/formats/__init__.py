"""Read encoded images: the list of supported formats, and a reader for each kind that Pillow reads incorrectly."""

from featx.images.formats.boxes import iso_boxes
from featx.images.formats.jpeg import MAX_SCANS
from featx.images.formats.opening import FORMATS, bound, decoder_versions, has_magic, open_image
from featx.images.formats.tiff import read_orientation

__all__ = [
    "FORMATS",
    "MAX_SCANS",
    "bound",
    "decoder_versions",
    "has_magic",
    "iso_boxes",
    "open_image",
    "read_orientation",
]
