"""Convert meta-estimators: pipelines, searches, ensembles, multiclass strategies, transformed targets."""

from __future__ import annotations

import numpy as np
from sklearn import model_selection as ms
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.converters.kernels import count_votes
from featx.deploy.converters.preprocessing import apply_function
from featx.heads import LabelwiseClassifier, MultiLabelStack, MultiRegressionStack
from featx.heads.stack import ODDS_BOUNDS

__all__ = ["TABLES"]


def _before(converter: Converter, pipeline: Estimator, x: Rows) -> tuple[str, Estimator, Rows]:
    """Convert all steps of a pipeline except the last."""
    *steps, (name, last) = pipeline.steps
    for at, step in steps:
        x = converter.transform(step, x, at)
    return name, last, x


def _pipeline_transform(converter: Converter, pipeline: Estimator, x: Rows) -> str:
    name, last, x = _before(converter, pipeline, x)
    return converter.transform(last, x, name).name


def _pipeline_classify(converter: Converter, pipeline: Estimator, x: Rows) -> Answer:
    name, last, x = _before(converter, pipeline, x)
    return converter.classify(last, x, name)


def _pipeline_regress(converter: Converter, pipeline: Estimator, x: Rows) -> str:
    name, last, x = _before(converter, pipeline, x)
    return converter.regress(last, x, name)


def _union(converter: Converter, union: Estimator, x: Rows) -> str:
    parts = [(name, part) for name, part in union.transformer_list if part != "drop"]
    weights = union.transformer_weights or {}
    names = []
    for at, part in parts:
        rows = converter.transform(part, x, at)
        name = converter.graph.double(rows.name)
        names.append(converter.graph.op("Mul", name, np.array(float(weights[at]))) if at in weights else name)
    return converter.graph.columns(*names)


def _best(converter: Converter, search: Estimator) -> Estimator:
    if not hasattr(search, "best_estimator_"):
        raise converter.refuse(search, "it has no best estimator; search with refit=True")
    return search.best_estimator_


def _vote(converter: Converter, head: Estimator, x: Rows) -> Answer:
    graph = converter.graph
    answers = [converter.classify(part, x, name) for name, part in zip(_names(head), head.estimators_, strict=True)]
    weights = head._weights_not_none
    if head.voting == "soft":
        probabilities = graph.mean(*[_need(converter, head, a.probabilities) for a in answers], weights=weights)
        return Answer(graph.argmax(probabilities), probabilities)
    n = len(head.classes_)
    ballots = [graph.op("Gather", np.eye(n), answer.index, axis=0) for answer in answers]
    return Answer(graph.argmax(graph.mean(*ballots, weights=weights)))


def _vote_value(converter: Converter, head: Estimator, x: Rows) -> str:
    values = [converter.regress(part, x, name) for name, part in zip(_names(head), head.estimators_, strict=True)]
    return converter.graph.mean(*values, weights=head._weights_not_none)


def _names(head: Estimator) -> list[str]:
    return [name for name, part in head.estimators if part is not None and not isinstance(part, str)]


def _stacked(converter: Converter, head: Estimator, x: Rows, n_classes: int) -> Rows:
    """Convert the first layer of a stack and return the outputs of its estimators, concatenated."""
    graph, parts, samples = converter.graph, [], []
    names = _names(head)
    for name, estimator, method in zip(names, head.estimators_, head.stack_method_, strict=True):
        sample = np.asarray(getattr(estimator, method)(x.sample))
        if method == "predict" and n_classes:
            part = graph.cast(converter.classify(estimator, x, name).index, np.float64)
        elif method == "predict":
            part = converter.regress(estimator, x, name)
        else:
            answer = converter.classify(estimator, x, name)
            part = _need(converter, head, answer.probabilities if method == "predict_proba" else answer.decision)
            if method == "predict_proba" and n_classes == 2:
                part, sample = graph.take(part, [1]), sample[:, 1:]
        if sample.ndim == 1:
            part, sample = graph.column(part), sample[:, None]
        parts.append(part)
        samples.append(sample)
    if head.passthrough:
        parts.append(graph.double(x.name))
        samples.append(x.sample)
    joined = np.hstack(samples)
    dtype = joined.dtype if joined.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return Rows(graph.cast(graph.columns(*parts), dtype), joined.astype(dtype))


def _stack(converter: Converter, head: Estimator, x: Rows) -> Answer:
    return converter.classify(
        head.final_estimator_, _stacked(converter, head, x, len(head.classes_)), "final_estimator"
    )


def _stack_value(converter: Converter, head: Estimator, x: Rows) -> str:
    return converter.regress(head.final_estimator_, _stacked(converter, head, x, 0), "final_estimator")


