"""Hold the result of `featx.fit`: a pipeline, its estimated quality, and remarks on the images."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featx._results import format_html, format_metric, make_frame, to_plain
from featx.errors import Failure, InputError
from featx.guard import Guard
from featx.heads import OutOfFold
from featx.inference.transformer import BackboneTransformer
from featx.persistence.archive import read_info, save
from featx.pipelines import find_extractors
from featx.reporting.card import make_card, name_inputs, write_card
from featx.reporting.metrics import Score, describe_balance, describe_score
from featx.reporting.snippets import use_saved
from featx.sources.labels import join_rows
from featx.writers import write

if TYPE_CHECKING:
    import pandas as pd

    from featx.tuning.race import Strategy

__all__ = ["DuplicateGroup", "FitResult", "FittedImages", "HeadFit", "count_target", "record_weights"]

#: Largest number of names of a list in a notebook.
_MAX_NAMES = 5


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that look nearly the same.

    Parameters
    ----------
    names : tuple of str
    labels : tuple
        Label of each.
    """

    names: tuple[str, ...]
    labels: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class FittedImages:
    """The images that a head was fitted on, in the order of its rows.

    Parameters
    ----------
    names : tuple of str
        Name of each image.
    items : list or None
        The images, as an extractor takes them; None if they were stored embeddings.
    features : ndarray of float32, shape (n_images, n_features)
    groups : ndarray of str, shape (n_images,), or None
        Group of each image; None without groups.
    """

    names: tuple[str, ...]
    items: list[Any] | None
    features: npt.NDArray[np.float32]
    groups: npt.NDArray[Any] | None


