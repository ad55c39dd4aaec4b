"""Find near-duplicates among the inputs of a page, and between them and the inputs of the fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._text import show_html
from featx._validation import is_missing
from featx.fitting.estimate import sees_content
from featx.fitting.model import FittedModel
from featx.fitting.rows import RowExtractor
from featx.guard.kinds import KindOutliers
from featx.pipelines import find_extractors
from featx.similarity import MIN_DUPLICATE_COSINE, NearestRows

__all__ = ["Compared", "Pair", "find_pairs", "write_duplicates"]

#: Names of two inputs that are alike, and the cosine of their features.
Pair = tuple[str, str, float]

_MAX_PAIRS = 30


@dataclass(frozen=True, eq=False)
class Compared:
    """Hold the features and keys by which inputs are compared.

    Parameters
    ----------
    titles : sequence of str
    features : tuple of ndarray of float32, shape (n, n_features)
        Features in which near-duplicates have a large cosine; for rows, the features of images and of texts.
    keys : sequence of sequence of hashable
        Inputs that share a key are duplicates.
    note : str, default=""
        A sentence on the comparison, for inputs that are not images.
    """

    titles: Sequence[str]
    features: tuple[npt.NDArray[np.float32], ...]
    keys: Sequence[Sequence[Hashable]]
    note: str = ""

    @classmethod
    def of(
        cls,
        model: FittedModel,
        titles: Sequence[str],
        items: Sequence[Any] | None,
        features: npt.NDArray[Any] | None,
        guarded: npt.NDArray[Any] | None,
    ) -> Compared:
        """Take the inputs of a model; ``guarded`` holds the features that the guard of a model of rows takes."""
        if not isinstance(model.extractor, RowExtractor):
            kept = (features,) if features is not None and sees_content(model.extractor) else ()
            if model.kind != "text":
                return cls(titles, kept, [()] * len(titles))
            texts = [()] * len(titles) if items is None else [_list_keys({"": item}, {"": "text"}) for item in items]
            note = "They are alike if they are equal, white space and case apart"
            return cls(titles, kept, texts, f"{note}, or if their features are near." if kept else f"{note}.")
        kinds = model.extractor.kinds
        rows = [item if isinstance(item, Mapping) else dict.fromkeys(kinds, item) for item in items or ()]
        keys = [_list_keys(row, kinds) for row in rows] if items is not None else [()] * len(titles)
        parts = {} if guarded is None else _divide(model, guarded)
        equal = [f"{kind}s" for kind in ("image", "text") if kind in kinds.values()]
        note = f"They are alike if their {' or '.join(equal) or 'cells'} are equal"
        note += "" if equal == ["images"] else ", white space and case apart"
        note += f", or if the features of their {' or '.join(parts)} are near." if parts else "."
        return cls(titles, tuple(parts.values()), keys, note)


def _divide(model: FittedModel, guarded: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the features of images and of texts, which the guard of a model of rows takes."""
    outliers = None if model.guard is None else model.guard.outliers
    if not isinstance(outliers, KindOutliers):
        return {}
    ends = np.cumsum([0, *(part.n_features for part in outliers.parts)])
    extractors = list(find_extractors(model.extractor.estimator))
    deep = {f"{one.kind}s" for one in extractors if one.kind == "text" or sees_content(one)}
    places = zip(outliers.names, ends[:-1], ends[1:], strict=True)
    return {name: guarded[:, start:stop] for name, start, stop in places if name in deep}


def _list_keys(row: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Hashable]:
    """Return the keys of a row: its texts, and its images together; without texts and images, all cells together."""
    texts = [(name, _read_text(row[name])) for name, kind in kinds.items() if kind == "text"]
    images = tuple((name, _read_image(row[name])) for name, kind in kinds.items() if kind == "image")
    if not texts and not images:
        return [tuple(_read_cell(row[name], kind) for name, kind in kinds.items())]
    keys: list[Hashable] = [(name, text) for name, text in texts if text]
    return [*keys, images] if any(image is not None for _, image in images) else keys


