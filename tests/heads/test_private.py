import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import beta

import featx
from featx.backbones import open_backbone
from featx.errors import InputError
from featx.heads import PrivateClassifier, make_head
from featx.heads.private import find_directions, find_noise, random_directions


def make_classes(n=900, n_features=40, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    centres = rng.normal(size=(3, n_features)) * 3
    return (centres[codes] + rng.normal(size=(n, n_features))).astype(np.float32), np.array(["ant", "bee", "cat"])[
        codes
    ]


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 1.0, 8.0])
def test_the_noise_spends_exactly_delta(epsilon):
    sigma = find_noise(epsilon, 1e-5)
    spent = ndtr(0.5 / sigma - epsilon * sigma) - np.exp(epsilon) * ndtr(-0.5 / sigma - epsilon * sigma)
    assert spent == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_the_noise_is_that_of_dp_accounting(epsilon, delta):
    accounting = pytest.importorskip("dp_accounting")
    expected = accounting.get_sigma_gaussian(epsilon, delta)
    assert find_noise(epsilon, delta) == pytest.approx(expected, rel=1e-6)


def test_it_learns_and_two_fits_differ():
    X, y = make_classes()
    one, other = (make_head("private", epsilon=2.0).fit(X, y) for _ in range(2))
    assert one.score(X, y) > 0.9
    assert not np.array_equal(one.coef_, other.coef_)
    assert one.predict_proba(X).sum(axis=1) == pytest.approx(1)


def test_two_classes_and_the_length_of_a_row_does_not_matter():
    X, y = make_classes()
    rows = y != "cat"
    head = PrivateClassifier(4.0).fit(X[rows], y[rows])
    assert head.decision_function(X).ndim == 1
    assert head.decision_function(1000 * X) == pytest.approx(head.decision_function(X), rel=1e-4, abs=1e-6)


def test_one_row_moves_the_sums_by_one_at_most(monkeypatch):
    X, y = make_classes(60)
    sums = []

    def keep(target, codes, rows):
        original(target, codes, rows)
        sums.append(target.copy())

    original = np.add.at
    X[0] *= 1e6
    monkeypatch.setattr("featx.heads.private._add_rows", keep)
    for first in (0, 1):
        PrivateClassifier(n_directions=8).fit(X[first:], y[first:])
    assert np.linalg.norm(sums[0] - sums[1]) == pytest.approx(1.0)


@pytest.mark.heavy
@pytest.mark.parametrize(("promised", "least"), [(1.0, -1.0), (8.0, 0.5)])
def test_a_thousand_pairs_bound_epsilon_from_below(promised, least):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 20)).astype(np.float32)
    y = np.array(["ant", "bee"] * 15)
    canary = np.zeros((1, 20), np.float32)
    canary[0, 0] = 1e6
    directions = np.eye(20)
    scores = {}
    for present in (True, False):
        data, labels = np.concatenate([X, canary if present else np.zeros_like(canary)]), np.append(y, "ant")
        scores[present] = [
            PrivateClassifier(promised, delta=1e-5, directions=directions, n_directions=20).fit(data, labels)
            for _ in range(1000)
        ]
    values = {key: np.array([head.coef_[0, 0] for head in heads]) for key, heads in scores.items()}
    best = 0.0
    for threshold in np.quantile(values[False], np.linspace(0.05, 0.95, 19)):
        hits, alarms = (int((values[key] < threshold).sum()) for key in (True, False))
        low, high = beta.ppf(0.0005, max(hits, 1), 1001 - hits), beta.ppf(0.9995, alarms + 1, 1000 - alarms)
        if low > 1e-5:
            best = max(best, float(np.log((low - 1e-5) / high)))
    assert least < best <= promised  # a weak promise lets the canary be seen


def test_directions_are_those_of_the_backbones_own_classifier():
    backbone = open_backbone("efficientnet_lite0")
    found = find_directions(backbone, 1280)
    assert found.shape == (192, 1280)
    assert find_directions(backbone, 320) is None
    assert random_directions(40, 1) @ random_directions(40, 1).T == pytest.approx(np.eye(40), abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0: expected a number above 0"),
        ({"epsilon": 1.0, "delta": 0.1}, "above 1 / 60 rows"),
        ({"epsilon": 1.0, "directions": np.eye(3)}, "directions: of shape"),
    ],
)
def test_a_promise_of_nothing_is_refused(arguments, message):
    X, y = make_classes(60)
    with pytest.raises(featx.InputError, match=message):
        PrivateClassifier(**arguments).fit(X, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "private", "task": "regression"}, "cannot predict numbers"),
        ({"name": "private", "class_weight": "balanced"}, "takes no weights"),
        ({"name": "knn", "epsilon": 1.0}, 'only head="private" has a budget'),
    ],
)
def test_a_budget_belongs_to_the_private_head(arguments, message):
    with pytest.raises(featx.InputError, match=message):
        make_head(**arguments)


def test_noise_is_found_for_an_epsilon_that_promises_nearly_nothing():
    assert find_noise(1e6, 1e-5) == pytest.approx((2e6) ** -0.5, rel=0.01)


@pytest.mark.parametrize("directions", [np.zeros((0, 40)), "abc", [["a"] * 40], np.full((2, 40), np.nan)])
def test_directions_that_are_no_numbers_are_refused(directions):
    with pytest.raises(InputError, match=r"directions: .* expected finite numbers of shape"):
        PrivateClassifier(directions=directions).fit(*make_classes(30))