@dataclass(frozen=True, repr=False, eq=False)
class FitResult:
    """The result of `featx.fit`.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        The extractor and the head, fitted on every labelled image.
    task : {"classification", "multilabel", "regression"}
    classes : tuple or None
        Labels in the head's order; None for a regression.
    head : str
        Key of `featx.heads.HEADS`.
    n_images : int
        Number of images that the head was fitted on.
    n_unlabelled : int
        Number of images without a label.
    score : Score or None
        Estimate on left-out images; None if there is none, and then `notes` says why unless
        it was switched off.
    duplicates : tuple of DuplicateGroup
        Near-duplicates, groups with different labels first.
    to_label : tuple of str
        Images without a label, the least certain prediction first; empty for heads without
        probabilities. At most 2,000 images are considered.
    failures : tuple of Failure
        Images that could not be read, with their position in the inputs.
    notes : tuple of str
        Remarks on the source, the choice of head and the estimate.
    info : dict
        The record that `save` stores: task, columns, counts and score.
    device : str or None
        Device that embedded the images; None if their embeddings came from a dataset.
    reason : str
        Reason why a search chose these features and this head; empty without a search.
    out_of_fold : OutOfFold or None
        Predictions for each image by heads that were fitted without it: classes, probabilities and
        folds. It is not saved. None without an estimate, and for a fit in parts.
    images : FittedImages or None
        The images, for `featx.report`; None for a fit in parts. They are not saved.
    guard : Guard or None
        Guard, which knows when the pipeline should not answer; `save` stores it. None without an estimate, below 50
        images, and for a fit in parts; `notes` says why.
    tried : str
        Tables of the features and heads that a search tried, and its cost; of a column of texts, the losses of
        words, the encoder and both. Empty otherwise.
    tuning : Strategy or None
        Networks that `featx.tune` tried, and its choice; None for `featx.fit`. It is not saved.

    See Also
    --------
    featx.fit : Makes it; its example shows one.
    """

    pipeline: Pipeline
    task: str
    classes: tuple[Any, ...] | None
    head: str
    n_images: int
    n_unlabelled: int
    score: Score | None
    duplicates: tuple[DuplicateGroup, ...]
    to_label: tuple[str, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    info: dict[str, Any]
    device: str | None = None
    reason: str = ""
    out_of_fold: OutOfFold | None = None
    images: FittedImages | None = None
    guard: Guard | None = None
    tried: str = ""
    tuning: Strategy | None = None

    def save(
        self, path: str | os.PathLike[str], *, embed_backbone: bool | None = None, keep_answers: bool = False
    ) -> None:
        """Write the pipeline with its guard, and its model card ``PATH.md`` beside it.

        The cache and the progress bar belong to this machine and are not saved.

        Parameters
        ----------
        path : str or path
            Path of the file, by convention with the suffix ``.featx``.
        embed_backbone : bool or None, default=None
            Store the backbone in the file, for machines that do not have it. None stores a tuned backbone.
        keep_answers : bool, default=False
            Write `answers` to ``PATH.answers.csv`` as well. It names the images.
        """
        path = os.fspath(path)
        answers = self.answers() if keep_answers else None
        if self._has_extractor:
            extractor = clone(self.pipeline[0]).set_params(cache=False, progress=False).fit(None)
            pipeline: Any = Pipeline([("features", extractor), ("head", self.pipeline[-1])])
        else:  # words, or several kinds of columns
            pipeline = copy.deepcopy(self.pipeline)
            for extractor in find_extractors(pipeline):
                extractor.set_params(cache=False, progress=False)
        save(pipeline, path, embed_backbone=embed_backbone, info=self.info, guard=self.guard)
        name, saved = os.path.basename(path), read_info(path)
        write_card(path, make_card(name, saved, use_saved(name, saved)))
        if answers is not None:
            write(f"{path}.answers.csv", answers)

    def answers(self) -> dict[str, list[Any]]:
        """Return the answer for each image by a head that was fitted without it, as columns of a table.

        Returns
        -------
        dict of str to list
            ``path``, ``fold``, ``group`` if there are groups, ``true``, ``predicted``, and ``proba_CLASS`` for each
            class if the head has probabilities.

        Raises
        ------
        InputError
            If the fit has no estimate, or was made in parts.
        """
        found, images = self.out_of_fold, self.images
        if found is None or images is None:
            raise InputError("no answers: the fit has no estimate from folds; fit with estimate=True, in memory")
        columns: dict[str, list[Any]] = {
            "path": [images.names[row] for row in found.rows],
            "fold": found.folds.tolist(),
        }
        if images.groups is not None:
            columns["group"] = images.groups[found.rows].tolist()
        columns |= self._list_answers(found)
        if found.probabilities is not None and found.classes is not None:
            for label, values in zip(found.classes.tolist(), found.probabilities.T.tolist(), strict=True):
                columns[f"proba_{label}"] = [round(value, 7) for value in values]
        return columns

    def _list_answers(self, found: OutOfFold) -> dict[str, list[Any]]:
        """Return true and predicted labels or numbers as columns; several numbers have columns of their own."""
        pairs = (("true", found.y), ("predicted", found.predicted))
        if found.y.ndim == 1:
            return {name: values.tolist() for name, values in pairs}
        if found.classes is None:
            targets = enumerate(self.info["targets"])
            return {f"{name}_{target}": values[:, i].tolist() for i, target in targets for name, values in pairs}
        return {name: join_rows(values, found.classes, self.info.get("separator", "|")) for name, values in pairs}

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the pipeline as dicts, lists, strings and numbers."""
        names = ("task", "classes", "head", "n_images", "n_unlabelled", "score", "duplicates", "to_label")
        return {name: to_plain(getattr(self, name)) for name in (*names, "failures", "notes", "info")}

    def to_frame(self) -> pd.DataFrame:
        """Return the near-duplicates as a pandas DataFrame: ``group``, ``name`` and ``label``."""
        groups = enumerate(self.duplicates)
        rows = [(i, *pair) for i, group in groups for pair in zip(group.names, group.labels, strict=True)]
        return make_frame({name: [row[i] for row in rows] for i, name in enumerate(("group", "name", "label"))})

    def __repr__(self) -> str:
        kind = "labels" if self.task == "multilabel" else "classes"
        target = f"{len(self.classes)} {kind}" if self.classes is not None else _describe_target(self.info)
        score = "" if self.score is None else f", {self.score.metric} {format_metric(self.score.value)}"
        return f"FitResult({self.head} on {self._backbone}, {self.n_images} {name_inputs(self.info)}s, {target}{score})"

    def __str__(self) -> str:
        noun = name_inputs(self.info)
        what = f"{noun}s" if self.device or not self._has_extractor else "embeddings"
        where = f"{f' ({self.device})' if self.device else ''}, {self.n_images} {what}"
        lines = [f"{self.head} on {self._backbone}{where}, {_describe_target(self.info)}"]
        lines += [f"  chosen: {self.reason}"] if self.reason else []
        lines += [f"  {line}" for line in str(self.tuning).split("\n")] if self.tuning else []
        if self.score:
            lines += [f"  {text}" for text in (describe_score(self.score.facts()), self._balance) if text]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [] if self.score is None else [{"metric": name, "value": v} for name, v in self.score.values.items()]
        if rows and self.score is not None and self.score.low is not None:
            rows[0]["95 % interval"] = f"{format_metric(self.score.low)} to {format_metric(self.score.high)}"
        notes = [str(self).split("\n")[0], *([self.score.how] if self.score else [])]
        notes += [*([self._balance] if self._balance else []), *self.notes]
        if self.duplicates:
            shown = "; ".join(" = ".join(group.names[:_MAX_NAMES]) for group in self.duplicates[:_MAX_NAMES])
            notes.append(f"{len(self.duplicates)} groups of near-duplicates: {shown}")
        if self.to_label:
            notes.append(f"label first: {', '.join(self.to_label[:_MAX_NAMES])}")
        if self.failures:
            notes.append(
                f"{len(self.failures)} {name_inputs(self.info)}s could not be read, the first: {self.failures[0]}"
            )
        return format_html("FitResult", rows, notes)

    @property
    def _balance(self) -> str:
        return describe_balance(self.score.facts()) if self.score else ""

    @property
    def _has_extractor(self) -> bool:
        return isinstance(self.pipeline, Pipeline) and isinstance(self.pipeline[0], BackboneTransformer)

    @property
    def _backbone(self) -> Any:
        if not self._has_extractor:
            if name_inputs(self.info) == "text":
                return "TF-IDF" if self.head == "words" else "TF-IDF and a text encoder"
            return "TF-IDF" if self.head == "words" else "several kinds of columns"
        backbone = self.pipeline[0].backbone
        return os.path.basename(backbone) if self.tuning else backbone


@dataclass(frozen=True, eq=False)
class HeadFit:
    """Hold the result of a fit for the steps that follow, without notes.

    ``values`` are the targets of the rows, and ``groups`` their groups and near-duplicates. ``class_weight`` is
    ``"balanced"``, the weight of each class that was named, or None.
    """

    result: FitResult
    values: npt.NDArray[Any]
    groups: npt.NDArray[Any] | None
    class_weight: Any = None


def count_target(task: str, y: npt.NDArray[Any]) -> dict[str, Any]:
    """Count classes, or summarise numbers, for the record in a file."""
    if task == "classification":
        return {"counts": {str(label): n for label, n in sorted(Counter(y.tolist()).items())}}
    return {"target": {"min": float(min(y)), "median": float(np.median(y)), "max": float(max(y))}}


def record_weights(class_weight: Any) -> dict[str, Any]:
    """Return the weights of the classes as JSON values, for the record in a file."""
    if class_weight is None:
        return {}
    is_named = isinstance(class_weight, str)
    return {"class_weight": class_weight if is_named else {str(key): value for key, value in class_weight.items()}}


def _describe_target(info: Mapping[str, Any]) -> str:
    """Describe classes with their counts, or the range of a target, in a few words."""
    if several := info.get("targets"):
        return f"{len(several)} targets ({', '.join(several)})"
    if target := info.get("target"):
        return f"target {format_metric(target['min'])} to {format_metric(target['max'])}"
    if "counts" not in info:  # a private fit
        return "counts of classes not released"
    counts = info["counts"]
    first = ", ".join(f"{label} {n}" for label, n in list(counts.items())[:10])
    kind = "labels" if info.get("task") == "multilabel" else "classes"
    return f"{len(counts)} {kind} ({first}{', ...' if len(counts) > 10 else ''})"
