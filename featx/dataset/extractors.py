"""Choose the extractor of a dataset of images or texts."""

from __future__ import annotations

from sklearn.base import clone

from featx.dataset.manifest import Extractor
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.text import TextExtractor

__all__ = ["make_extractor"]


def make_extractor(extractor: Extractor | None, text_column: str | None, path_column: str | None) -> Extractor:
    """Return a fitted copy of an extractor; the default is for images, or for texts if there is a column of texts.

    Raises InputError if the extractor is of the other kind, or if both columns are given.
    """
    if text_column and path_column:
        raise InputError("give path_column or text_column, not both: a dataset holds embeddings of one kind")
    if extractor is None:
        extractor = TextExtractor() if text_column else FeatureExtractor()
    if isinstance(extractor, TextExtractor) and not text_column:
        raise InputError("a TextExtractor needs a column of texts; set text_column=NAME")
    if text_column and not isinstance(extractor, TextExtractor):
        raise InputError(f"text_column={text_column!r}: expected a TextExtractor, got {type(extractor).__name__}")
    return clone(extractor).fit(None)  # type: ignore[no-any-return]
