"""Convert linear models and multi-layer perceptrons."""

from __future__ import annotations

import numpy as np
from sklearn import linear_model as lm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import LinearSVC, LinearSVR

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.graph import Graph
from featx.heads import (
    LinearSVCPath,
    LogisticRegressionPath,
    MultiLabelPath,
    PrivateClassifier,
    RidgeClassifierPath,
    RidgeMultiRegressionPath,
    RidgeRegressionPath,
)
from featx.heads.zero_shot import ZeroShotClassifier

__all__ = ["TABLES", "decide"]


def _product(converter: Converter, head: Estimator, x: Rows) -> str:
    """Compute X coef.T + intercept."""
    graph = converter.graph
    coef = np.atleast_2d(np.asarray(head.coef_, np.float64))
    name = graph.op("MatMul", graph.double(x.name), coef.T)
    return graph.op("Add", name, np.atleast_1d(np.asarray(head.intercept_, np.float64)))


def decide(graph: Graph, scores: str, n_classes: int, *, probabilities: bool = False) -> Answer:
    """Choose a class by scores (N, 1) of two classes or (N, n_classes) of more, whose probabilities are logistic."""
    if n_classes > 2:
        return Answer(graph.argmax(scores), graph.op("Softmax", scores, axis=1) if probabilities else None, scores)
    decision = graph.flat(scores)
    both = graph.both(graph.op("Sigmoid", decision)) if probabilities else None
    return Answer(graph.is_positive(decision), both, decision)


def _decide(converter: Converter, head: Estimator, x: Rows) -> Answer:
    return decide(converter.graph, _product(converter, head, x), len(head.classes_))


def _logistic(converter: Converter, head: Estimator, x: Rows) -> Answer:
    return decide(converter.graph, _product(converter, head, x), len(head.classes_), probabilities=True)


def _private(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a PrivateClassifier, which scales its projected rows to length 1."""
    graph = converter.graph
    projected = graph.op("MatMul", graph.double(x.name), np.asarray(head.components_, np.float64).T)
    squares = graph.op("ReduceSum", graph.op("Mul", projected, projected), np.array([1]), keepdims=1)
    lengths = graph.op("Max", graph.op("Sqrt", squares), np.array(1e-300))
    name = graph.op("MatMul", graph.op("Div", projected, lengths), np.asarray(head.coef_, np.float64).T)
    scores = graph.op("Add", name, np.asarray(head.intercept_, np.float64))
    return decide(graph, scores, len(head.classes_), probabilities=True)


def _multi_label(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a MultiLabelPath, whose labels have a logistic probability each."""
    graph = converter.graph
    scores = _product(converter, head, x)
    index = graph.cast(graph.op("Greater", scores, np.array(0.0)), np.int64)
    return Answer(index, graph.op("Sigmoid", scores), scores)


def _zero_shot(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a ZeroShotClassifier, whose rows have length 1."""
    graph = converter.graph
    rows = graph.double(x.name)
    squares = graph.op("ReduceSum", graph.op("Mul", rows, rows), np.array([1]), keepdims=1)
    lengths = graph.op("Max", graph.op("Sqrt", squares), np.array(1e-12))
    coef = np.asarray(head.coef_, np.float64)
    coef = coef[1:] - coef[:1] if len(coef) == 2 else coef
    scores = graph.op("MatMul", graph.op("Div", rows, lengths), coef.T)
    return decide(graph, scores, len(head.classes_), probabilities=True)


def _sgd(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert an SGDClassifier; the one-vs-rest probabilities of three or more classes are scaled to sum to 1."""
    graph = converter.graph
    answer = _decide(converter, head, x)
    assert answer.decision
    if head.loss == "log_loss":
        unscaled = graph.op("Sigmoid", answer.decision)
    elif head.loss == "modified_huber":
        clipped = graph.op("Clip", answer.decision, np.array(-1.0), np.array(1.0))
        unscaled = graph.op("Div", graph.op("Add", clipped, np.array(1.0)), np.array(2.0))
    else:
        return answer
    if len(head.classes_) == 2:
        return Answer(answer.index, graph.both(unscaled), answer.decision)
    return Answer(answer.index, graph.shares(unscaled, 1 / len(head.classes_)), answer.decision)


def _regress(converter: Converter, head: Estimator, x: Rows) -> str:
    value = _product(converter, head, x)
    return converter.graph.flat(value) if np.ndim(head.coef_) == 1 else value


def _regress_log(converter: Converter, head: Estimator, x: Rows) -> str:
    return converter.graph.op("Exp", _regress(converter, head, x))


def _network(converter: Converter, head: Estimator, x: Rows) -> str:
    graph = converter.graph
    kinds = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}
    name = graph.double(x.name)
    for i, (weights, bias) in enumerate(zip(head.coefs_, head.intercepts_, strict=True)):
        name = graph.op("MatMul", name, weights.astype(np.float64))
        name = graph.op("Add", name, bias.astype(np.float64))
        if i < len(head.coefs_) - 1 and head.activation != "identity":
            name = graph.op(kinds[head.activation], name)
    return name


def _mlp_classifier(converter: Converter, head: Estimator, x: Rows) -> Answer:
    graph = converter.graph
    scores = _network(converter, head, x)
    if head.out_activation_ == "softmax":
        probabilities = graph.op("Softmax", scores, axis=1)
    else:
        probabilities = graph.both(graph.op("Sigmoid", scores))
    return Answer(graph.argmax(probabilities), probabilities)


def _mlp_regressor(converter: Converter, head: Estimator, x: Rows) -> str:
    if head.out_activation_ != "identity":
        raise converter.refuse(head, f"its loss is {head.loss!r}, expected squared_error")
    value = _network(converter, head, x)
    return converter.graph.flat(value) if head.n_outputs_ == 1 else value


TABLES = Tables(
    classifiers={
        **dict.fromkeys((LogisticRegression, LogisticRegressionCV, LinearDiscriminantAnalysis), _logistic),
        **dict.fromkeys((LogisticRegressionPath, RidgeClassifierPath, LinearSVCPath), _logistic),
        **dict.fromkeys((lm.RidgeClassifier, lm.RidgeClassifierCV, lm.Perceptron, LinearSVC), _decide),
        MultiLabelPath: _multi_label,
        PrivateClassifier: _private,
        ZeroShotClassifier: _zero_shot,
        SGDClassifier: _sgd,
        MLPClassifier: _mlp_classifier,
    },
    regressors={
        **dict.fromkeys(
            (
                *(lm.LinearRegression, lm.Ridge, lm.RidgeCV, lm.Lasso, lm.LassoCV, lm.ElasticNet, lm.ElasticNetCV),
                *(lm.Lars, lm.LarsCV, lm.LassoLars, lm.LassoLarsCV, lm.LassoLarsIC, lm.HuberRegressor),
                *(lm.SGDRegressor, lm.TheilSenRegressor, lm.BayesianRidge, lm.ARDRegression, lm.QuantileRegressor),
                *(lm.OrthogonalMatchingPursuit, lm.OrthogonalMatchingPursuitCV, LinearSVR),
                RidgeRegressionPath,
                RidgeMultiRegressionPath,
            ),
            _regress,
        ),
        **dict.fromkeys((lm.PoissonRegressor, lm.GammaRegressor), _regress_log),
        MLPRegressor: _mlp_regressor,
    },
)
