"""Fit a stack on images, texts, numbers and categories: one member per kind, and a final estimator of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer

from featx._events import Events, combine
from featx._validation import check_choice
from featx.errors import Failure, InputError
from featx.extractor import FeatureExtractor
from featx.fitting.cells import COLUMN_KINDS, choose_kind, find_ranges, note_codes, read_numbers
from featx.fitting.continuation import record_sources
from featx.fitting.doubt import fit_guard
from featx.fitting.estimate import check_splitter, describe_folds, fit_head, sees_content
from featx.fitting.inputs import read_rows
from featx.fitting.labelled import Inputs
from featx.fitting.multioutput import check_several, describe_outputs
from featx.fitting.options import CheckOptions, HeadOptions
from featx.fitting.ordinal import read_order
from featx.fitting.result import FitResult, FittedImages
from featx.fitting.stack import Member, fit_member, fit_stack, fit_words, read_answers
from featx.fitting.target import StackTarget
from featx.fitting.texts import make_text_extractor
from featx.guard import Guard, KindCells
from featx.heads import make_head
from featx.inference.mean import MeanOfColumns
from featx.pipelines import find_vectorizers, make_frame_of_rows
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import join_groups
from featx.sources.labels import read_label

__all__ = ["KindColumns", "fit_columns"]

_FOLDS = 5


@dataclass(frozen=True)
class KindColumns:
    """Hold the requested columns by kind; the values decide a kind that is None."""

    images: tuple[str, ...]
    text: str | None
    others: Mapping[str, str | None]
    is_mean: bool = False

    @classmethod
    def read(
        cls, image_column: Any, text_column: str | None, columns: Any, combine_images: str = "concatenate"
    ) -> KindColumns:
        """Check the parameters of `featx.fit`."""
        check_choice("combine_images", combine_images, ("concatenate", "mean"))
        images = (image_column,) if isinstance(image_column, str) else tuple(image_column or ())
        columns = [columns] if isinstance(columns, str) else columns or ()
        others = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
        for name, kind in others.items():
            if kind not in (None, *COLUMN_KINDS):
                raise InputError(f'columns: got the kind {kind!r} for {name!r}, expected "number" or "category"')
        names = [*images, *([text_column] if text_column else []), *columns]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"columns: {twice[0]!r} is named twice; each column has one kind")
        if combine_images == "mean" and len(images) < 2:
            raise InputError(
                f'combine_images="mean": {len(images)} column of images, and the mean is that of several; name them in '
                "image_column, or leave combine_images out"
            )
        return cls(images, text_column, others, combine_images == "mean")

    def make_extractors(self, extractor: Any) -> dict[str, Any]:
        """Return the extractor of each kind that needs one: the one that is given, or else the default."""
        extractors: dict[str, Any] = {} if extractor is None else {extractor.kind: extractor}
        if self.images:
            extractors.setdefault("image", FeatureExtractor())
        if self.text is not None and "text" not in extractors:
            extractors["text"] = make_text_extractor()
        return extractors

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each column; "any" for a kind that the values decide."""
        found = dict.fromkeys(self.images, "image") | ({self.text: "text"} if self.text else {})
        return found | {name: kind or "any" for name, kind in self.others.items()}


