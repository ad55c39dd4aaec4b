"""Fit the members of a stack, and a final estimator on their answers for left-out rows."""

from __future__ import annotations

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

from featx.fitting.target import StackTarget
from featx.heads import LabelwiseClassifier, MultiLabelStack, MultiRegressionStack, OutOfFold
from featx.heads.folds import Folds, concatenate
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


def fit_words(frame: Any, target: StackTarget, folds: Folds, extractor: Any) -> Member:
    """Fit words (TF-IDF) of all columns of a data frame of texts: tokens of the encoder, and pairs of tokens."""
    encoder = list_backbones(extractor.backbone)[0]
    words = [(name, make_words(encoder, precision=extractor.precision), name) for name in frame.columns]
    return fit_member("words", words, frame, target, folds)


def fit_member(name: str, parts: list[Any], frame: Any, target: StackTarget, folds: Folds) -> Member:
    """Fit a member whose transformers learn from the rows, so that they are fitted again in each fold."""
    y, task, names = target.fitted, target.task, target.names
    head: Any = LogisticRegression(C=10, max_iter=1000)
    if task == "multilabel":
        head = LabelwiseClassifier(head, labels=list(names or ()))
    elif task == "regression":
        head = RidgeCV(_ALPHAS, alpha_per_target=names is not None)
    pipeline = Pipeline([("columns", ColumnTransformer(parts)), ("head", head)])
    classes = np.unique(y) if task == "classification" else None
    n_answers = len(names) if names is not None else 1 if classes is None else len(classes)
    answers = np.zeros((len(y), n_answers))
    for fit, out in folds:
        own = clone(pipeline).fit(frame.iloc[fit], y[fit])
        known = np.arange(answers.shape[1]) if classes is None else np.searchsorted(classes, own.classes_)
        answers[np.ix_(out, known)] = _answer(own, frame.iloc[out], task)
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


def fit_stack(members: list[Member], target: StackTarget, folds: Folds) -> tuple[Any, dict[str, OutOfFold]]:
    """Fit the final estimator; return the stack, and the answers for left-out rows of each member and of the stack.

    The final estimator is fitted again without each fold.
    """
    stack, crossed = (_weigh if target.names is None else _weigh_several)(members, target, folds)
    answered = {member.name: member.answers for member in members}
    if len(members) > 1:
        answered["all kinds, stacked"] = crossed
    found = {name: _read_out_of_fold(part, target, folds) for name, part in answered.items()}
    return take_logarithm(stack) if target.log_target else stack, found


def _weigh(members: list[Member], target: StackTarget, folds: Folds) -> tuple[Any, npt.NDArray[np.float64]]:
    """Fit the stack of one class or number, and return it with its answers for left-out rows."""
    is_classifier = target.task == "classification"
    parts = [member.answers for member in members]
    binary = is_classifier and parts[0].shape[1] == 2
    Z = np.hstack([part[:, 1:] if binary else part for part in parts])  # as the stack of scikit-learn has them
    encoder = LabelEncoder().fit(target.fitted) if is_classifier else None
    y = target.fitted if encoder is None else encoder.transform(target.fitted)
    last = LogisticRegression(max_iter=1000) if is_classifier else RidgeCV(_ALPHAS)
    # holds the mean answers of the members, against which `featx.explain` measures contributions
    final = Pipeline([("centre", StandardScaler(with_std=False)), ("head", last)])
    crossed = np.zeros((len(y), parts[0].shape[1]))
    rows, _ = concatenate(folds)
    for _, out in folds:
        rest = np.setdiff1d(rows, out)
        own = clone(final).fit(Z[rest], y[rest])
        known = np.asarray(own.classes_ if is_classifier else [0])
        crossed[np.ix_(out, known)] = _answer(own, Z[out], target.task)
    estimator_class = StackingClassifier if is_classifier else StackingRegressor
    stack = estimator_class([(m.name, m.pipeline) for m in members], final_estimator=final)
    stack.estimators_ = [member.pipeline for member in members]
    stack.named_estimators_ = dict(stack.estimators)
    stack.stack_method_ = ["predict_proba" if is_classifier else "predict"] * len(members)
    stack.final_estimator_ = clone(final).fit(Z[rows], y[rows])
    if encoder is not None:
        stack._label_encoder, stack.classes_ = encoder, encoder.classes_
    return stack, crossed


def _weigh_several(members: list[Member], target: StackTarget, folds: Folds) -> tuple[Any, npt.NDArray[np.float64]]:
    """Fit the stack of several labels or numbers, and return it with its answers for left-out rows."""
    is_labels, Y = target.task == "multilabel", target.fitted
    named = [(member.name, member.pipeline) for member in members]
    stack: Any = MultiLabelStack(named, labels=list(target.names or ())) if is_labels else MultiRegressionStack(named)
    rows, _ = concatenate(folds)
    crossed = np.zeros(Y.shape)
    for _, out in folds if len(members) > 1 else ():
        rest = np.setdiff1d(rows, out)
        own = clone(stack).join([], [member.answers[rest] for member in members], Y[rest])
        scores = own.combine([member.answers[out] for member in members])
        crossed[out] = expit(scores) if is_labels else scores
    stack.join([member.pipeline for member in members], [member.answers[rows] for member in members], Y[rows])
    return stack, crossed


def _read_out_of_fold(answers: npt.NDArray[np.float64], target: StackTarget, folds: Folds) -> OutOfFold:
    """Return answers in the order of all rows as those of the folds."""
    rows, numbers = concatenate(folds)
    answers, candidates, classes = answers[rows], np.zeros(len(rows)), None
    if target.task == "multilabel":
        classes, predicted = np.array(target.names), (answers > 0.5).astype(int)
    elif target.task == "classification":
        classes, candidates = np.unique(target.values), answers.argmax(axis=1)
        predicted = classes[candidates]
    else:
        predicted = np.exp(answers) if target.log_target else answers
        if target.names is None:
            predicted = candidates = predicted[:, 0]
    return OutOfFold(
        rows=rows,
        folds=numbers,
        y=target.values[rows],
        predicted=predicted,
        classes=classes,
        probabilities=None if classes is None else answers.astype(np.float32),
        candidates=candidates[:, None],
        losses=np.zeros((len(rows), 1), np.float32),
    )


def take_logarithm(fitted: Any) -> Any:
    """Return a fitted regressor of the logarithm as a fitted regressor of the number."""
    outer = TransformedTargetRegressor(RidgeCV(), func=np.log, inverse_func=np.exp).fit([[0.0], [1.0]], [1.0, 2.0])
    outer.regressor = outer.regressor_ = fitted
    return outer