def _label_wise(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a LabelwiseClassifier, in which a constant label has no classifier."""
    graph = converter.graph
    row_sum = graph.op("ReduceSum", graph.double(x.name), np.array([1]), keepdims=1)
    zero = graph.op("Mul", graph.op("Sub", row_sum, row_sum), np.array(0.0))  # of shape (N, 1)
    columns = []
    for label, part, share in zip(head.classes_, head.estimators_, head.shares_, strict=True):
        if part is None:
            columns.append(graph.op("Add", zero, np.array(float(share))))
        else:
            answer = converter.classify(part, x, f"label_{label}")
            columns.append(graph.take(_need(converter, head, answer.probabilities), [1]))
    probabilities = graph.columns(*columns)
    return Answer(graph.cast(graph.op("Greater", probabilities, np.array(0.5)), np.int64), probabilities)


def _stack_labels(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a MultiLabelStack: weighted log odds of each label."""
    graph, parts = converter.graph, []
    for (name, _), member, weights in zip(head.estimators, head.estimators_, head.coef_.T, strict=True):
        given = _need(converter, head, converter.classify(member, x, name).probabilities)
        low, high = (np.array(end) for end in ODDS_BOUNDS)
        bounded = graph.op("Min", graph.op("Max", graph.double(given), low), high)
        odds = graph.op("Div", bounded, graph.op("Sub", np.array(1.0), bounded))
        parts.append(graph.op("Mul", graph.op("Log", odds), weights[None]))
    scores = graph.op("Sum", *parts, head.intercept_[None])
    index = graph.cast(graph.op("Greater", scores, np.array(0.0)), np.int64)
    return Answer(index, graph.op("Sigmoid", scores))


def _stack_numbers(converter: Converter, head: Estimator, x: Rows) -> str:
    """Convert a MultiRegressionStack: a weighted sum for each number."""
    graph = converter.graph
    parts = [
        graph.op("Mul", graph.double(converter.regress(member, x, name)), weights[None])
        for (name, _), member, weights in zip(head.estimators, head.estimators_, head.coef_.T, strict=True)
    ]
    return graph.op("Sum", *parts, head.intercept_[None])


def _one_vs_rest_labels(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a OneVsRestClassifier of several labels per row."""
    graph = converter.graph
    answers = [converter.classify(part, x, f"class_{i}") for i, part in enumerate(head.estimators_)]
    probabilities = decision = None
    if all(answer.probabilities for answer in answers):
        probabilities = graph.columns(*[graph.take(answer.probabilities or "", [1]) for answer in answers])
    if all(answer.decision for answer in answers):
        decision = graph.columns(*[graph.column(answer.decision or "") for answer in answers])
    index = graph.columns(*[graph.column(answer.index) for answer in answers])
    return Answer(index, probabilities, decision)


def _one_vs_rest(converter: Converter, head: Estimator, x: Rows) -> Answer:
    graph = converter.graph
    if head.multilabel_:
        return _one_vs_rest_labels(converter, head, x)
    answers = [converter.classify(part, x, f"class_{i}") for i, part in enumerate(head.estimators_)]
    probabilities = decision = None
    if all(answer.probabilities for answer in answers):
        parts = [graph.take(answer.probabilities or "", [1]) for answer in answers]
        if len(parts) == 1:
            probabilities = graph.both(parts[0])
        else:
            unscaled = graph.columns(*parts)
            probabilities = graph.shares(unscaled, 0.0)
            if not all(answer.decision for answer in answers):
                return Answer(graph.argmax(unscaled), probabilities)
    if all(answer.decision for answer in answers):
        columns = [graph.column(answer.decision or "") for answer in answers]
        if len(columns) == 1:
            decision = graph.flat(columns[0])
            return Answer(graph.is_positive(decision), probabilities, decision)
        decision = graph.columns(*columns)
        return Answer(graph.argmax(decision), probabilities, decision)
    if probabilities is None:
        raise converter.refuse(head, "its classifiers have neither decisions nor probabilities")
    return Answer(graph.argmax(probabilities), probabilities)


def _one_vs_one(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a OneVsOneClassifier; the graph of skl2onnx 1.20 is invalid for labels that are strings."""
    graph, n = converter.graph, len(head.classes_)
    lost, margins = [], []
    features = head.pairwise_indices_ or [None] * len(head.estimators_)
    for i, (estimator, columns) in enumerate(zip(head.estimators_, features, strict=True)):
        if columns is not None:
            raise converter.refuse(head, "it was fitted on a precomputed kernel")
        answer = converter.classify(estimator, x, f"pair_{i}")
        lost.append(graph.column(graph.cast(answer.index, np.float64)))
        has_decision = hasattr(estimator, "decision_function")
        margins.append(
            graph.column(_need(converter, head, answer.decision))
            if has_decision
            else graph.take(_need(converter, head, answer.probabilities), [1])
        )
    _, scores = count_votes(graph, graph.columns(*lost), graph.columns(*margins), n)
    if n == 2:
        decision = graph.flat(graph.take(scores, [1]))
        has_decision = hasattr(head.estimators_[0], "decision_function")
        return Answer(graph.is_positive(decision, 0.0 if has_decision else 0.5), decision=decision)
    return Answer(graph.argmax(scores), decision=scores)


def _multi_output(converter: Converter, head: Estimator, x: Rows) -> str:
    values = [converter.regress(part, x, f"target_{i}") for i, part in enumerate(head.estimators_)]
    return converter.graph.columns(*[converter.graph.column(value) for value in values])


def _threshold(converter: Converter, head: Estimator, x: Rows) -> Answer:
    """Convert a classifier of two classes with a threshold of its own."""
    graph, inner = converter.graph, getattr(head, "estimator_", head.estimator)
    answer = converter.classify(inner, x, "estimator")
    method = head._get_response_method()
    methods = [method] if isinstance(method, str) else method
    used = next(name for name in methods if hasattr(inner, name))
    if getattr(head, "pos_label", None) not in (None, head.classes_[1]):
        raise converter.refuse(head, "its pos_label is not the second class")
    threshold = getattr(head, "best_threshold_", None)
    if threshold is None:
        threshold = (
            {"predict_proba": 0.5, "decision_function": 0.0}[used] if head.threshold == "auto" else head.threshold
        )
    scores = _need(converter, head, answer.probabilities if used == "predict_proba" else answer.decision)
    column = graph.flat(graph.take(scores, [1])) if used == "predict_proba" else scores
    index = graph.cast(graph.op("GreaterOrEqual", column, np.array(float(threshold))), np.int64)
    return Answer(index, answer.probabilities, answer.decision)


def _target(converter: Converter, head: Estimator, x: Rows) -> str:
    """Convert a TransformedTargetRegressor, with the inverse of its transformer."""
    graph = converter.graph
    value = converter.regress(head.regressor_, x, "regressor")
    transformer = head.transformer_
    if isinstance(transformer, FunctionTransformer):
        return apply_function(converter, head, transformer.inverse_func, value)
    is_single = head._training_dim == 1
    if isinstance(transformer, StandardScaler):
        scale, offset = transformer.scale_, transformer.mean_ if transformer.with_mean else None
    elif isinstance(transformer, RobustScaler):
        scale, offset = transformer.scale_, transformer.center_
    elif isinstance(transformer, MinMaxScaler):
        scale, offset = 1 / transformer.scale_, -transformer.min_ / transformer.scale_
    elif isinstance(transformer, MaxAbsScaler):
        scale, offset = transformer.scale_, None
    else:
        expected = "a NumPy function, StandardScaler, RobustScaler, MinMaxScaler or MaxAbsScaler"
        raise converter.refuse(head, f"its transformer is {type(transformer).__name__}, expected {expected}")
    for kind, by in (("Mul", scale), ("Add", offset)):
        if by is not None:
            value = graph.op(
                kind, value, np.array(float(np.ravel(by)[0])) if is_single else np.asarray(by, float)[None]
            )
    return value


def _need(converter: Converter, head: Estimator, name: str | None) -> str:
    if name is None:
        raise converter.refuse(head, "the graph of one of its estimators has no probabilities or decisions")
    return name


_SEARCHES = (ms.GridSearchCV, ms.RandomizedSearchCV)

TABLES = Tables(
    transformers={
        Pipeline: _pipeline_transform,
        FeatureUnion: _union,
        FrozenEstimator: lambda converter, frozen, x: converter.transform(frozen.estimator, x).name,
    },
    classifiers={
        Pipeline: _pipeline_classify,
        **dict.fromkeys(
            _SEARCHES, lambda converter, search, x: converter.classify(_best(converter, search), x, "best_estimator")
        ),
        FrozenEstimator: lambda converter, frozen, x: converter.classify(frozen.estimator, x),
        VotingClassifier: _vote,
        StackingClassifier: _stack,
        OneVsOneClassifier: _one_vs_one,
        OneVsRestClassifier: _one_vs_rest,
        LabelwiseClassifier: _label_wise,
        MultiLabelStack: _stack_labels,
        **dict.fromkeys((ms.TunedThresholdClassifierCV, ms.FixedThresholdClassifier), _threshold),
    },
    regressors={
        Pipeline: _pipeline_regress,
        **dict.fromkeys(
            _SEARCHES, lambda converter, search, x: converter.regress(_best(converter, search), x, "best_estimator")
        ),
        FrozenEstimator: lambda converter, frozen, x: converter.regress(frozen.estimator, x),
        VotingRegressor: _vote_value,
        StackingRegressor: _stack_value,
        MultiOutputRegressor: _multi_output,
        MultiRegressionStack: _stack_numbers,
        TransformedTargetRegressor: _target,
    },
)
