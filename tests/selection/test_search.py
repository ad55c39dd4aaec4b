"""The heads that a search tries, and its groups and events."""

import numpy as np
import pytest

from featx._events import Events
from featx.errors import InputError
from featx.selection import search


def test_a_search_spares_many_classes_logistic_regression(tiny_backbone, colours, monkeypatch):
    X, y, _ = colours
    monkeypatch.setattr("featx.heads._MAX_SAMPLES_TIMES_CLASSES", 100)
    found = search(X[:60], y[:60], backbones=tiny_backbone, layers=["head"], crops="whole", poolings="avg")
    assert {score.head for score in found.scores} == {"sgd", "ridge", "linear_svm"}
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(X[:60]))
    asked = search(X[:60], y[:60], head="logistic_regression", backbones=tiny_backbone, layers=["head"], crops="whole")
    assert {score.head for score in asked.scores} == {"logistic_regression"}


def test_groups_stay_together_and_events_count_candidates_and_heads(tiny_backbone, colours):
    class Record(Events):
        def __init__(self):
            self.tasks = []

        def begin(self, task, total, done=0, *, unit="image"):
            self.tasks.append([task, total, unit, 0])

        def advance(self, n=1, **_):
            self.tasks[-1][3] += n

    X, y, _ = colours
    choice = {"backbones": tiny_backbone, "layers": ["head", "stem"], "crops": "whole", "poolings": "avg"}
    record, y = Record(), np.random.default_rng(0).permutation(y[:60])
    groups = [f"group {i // 30}" for i in range(60)]
    found = search(X[:60], y, head="ridge", groups=groups, events=record, **choice)
    assert [tuple(task) for task in record.tasks] == [
        ("timing", 1, "backbone", 1),
        ("embed", 60, "image", 60),
        ("round 1 of 1", 2, "candidate", 2),
        ("heads on features 1 of 1", 1, "head", 1),
    ]
    alone = search(X[:60], y, head="ridge", **choice)
    assert found.scores[0].error != alone.scores[0].error  # two groups make two folds
    groups = ["one", *["other"] * 59]
    with pytest.raises(InputError, match="groups: no fold can keep them together"):
        search(X[:60], y, head="ridge", groups=groups, **choice)