def fit_columns(
    X: Any,
    y: Any,
    asked: KindColumns,
    extractors: Mapping[str, Any],
    head: HeadOptions,
    check: CheckOptions,
    *,
    target: str | Sequence[str] | None = None,
    separator: str | None = None,
    order: Any = None,
    events: Events | None = None,
) -> FitResult:
    """Fit one member per kind of columns and a final estimator on their left-out answers; see `featx.fit`."""
    log_target = head.log_target
    if not check.estimate:
        raise InputError(
            "estimate=False: the stack of several kinds of columns is fitted on answers for left-out rows, which "
            "are the estimate; leave it out"
        )
    notes: list[str] = []
    events = combine(events)
    columns = target if target is None or isinstance(target, str) or len(target) > 1 else target[0]
    inputs = read_rows(X, y, asked.kinds, target=columns, separator=separator, need_target=True)
    notes += inputs.notes
    several = inputs.outputs.names if inputs.outputs else None
    target_columns = [inputs.target_column] if inputs.target_column else several or ()
    if given := [name for name in target_columns if name in asked.kinds]:
        raise InputError(f"columns: {given[0]!r} is the target as well, and would reveal the answer; leave it out")
    rows, kinds = _find_kinds(inputs, asked, notes)
    if hint := inputs.hint_separator():
        notes.append(hint)
    if inputs.outputs is not None:
        if order is not None:
            raise InputError(f"order={order!r}: several targets per row have no order; leave it out, or fit one target")
        read = inputs.read_several(head.task)
        check_several(read, log_target, events, "row")
        targets = StackTarget(read.task, read.values, read.names, log_target)
    else:
        task, values = inputs.read_labels(head.task, log_target=log_target)
        order = read_order(inputs.levels if order is None else order, values, task)
        targets = StackTarget(task, values, log_target=log_target)
    labelled = np.flatnonzero(~inputs.missing)
    parts, failures = _embed(rows, asked, labelled, extractors, inputs, events)
    failed = {failure.index for failure in failures}
    kept = np.array([i not in failed for i in labelled.tolist()], bool)
    targets, positions = targets.take(kept), labelled[kept]
    parts = [replace(part, features=part.features[kept]) for part in parts]
    frame = make_frame_of_rows([rows[i] for i in positions], kinds)
    every_group = inputs.read_groups(check.groups)
    own = None if every_group is None else every_group[positions]
    features = {part.name: part.features for part in parts}
    duplicates = _find_duplicates(features, {part.name: part.kind for part in parts}, extractors)
    joined = join_groups(duplicates, own)
    folds, together = targets.divide(frame, duplicates, own, check_splitter(check.cv))
    if len(folds) < 2:
        raise InputError("too few rows, or groups, to divide into folds; add rows")
    members = _fit_members(frame, parts, targets, kinds, folds, joined, events)
    stack, answered = fit_stack(members, targets, folds)
    how = describe_folds("row", folds, own, duplicates if together else None)
    scores = {name: targets.score(how, found, folds, joined) for name, found in answered.items()}
    for name, one in scores.items():
        notes.append(f"{name}: {one.metric} {one.value:.3f} of left-out rows")
    name, score = list(scores.items())[-1]
    fitted_guard = None
    if check.guard:
        cells = {column: [rows[i][column] for i in positions] for column in kinds}
        embedded = {next(_list_names([part])): part.features for part in parts}
        known = KindCells(cells, kinds, embedded, find_vectorizers(stack))
        options: dict[str, Any] = {"groups": joined, "log_target": log_target}
        fitted_guard = fit_guard(lambda: Guard.fit_kinds(known, answered[name], **options), "row", notes.append)
    for text in notes:
        events.note(text)
    task, n, classes = targets.task, len(positions), None
    if task != "regression":
        classes = targets.names if task == "multilabel" else tuple(stack.classes_.tolist())
    return FitResult(
        pipeline=stack,
        task=task,
        classes=classes,
        head="stack",
        n_images=n,
        n_unlabelled=int(inputs.missing.sum()),
        score=score,
        duplicates=(),
        to_label=(),
        failures=tuple(failures),
        notes=tuple(notes),
        info={
            "task": task,
            "path_column": None,
            "text_column": asked.text,
            "columns": kinds,
            "ranges": find_ranges([rows[i] for i in positions], kinds),
            **({"combine_images": "mean"} if asked.is_mean else {}),
            "target_column": inputs.target_column,
            **({} if inputs.outputs is None else describe_outputs(inputs)),
            "n": n,
            **targets.count(),
            **({"order": order} if order is not None else {}),
            "head": "stack",
            "sources": record_sources(X, (), ()) if y is None else [],
            "score": score.facts(),
        },
        reason="; ".join(f"{name} {one.metric} {one.value:.3f}" for name, one in scores.items()),
        out_of_fold=answered[name],
        images=FittedImages(
            tuple(inputs.names(positions)),
            [rows[i] for i in positions],
            np.hstack([np.zeros((n, 0), np.float32), *(part.features for part in parts)]),
            own,
        ),
        guard=fitted_guard,
    )


