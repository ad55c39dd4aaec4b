"""Stopping: candidates that are behind are embedded no further, and no tie depends on the order."""

import numpy as np
import pytest

from featx.selection import compare, racing
from featx.selection.racing import find_behind
from tests.selection.selection_tools import margins, of_tiny


class Counting:
    """Counts the images that are embedded for each crop."""

    def __init__(self, monkeypatch):
        self.asked = {}
        original = racing.embed_together

        def embed_together(extractors, X, **options):
            for one in extractors:
                self.asked[one.crop] = self.asked.get(one.crop, 0) + len(X)
            return original(extractors, X, **options)

        monkeypatch.setattr(racing, "embed_together", embed_together)


def test_the_crop_that_shows_the_difference_wins_and_the_other_is_embedded_no_further(tiny_backbone, monkeypatch):
    counting = Counting(monkeypatch)
    X, y = margins(600)
    found = compare(X, y, backbones=tiny_backbone, poolings=["avg", "max"])
    assert found.recommended.crop == "whole"
    assert found.recommended.score > 0.95
    assert counting.asked["center"] == 160
    assert counting.asked["whole"] >= 400
    assert {(c.crop, c.stopped, c.n_images) for c in found.candidates} >= {("center", True, 160)}
    assert not [c for c in found.candidates if c.crop == "center" and not c.stopped]
    assert found.n_used == counting.asked["whole"]
    assert [c.stopped for c in found.candidates] == sorted(c.stopped for c in found.candidates)


def test_once_a_single_candidate_is_left_nothing_more_is_embedded(tiny_backbone, monkeypatch):
    counting = Counting(monkeypatch)
    X, y = margins(600)
    found = compare(X, y, **of_tiny(tiny_backbone, layers="head", crops=["whole", "center"]))
    assert counting.asked == {"center": 160, "whole": 160}
    assert (found.n_used, found.n_images, found.recommended.n_images) == (160, 600, 160)
    assert "on 160 of 600 images" in found.reason
    assert "all others are behind by more than two standard errors." in found.reason


def test_stopped_ones_are_compared_on_the_images_that_both_saw(tiny_backbone):
    X, y = margins(600)
    found = compare(X, y, backbones=tiny_backbone, poolings="avg")
    first = compare(X[found.used[:160]], y[found.used[:160]], backbones=tiny_backbone, poolings="avg")
    for stopped in (c for c in found.candidates if c.stopped):
        twin = next(c for c in first.candidates if c.key == found.recommended.key)
        assert stopped.behind == pytest.approx(stopped.loss - twin.loss, abs=0.05)
        assert stopped.behind > 2 * stopped.behind_error > 0
    assert (found.recommended.behind, found.recommended.behind_error) == (0, 0)
    for c in found.candidates:
        if not c.stopped:
            assert c.behind == pytest.approx(c.loss - found.recommended.loss)


def test_of_equals_the_first_is_the_one_that_others_are_measured_by():
    losses = {"a": np.repeat([0.0, 1.0], [20, 20]), "b": np.repeat([1.0, 0.0], [20, 20]), "c": np.ones(40)}
    losses["c"][:10] = 0

    def remaining(names):
        behind = find_behind({(name,): losses[name] for name in names}, None)
        return [name for name in names if (name,) not in behind]

    assert remaining("abc") == remaining("abc") == ["a", "b"]
    assert remaining("bac") == ["b", "a", "c"]
