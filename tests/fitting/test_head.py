"""The choice of a head."""

import numpy as np

from featx._events import Events
from featx.fitting import head as head_module


def test_the_memory_of_a_fit_counts_classes(monkeypatch):
    head = head_module.ChosenHead("logistic_regression", "classification", False, is_named=False)
    monkeypatch.setattr(head_module, "available_memory", lambda: 150_000_000)
    few, many = (head_module.check_memory(head, np.arange(5000) % n, 1280, {}, Events()) for n in (10, 1000))
    assert few == (head, False)
    assert (many[0].name, many[1]) == ("sgd", True)
