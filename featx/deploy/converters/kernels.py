"""Convert support vector machines and nearest neighbours, which compare rows with fitted ones."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.graph import Graph

__all__ = ["TABLES", "count_votes"]

_Array = npt.NDArray[np.float64]


def _squared_distances(graph: Graph, x: str, others: _Array) -> str:
    """Compute |x - o|^2 as |x|^2 - 2 x.o + |o|^2, for which float64 is precise enough."""
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
        raise converter.refuse(head, f"its kernel is {head.kernel!r}, expected linear, poly, rbf or sigmoid")
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
    pairwise = graph.op("Add", graph.op("MatMul", kernel, weights), intercept)
    lost = graph.cast(graph.op("Less", pairwise, np.array(0.0)), np.float64)
    votes, scores = count_votes(graph, lost, graph.op("Neg", pairwise), n)
    return Answer(graph.argmax(votes), decision=pairwise if head.decision_function_shape == "ovo" else scores)


def count_votes(graph: Graph, lost: str, margins: str, n: int) -> tuple[str, str]:
    """Count the votes of classifiers between each pair of ``n`` classes, (N, n_pairs) to (N, n).

    ``lost`` is 1 if the second class of the pair wins, and 0 otherwise. ``margins`` are negative if the first class
    wins. Returns the votes, and the votes plus the summed margins scaled to less than 1/3, as in scikit-learn.
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
    """Average ``values``, (n_fitted, n), over the neighbours of each row; the result is (N, n)."""
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
        raise converter.refuse(head, f"its metric is {metric!r}, expected euclidean or cosine")
    k = np.array([head.n_neighbors])
    near, places = graph.ops("TopK", distances, k, n_outputs=2, axis=1, largest=0, sorted=1)
    neighbours = graph.op("Gather", values, places, axis=0)
    if head.weights in (None, "uniform"):
        return graph.op("ReduceMean", neighbours, np.array([1]), keepdims=0)
    if head.weights != "distance":
        raise converter.refuse(head, "its weights are a function, expected uniform or distance")
    # a neighbour at distance 0 is the only one that counts
    is_same = graph.cast(graph.op("Equal", near, np.array(0.0)), np.float64)
    any_same = graph.op("Greater", graph.total(is_same), np.array(0.0))
    weights = graph.op("Where", any_same, is_same, graph.op("Div", np.array(1.0), near))
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
