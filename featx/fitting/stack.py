"""Fit the members of a stack, and a final estimator on their answers for left-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler

from featx.heads import LabelwiseClassifier, MultiLabelStack, MultiRegressionStack, OutOfFold
from featx.inference.spec import list_backbones
from featx.text import make_words

__all__ = ["Member", "fit_member", "fit_stack", "fit_words", "read_answers", "take_logarithm"]

_ALPHAS = np.logspace(-3, 4, 15)


@dataclass(frozen=True, eq=False)
class Member:
    """Hold the fitted pipeline of one kind of columns, and its answers for left-out rows."""

    name: str
    pipeline: Pipeline
    answers: npt.NDArray[np.float64]


def fit_words(
    frame: Any,
    y: npt.NDArray[Any],
    folds: list[Any],
    task: str,
    extractor: Any,
    names: Sequence[str] | None = None,
) -> Member:
    """Fit a member on the words (TF-IDF) of a data frame of texts: tokens of the encoder, and pairs of tokens.

    ``names`` are the names of several labels or numbers.
    """
    encoder = list_backbones(extractor.backbone)[0]
    words = [(name, make_words(encoder, precision=extractor.precision), name) for name in frame.columns]
    return fit_member("words", words, frame, y, folds, task, names)


def fit_member(
    name: str,
    parts: list[Any],
    frame: Any,
    y: npt.NDArray[Any],
    folds: list[Any],
    task: str,
    names: Sequence[str] | None,
) -> Member:
    """Fit a member whose transformers learn from the rows; they are fitted again in each fold."""
    head: Any = LogisticRegression(C=10, max_iter=1000)
    if task == "multilabel":
        head = LabelwiseClassifier(head, labels=list(names or ()))
    elif task == "regression":
        head = RidgeCV(_ALPHAS, alpha_per_target=names is not None)
    pipeline = Pipeline([("columns", ColumnTransformer(parts)), ("head", head)])
    if names is not None:
        answers = np.zeros(y.shape)
        for fit, out in folds:
            answers[out] = _answer(clone(pipeline).fit(frame.iloc[fit], y[fit]), frame.iloc[out], task)
        return Member(name, pipeline.fit(frame, y), answers)
    classes = np.unique(y) if task == "classification" else np.zeros(1)
    answers = np.zeros((len(y), len(classes)))
    for fit, out in folds:
        fold_pipeline = clone(pipeline).fit(frame.iloc[fit], y[fit])
        codes = np.searchsorted(classes, fold_pipeline.classes_) if task == "classification" else [0]
        answers[np.ix_(out, codes)] = _answer(fold_pipeline, frame.iloc[out], task)
    return Member(name, pipeline.fit(frame, y), answers)


def _answer(estimator: Any, X: Any, task: str) -> npt.NDArray[np.float64]:
    answers = estimator.predict(X) if task == "regression" else estimator.predict_proba(X)
    return np.reshape(answers, (len(answers), -1))


def read_answers(found: OutOfFold, n: int) -> npt.NDArray[np.float64]:
    """Return left-out answers in the order of n rows: probabilities, or numbers in one column."""
    numbers = found.predicted if found.probabilities is None else found.probabilities
    values = np.reshape(numbers, (len(numbers), -1))
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
    names: Sequence[str] | None = None,
) -> tuple[Any, dict[str, OutOfFold]]:
    """Fit the final estimator; return the stack, and the left-out answers of each member and of the stack.

    The final estimator is fitted again without each fold. ``names`` are the names of several labels or numbers.
    """
    if names is not None:
        return _fit_several_stack(members, fitted, values, folds, task, log_target, names)
    is_classifier = task == "classification"
    parts = [member.answers for member in members]
    binary = is_classifier and parts[0].shape[1] == 2
    Z = np.hstack(
        [part[:, 1:] if binary else part for part in parts]
    )  # the columns that scikit-learn's stack passes on
    encoder = LabelEncoder().fit(fitted) if is_classifier else None
    target = fitted if encoder is None else encoder.transform(fitted)
    head = LogisticRegression(max_iter=1000) if is_classifier else RidgeCV(_ALPHAS)
    # the scaler holds the members' mean answers, which `featx.explain` measures contributions against
    final = Pipeline([("centre", StandardScaler(with_std=False)), ("head", head)])
    stacked = np.zeros((len(fitted), parts[0].shape[1]))
    rows = np.concatenate([out for _, out in folds])
    for _, out in folds:
        kept = np.setdiff1d(rows, out)
        fold_estimator = clone(final).fit(Z[kept], target[kept])
        columns = fold_estimator.classes_ if is_classifier else [0]
        stacked[np.ix_(out, columns)] = _answer(fold_estimator, Z[out], task)
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
        answered["all kinds, stacked"] = stacked
    out_of_fold = {}
    for name, part in answered.items():
        if encoder is None:
            predicted = np.exp(part[:, 0]) if log_target else part[:, 0]
            out_of_fold[name] = _read_out_of_fold(folds, values, predicted)
        else:
            codes = part.argmax(axis=1)
            out_of_fold[name] = _read_out_of_fold(folds, values, encoder.classes_[codes], encoder.classes_, part, codes)
    return take_logarithm(stack) if log_target else stack, out_of_fold


def _fit_several_stack(
    members: list[Member],
    fitted: npt.NDArray[Any],
    values: npt.NDArray[Any],
    folds: list[Any],
    task: str,
    log_target: bool,
    names: Sequence[str],
) -> tuple[Any, dict[str, OutOfFold]]:
    """Fit the weights of several labels or numbers; `fit_stack` does so for one target."""
    is_labels = task == "multilabel"
    named = [(member.name, member.pipeline) for member in members]
    stack: Any = MultiLabelStack(named, labels=list(names)) if is_labels else MultiRegressionStack(named)
    rows = np.concatenate([out for _, out in folds])
    answered = {member.name: member.answers for member in members}
    if len(members) > 1:
        stacked = np.zeros(fitted.shape)
        for _, out in folds:
            kept = np.setdiff1d(rows, out)
            fold_stack = clone(stack).join([], [member.answers[kept] for member in members], fitted[kept])
            scores = fold_stack.combine([member.answers[out] for member in members])
            stacked[out] = expit(scores) if is_labels else scores
        answered["all kinds, stacked"] = stacked
    stack.join([member.pipeline for member in members], [member.answers[rows] for member in members], fitted[rows])
    out_of_fold = {}
    for name, part in answered.items():
        if is_labels:
            out_of_fold[name] = _read_out_of_fold(folds, values, (part > 0.5).astype(int), np.array(names), part)
        else:
            out_of_fold[name] = _read_out_of_fold(folds, values, np.exp(part) if log_target else part)
    return take_logarithm(stack) if log_target else stack, out_of_fold


def _read_out_of_fold(
    folds: list[Any],
    values: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    classes: npt.NDArray[Any] | None = None,
    probabilities: npt.NDArray[np.float64] | None = None,
    codes: npt.NDArray[np.intp] | None = None,
) -> OutOfFold:
    """Return answers, which are in the order of all rows, fold by fold; ``codes`` are positions in the classes."""
    rows = np.concatenate([out for _, out in folds])
    candidates = codes if codes is not None else predicted if predicted.ndim == 1 else np.zeros(len(predicted))
    return OutOfFold(
        rows=rows,
        folds=np.repeat(np.arange(len(folds)), [len(out) for _, out in folds]),
        y=values[rows],
        predicted=predicted[rows],
        classes=classes,
        probabilities=None if probabilities is None else probabilities[rows].astype(np.float32),
        candidates=candidates[rows, None],
        losses=np.zeros((len(rows), 1), np.float32),
    )


def take_logarithm(fitted: Any) -> Any:
    """Return a fitted regressor of the logarithm as a fitted regressor of the number."""
    outer = TransformedTargetRegressor(RidgeCV(), func=np.log, inverse_func=np.exp).fit([[0.0], [1.0]], [1.0, 2.0])
    outer.regressor = outer.regressor_ = fitted
    return outer
