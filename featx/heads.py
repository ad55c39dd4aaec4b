"""Heads: a table from a name to a scikit-learn classifier and regressor that suit features.

All are plain scikit-learn and work without the rest of featx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV, RidgeCV, SGDRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

from featx._validation import check_choice
from featx.errors import InputError

__all__ = [
    "DEFAULT_HEADS",
    "HEADS",
    "TASKS",
    "Head",
    "choose_default_head",
    "learns_in_parts",
    "make_head",
    "sgd_candidates",
]

Estimator = Any
TASKS = ("classification", "regression")
DEFAULT_HEADS = {"classification": "logistic_regression", "regression": "ridge"}
#: Samples times classes above which logistic regression takes minutes (see benchmarks/RESULTS.md).
_MOST_WORK = 100_000
#: What the strength of the penalty of sgd is chosen from where it can be, weakest first.
_SGD_ALPHAS = {"classification": (0.1, 1.0, 10.0), "regression": (0.01, 0.1, 1.0)}
#: The step of a squared error's gradient, times the number of features: above 2, it diverges.
_STEP_OF_ALL = 0.064


@dataclass(frozen=True)
class Head:
    """One kind of head.

    Parameters
    ----------
    what : str
        A line for people.
    classifier, regressor : callable or None
        From the number of folds for inner cross-validation and a random state
        to an unfitted estimator.
    grid : mapping of str to sequence
        What a search may try of the innermost estimator's parameters; the rest chooses by itself.
    """

    what: str
    classifier: Callable[[int, int], Estimator] | None
    regressor: Callable[[int, int], Estimator] | None
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _scaled(estimator: Estimator) -> Estimator:
    return make_pipeline(StandardScaler(), estimator)


def _calibrated(estimator: Estimator, cv: int) -> Estimator:
    return CalibratedClassifierCV(estimator, cv=cv, ensemble=False)


def _target_scaled(estimator: Estimator) -> Estimator:
    """Fit on a standardised target: these have an absolute margin or step size."""
    return TransformedTargetRegressor(_scaled(estimator), transformer=StandardScaler())


_ALPHAS = np.logspace(-1, 6, 15)
_HIDDEN: dict[str, Any] = {
    "hidden_layer_sizes": (1024,),
    "solver": "sgd",
    "learning_rate_init": 0.01,
    "momentum": 0.9,
    "max_iter": 1000,
}

#: name -> head. A new one is a row here.
HEADS: dict[str, Head] = {
    "logistic_regression": Head(
        "scaled; the strength of its L2 penalty is chosen by cross-validation, ties go to the stronger",
        lambda cv, seed: _scaled(
            LogisticRegressionCV(
                Cs=np.logspace(-5, 1, 7),
                l1_ratios=(0,),
                cv=cv,
                scoring="accuracy",
                solver="newton-cg",  # ten times faster here than lbfgs, and better converged
                max_iter=1000,
                use_legacy_attributes=False,
            )
        ),
        None,
    ),
    "ridge": Head(
        "scaled linear model; its penalty is chosen by leave-one-out",
        lambda cv, seed: _scaled(_calibrated(RidgeClassifierCV(alphas=_ALPHAS), cv)),
        lambda cv, seed: _scaled(RidgeCV(alphas=_ALPHAS)),
    ),
    "linear_svm": Head(
        "scaled linear support vector machine",
        lambda cv, seed: _scaled(_calibrated(LinearSVC(C=0.001, random_state=seed), cv)),
        lambda cv, seed: _target_scaled(LinearSVR(C=0.001, max_iter=10_000, random_state=seed)),
        {"C": (0.0001, 0.001, 0.01)},
    ),
    "rbf_svm": Head(
        "scaled support vector machine with a Gaussian kernel",
        lambda cv, seed: _scaled(_calibrated(SVC(C=10), cv)),
        lambda cv, seed: _target_scaled(SVR(C=10)),
        {"C": (1, 10, 100)},
    ),
    "knn": Head(
        "the five nearest neighbours by cosine",
        lambda cv, seed: make_pipeline(Normalizer(), KNeighborsClassifier(weights="distance", algorithm="brute")),
        lambda cv, seed: make_pipeline(Normalizer(), KNeighborsRegressor(weights="distance", algorithm="brute")),
        {"n_neighbors": (3, 5, 10, 20)},
    ),
    "mlp": Head(
        "scaled; one hidden layer of 1,024 ReLU units trained by stochastic gradient descent",
        lambda cv, seed: _scaled(MLPClassifier(**_HIDDEN, random_state=seed)),
        lambda cv, seed: _target_scaled(MLPRegressor(**_HIDDEN | {"learning_rate_init": 0.001}, random_state=seed)),
    ),
    "random_forest": Head(
        "300 trees",
        lambda cv, seed: RandomForestClassifier(300, random_state=seed),
        lambda cv, seed: RandomForestRegressor(300, max_features="sqrt", random_state=seed),
    ),
    "gradient_boosting": Head(
        "boosted trees on histograms",
        lambda cv, seed: HistGradientBoostingClassifier(max_features=0.1, random_state=seed),
        lambda cv, seed: HistGradientBoostingRegressor(max_features=0.1, random_state=seed),
    ),
    "sgd": Head(
        "scaled linear model by stochastic gradient descent: for many classes, and more rows than memory",
        lambda cv, seed: _scaled(
            # without a hidden layer this is logistic regression over all classes at once, in batches;
            # SGDClassifier pits each class against the rest: slower, and its probabilities are far off
            MLPClassifier(
                hidden_layer_sizes=(),
                alpha=_SGD_ALPHAS["classification"][-1],
                learning_rate_init=0.001,
                max_iter=1000,
                tol=1e-3,
                random_state=seed,
            )
        ),
        lambda cv, seed: _target_scaled(
            # averaged, since a constant step never settles; small enough for thousands of features
            SGDRegressor(
                alpha=_SGD_ALPHAS["regression"][-1],
                learning_rate="constant",
                eta0=_STEP_OF_ALL / 1280,
                average=True,
                tol=1e-4,
                random_state=seed,
            )
        ),
    ),
}


def choose_default_head(task: str, n_samples: int, n_classes: int = 0) -> str:
    """Choose the head for a user who names none.

    Parameters
    ----------
    task : {"classification", "regression"}
    n_samples, n_classes : int
        To fit on.

    Returns
    -------
    str
        A key of `HEADS`: ridge for numbers, and for classes logistic regression, or sgd where
        that would take minutes.

    Examples
    --------
    >>> from featx.heads import choose_default_head
    >>> choose_default_head("classification", 400, 2), choose_default_head("classification", 5000, 1000)
    ('logistic_regression', 'sgd')
    """
    if task == "classification" and n_samples * n_classes > _MOST_WORK:
        return "sgd"
    return DEFAULT_HEADS[task]


def sgd_candidates(task: str, n_features: int) -> list[dict[str, float]]:
    """Give the parameters of sgd's last step that a held-out part may choose from.

    Parameters
    ----------
    task : {"classification", "regression"}
    n_features : int
        Length of a vector: more of them need smaller steps.

    Returns
    -------
    list of dict
        From the weakest penalty to the strongest.

    Examples
    --------
    >>> from featx.heads import sgd_candidates
    >>> sgd_candidates("classification", 1280)
    [{'alpha': 0.1}, {'alpha': 1.0}, {'alpha': 10.0}]
    """
    step = {} if task == "classification" else {"eta0": _STEP_OF_ALL / n_features}
    return [{"alpha": alpha, **step} for alpha in _SGD_ALPHAS[task]]


def learns_in_parts(name: str, task: str) -> bool:
    """Tell whether a head can be fitted without having all rows in memory, by `featx.out_of_core`.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    task : {"classification", "regression"}

    Returns
    -------
    bool

    Examples
    --------
    >>> from featx.heads import HEADS, learns_in_parts
    >>> [name for name in HEADS if learns_in_parts(name, "classification")]
    ['mlp', 'sgd']
    """
    head = make_head(name, task=task)
    while isinstance(head, TransformedTargetRegressor):
        head = head.regressor
    return isinstance(head, Pipeline) and all(hasattr(step, "partial_fit") for _, step in head.steps)


def make_head(
    name: str | None = None,
    *,
    task: str = "classification",
    log_target: bool = False,
    cv: int = 5,
    random_state: int = 0,
) -> Estimator:
    """Make an unfitted head.

    Parameters
    ----------
    name : str or None, default=None
        A key of `HEADS`; None is logistic regression for classes and ridge for
        numbers (`choose_default_head` takes the size of the data into account).
    task : {"classification", "regression"}, default="classification"
        Every classifier has ``predict_proba``.
    log_target : bool, default=False
        For a regression with a positive target whose relative error counts:
        fit its logarithm and predict the value.
    cv : int, default=5
        Folds wherever the head cross-validates by itself; at most the number
        of samples of the smallest class.
    random_state : int, default=0
        For the heads that draw numbers.

    Returns
    -------
    estimator
        A scikit-learn classifier or regressor.

    Raises
    ------
    InputError
        When a name is unknown or a combination makes no sense.

    Examples
    --------
    >>> from featx.heads import make_head
    >>> make_head("rbf_svm")[-1]
    CalibratedClassifierCV(cv=5, ensemble=False, estimator=SVC(C=10))
    >>> make_head(task="regression")[-1].alphas.max()
    np.float64(1000000.0)
    """
    check_choice("task", task, TASKS)
    if name is None:
        name = DEFAULT_HEADS[task]
    if name not in HEADS:
        raise InputError(f"head={name!r}: expected one of {', '.join(HEADS)}")
    if log_target and task != "regression":
        raise InputError("log_target=True: only a regression has a target to take the logarithm of")
    make = HEADS[name].classifier if task == "classification" else HEADS[name].regressor
    if make is None:
        able = ", ".join(key for key, head in HEADS.items() if head.regressor)
        raise InputError(f"head={name!r}: cannot predict numbers; for a regression take one of {able}")
    estimator = make(cv, random_state)
    if log_target:
        return TransformedTargetRegressor(estimator, func=np.log, inverse_func=np.exp)
    return estimator
