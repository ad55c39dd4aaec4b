"""Heads that compare an image with those they were fitted on: support vectors and nearest neighbours."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.graph import Graph

__all__ = ["TABLES", "tally"]

_Array = npt.NDArray[np.float64]


def _squared_distances(graph: Graph, x: str, others: _Array) -> str:
    """Compute |x - o|^2 as |x|^2 - 2 x.o + |o|^2, which float64 can afford."""
    own = graph.op("ReduceSumSquare", x, np.array([1]), keepdims=1)
    product = graph.op("MatMul", x, others.T)
    far = graph.op("Add", graph.op("Sub", own, graph.op("Mul", product, np.array(2.0))), (others**2).sum(1))
    return graph.op("Max", far, np.array(0.0))


def _kernel(converter: Converter, head: Estimator, x: Rows) -> str:
    graph, rows = converter.graph, converter.graph.double(x.name)
    vectors = np.asarray(head.support_vectors_, np.float64)
    gamma = np.array(-float(head._gamma) if head.kernel == "rbf" else float(head._gamma))
    if head.kernel == "rbf":
        return graph.op("Exp", graph.op("Mul", _squared_distances(graph, rows, vectors), gamma))
    if head.kernel not in ("linear", "poly", "sigmoid"):
        raise converter.refuse(head, f"its kernel {head.kernel!r}; linear, poly, rbf and sigmoid can")
    product = graph.op("MatMul", rows, vectors.T)
    if head.kernel == "linear":
        return product
    scaled = graph.op("Add", graph.op("Mul", product, gamma), np.array(float(head.coef0)))
    return graph.op("Pow", scaled, np.array(float(head.degree))) if head.kernel == "poly" else graph.op("Tanh", scaled)


def _svc(converter: Converter, head: Estimator, x: Rows) -> Answer:
    if head.probability is True:
        raise converter.refuse(
            head, "probability=True is deprecated; use CalibratedClassifierCV(SVC(), ensemble=False)"
        )
    graph, n = converter.graph, len(head.classes_)
    kernel = _kernel(converter, head, x)
    dual, intercept = np.asarray(head.dual_coef_, np.float64), np.asarray(head.intercept_, np.float64)
    if n == 2:
        decision = graph.flat(graph.op("Add", graph.op("MatMul", kernel, dual.T), intercept))
        return Answer(graph.is_positive(decision), decision=decision)
    if head.break_ties:
        raise converter.refuse(head, "break_ties=True")
    pairs = list(combinations(range(n), 2))
    owner = np.repeat(np.arange(n), head.n_support_)
    weights = np.zeros((len(owner), len(pairs)))
    for k, (i, j) in enumerate(pairs):
        weights[owner == i, k] = dual[j - 1, owner == i]
        weights[owner == j, k] = dual[i, owner == j]
    duel = graph.op("Add", graph.op("MatMul", kernel, weights), intercept)
    lost = graph.cast(graph.op("Less", duel, np.array(0.0)), np.float64)
    votes, scores = tally(graph, lost, graph.op("Neg", duel), n)
    return Answer(graph.argmax(votes), decision=duel if head.decision_function_shape == "ovo" else scores)


def tally(graph: Graph, lost: str, margins: str, n: int) -> tuple[str, str]:
    """Count the duels between each two of ``n`` classes, (N, n_pairs) to (N, n).

    Parameters
    ----------
    graph : Graph
        Where to write.
    lost : str
        1 where the second of a pair has won, 0 elsewhere.
    margins : str
        By how much; below 0 where the first has.
    n : int
        Classes.

    Returns
    -------
    votes, scores : str
        How many each has won; and the same with less than a third for the margins, as scikit-learn adds them.
    """
    pairs = list(combinations(range(n), 2))
    first, second = np.zeros((len(pairs), n)), np.zeros((len(pairs), n))
    for k, (i, j) in enumerate(pairs):
        first[k, i] = second[k, j] = 1
    votes = graph.op("Add", graph.op("MatMul", lost, second - first), first.sum(0))
    sums = graph.op("MatMul", margins, second - first)
    size = graph.op("Mul", graph.op("Add", graph.op("Abs", sums), np.array(1.0)), np.array(3.0))
    return votes, graph.op("Add", votes, graph.op("Div", sums, size))


def _svr(converter: Converter, head: Estimator, x: Rows) -> str:
    graph = converter.graph
    product = graph.op("MatMul", _kernel(converter, head, x), np.asarray(head.dual_coef_, np.float64).T)
    return graph.flat(graph.op("Add", product, np.asarray(head.intercept_, np.float64)))


def _neighbours(converter: Converter, head: Estimator, x: Rows, values: _Array) -> str:
    """Average the neighbours' rows of ``values``, (n_fitted, n) to (N, n)."""
    graph, rows = converter.graph, converter.graph.double(x.name)
    fitted = np.asarray(head._fit_X, np.float64)
    metric = head.metric
    if metric == "minkowski" and head.p == 2 and not head.metric_params:
        metric = "euclidean"
    if metric == "cosine":
        unit = fitted / np.where((norms := np.linalg.norm(fitted, axis=1, keepdims=True)) > 0, norms, 1)
        norm = graph.op("Max", graph.op("ReduceL2", rows, np.array([1]), keepdims=1), np.array(1e-300))
        distances = graph.op("Sub", np.array(1.0), graph.op("MatMul", graph.op("Div", rows, norm), unit.T))
    elif metric == "euclidean":
        distances = graph.op("Sqrt", _squared_distances(graph, rows, fitted))
    else:
        raise converter.refuse(head, f"its metric {metric!r}; euclidean and cosine can")
    k = np.array([head.n_neighbors])
    near, places = graph.ops("TopK", distances, k, n_outputs=2, axis=1, largest=0, sorted=1)
    neighbours = graph.op("Gather", values, places, axis=0)
    if head.weights in (None, "uniform"):
        return graph.op("ReduceMean", neighbours, np.array([1]), keepdims=0)
    if head.weights != "distance":
        raise converter.refuse(head, "weights that are a function of the user's")
    here = graph.op("Equal", near, np.array(0.0))  # an image that it was fitted on counts alone
    alone = graph.cast(here, np.float64)
    any_here = graph.op("Greater", graph.total(alone), np.array(0.0))
    weights = graph.op("Where", any_here, alone, graph.op("Div", np.array(1.0), near))
    shares = graph.op("Div", weights, graph.total(weights))
    weighted = graph.op("Mul", neighbours, graph.op("Unsqueeze", shares, np.array([2])))
    return graph.op("ReduceSum", weighted, np.array([1]), keepdims=0)


def _knn_classifier(converter: Converter, head: Estimator, x: Rows) -> Answer:
    probabilities = _neighbours(converter, head, x, np.eye(len(head.classes_))[np.asarray(head._y).ravel()])
    return Answer(converter.graph.argmax(probabilities), probabilities)


def _knn_regressor(converter: Converter, head: Estimator, x: Rows) -> str:
    values = np.asarray(head._y, np.float64)
    name = _neighbours(converter, head, x, values.reshape(len(values), -1))
    return converter.graph.flat(name) if values.ndim == 1 else name


TABLES = Tables(
    classifiers={SVC: _svc, NuSVC: _svc, KNeighborsClassifier: _knn_classifier},
    regressors={SVR: _svr, NuSVR: _svr, KNeighborsRegressor: _knn_regressor},
)
