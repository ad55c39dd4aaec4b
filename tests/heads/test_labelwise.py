"""A classifier of each label."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featx.heads import HEADS, LabelwiseClassifier, make_head, respond


def test_each_label_has_a_classifier_and_a_constant_label_its_share():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    Y = np.c_[X[:, 0] > 0, X[:, 1] > 0, np.zeros(40)].astype(int)
    head = LabelwiseClassifier(LogisticRegression(), labels=["a", "b", "none"], class_weight={"b": 2}).fit(X, Y)
    p = head.predict_proba(X)
    np.testing.assert_allclose(p[:, 0], LogisticRegression().fit(X, Y[:, 0]).predict_proba(X)[:, 1])
    assert head.estimators_[1].class_weight == {0: 1.0, 1: 2.0}
    assert (p[:, 2] == p[0, 2]).all()
    assert 0 < p[0, 2] < 0.05
    response = respond(head, X)
    assert (response.name, response.labels.shape) == ("probabilities", (40, 3))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_made_for_several_labels_and_numbers(name):
    head = make_head(name, task="multilabel", labels=["a", "b"])
    assert "labels=['a', 'b']" in " ".join(repr(head).split())
    if HEADS[name].regressor:
        make_head(name, task="regression", n_outputs=2)