def _read_text(cell: Any) -> str:
    return "" if is_missing(cell) else " ".join(str(cell).split()).casefold()


def _read_image(cell: Any) -> Hashable:
    """Return a value that is equal for the same file or the same bytes; None for an empty cell."""
    if isinstance(cell, np.ndarray):
        return cell.shape, cell.tobytes()
    if is_missing(cell):
        return None
    return cell if isinstance(cell, Hashable) else id(cell)


def _read_cell(cell: Any, kind: str) -> Hashable:
    if is_missing(cell):
        return None
    try:
        return float(cell) if kind == "number" else _read_text(cell)
    except (TypeError, ValueError):
        return _read_text(cell)


def find_pairs(inputs: Compared, others: Compared | None = None) -> list[Pair]:
    """Find the inputs that have a duplicate among the others, or among themselves; the nearest pair comes first."""
    own = others is None
    candidates = inputs if others is None else others
    best: dict[int, tuple[int, float]] = {}
    index_of: dict[Hashable, int] = {}
    for j, keys in enumerate([] if own else candidates.keys):
        for key in keys:
            index_of.setdefault(key, j)
    for i, keys in enumerate(inputs.keys):
        if equal := [index_of[key] for key in keys if key in index_of]:
            best[i] = (equal[0], 1.0)
        for key in keys if own else ():
            index_of.setdefault(key, i)
    for features, other in zip(inputs.features, candidates.features, strict=True):
        if not len(other):
            continue
        nearest = NearestRows(features, 1, left_out=range(len(features)) if own else None)
        nearest.add(0, other)
        for i, (rows, cosines) in enumerate(zip(nearest.rows, nearest.similarities, strict=True)):
            if len(rows) and cosines[0] >= MIN_DUPLICATE_COSINE and cosines[0] > best.get(i, (0, 0.0))[1]:
                best[i] = (int(rows[0]), float(cosines[0]))
    pairs = []
    for i, (j, cosine) in sorted(best.items()):
        if own and j < i and best.get(j, (-1, 0.0))[0] == i:
            continue  # the pair is already in the list, in the other order
        pairs.append((inputs.titles[i], candidates.titles[j], cosine))
    return sorted(pairs, key=lambda pair: -pair[2])


def write_duplicates(inputs: Compared, noun: str, pairs: Sequence[Pair] | None) -> str:
    """Return near-duplicates among these inputs, and the ``pairs`` with inputs of the fit.

    The result is empty if there is nothing to compare.
    """
    parts = ["<h2>Near-duplicates</h2>"]
    if not inputs.features and not any(inputs.keys):
        text = f"Not searched: many {noun}s look alike by features of an early layer, or of other poolings than avg."
        return f"{parts[0]}<p>{text}</p>"
    verb = "look" if noun == "image" else "are"
    if pairs is not None:
        article = "an image" if noun == "image" else f"a {noun}"
        parts.append(
            f"<p>{len(pairs)} of these {noun}s {verb} like {article} that the model was fitted on"
            f"{', so the score is too good' if pairs else ''}.</p>"
        )
        parts.append(_list_pairs(pairs, noun))
    own = find_pairs(inputs)
    parts.append(f"<p>{len(own)} of these {noun}s {verb} like another {noun} here.</p>{_list_pairs(own, noun)}")
    parts.append(f'<p class="soft">{inputs.note}</p>' if inputs.note else "")
    if pairs is None:
        parts.append(f'<p class="soft">Name the training {noun}s to compare with them as well.</p>')
    return "".join(parts)


def _list_pairs(pairs: Sequence[Pair], noun: str) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{show_html(a)}</th><th scope="row">{show_html(b)}</th><td>{cosine:.3f}</td></tr>'
        for a, b, cosine in pairs[:_MAX_PAIRS]
    )
    more = f"<p>and {len(pairs) - _MAX_PAIRS} more</p>" if len(pairs) > _MAX_PAIRS else ""
    head = "".join(f"<th scope=col>{name}</th>" for name in (noun, "is like", "cosine"))
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>{more}'
