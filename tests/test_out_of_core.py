import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featx
from featx import out_of_core
from featx.heads import HEADS, learns_in_parts, make_head, sgd_candidates
from featx.out_of_core import fit_out_of_core, predict_out_of_core

X, _y = make_classification(1200, 30, n_informative=10, n_classes=4, class_sep=1.5, random_state=0)
X, Y = X.astype(np.float32), np.array(["ant", "bee", "cat", "dog"])[_y]
ORDER = np.argsort(Y, kind="stable")  # a class after the other, as folders are embedded
X, Y = X[ORDER], Y[ORDER]


class Rows:
    """Rows that remember what was read of them."""

    def __init__(self, X):
        self.X, self.taken = X, []

    @property
    def n_features(self):
        return self.X.shape[1]

    def take(self, indices):
        self.taken.append(np.array(indices))
        return self.X[indices]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(out_of_core, "_CHUNK_BYTES", 100 * 30 * 4)


@pytest.mark.heavy
def test_sgd_learns_as_well_in_parts_as_in_memory(small_chunks):
    train, test = np.arange(1200) % 4 > 0, np.arange(1200) % 4 == 0
    fitted = fit_out_of_core(make_head("sgd"), Rows(X), Y[train], indices=np.flatnonzero(train))
    whole = make_head("sgd").fit(X[train], Y[train])
    assert fitted.head.score(X[test], Y[test]) > whole.score(X[test], Y[test]) - 0.03
    assert type(fitted.head) is type(whole)
    assert fitted.head.classes_.tolist() == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize("name", [name for name in HEADS if learns_in_parts(name, "classification")])
def test_each_head_that_can_learns_in_parts(name, small_chunks):
    candidates = [{"estimator__hidden_layer_sizes": (16,)}] if name == "mlp" else [{}]
    fitted = fit_out_of_core(make_head(name), Rows(X), Y, candidates=candidates, max_passes=20)
    assert np.mean(fitted.left_out_predictions == Y[fitted.left_out]) > 0.4
    assert fitted.head.predict_proba(X[:2]).shape == (2, 4)


def test_no_more_than_a_chunk_is_read_at_once_and_chunks_are_mixed(small_chunks):
    rows = Rows(X)
    fit_out_of_core(make_head("sgd"), rows, Y, max_passes=3)
    assert max(map(len, rows.taken)) == 100
    unsorted = [some for some in rows.taken if np.any(np.diff(some) < 0)]
    assert len(unsorted) > 20
    assert min(len(set(Y[some])) for some in unsorted if len(some) == 100) >= 3
    assert any(len(set(Y[some])) == 1 for some in rows.taken if len(some) == 100)  # as they lie: for the scalers


@pytest.mark.parametrize("log_target", [False, True])
def test_a_regressor_learns_in_the_targets_own_unit(log_target, small_chunks):
    X, y = make_regression(1500, 30, n_informative=8, noise=20.0, random_state=0)
    X, y = X.astype(np.float32), np.exp(y / 200) * 1e5 if log_target else y * 1e4
    head = make_head("sgd", task="regression", log_target=log_target)
    fitted = fit_out_of_core(head, Rows(X[:1000]), y[:1000], candidates=sgd_candidates("regression", 30))
    whole = make_head("ridge", task="regression", log_target=log_target).fit(X[:1000], y[:1000])
    assert fitted.head.score(X[1000:], y[1000:]) > whole.score(X[1000:], y[1000:]) - 0.02
    assert fitted.params["alpha"] == 0.01
    predicted = fitted.left_out_predictions
    assert np.corrcoef(predicted, y[fitted.left_out])[0, 1] > 0.9
    assert fitted.head.n_features_in_ == 30


def test_the_same_random_state_gives_the_same_head_and_another_another(small_chunks):
    fits = [fit_out_of_core(make_head("sgd"), Rows(X), Y, max_passes=4, random_state=seed) for seed in (3, 3, 4)]
    probabilities = [fitted.head.predict_proba(X) for fitted in fits]
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])


