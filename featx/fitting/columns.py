"""Fit a stack on images, texts, numbers and categories: one member per kind, weighed by their left-out answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, PowerTransformer, StandardScaler

from featx._events import Events, combine
from featx.errors import Failure, InputError
from featx.fitting.continuation import record_sources
from featx.fitting.estimate import check_splitter, divide, estimate_head, fit_head, score_out_of_fold, sees_content
from featx.fitting.inputs import Inputs, read_rows
from featx.fitting.result import FitResult, count_target
from featx.fitting.rows import make_frame_of_rows
from featx.guard import Guard, KindCells
from featx.heads import OutOfFold, make_head
from featx.pipelines import find_vectorizers
from featx.selection.duplicates import find_duplicates
from featx.selection.folds import join_groups
from featx.selection.target import check_target

__all__ = ["KindColumns", "Member", "fit_columns", "fit_stack", "fit_words", "read_answers", "take_logarithm"]

#: Codes of the same number of digits, such as postcodes, are categories from this length on.
_MIN_DIGITS = 5
_FOLDS = 5
_ALPHAS = np.logspace(-3, 4, 15)


@dataclass(frozen=True)
class KindColumns:
    """Hold the columns of each kind that were asked for; None is a kind that the values decide."""

    images: tuple[str, ...]
    text: str | None
    others: Mapping[str, str | None]

    @classmethod
    def read(cls, image_column: Any, text_column: str | None, columns: Any) -> KindColumns:
        """Check the parameters of `featx.fit`."""
        images = (image_column,) if isinstance(image_column, str) else tuple(image_column or ())
        columns = [columns] if isinstance(columns, str) else columns or ()
        others = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
        for name, kind in others.items():
            if kind not in (None, "number", "category"):
                raise InputError(f'columns: kind {kind!r} of {name!r}, expected "number" or "category"')
        names = [*images, *([text_column] if text_column else []), *others]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"columns: {twice[0]!r} is named twice; each column has one kind")
        return cls(images, text_column, others)

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each column; "any" for those that the values decide."""
        found = dict.fromkeys(self.images, "image") | ({self.text: "text"} if self.text else {})
        return found | {name: kind or "any" for name, kind in self.others.items()}


@dataclass(frozen=True, eq=False)
class Member:
    """Hold one kind of columns: its fitted pipeline, and its answers for left-out rows."""

    name: str
    pipeline: Pipeline
    answers: npt.NDArray[np.float64]


