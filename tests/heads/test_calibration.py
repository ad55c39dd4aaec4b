import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.heads import TemperatureScaledClassifier
from featx.heads.calibration import fit_sharpness, unvote

X, Y = load_digits(return_X_y=True)


@parametrize_with_checks([TemperatureScaledClassifier(LogisticRegression())])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def log_loss(head):
    return -np.log(head.predict_proba(X[1::2])[np.arange(len(Y[1::2])), Y[1::2]]).mean()


@pytest.mark.parametrize(
    "estimator", [SVC(C=0.1), GaussianNB(), KNeighborsClassifier(3), RandomForestClassifier(40, oob_score=True)]
)
def test_probabilities_are_closer_to_the_truth(estimator):
    head = TemperatureScaledClassifier(estimator).fit(X[::2], Y[::2])
    plain = estimator.fit(X[::2], Y[::2])
    assert (head.predict(X) == plain.predict(X)).mean() > 0.97
    if hasattr(plain, "predict_proba"):
        p = np.maximum(plain.predict_proba(X[1::2]), 1e-6)
        assert log_loss(head) < -np.log(p[np.arange(len(p)), Y[1::2]]).mean()
    assert not hasattr(head.estimator_, "oob_decision_function_")


def test_logits_that_grow_with_the_rows_get_a_higher_temperature():
    plain, grown = (TemperatureScaledClassifier(GaussianNB(), cv=4, growth=g).fit(X[:400], Y[:400]) for g in (0, 0.5))
    assert grown.temperature_ == pytest.approx(plain.temperature_ / 0.75**0.5)
    forest = RandomForestClassifier(20, oob_score=True, random_state=0)  # its trees leave out rows themselves
    plain, grown = (TemperatureScaledClassifier(forest, growth=g).fit(X[:400], Y[:400]) for g in (0, 0.5))
    assert grown.temperature_ == plain.temperature_


def test_a_class_of_one_row_is_learned():
    y = np.where(Y[:60] == 9, 8, Y[:60])
    y[0] = 9
    head = TemperatureScaledClassifier(KNeighborsClassifier(1)).fit(X[:60], y)
    assert head.predict(X[:1]).tolist() == [9]
    alone = TemperatureScaledClassifier(KNeighborsClassifier(1)).fit(np.eye(3), ["a", "b", "c"])
    assert alone.temperature_ == 1


def test_a_forest_whose_trees_all_have_a_class_is_not_calibrated():
    forest = RandomForestClassifier(20, oob_score=True, class_weight={"rare": 1000}, random_state=0)
    labels = np.where(np.arange(60) < 2, "rare", "common")
    head = TemperatureScaledClassifier(forest).fit(X[:60], labels)
    assert head.temperature_ == 1
    assert np.isfinite(head.predict_proba(X)).all()


@pytest.mark.filterwarnings("error")
def test_a_forest_of_few_rows_does_not_warn():
    forest = RandomForestClassifier(20, max_samples=0.4, oob_score=True, random_state=0)
    assert TemperatureScaledClassifier(forest).fit(X[:16], Y[:16] % 2).classes_.tolist() == [0, 1]


def test_votes_are_taken_off_the_decisions_of_a_support_vector_machine():
    machine = SVC().fit(X[::4], Y[::4])
    pairs = machine.set_params(decision_function_shape="ovo").decision_function(X[:50])
    sums, number = np.zeros((50, 10)), 0
    for i in range(10):
        for j in range(i + 1, 10):
            sums[:, i] += pairs[:, number]
            sums[:, j] -= pairs[:, number]
            number += 1
    np.testing.assert_allclose(
        unvote(machine.set_params(decision_function_shape="ovr").decision_function(X[:50])), sums
    )


def test_the_factor_of_scores_is_the_best_one():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 4))
    codes = np.array([rng.choice(4, p=np.exp(3 * s) / np.exp(3 * s).sum()) for s in scores])
    assert fit_sharpness(scores, codes, np.ones(2000)) == pytest.approx(3, rel=0.15)
    assert np.isfinite(fit_sharpness(scores, scores.argmax(axis=1), np.ones(2000)))
    assert fit_sharpness(scores, rng.integers(0, 4, 2000), np.ones(2000)) < 0.1
