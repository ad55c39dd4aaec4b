"""The order of classes."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from featx.errors import InputError
from featx.fitting.model import FittedModel
from featx.fitting.ordinal import measure_order, read_order


def test_an_order_is_read_or_refused():
    y = np.array(["fair", "good", "poor"])
    assert read_order(["poor", "fair", "good"], y, "classification") == ["poor", "fair", "good"]
    assert read_order(True, np.array(["10", "9"]), "classification") == ["9", "10"]
    assert read_order([9, 10.0], np.array([9, 10]), "classification") == ["9", "10"]
    for order, error in ((["poor"], "'fair' is not in it"), ("poor", "expected the classes"), (True, "not numbers")):
        with pytest.raises(InputError, match=error):
            read_order(order, y, "classification")
    with pytest.raises(InputError, match="a regression has no classes"):
        read_order([1, 2], y, "regression")


def test_steps_between_classes():
    order, rng = ["low", "mid", "top"], np.random.default_rng(0)
    classes = ("low", "top", "mid")  # the head's own order
    true, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    names = np.array(order)
    confusion = confusion_matrix(names[true], names[predicted], labels=classes).tolist()
    metrics = {"confusion": confusion, "per_class": {name: {} for name in classes}}
    found = measure_order(FittedModel("m", None, None, classes, {"order": order}), metrics)
    assert list(found["per_class"]) == order
    assert found["confusion"] == confusion_matrix(true, predicted).tolist()
    assert found["quadratic_kappa"] == pytest.approx(cohen_kappa_score(true, predicted, weights="quadratic"))
    assert found["mae_steps"] == pytest.approx(np.abs(true - predicted).mean())
    assert found["within_one_step"] == pytest.approx((np.abs(true - predicted) <= 1).mean())
    plain = measure_order(FittedModel("m", None, None, classes, {}), metrics)
    assert "mae_steps" not in plain