def fit_columns(
    X: Any,
    y: Any,
    asked: KindColumns,
    extractors: Mapping[str, Any],
    *,
    target: str | None,
    task: str | None,
    log_target: bool,
    groups: Any,
    cv: Any,
    estimate: bool,
    guard: bool,
    events: Events | None,
) -> FitResult:
    """Fit one member per kind of columns and a final estimator on their left-out answers; see `featx.fit`."""
    if not estimate:
        raise InputError(
            "estimate=False: several kinds of columns are stacked by their answers for left-out rows, which are the "
            "estimate; leave it out"
        )
    notes: list[str] = []
    events = combine(events)
    inputs = read_rows(X, y, asked.kinds, target=target, need_target=True)
    if inputs.target_column in asked.kinds:
        raise InputError(
            f"columns: {inputs.target_column!r} is the target as well, and would give the answer away; leave it out"
        )
    rows, kinds = _find_kinds(inputs, asked, notes)
    task, values = inputs.read_labels(task, log_target=log_target)
    labelled = np.flatnonzero(~inputs.missing)
    features, failures = _embed(rows, kinds, labelled, extractors, inputs, events)
    failed = {failure.index for failure in failures}
    kept = np.array([i not in failed for i in labelled.tolist()], bool)
    values, positions = values[kept], labelled[kept]
    features = {name: part[kept] for name, part in features.items()}
    check_target(values, task, log_target=log_target, images="readable")
    fitted = np.log(values) if log_target else values
    frame = make_frame_of_rows([rows[i] for i in positions], kinds)
    every_group = inputs.read_groups(groups)
    own = None if every_group is None else every_group[positions]
    duplicates = _find_duplicates(features, kinds, extractors)
    folds, together = divide(frame, fitted, task, duplicates, own, check_splitter(cv))
    joined = join_groups(duplicates, own)
    members = _fit_members(frame, features, fitted, kinds, extractors, folds, task, joined, events)
    stack, answered = fit_stack(members, fitted, values, folds, task, log_target)
    how = f"left-out rows, {len(folds)} folds" + ("" if own is None else ", groups on one side")
    how += ", near-duplicates on one side" if duplicates is not None and together else ""
    factor = len(values) / float(np.mean([len(fit) for fit, _ in folds]))
    scores = {name: score_out_of_fold(how, found, task, factor, joined) for name, found in answered.items()}
    for name, one in scores.items():
        notes.append(f"{name}: {one.metric} {one.value:.3f} of left-out rows")
    name, whole = list(scores.items())[-1]
    fitted_guard = None
    if guard:
        cells = {column: [rows[i][column] for i in positions] for column in kinds}
        known = KindCells(cells, kinds, features, find_vectorizers(stack))
        try:
            fitted_guard = Guard.fit_kinds(known, answered[name], groups=joined)
        except InputError as error:
            notes.append(f"no guard: {error}")
    for text in notes:
        events.note(text)
    return FitResult(
        pipeline=stack,
        task=task,
        classes=tuple(stack.classes_.tolist()) if task == "classification" else None,
        head="stack",
        n_images=len(values),
        n_unlabelled=int(inputs.missing.sum()),
        score=whole,
        duplicates=(),
        to_label=(),
        failures=tuple(failures),
        notes=tuple(notes),
        info={
            "task": task,
            "path_column": None,
            "text_column": asked.text,
            "columns": kinds,
            "target_column": inputs.target_column,
            "n": len(values),
            **count_target(task, values),
            "head": "stack",
            "sources": record_sources(X, (), ()) if y is None else [],
            "score": whole.facts(),
        },
        reason="; ".join(f"{name} {one.metric} {one.value:.3f}" for name, one in scores.items()),
        out_of_fold=answered[name],
        guard=fitted_guard,
    )


