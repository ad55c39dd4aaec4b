import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import train_test_split

import featx
from featx.heads import (
    HEADS,
    LogisticRegressionPath,
    RidgeRegressionPath,
    choose_default_head,
    find_path,
    make_head,
)

CLASSES = make_classification(240, 30, n_informative=8, n_classes=3, class_sep=2.0, random_state=0)
NUMBERS = make_regression(240, 30, n_informative=8, noise=1.0, random_state=0)
#: All heads; mlp takes ten seconds or more.
MOST = [pytest.param(name, marks=pytest.mark.heavy) if name == "mlp" else name for name in HEADS]


@pytest.mark.parametrize("name", MOST)
def test_each_classifier_learns_and_gives_probabilities(name):
    X, y = CLASSES
    labels = np.array(["ant", "bee", "cat"])[y]
    X_train, X_test, y_train, y_test = train_test_split(X.astype(np.float32), labels, random_state=0)
    head = make_head(name)
    assert is_classifier(head)
    clone(head)
    head.fit(X_train, y_train)
    assert head.score(X_test, y_test) > 0.6
    probabilities = head.predict_proba(X_test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(head.classes_[probabilities.argmax(axis=1)] == head.predict(X_test)) > 0.95


@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.regressor])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.heavy
def test_each_regressor_learns_in_the_targets_own_unit(name, log_target):
    X, y = NUMBERS
    y = np.exp(y / 200) * 1e5 if log_target else y * 1e4
    X_train, X_test, y_train, y_test = train_test_split(X.astype(np.float32), y, random_state=0)
    head = make_head(name, task="regression", log_target=log_target).fit(X_train, y_train)
    assert is_regressor(head)
    predicted = head.predict(X_test)
    assert np.corrcoef(predicted, y_test)[0, 1] > 0.5
    assert np.abs(predicted - y_test).mean() < np.abs(y_train.mean() - y_test).mean()
    assert not log_target or predicted.min() > 0


@pytest.mark.parametrize("name", MOST)
def test_the_same_random_state_gives_the_same_head(name):
    X, y = CLASSES
    one, other = (make_head(name, random_state=3).fit(X[:90], y[:90]).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_defaults_are_logistic_regression_and_ridge():
    assert isinstance(make_head()[-1], LogisticRegressionPath)
    assert isinstance(make_head(task="regression")[-1], RidgeRegressionPath)


@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.is_weighted])
def test_class_weights_reach_each_head_that_takes_them(name):
    values = make_head(name, class_weight="balanced").get_params()
    assert "balanced" in [value for key, value in values.items() if key.endswith("class_weight")]


@pytest.mark.parametrize("arguments", [{"name": "knn"}, {"name": "ridge", "task": "regression"}])
def test_class_weights_are_refused_elsewhere(arguments):
    with pytest.raises(featx.InputError, match="takes no weights of classes"):
        make_head(class_weight="balanced", **arguments)


def test_the_path_of_a_head_is_found():
    assert find_path(make_head("knn")) is None
    assert isinstance(find_path(make_head("ridge", task="regression", log_target=True)), RidgeRegressionPath)


def test_sgd_is_the_default_only_beyond_what_logistic_regression_can_do():
    assert choose_default_head("classification", 5000, 1000) == "logistic_regression"
    assert choose_default_head("classification", 50_000, 1000) == "sgd"
    assert choose_default_head("regression", 10**6) == "ridge"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "perceptron"}, "head='perceptron': expected one of logistic_regression, ridge"),
        ({"task": "ranking"}, "task='ranking'"),
        ({"name": "logistic_regression", "task": "regression"}, "cannot predict numbers; for a regression use one of"),
        ({"log_target": True}, "log_target=True: only a regression"),
    ],
)
def test_what_makes_no_sense_is_named(arguments, message):
    with pytest.raises(featx.InputError) as caught:
        make_head(**arguments)
    assert message in str(caught.value)
