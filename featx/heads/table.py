"""Map names of heads to scikit-learn classifiers and regressors that suit features.

All heads are plain scikit-learn estimators and work without the rest of featx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import SGDRegressor
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVR

from featx._validation import check_choice, suggest
from featx.errors import InputError
from featx.heads.calibration import TemperatureScaledClassifier
from featx.heads.labelwise import LabelwiseClassifier
from featx.heads.linear import (
    LinearSVCPath,
    LogisticRegressionPath,
    RidgeClassifierPath,
    RidgeRegressionPath,
)
from featx.heads.multioutput import MultiLabelPath, RidgeMultiRegressionPath
from featx.heads.path import GROWTH, PathEstimator
from featx.heads.preprocessing import SignedSquareRoot
from featx.heads.private import PrivateClassifier
from featx.heads.zero_shot import ZeroShotClassifier, embed_classes

__all__ = [
    "DEFAULT_HEADS",
    "HEADS",
    "TASKS",
    "Head",
    "choose_default_head",
    "find_path",
    "learns_in_parts",
    "make_head",
    "sgd_candidates",
]

Estimator = Any
TASKS = ("classification", "multilabel", "regression")
DEFAULT_HEADS = {
    "classification": "logistic_regression",
    "multilabel": "logistic_regression",
    "regression": "ridge",
}
#: Number of samples times classes above which logistic regression takes many minutes (see benchmarks/RESULTS.md).
_MAX_SAMPLES_TIMES_CLASSES = 20_000_000
#: Candidates for the strength of sgd's penalty, the weakest first.
_SGD_ALPHAS = {"classification": (0.1, 1.0, 10.0), "regression": (0.01, 0.1, 1.0)}
#: Step size for the squared error, times the number of features; above 2 the fit diverges.
_STEP_TIMES_FEATURES = 0.064


@dataclass(frozen=True)
class Settings:
    """Parameters of all heads: folds of their own cross-validation, random state, and weights of the classes."""

    cv: Any = 5
    random_state: int = 0
    class_weight: Any = None


@dataclass(frozen=True)
class Head:
    """A row of the table `HEADS`.

    Parameters
    ----------
    what : str
        One line of description.
    classifier, regressor : callable or None
        Takes `Settings` and returns an unfitted estimator.
    grid : mapping of str to sequence
        Values that a search tries for parameters of the innermost estimator, if it has them.
    is_weighted : bool
        True if the classifier takes weights of classes.
    """

    what: str
    classifier: Callable[[Settings], Estimator] | None
    regressor: Callable[[Settings], Estimator] | None
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    is_weighted: bool = False


def _rooted(estimator: Estimator) -> Estimator:
    return make_pipeline(SignedSquareRoot(), estimator)


def _scaled(estimator: Estimator) -> Estimator:
    return make_pipeline(StandardScaler(), estimator)


def _calibrated(estimator: Estimator, settings: Settings, growth: float = 0.0) -> Estimator:
    return TemperatureScaledClassifier(estimator, cv=settings.cv, growth=growth)


def _target_scaled(estimator: Estimator) -> Estimator:
    """Standardise the target, for estimators with an absolute margin or step size."""
    return TransformedTargetRegressor(_scaled(estimator), transformer=StandardScaler())


def _weighted_path(kind: type[Any]) -> Callable[[Settings], Estimator]:
    # the roots belong to the pipeline, and may be overwritten
    return lambda settings: _rooted(kind(cv=settings.cv, class_weight=settings.class_weight, copy=False))


_HIDDEN: dict[str, Any] = {
    "hidden_layer_sizes": (1024,),
    "solver": "sgd",
    "learning_rate_init": 0.01,
    "momentum": 0.9,
    "max_iter": 1000,
}

#: Maps names to heads. A new head is a row here.
HEADS: dict[str, Head] = {
    "logistic_regression": Head(
        "square roots of features; cross-validation chooses the strength of its L2 penalty",
        _weighted_path(LogisticRegressionPath),
        None,
        is_weighted=True,
    ),
    "ridge": Head(
        "linear model on square roots of features; cross-validation chooses its penalty",
        _weighted_path(RidgeClassifierPath),
        lambda settings: _rooted(RidgeRegressionPath(cv=settings.cv, copy=False)),
        is_weighted=True,
    ),
    "linear_svm": Head(
        "linear support vector machine; for classes cross-validation chooses its penalty",
        _weighted_path(LinearSVCPath),
        lambda settings: _target_scaled(LinearSVR(C=0.001, max_iter=10_000, random_state=settings.random_state)),
        {"C": (0.0001, 0.001, 0.01)},
        is_weighted=True,
    ),
    "rbf_svm": Head(
        "scaled support vector machine with a Gaussian kernel; slow, because its calibration fits it four times",
        lambda settings: _scaled(_calibrated(SVC(C=10, class_weight=settings.class_weight), settings, GROWTH)),
        lambda settings: _target_scaled(SVR(C=10)),
        {"C": (1, 10, 100)},
        is_weighted=True,
    ),
    "knn": Head(
        "the five nearest neighbours by cosine",
        lambda settings: make_pipeline(
            Normalizer(), _calibrated(KNeighborsClassifier(weights="distance", algorithm="brute"), settings)
        ),
        lambda settings: make_pipeline(Normalizer(), KNeighborsRegressor(weights="distance", algorithm="brute")),
        {"n_neighbors": (3, 5, 10, 20)},
    ),
    "mlp": Head(
        "scaled; one hidden layer of 1,024 ReLU units by stochastic gradient descent; slow: four trainings",
        lambda settings: _scaled(
            _calibrated(MLPClassifier(**_HIDDEN, random_state=settings.random_state), settings, GROWTH)
        ),
        lambda settings: _target_scaled(
            MLPRegressor(**_HIDDEN | {"learning_rate_init": 0.001}, random_state=settings.random_state)
        ),
    ),
    "random_forest": Head(
        "hundreds of trees; slow",
        lambda settings: _calibrated(
            RandomForestClassifier(
                400,
                max_samples=0.4,  # each row is left out by 270 trees, which calibrate as well as all trees
                oob_score=True,
                n_jobs=-1,
                class_weight=settings.class_weight,
                random_state=settings.random_state,
            ),
            settings,
        ),
        lambda settings: RandomForestRegressor(300, max_features="sqrt", random_state=settings.random_state),
        is_weighted=True,
    ),
    "gradient_boosting": Head(
        "boosted trees on histograms; the slowest, with 100 trees per class and four fits",
        lambda settings: _calibrated(
            HistGradientBoostingClassifier(
                max_features=0.1, class_weight=settings.class_weight, random_state=settings.random_state
            ),
            settings,
            GROWTH,
        ),
        lambda settings: HistGradientBoostingRegressor(max_features=0.1, random_state=settings.random_state),
        is_weighted=True,
    ),
    "sgd": Head(
        "scaled linear model by stochastic gradient descent: for many classes, and more rows than memory",
        lambda settings: _scaled(
            # without a hidden layer this is multinomial logistic regression in batches; SGDClassifier
            # fits each class against the rest, which is slower, and its probabilities are far off
            MLPClassifier(
                hidden_layer_sizes=(),
                alpha=_SGD_ALPHAS["classification"][-1],
                learning_rate_init=0.001,
                max_iter=1000,
                tol=1e-3,
                random_state=settings.random_state,
            )
        ),
        lambda settings: _target_scaled(
            # averaged, because a constant step never settles; small enough for thousands of features
            SGDRegressor(
                alpha=_SGD_ALPHAS["regression"][-1],
                learning_rate="constant",
                eta0=_STEP_TIMES_FEATURES / 1280,
                average=True,
                tol=1e-4,
                random_state=settings.random_state,
            )
        ),
    ),
}


def choose_default_head(task: str, n_samples: int, n_classes: int = 0) -> str:
    """Choose a head: ridge for numbers; for classes logistic regression, or sgd if the former would take many minutes.

    Examples
    --------
    >>> from featx.heads import choose_default_head
    >>> choose_default_head("classification", 5000, 1000), choose_default_head("classification", 50_000, 1000)
    ('logistic_regression', 'sgd')
    """
    if task == "classification" and n_samples * n_classes > _MAX_SAMPLES_TIMES_CLASSES:
        return "sgd"
    return DEFAULT_HEADS[task]


def sgd_candidates(task: str, n_features: int) -> list[dict[str, float]]:
    """Return candidates for the parameters of sgd's last step, from the weakest penalty to the strongest.

    The step sizes are smaller for more features.

    Examples
    --------
    >>> from featx.heads import sgd_candidates
    >>> sgd_candidates("classification", 1280)
    [{'alpha': 0.1}, {'alpha': 1.0}, {'alpha': 10.0}]
    """
    step = {} if task == "classification" else {"eta0": _STEP_TIMES_FEATURES / n_features}
    return [{"alpha": alpha, **step} for alpha in _SGD_ALPHAS[task]]


def find_path(head: Estimator) -> Estimator | None:
    """Return the last step of a head if it chooses its penalty along a path, such as `LogisticRegressionPath`.

    It is found inside pipelines and transformed targets.

    Examples
    --------
    >>> from featx.heads import find_path, make_head
    >>> find_path(make_head()), find_path(make_head("knn"))
    (LogisticRegressionPath(copy=False), None)
    """
    while True:
        if isinstance(head, Pipeline):
            head = head[-1]
        elif isinstance(head, TransformedTargetRegressor):
            head = getattr(head, "regressor_", head.regressor)
        else:
            return head if isinstance(head, PathEstimator) else None


def learns_in_parts(name: str, task: str) -> bool:
    """Return True if `featx.out_of_core` can fit a head of `HEADS` without all rows in memory.

    Examples
    --------
    >>> from featx.heads import HEADS, learns_in_parts
    >>> [name for name in HEADS if learns_in_parts(name, "classification")]
    ['mlp', 'sgd']
    """
    if task == "multilabel":
        return False
    head = make_head(name, task=task)
    while isinstance(head, TransformedTargetRegressor):
        head = head.regressor
    return isinstance(head, Pipeline) and all(hasattr(step, "partial_fit") for _, step in head.steps)


def make_head(
    name: str | None = None,
    *,
    task: str = "classification",
    log_target: bool = False,
    cv: Any = 5,
    random_state: int = 0,
    class_weight: Any = None,
    epsilon: float | None = None,
    delta: float | None = None,
    labels: Sequence[str] | None = None,
    n_outputs: int = 1,
    classes: Sequence[str] | None = None,
    template: str | list[str] = "a photo of a {}",
    text_extractor: Any = None,
) -> Estimator:
    """Make an unfitted head.

    Parameters
    ----------
    name : str or None, default=None
        A key of `HEADS`. None is logistic regression for classes and ridge for numbers;
        `choose_default_head` also considers the size of the data. ``"private"`` is `PrivateClassifier`,
        which no search tries.
    task : {"classification", "multilabel", "regression"}, default="classification"
        Every classifier has ``predict_proba``. With ``"multilabel"`` each row has several labels or no label, as a
        matrix of 0 and 1. The linear heads solve all labels together; other heads are fitted once per label.
    log_target : bool, default=False
        For a regression with a positive target and relative errors: fit the logarithm and
        predict the value.
    cv : int, splitter or iterable of (train, test), default=5
        Folds of the head's own cross-validation. For ``"rbf_svm"``, at most the number of samples
        of the smallest class.
    random_state : int, default=0
        Seed of the heads that draw random numbers.
    class_weight : "balanced", mapping of label to weight, or None, default=None
        Weights of the classes, as in scikit-learn: "balanced" gives all classes the same weight. With several labels,
        each label is balanced against its absence, and a mapping holds the weight of the rows with a label.
    epsilon, delta : float or None, default=None
        Budget of ``"private"``. None is 1.0 and 1e-5.
    labels : sequence of str or None, default=None
        With ``task="multilabel"``, names of the labels, in the order of the columns.
    n_outputs : int, default=1
        Number of targets per row of a regression.
    classes : sequence of str or None, default=None
        Names of the classes of ``"zero_shot"``, which is `ZeroShotClassifier`. It needs no labels, only an image
        tower before it.
    template : str or list of str, default="a photo of a {}"
        Sentence around a class name for ``"zero_shot"``; the embeddings of several sentences are averaged.
    text_extractor : TextExtractor or None, default=None
        The text tower of the same pair, for ``"zero_shot"``. It is used only now, and is not part of the head.

    Returns
    -------
    estimator
        A scikit-learn classifier or regressor.

    Raises
    ------
    InputError
        If the name is unknown, or parameters do not fit together.

    Examples
    --------
    >>> from featx.heads import make_head
    >>> make_head()[-1]
    LogisticRegressionPath(copy=False)
    >>> make_head("ridge", class_weight="balanced")[-1]
    RidgeClassifierPath(class_weight='balanced', copy=False)
    """
    check_choice("task", task, TASKS)
    if name is None:
        name = DEFAULT_HEADS[task]
    budget: dict[str, Any] = {
        key: value for key, value in (("epsilon", epsilon), ("delta", delta)) if value is not None
    }
    if name == "zero_shot":
        if task != "classification" or classes is None or text_extractor is None:
            raise InputError('head="zero_shot": expected a classification with classes=[...] and text_extractor=...')
        return ZeroShotClassifier(list(classes), embed_classes(classes, template, text_extractor))
    if classes is not None or text_extractor is not None:
        raise InputError(f'head={name!r}: only head="zero_shot" takes classes and text_extractor')
    if name == "private":
        if task != "classification":
            raise InputError('head="private": cannot predict numbers; it releases sums of classes')
        if class_weight is not None:
            raise InputError(f'class_weight={class_weight!r}: head="private" takes no weights of classes')
        return PrivateClassifier(**budget)
    for key, value in budget.items():
        raise InputError(f'{key}={value!r}: only head="private" has a budget')
    if name not in HEADS:
        raise InputError(f"head={name!r}: {suggest(name, HEADS)}expected one of {', '.join(HEADS)}")
    if log_target and task != "regression":
        raise InputError("log_target=True: only a regression has a target with a logarithm")
    make = HEADS[name].regressor if task == "regression" else HEADS[name].classifier
    if make is None:
        able = ", ".join(key for key, head in HEADS.items() if head.regressor)
        raise InputError(f"head={name!r}: cannot predict numbers; for a regression use one of {able}")
    if class_weight is not None and not (task != "regression" and HEADS[name].is_weighted):
        able = ", ".join(key for key, head in HEADS.items() if head.is_weighted)
        got = f"head={name!r}" if task != "regression" else "a regression"
        raise InputError(f"class_weight={class_weight!r}: {got} takes no weights of classes; choose one of {able}")
    if task == "multilabel":
        of_labels = class_weight if isinstance(class_weight, Mapping) else None
        made = make(Settings(cv, random_state, None if of_labels else class_weight))
        return _per_label(made, labels, of_labels)
    estimator = make(Settings(cv, random_state, class_weight))
    if n_outputs > 1:
        estimator = _per_number(estimator)
    if log_target:
        return TransformedTargetRegressor(estimator, func=np.log, inverse_func=np.exp)
    return estimator


_LOSS_OF_PATH = {LogisticRegressionPath: "logistic", LinearSVCPath: "hinge", RidgeClassifierPath: "squared"}


def _per_label(head: Estimator, labels: Sequence[str] | None, class_weight: Mapping[Any, float] | None) -> Estimator:
    """Return a head of several labels from a head of two classes; only the last step is fitted once per label."""
    if isinstance(head, Pipeline):
        return make_pipeline(*(step for _, step in head.steps[:-1]), _per_label(head[-1], labels, class_weight))
    if type(head) in _LOSS_OF_PATH:
        weights = head.class_weight if class_weight is None else class_weight
        loss = _LOSS_OF_PATH[type(head)]
        return MultiLabelPath(loss, labels=labels, class_weight=weights, cv=head.cv, copy=head.copy)
    return LabelwiseClassifier(head, labels=labels, class_weight=class_weight)


def _per_number(head: Estimator) -> Estimator:
    """Return a head of several numbers; a forest, which splits by all numbers together, gets scaled numbers."""
    if isinstance(head, TransformedTargetRegressor):
        return TransformedTargetRegressor(_per_number(head.regressor), transformer=head.transformer)
    if isinstance(head, Pipeline):
        return make_pipeline(*(step for _, step in head.steps[:-1]), _per_number(head[-1]))
    if isinstance(head, RidgeRegressionPath):
        return RidgeMultiRegressionPath(cv=head.cv, copy=head.copy)
    if isinstance(head, RandomForestRegressor):
        return TransformedTargetRegressor(head, transformer=StandardScaler())
    if isinstance(head, (KNeighborsRegressor, MLPRegressor)):
        return head
    return MultiOutputRegressor(head)
