"""Choose images to label next: the model is uncertain about them, and they are unlike each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from featx._events import Events
from featx._results import format_html, make_frame, to_plain
from featx._text import printable
from featx._validation import check_integer
from featx.errors import Failure, InputError
from featx.fitting.estimate import sees_content
from featx.fitting.inputs import read_inputs
from featx.fitting.model import open_model
from featx.reporting.contact_sheet import Tile, draw_sheet
from featx.selection.duplicates import find_duplicates
from featx.writers import write

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ToLabel", "choose_diverse", "label_next"]

#: Clusters are searched among the most uncertain images, this many times the number of images to choose.
_POOL_FACTOR = 10
#: Mean uncertainty above which the model is too weak to choose (on CIFAR-10, with up to about 200 labels).
_TOO_UNCERTAIN = 0.5
#: Largest number of images that are clustered.
_MAX_CANDIDATES = 5000
_MAX_SHOWN = 10


@dataclass(frozen=True, eq=False)
class ToLabel:
    """Images to label next, the most uncertain first.

    Parameters
    ----------
    names : tuple of str
    predicted : tuple of str
        Label that the model predicts.
    probabilities : ndarray of shape (n_images,)
        Probability of the predicted label.
    n_pool : int
        Number of images that were considered.
    items : list or None
        The images, for the sheet; None for stored embeddings.
    failures : tuple of Failure
        Images that could not be read.

    See Also
    --------
    featx.label_next : Makes it; its example shows one.
    """

    names: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    n_pool: int
    items: list[Any] | None = None
    failures: tuple[Failure, ...] = ()

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the columns ``path``, ``predicted``, ``probability`` and ``label``, which is empty."""
        return {
            "path": list(self.names),
            "predicted": list(self.predicted),
            "probability": np.round(self.probabilities.astype(np.float64), 4).tolist(),
            "label": [None] * len(self.names),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return `to_columns` as a pandas DataFrame."""
        return make_frame(self.to_columns())

    def to_dict(self) -> dict[str, Any]:
        """Return `to_columns` with plain values."""
        return dict(to_plain(self.to_columns()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_columns` as a CSV file. Fill in ``label``, and pass the file to `featx.fit` as ``labels``."""
        write(os.fspath(path), self.to_columns())

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a contact sheet as a PNG file (extra ``plot``); raise InputError if the pool holds no images."""
        if self.items is None:
            raise InputError("no sheet: the pool holds stored embeddings, not images; pass images as the pool")
        tiles = [
            Tile(item, [name, f"{label} {value:.2f}"])
            for item, name, label, value in zip(self.items, self.names, self.predicted, self.probabilities, strict=True)
        ]
        draw_sheet(Path(path), [tiles])

    def __repr__(self) -> str:
        return f"ToLabel({len(self.names)} of {self.n_pool} images)"

    def __str__(self) -> str:
        lines = [f"{len(self.names)} of {self.n_pool} images to label next"]
        rows = zip(self.names, self.predicted, self.probabilities, strict=True)
        lines += [f"  {printable(name)}  {printable(label)} {value:.2f}" for name, label, value in rows][:_MAX_SHOWN]
        if len(self.names) > _MAX_SHOWN:
            lines.append(f"  and {len(self.names) - _MAX_SHOWN} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [dict(zip(self.to_columns(), row, strict=True)) for row in zip(*self.to_columns().values(), strict=True)]
        return format_html(repr(self), rows)


def label_next(model: Any, pool: Any, n: int = 50, *, random_state: int = 0, events: Events | None = None) -> ToLabel:
    """Choose images that a model is uncertain about and that are unlike each other (Zhdanov 2019).

    The images with the smallest margin between the first and the second class are clustered by their features, weighted
    by uncertainty. The image nearest to the centre of each cluster is chosen. Only one of several near-duplicates is
    considered. A model that is uncertain about most of the pool is too weak to choose: then all images are clustered,
    and count alike.

    Parameters
    ----------
    model : estimator, FitResult, str or path
        A classifier of images with probabilities, as for `featx.predict`.
    pool : source, sequence or Dataset
        Images without labels; labels are ignored.
    n : int, default=50
        Number of images to choose; a smaller pool is returned as a whole.
    random_state : int, default=0
        Seed of the clusters.
    events : Events or None, default=None
        Receives progress and notes.

    Returns
    -------
    ToLabel

    Raises
    ------
    InputError
        If the model has no probabilities.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[:100:5], y[:100:5], head="ridge", extractor=extractor, estimate=False)
    >>> featx.label_next(result, X[100:150], n=5)
    ToLabel(5 of 50 images)
    """
    check_integer("n", n)
    events = events or Events()
    opened = open_model(model)
    opened.require_single("images are ranked for")
    opened.require_images(
        f"only images are chosen for labelling; label the {opened.kind}s with the lowest probability of predict first"
    )
    if not hasattr(opened.head, "predict_proba"):
        raise InputError(f"model={opened.name}: has no probabilities; fit a classifier with them")
    inputs = read_inputs(pool, remembered=opened.info)
    embeddings = inputs.embed(np.arange(len(inputs)), opened.extractor, events)
    features = embeddings.take()
    labels, probabilities = opened.predict(embeddings)
    assert probabilities is not None
    ordered = np.sort(probabilities, axis=1)
    uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
    groups = find_duplicates(features, near=sees_content(opened.extractor)).groups
    _, first = np.unique(groups, return_index=True)
    chosen = first[choose_diverse(features[first], uncertainty[first], n, random_state=random_state)]
    positions = embeddings.positions[chosen]
    return ToLabel(
        names=tuple(inputs.names(positions)),
        predicted=tuple(labels[chosen].tolist()),
        probabilities=ordered[chosen, -1],
        n_pool=len(features),
        items=None if inputs.items is None else [inputs.items[i] for i in positions],
        failures=tuple(embeddings.failures),
    )


def choose_diverse(
    features: npt.NDArray[Any], uncertainty: npt.NDArray[Any], n: int, *, random_state: int = 0
) -> npt.NDArray[np.intp]:
    """Return up to n rows, one row per cluster of the uncertain rows, the most uncertain first."""
    knows = uncertainty.mean() <= _TOO_UNCERTAIN
    n_candidates = min(_POOL_FACTOR * n, max(_MAX_CANDIDATES, n)) if knows else max(_MAX_CANDIDATES, n)
    if knows:
        candidates = np.argsort(-uncertainty, kind="stable")[:n_candidates]
    else:
        candidates = np.random.default_rng(random_state).permutation(len(features))[:n_candidates]
    if len(candidates) > n:
        rows = features[candidates].astype(np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        weights = uncertainty[candidates] + 1e-3 if knows else None
        fitted = KMeans(n, n_init=1, max_iter=20, random_state=random_state).fit(rows, sample_weight=weights)
        distances = fitted.transform(rows)
        own = distances[np.arange(len(rows)), fitted.labels_]
        nearest = np.lexsort((own, fitted.labels_))
        _, starts = np.unique(fitted.labels_[nearest], return_index=True)
        candidates = candidates[nearest[starts]]
    return candidates[np.argsort(-uncertainty[candidates], kind="stable")]
