"""Pipelines of scikit-learn as models."""

from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

import featx
from tests.fitting.fitting_tools import CLASSES, NUMBERS, X, Y


def test_pipelines_of_scikit_learn_are_models(shallow):
    numbers = make_pipeline(shallow, Ridge()).fit(X, NUMBERS)
    assert featx.evaluate(numbers, X, NUMBERS).metrics["r2"] > 0
    classes = make_pipeline(shallow, LogisticRegression(max_iter=1000)).fit(X, Y)
    assert featx.evaluate(classes, X, Y).classes == CLASSES