def _find_kinds(inputs: Inputs, asked: KindColumns, notes: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the rows with converted cells, and the kind of each column; the values decide a kind that is None."""
    rows, kinds = [dict(row) for row in inputs.items], asked.kinds
    for name, kind in asked.others.items():
        cells = [row[name] for row in rows]
        if kind is None:
            kinds[name], found = choose_kind(name, cells, inputs.item_names)
            notes += found
        if kinds[name] == "category":
            cells = [None if cell is None else read_label(cell) for cell in cells]
        elif kind is None:
            cells, found = read_numbers(name, cells, inputs.item_names)
            notes += [*found, *note_codes(name, cells)]
        if bad := [row for row, cell in zip(inputs.item_names, cells, strict=True) if cell in (np.inf, -np.inf)]:
            raise InputError(f"column {name!r}, row {bad[0]}: is infinite; fix the cell, or empty it")
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    return rows, kinds


@dataclass(frozen=True, eq=False)
class _EmbeddedColumn:
    """Hold the transformer of a column, or of the mean of several columns, and its features of the rows."""

    kind: str
    columns: Any
    transformer: Any
    features: npt.NDArray[np.float32]

    @property
    def name(self) -> str:
        """The column's name, or all names, without the double underscore that scikit-learn reserves."""
        return ("mean of " + ", ".join(self.columns) if isinstance(self.columns, list) else self.columns).replace(
            "__", "_"
        )


def _embed(
    rows: Sequence[Mapping[str, Any]],
    asked: KindColumns,
    positions: npt.NDArray[np.intp],
    extractors: Mapping[str, Any],
    inputs: Inputs,
    events: Events,
) -> tuple[list[_EmbeddedColumn], list[Failure]]:
    """Embed each image and text once; return the features, and rows with a cell that cannot be read as failures."""
    parts, failures = [], dict[int, Failure]()
    image_columns: list[tuple[str, Any]] = [("image", name) for name in asked.images]
    if asked.is_mean:
        image_columns = [("image", list(asked.images))]
    for kind, columns in [*image_columns, *([("text", asked.text)] if asked.text else [])]:
        transformer = clone(extractors[kind])
        if isinstance(columns, list):
            images = dict.fromkeys(columns, "image")
            cells: Any = make_frame_of_rows([{name: rows[i][name] for name in columns} for i in positions], images)
            transformer = MeanOfColumns(transformer).fit(cells)
            prefix = ""
        else:
            cells, prefix = [rows[i][columns] for i in positions], f"column {columns}: "
        embedded = transformer.embed(cells, events=events)
        for failure in embedded.failures:
            position = int(positions[failure.index])
            failures.setdefault(position, Failure(position, inputs.item_names[position], prefix + failure.reason))
        parts.append(_EmbeddedColumn(kind, columns, transformer, embedded.features))
    return parts, [failures[i] for i in sorted(failures)]


def _find_duplicates(
    features: Mapping[str, npt.NDArray[np.float32]], kinds: Mapping[str, str], extractors: Mapping[str, Any]
) -> npt.NDArray[Any] | None:
    """Return groups of rows that share a near-duplicate image or text; None without duplicates."""
    duplicates = []
    for name, values in features.items():
        extractor = extractors[kinds[name]]
        near = kinds[name] == "text" or sees_content(clone(extractor).fit(None))
        duplicates.append(find_duplicates(values, near=near))
    return join_groups(*(each.groups for each in duplicates if each.n))


def _fit_members(
    frame: Any,
    parts: Sequence[_EmbeddedColumn],
    target: StackTarget,
    kinds: Mapping[str, str],
    folds: list[Any],
    groups: npt.NDArray[Any] | None,
    events: Events,
) -> list[Member]:
    members: list[Member] = []
    task, names = target.task, target.names
    head_name = "ridge" if task == "regression" else "logistic_regression"
    outputs: dict[str, Any] = {} if task != "multilabel" else {"labels": list(names or ())}
    outputs |= {"n_outputs": len(names)} if task == "regression" and names is not None else {}

    def make(n_folds: int) -> Any:
        return make_head(head_name, task=task, cv=n_folds, **outputs)

    for kind, label in (("image", "images"), ("text", "encoder")):
        kind_parts = [part for part in parts if part.kind == kind]
        if not kind_parts:
            continue
        X = np.hstack([part.features for part in kind_parts])
        estimate = target.estimate(make, X, folds, groups, events)
        if estimate is None:
            raise InputError("too few rows of a class to divide into folds; add rows")
        head = estimate.head
        if head is None:
            head = fit_head(make(_FOLDS), X, target.fitted, task, events=events)
        embedding = [(part.name, part.transformer, part.columns) for part in kind_parts]
        # extractors learn nothing, so an empty frame is enough
        columns = ColumnTransformer(embedding).fit(frame[list(_list_names(kind_parts))].iloc[:0])
        pipeline = Pipeline([("columns", columns), ("head", head)])
        members.append(Member(label, pipeline, read_answers(estimate.out_of_fold, len(X))))
    texts = [name for name in kinds if kinds[name] == "text"]
    if texts:
        extractor = next(part.transformer for part in parts if part.kind == "text")
        members.append(fit_words(frame[texts], target, folds, extractor))
    numbers = [name for name in kinds if kinds[name] == "number"]
    categories = [name for name in kinds if kinds[name] == "category"]
    others: list[Any] = []
    if numbers:
        imputed = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        others.append(("numbers", Pipeline([("impute", imputed), ("scale", PowerTransformer())]), numbers))
    if categories:
        others.append(("categories", OneHotEncoder(handle_unknown="ignore", min_frequency=2), categories))
    if others:
        members.append(fit_member("columns", others, frame[[*numbers, *categories]], target, folds))
    return members


def _list_names(parts: Sequence[_EmbeddedColumn]) -> Iterator[str]:
    for part in parts:
        yield from part.columns if isinstance(part.columns, list) else [part.columns]
