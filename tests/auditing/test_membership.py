import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.svm import LinearSVC

import featx
from featx.auditing import measure_membership
from featx.auditing.membership import _freeze, find_attackable
from featx.heads import find_path, make_head

RNG = np.random.default_rng(0)
Y = np.array(["ant", "bee"] * 60)
X = RNG.normal(size=(120, 10)).astype(np.float32)


def test_a_head_that_memorises_is_told_from_one_that_cannot():
    memory = measure_membership(ExtraTreesClassifier(20, random_state=0), X, Y, n_shadows=16)
    nothing = measure_membership(DummyClassifier(strategy="uniform", random_state=0), X, Y, n_shadows=16)
    (_, found, low, high), (_, lost, _, _) = memory.rates[1], nothing.rates[1]
    assert found > 0.3
    assert low <= found <= high
    assert lost < 0.05
    assert memory.exposure.mean() > 1 > abs(nothing.exposure.mean())
    assert len(memory.exposed) == 5
    assert memory.exposure[memory.exposed[0]] == memory.exposure.max()
    assert "not measured" in str(memory)
    assert memory.extrapolated[0][2] < found


@pytest.mark.heavy
def test_a_forest_memorises_and_a_private_head_does_not():
    forest = measure_membership(RandomForestClassifier(30, random_state=0), X, Y, n_shadows=64)
    private = measure_membership(make_head("private", epsilon=1.0), X, Y, n_shadows=64)
    assert forest.rates[1][1] > 0.3
    assert private.rates[1][1] < 0.03


def test_groups_are_in_or_out_together_and_decisions_suffice():
    groups = np.repeat(np.arange(60), 2)
    found = measure_membership(LinearSVC(), X, Y, n_shadows=8, groups=groups)
    assert found.to_dict()["n_images"] == 120


def test_the_penalty_that_was_chosen_is_kept():
    head = make_head().fit(X, Y)
    assert find_path(_freeze(head)).Cs == [find_path(head).C_]
    assert find_path(_freeze(make_head())).Cs is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": X[:10], "y": Y[:10]}, "expected at least 20 images of 2 classes"),
        ({"X": X, "y": Y[:10]}, "expected one row per label"),
        ({"X": X, "y": Y, "n_shadows": 2}, "n_shadows"),
        ({"X": X, "y": np.where(np.arange(120) == 7, "cat", Y)}, "the class cat is a single image or group"),
        ({"X": X, "y": Y, "groups": np.arange(3)}, "expected one group for each of 120 rows"),
        ({"X": X * np.nan, "y": Y}, "X: holds NaN"),
        ({"X": X, "y": Y, "head": make_head("ridge", task="regression")}, "expected a classifier"),
    ],
)
def test_too_few_rows_are_refused(arguments, message):
    with pytest.raises(featx.InputError, match=message):
        measure_membership(**{"head": LinearSVC()} | arguments)


def test_a_class_is_attacked_if_it_has_two_groups():
    y = ["ant", "ant", "bee", "bee", "cat"]
    assert find_attackable(y, [0, 1, 2, 2, 3]).tolist() == [True, True, False, False, False]
