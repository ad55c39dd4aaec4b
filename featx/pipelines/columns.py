"""Find the columns that a fitted estimator of data frames reads, and what reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline

from featx._optional import import_optional
from featx.inference.mean import MeanOfColumns
from featx.pipelines.extractors import find_extractors, walk

__all__ = [
    "find_columns",
    "find_encoders",
    "find_optional",
    "find_text_encoders",
    "find_vectorizers",
    "make_frame_of_rows",
    "name_columns",
]

_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def find_columns(estimator: Any) -> dict[str, str]:
    """Return the columns that a fitted estimator of data frames reads, and the kind of each.

    Kinds are ``"image"`` and ``"text"`` (what an extractor or a vectorizer of words reads), ``"category"`` (what an
    encoder of categories reads) and ``"number"``. Without a fitted `ColumnTransformer` there are no columns.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    >>> from sklearn.preprocessing import OneHotEncoder, StandardScaler
    >>> from featx.pipelines import find_columns
    >>> table = pd.DataFrame({"rooms": [2, 3], "place": ["a", "b"]})
    >>> parts = [("numbers", StandardScaler(), ["rooms"]), ("places", OneHotEncoder(), ["place"])]
    >>> find_columns(ColumnTransformer(parts).fit(table))
    {'rooms': 'number', 'place': 'category'}
    """
    found: dict[str, str] = {}
    for part in _find_parts(estimator):
        found |= {name: part.kind for name in part.names if name not in found}
    return found


def find_encoders(estimator: Any) -> dict[str, tuple[list[Any], bool]]:
    """Return the categories that encoders know of each column, and True if they raise an error for other categories.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from featx.pipelines import find_encoders
    >>> parts = [("places", OneHotEncoder(), ["place"])]
    >>> find_encoders(ColumnTransformer(parts).fit(pd.DataFrame({"place": ["b", "a"]})))
    {'place': (['a', 'b'], True)}
    """
    found: dict[str, tuple[list[Any], bool]] = {}
    for part in _find_parts(estimator):
        encoder = next((step for step in part.steps if type(step).__name__ in _ENCODERS), None)
        if encoder is None or len(encoder.categories_) != len(part.names):
            continue
        is_strict = getattr(encoder, "handle_unknown", None) == "error"
        for name, known in zip(part.names, encoder.categories_, strict=True):
            if len(known):
                found.setdefault(name, (list(known) if known.dtype.kind == "M" else known.tolist(), is_strict))
    return found


def find_optional(estimator: Any) -> list[str]:
    """Return the columns of images that may be empty, because the mean of a row's images is taken.

    Examples
    --------
    >>> from sklearn.compose import ColumnTransformer
    >>> from featx.pipelines import find_optional
    >>> find_optional(ColumnTransformer([]))
    []
    """
    means = [part.names for part in _find_parts(estimator) if any(isinstance(one, MeanOfColumns) for one in part.steps)]
    return list(dict.fromkeys(name for names in means for name in names))


def find_vectorizers(estimator: Any) -> dict[str, Any]:
    """Return the fitted vectorizer of words of each column of texts that has one.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from featx.pipelines import find_vectorizers
    >>> table = pd.DataFrame({"title": ["a red car", "a dog"]})
    >>> find_vectorizers(ColumnTransformer([("words", TfidfVectorizer(), "title")]).fit(table))
    {'title': TfidfVectorizer()}
    """
    found: dict[str, Any] = {}
    for part in _find_parts(estimator):
        if part.is_single and isinstance(part.steps[0], CountVectorizer):
            found.setdefault(part.names[0], part.steps[0])
    return found


def find_text_encoders(estimator: Any) -> dict[str, Any]:
    """Return the fitted extractor of each column of texts that has one.

    Examples
    --------
    >>> from sklearn.compose import ColumnTransformer
    >>> from featx.pipelines import find_text_encoders
    >>> find_text_encoders(ColumnTransformer([]))
    {}
    """
    found: dict[str, Any] = {}
    for part in _find_parts(estimator):
        for extractor in find_extractors(part.steps):
            if extractor.kind == "text":
                found |= {name: extractor for name in part.names if name not in found}
    return found


def name_columns(transformer: ColumnTransformer, columns: Any) -> list[str]:
    """Return the names of the columns that a part of a fitted transformer reads: names, positions, a slice or a mask.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from featx.pipelines import name_columns
    >>> parts = [("numbers", StandardScaler(), [True, False])]
    >>> transformer = ColumnTransformer(parts).fit(pd.DataFrame({"rooms": [2, 3], "price": [1, 2]}))
    >>> name_columns(transformer, [True, False]), name_columns(transformer, slice(1, 2))
    (['rooms'], ['price'])
    """
    names = getattr(transformer, "feature_names_in_", None)
    is_mask = not isinstance(columns, (str, slice)) and np.asarray(columns).dtype == bool
    at = np.arange(len(names))[columns] if names is not None and (is_mask or isinstance(columns, slice)) else columns
    listed = np.ravel(np.array(at, dtype=object)).tolist()
    return [str(column if isinstance(column, str) or names is None else names[column]) for column in listed]


def make_frame_of_rows(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Any:
    """Return rows as a pandas DataFrame with the columns of `find_columns`: numbers as floats, all others as objects.

    Examples
    --------
    >>> from featx.pipelines import make_frame_of_rows
    >>> make_frame_of_rows([{"rooms": 2, "place": None}], {"rooms": "number", "place": "category"})
       rooms place
    0    2.0   NaN
    """
    pandas = import_optional("pandas", "pandas")
    columns = {
        name: pandas.Series(
            [np.nan if row[name] is None and kind not in ("image", "text") else row[name] for row in rows],
            dtype=float if kind == "number" else object,
        )
        for name, kind in kinds.items()
    }
    return pandas.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class _Part:
    """Hold a part of a fitted `ColumnTransformer`: its steps, and the names of its columns.

    ``is_single`` is True for a transformer that takes one column as a sequence.
    """

    steps: list[Any]
    names: list[str]
    is_single: bool

    @property
    def kind(self) -> str:
        """Kind of the columns."""
        for extractor in find_extractors(self.steps):
            return str(extractor.kind)
        if any(isinstance(step, CountVectorizer) or type(step).__name__ == "HashingVectorizer" for step in self.steps):
            return "text"
        return "category" if any(type(step).__name__ in _ENCODERS for step in self.steps) else "number"


def _find_parts(estimator: Any) -> Iterator[_Part]:
    """Iterate over the parts of all fitted column transformers, without the columns that are dropped."""
    for transformer in walk(estimator):
        if isinstance(transformer, ColumnTransformer) and hasattr(transformer, "transformers_"):
            for _, part, columns in transformer.transformers_:
                if not (isinstance(part, str) and part == "drop"):
                    steps = [step for _, step in part.steps] if isinstance(part, Pipeline) else [part]
                    yield _Part(
                        steps, name_columns(transformer, columns), part is steps[0] and isinstance(columns, str)
                    )