def test_left_out_rows_have_the_balance_of_all_and_no_part_in_the_choice(small_chunks):
    y = np.where(np.arange(1200) < 1170, "many", "few")
    fitted = fit_out_of_core(make_head("sgd"), Rows(X), y, max_passes=2)
    assert len(fitted.left_out) == 120
    assert np.sum(y[fitted.left_out] == "few") == 3

    changed = X.copy()
    changed[fitted.left_out] = 1e6  # the choice must not notice, and the final fit does
    other = fit_out_of_core(make_head("sgd"), Rows(changed), y, max_passes=2)
    assert (other.params, other.n_passes) == (fitted.params, fitted.n_passes)
    assert not np.allclose(other.head[0].mean_, fitted.head[0].mean_)

    assert len(fit_out_of_core(make_head("sgd"), Rows(X), y, max_passes=2, leave_out=False).left_out) == 0


def test_labels_without_meaning_are_estimated_as_such():
    y = np.random.default_rng(0).permutation(Y)
    fitted = fit_out_of_core(make_head("sgd"), Rows(X), y)
    assert np.mean(fitted.left_out_predictions == y[fitted.left_out]) < 0.4


def test_a_class_of_two_rows_is_known():
    y = Y.astype("<U4")
    y[:2] = "rare"
    assert "rare" in fit_out_of_core(make_head("sgd"), Rows(X), y, max_passes=2).head.classes_


def test_it_ends_when_nothing_gets_better_and_takes_the_better_candidate():
    """Of 300 features 299 are noise, so that a head without a penalty learns the rows by heart."""
    noise = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
    y = np.where(noise[:, 0] > 0, "a", "b")
    candidates = [{"alpha": 0.0, "learning_rate_init": 0.1}, {"alpha": 100.0}]
    for order in (candidates, candidates[::-1]):
        fitted = fit_out_of_core(make_head("sgd"), Rows(noise), y, candidates=order)
        assert fitted.params == {"alpha": 100.0}
        assert fitted.head[-1].alpha == 100.0
        assert 1 < fitted.n_passes < 200


def test_scalers_see_exactly_the_rows_that_are_meant(small_chunks):
    meant = np.flatnonzero(np.arange(1200) % 3 == 1)
    fitted = fit_out_of_core(make_head("sgd"), Rows(X), Y[meant], indices=meant, max_passes=2)
    np.testing.assert_allclose(fitted.head[0].mean_, X[meant].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(fitted.head[0].var_, X[meant].var(axis=0), rtol=1e-4)
    predicted = predict_out_of_core(fitted.head, Rows(X), meant)
    np.testing.assert_array_equal(predicted, fitted.head.predict(X[meant]))


def test_any_pipeline_with_partial_fit_will_do():
    head = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    assert fit_out_of_core(head, Rows(X), Y).head.score(X, Y) > 0.6


@pytest.mark.parametrize(
    ("head", "n", "indices", "message"),
    [
        (
            make_head("knn"),
            1200,
            None,
            "cannot learn in parts; expected a pipeline in which every step has partial_fit",
        ),
        (make_pipeline(Normalizer(), SGDClassifier()), 1200, None, "cannot learn in parts"),
        (make_head("sgd"), 12, None, "y: 12 rows, expected at least 20 to learn in parts"),
        (make_head("sgd"), 1200, [1, 2], "indices: 2 rows for 1200 targets"),
    ],
)
def test_what_cannot_be_fitted_so_is_named(head, n, indices, message):
    with pytest.raises(featx.InputError) as caught:
        fit_out_of_core(head, Rows(X), Y[-n:], indices=indices)
    assert message in str(caught.value)


def test_steps_that_are_too_large_are_an_error_and_not_a_useless_head():
    head = make_head("sgd", task="regression")
    with pytest.raises(featx.InputError, match="the loss grows with every step"):
        fit_out_of_core(head, Rows(X), X @ np.arange(30.0), candidates=[{"eta0": 10.0}])


@pytest.mark.heavy
def test_a_thousand_classes_are_learnt_by_sgd():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, 32)).astype(np.float32)
    y = np.repeat([f"c{i:04d}" for i in range(1000)], 5)
    X = np.repeat(centres, 5, axis=0) + 0.3 * rng.normal(size=(5000, 32)).astype(np.float32)
    head = make_head("sgd").fit(X, y)
    assert head.score(centres, np.unique(y)) > 0.99


def test_importing_it_loads_no_runtime():
    code = "import sys, featx.out_of_core; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