def _find_kinds(inputs: Inputs, asked: KindColumns, notes: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Decide which of the other columns are numbers, and convert these."""
    rows, kinds = [dict(row) for row in inputs.items], asked.kinds
    for name, kind in asked.others.items():
        cells = [row[name] for row in rows if row[name] is not None]
        if kind is None:
            texts = [cell.strip() if isinstance(cell, str) else cell for cell in cells]
            digits = {len(text) for text in texts if isinstance(text, str) and re.fullmatch(r"[0-9]+", text)}
            is_code = len(digits) == 1 and min(digits) >= _MIN_DIGITS and len(set(texts)) < len(texts) / 2
            is_code |= any(isinstance(text, str) and re.fullmatch(r"0[0-9]+", text) for text in texts)
            kind = "number" if not is_code and all(map(_is_number, texts)) else "category"
            if is_code and all(map(_is_number, texts)):
                notes.append(f'{name}: codes of digits are categories; columns={{"{name}": "number"}} changes this')
        kinds[name] = kind
        for row in rows:
            cell = row[name]
            if cell is not None and kind == "number" and not _is_number(cell):
                raise InputError(f"column {name!r}: {cell!r} is not a number (use a decimal point)")
            row[name] = None if cell is None else float(cell) if kind == "number" else str(cell)
    return rows, kinds


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _embed(
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    positions: npt.NDArray[np.intp],
    extractors: Mapping[str, Any],
    inputs: Inputs,
    events: Events,
) -> tuple[dict[str, npt.NDArray[np.float32]], list[Failure]]:
    """Embed each column of images and texts once; a row with a cell that cannot be read is a failure."""
    features, failures = {}, dict[int, Failure]()
    for name, kind in kinds.items():
        if kind in extractors:
            embedded = extractors[kind].embed([rows[i][name] for i in positions], events=events)
            features[name] = embedded.features
            for one in embedded.failures:
                at = int(positions[one.index])
                failures.setdefault(at, Failure(at, inputs.item_names[at], f"column {name}: {one.reason}"))
    return features, [failures[i] for i in sorted(failures)]


def _find_duplicates(
    features: Mapping[str, npt.NDArray[np.float32]], kinds: Mapping[str, str], extractors: Mapping[str, Any]
) -> npt.NDArray[Any] | None:
    """Return groups of rows that share a near-duplicate image or text; None if there are none."""
    found = []
    for name, part in features.items():
        extractor = extractors[kinds[name]]
        near = kinds[name] == "text" or sees_content(clone(extractor).fit(None))
        found.append(find_duplicates(part, near=near))
    return join_groups(*(each.groups for each in found if each.n))


def _fit_members(
    frame: Any,
    features: Mapping[str, npt.NDArray[np.float32]],
    y: npt.NDArray[Any],
    kinds: Mapping[str, str],
    extractors: Mapping[str, Any],
    folds: list[Any],
    task: str,
    groups: npt.NDArray[Any] | None,
    events: Events,
) -> list[Member]:
    members = []
    for kind, label in (("image", "images"), ("text", "encoder")):
        names = [name for name in kinds if kinds[name] == kind]
        if not names:
            continue
        X = np.hstack([features[name] for name in names])
        named = "logistic_regression" if task == "classification" else "ridge"

        def make(inner: int, named: str = named) -> Any:
            return make_head(named, task=task, cv=inner)

        estimate = estimate_head(make, X, y, task, groups=groups, cv=folds, events=events)
        if estimate is None:
            raise InputError("too few rows of a class to divide into folds; add rows")
        head = estimate.head if estimate.head is not None else fit_head(make(_FOLDS), X, y, task, events=events)
        embedding = [(name, clone(extractors[kind]), name) for name in names]
        # extractors learn nothing from rows, so the first row fits them
        columns = ColumnTransformer(embedding).fit(frame[names].iloc[:1])
        pipeline = Pipeline([("columns", columns), ("head", head)])
        members.append(Member(label, pipeline, read_answers(estimate.out_of_fold, len(y))))
    texts = [name for name in kinds if kinds[name] == "text"]
    if texts:
        members.append(fit_words(frame[texts], y, folds, task))
    numbers = [name for name in kinds if kinds[name] == "number"]
    categories = [name for name in kinds if kinds[name] == "category"]
    parts: list[Any] = []
    if numbers:
        imputed = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        parts.append(("numbers", Pipeline([("impute", imputed), ("scale", PowerTransformer())]), numbers))
    if categories:
        parts.append(("categories", OneHotEncoder(handle_unknown="ignore", min_frequency=2), categories))
    if parts:
        members.append(_fit_member("columns", parts, frame[[*numbers, *categories]], y, folds, task))
    return members


def fit_words(frame: Any, y: npt.NDArray[Any], folds: list[Any], task: str) -> Member:
    """Fit words and pairs of words (TF-IDF) of all columns of a data frame of texts."""
    words = [(name, TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), name) for name in frame.columns]
    return _fit_member("words", words, frame, y, folds, task)


def _fit_member(name: str, parts: list[Any], frame: Any, y: npt.NDArray[Any], folds: list[Any], task: str) -> Member:
    """Fit a member whose transformers learn from the rows, so that they are fitted again in each fold."""
    head = LogisticRegression(C=10, max_iter=1000) if task == "classification" else RidgeCV(_ALPHAS)
    pipeline = Pipeline([("columns", ColumnTransformer(parts)), ("head", head)])
    classes = np.unique(y) if task == "classification" else np.zeros(1)
    answers = np.zeros((len(y), len(classes)))
    for fit, out in folds:
        own = clone(pipeline).fit(frame.iloc[fit], y[fit])
        known = np.searchsorted(classes, own.classes_) if task == "classification" else [0]
        answers[np.ix_(out, known)] = _answer(own, frame.iloc[out], task)
    return Member(name, pipeline.fit(frame, y), answers)


def _answer(estimator: Any, X: Any, task: str) -> npt.NDArray[np.float64]:
    return np.asarray(estimator.predict_proba(X) if task == "classification" else estimator.predict(X)[:, None])


def read_answers(found: OutOfFold, n: int) -> npt.NDArray[np.float64]:
    """Return probabilities, or numbers in one column, in the order of n rows."""
    values = found.predicted[:, None] if found.probabilities is None else found.probabilities
    answers = np.zeros((n, values.shape[1]))
    answers[found.rows] = values
    return answers


def fit_stack(
    members: list[Member],
    fitted: npt.NDArray[Any],
    values: npt.NDArray[Any],
    folds: list[Any],
    task: str,
    log_target: bool,
) -> tuple[Any, dict[str, OutOfFold]]:
    """Fit the final estimator; return the stack, and the answers for left-out rows of each member and of the stack.

    The final estimator is fitted again without each fold.
    """
    is_classifier = task == "classification"
    parts = [member.answers for member in members]
    binary = is_classifier and parts[0].shape[1] == 2
    Z = np.hstack([part[:, 1:] if binary else part for part in parts])  # as the stack of scikit-learn has them
    encoder = LabelEncoder().fit(fitted) if is_classifier else None
    target = fitted if encoder is None else encoder.transform(fitted)
    last = LogisticRegression(max_iter=1000) if is_classifier else RidgeCV(_ALPHAS)
    # holds the mean answers of the members, against which `featx.explain` measures contributions
    final = Pipeline([("centre", StandardScaler(with_std=False)), ("head", last)])
    crossed = np.zeros((len(fitted), parts[0].shape[1]))
    rows = np.concatenate([out for _, out in folds])
    for _, out in folds:
        rest = np.setdiff1d(rows, out)
        own = clone(final).fit(Z[rest], target[rest])
        known = own.classes_ if is_classifier else [0]
        crossed[np.ix_(out, known)] = _answer(own, Z[out], task)
    estimator_class = StackingClassifier if is_classifier else StackingRegressor
    stack = estimator_class([(m.name, m.pipeline) for m in members], final_estimator=final)
    stack.estimators_ = [member.pipeline for member in members]
    stack.named_estimators_ = dict(stack.estimators)
    stack.stack_method_ = ["predict_proba" if is_classifier else "predict"] * len(members)
    stack.final_estimator_ = clone(final).fit(Z[rows], target[rows])
    if encoder is not None:
        stack._label_encoder, stack.classes_ = encoder, encoder.classes_
    answered = {member.name: part for member, part in zip(members, parts, strict=True)}
    if len(members) > 1:
        answered["all kinds, stacked"] = crossed
    found = {}
    for name, part in answered.items():
        codes = part.argmax(axis=1)[rows]
        predicted = np.exp(part[rows, 0]) if log_target else part[rows, 0]
        found[name] = OutOfFold(
            rows=rows,
            folds=np.repeat(np.arange(len(folds)), [len(out) for _, out in folds]),
            y=values[rows],
            predicted=predicted if encoder is None else encoder.classes_[codes],
            classes=None if encoder is None else encoder.classes_,
            probabilities=part[rows].astype(np.float32) if is_classifier else None,
            candidates=(predicted if encoder is None else codes)[:, None],
            losses=np.zeros((len(rows), 1), np.float32),
        )
    return take_logarithm(stack) if log_target else stack, found


def take_logarithm(fitted: Any) -> Any:
    """Return a fitted regressor of the logarithm as a fitted one of the number."""
    outer = TransformedTargetRegressor(RidgeCV(), func=np.log, inverse_func=np.exp).fit([[0.0], [1.0]], [1.0, 2.0])
    outer.regressor = outer.regressor_ = fitted
    return outer
