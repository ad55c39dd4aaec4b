"""List the images of folders, globs, tables, archives and addresses, with their labels."""

from __future__ import annotations

from featx.sources.base import Entry, Listing, Source
from featx.sources.filesystem import is_dataset
from featx.sources.listing import list_images, load_folder
from featx.sources.names import is_image
from featx.sources.opening import open_sources
from featx.sources.texts import list_texts

__all__ = [
    "Entry",
    "Listing",
    "Source",
    "is_dataset",
    "is_image",
    "list_images",
    "list_texts",
    "load_folder",
    "open_sources",
]
