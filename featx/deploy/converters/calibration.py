"""Convert calibrated classifiers: sigmoid, isotonic and temperature, with one or several folds."""

from __future__ import annotations

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.svm import SVC

from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.heads import TemperatureScaledClassifier

__all__ = ["TABLES"]


def _calibrated(converter: Converter, head: Estimator, x: Rows) -> Answer:
    folds = [
        _calibrated_fold(converter, fold, x, f"calibrated_{i}", len(head.classes_))
        for i, fold in enumerate(head.calibrated_classifiers_)
    ]
    probabilities = converter.graph.mean(*folds)
    return Answer(converter.graph.argmax(probabilities), probabilities)


def _calibrated_fold(converter: Converter, fold: Estimator, x: Rows, name: str, n_classes: int) -> str:
    graph = converter.graph
    encoded = np.arange(n_classes)  # the labels that temperature scaling is fitted on
    if not any(np.array_equal(fold.estimator.classes_, classes) for classes in (fold.classes, encoded)):
        raise converter.refuse(
            fold.estimator, "a class is missing from one of its folds; calibrate with ensemble=False"
        )
    answer = converter.classify(fold.estimator, x, name)
    has_decision = hasattr(fold.estimator, "decision_function")
    scores = answer.decision if has_decision else answer.probabilities
    assert scores
    binary = n_classes == 2
    if binary:
        scores = graph.column(scores if has_decision else graph.take(scores, [1]))
    if fold.method == "temperature":
        if not has_decision:
            both = graph.both(scores) if binary else scores
            logits = graph.op("Log", graph.op("Add", both, np.array(1e-12)))
        else:
            logits = graph.columns(graph.op("Neg", scores), scores) if binary else scores
        (calibrator,) = fold.calibrators
        return graph.op("Softmax", graph.op("Mul", logits, np.array(float(calibrator.beta_))), axis=1)
    columns = [scores] if binary else [graph.take(scores, [i]) for i in range(n_classes)]
    curves = [_curve(converter, curve, column) for curve, column in zip(fold.calibrators, columns, strict=True)]
    if binary:
        return graph.both(curves[0])
    return graph.shares(graph.columns(*curves), 1 / n_classes)


def _temperature(converter: Converter, head: Estimator, x: Rows) -> Answer:
    graph = converter.graph
    answer = converter.classify(head.estimator_, x, "estimator_")
    if not hasattr(head.estimator_, "decision_function"):
        assert answer.probabilities
        logits = graph.op("Log", graph.op("Max", graph.double(answer.probabilities), np.array(float(head.floor_))))
    else:
        assert answer.decision
        logits = graph.double(answer.decision)
        if len(head.classes_) == 2:
            half = graph.op("Div", graph.column(logits), np.array(2.0))
            logits = graph.columns(graph.op("Neg", half), half)
        elif isinstance(head.estimator_, SVC):  # as featx.heads.calibration.unvote
            rest = graph.op("Mul", graph.op("Sub", logits, graph.op("Round", logits)), np.array(3.0))
            logits = graph.op("Div", rest, graph.op("Sub", np.array(1.0), graph.op("Abs", rest)))
    probabilities = graph.op("Softmax", graph.op("Div", logits, np.array(float(head.temperature_))), axis=1)
    return Answer(graph.argmax(probabilities), probabilities)


def _curve(converter: Converter, calibrator: Estimator, column: str) -> str:
    """Convert the calibrator of one class, from its score (N, 1) to a probability (N, 1)."""
    graph = converter.graph
    if not isinstance(calibrator, IsotonicRegression):
        slope = graph.op("Mul", column, np.array(-float(calibrator.a_)))
        return graph.op("Sigmoid", graph.op("Sub", slope, np.array(float(calibrator.b_))))
    x = np.asarray(calibrator.X_thresholds_, np.float64)
    y = np.asarray(calibrator.y_thresholds_, np.float64)
    start = np.full((1, 1), y[0])
    column = graph.op("Clip", column, np.array(x[0]), np.array(x[-1]))
    widths = np.diff(x)
    if not len(widths):
        return graph.op("Add", graph.op("Mul", column, np.array(0.0)), start)
    # each linear piece adds the part of its rise that lies to the left of the score
    done = graph.op("Div", graph.op("Sub", column, x[:-1][None]), widths[None])
    done = graph.op("Clip", done, np.array(0.0), np.array(1.0))
    return graph.op("Add", graph.op("MatMul", done, np.diff(y)[:, None]), start)


TABLES = Tables(classifiers={CalibratedClassifierCV: _calibrated, TemperatureScaledClassifier: _temperature})
