import re
from dataclasses import replace

import numpy as np
import pytest

from featx.errors import InputError
from featx.guard import OUTLIER_LEVEL, Guard
from featx.guard.risk import fit_risk
from featx.heads import OutOfFold
from tests.guard.guard_tools import WIDTH, answer, answer_numbers, draw, score


@pytest.fixture(scope="module")
def guard():
    features, codes = draw(400)
    return Guard.fit(features, answer(features, codes))


@pytest.fixture(scope="module")
def regression():
    features, _ = draw(400)
    return Guard.fit(features, answer_numbers(features, *_numbers(features, 1)))


def _numbers(features, seed):
    """Return targets and predictions whose error grows with the first feature."""
    predicted = features.sum(axis=1).astype(float)
    noise = np.random.default_rng(seed).normal(size=len(features)) * np.exp(features[:, 0] - 1)
    return predicted + noise, predicted


class TestOutliers:
    def test_p_values_of_new_images_are_uniform(self):
        shares, means = [], []
        for seed in range(12):
            features, codes = draw(240, seed=seed)
            checked = Guard.fit(features[:120], answer(features[:120], codes[:120])).check(features[120:])
            shares.append((checked.outlier <= 0.1).mean())
            means.append(checked.outlier.mean())
        assert 0.05 < np.mean(shares) < 0.15
        assert 0.44 < np.mean(means) < 0.56

    def test_other_images_are_outliers(self, guard):
        foreign = np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
        assert guard.check(foreign).is_outlier.mean() > 0.9

    def test_many_images_are_condensed(self):
        features, codes = draw(6000)
        guard = Guard.fit(features, answer(features, codes))
        assert sum(array.nbytes for array in guard.to_arrays().values()) < 150_000
        assert guard.n_images == 6000
        assert guard.check(draw(500, seed=1)[0]).outlier.mean() == pytest.approx(0.5, abs=0.05)

    def test_a_class_in_a_single_fold_and_a_row_of_zeros_are_fine(self):
        features, codes = draw(60)
        codes[:] = np.minimum(codes, 1)
        codes[0] = 2
        found = Guard.fit(features, answer(features, codes)).check(np.zeros((1, WIDTH), np.float32))
        assert 0 < found.outlier[0] <= 1

    def test_few_images_of_many_classes(self):
        features, codes = draw(400, 40, spread=4.0)
        checked = Guard.fit(features, answer(features, codes, 40)).check(draw(400, 40, seed=1, spread=4.0)[0])
        assert (checked.outlier < 0.1).mean() < 0.17


class TestRisk:
    def test_the_error_stays_below_the_bound(self):
        features, codes = draw(1200, spread=0.8)
        guard = Guard.fit(features, answer(features, codes, spread=0.8))
        new, true = draw(3000, seed=1, spread=0.8)
        probabilities = score(new, spread=0.8)
        wrong = probabilities.argmax(axis=1) != true
        checked = guard.check(new, probabilities, risk=0.05)
        assert wrong.mean() > 0.06
        assert wrong[checked.answered].mean() < 0.05
        assert 0.3 < checked.answered.mean() < 1
        assert all((reason is None) == yes for reason, yes in zip(checked.reasons, checked.answered, strict=True))

    def test_outliers_are_not_answered(self, guard):
        foreign = -np.ones((1, WIDTH), np.float32)
        checked = guard.check(foreign, np.array([[1.0, 0, 0]]), risk=0.3)
        assert not checked.answered[0]
        assert "unlike" in checked.reasons[0]

    def test_the_number_that_could_promise_is_named(self, guard):
        with pytest.raises(
            InputError, match=r"400 left-out answers cannot promise .* at least \d+ are needed"
        ) as caught:
            guard.threshold(0.001)
        needed = int(str(caught.value).split("at least ")[1].split()[0])
        features, codes = draw(needed)
        perfect = answer(features, codes)
        perfect = replace(perfect, predicted=perfect.y)
        guard = Guard.fit(features[:50], answer(features[:50], codes[:50]))
        assert needed > 3000
        with pytest.raises(InputError, match="even if"):
            guard.threshold(0.01)

    def test_a_number_that_is_needed_is_never_one_that_is_there(self):
        """The bisection misses shares that the count of needed answers finds."""
        rng = np.random.default_rng(0)
        refused = 0
        for _ in range(40):
            confidence = rng.uniform(0.3, 1, 100)
            risk = fit_risk(confidence, rng.random(100) < confidence, np.zeros(100, bool))
            try:
                risk.threshold(0.2)
            except InputError as error:
                if found := re.search(r"as these, at least (\d+) are needed", str(error)):
                    refused += 1
                    assert int(found[1]) > 100
        assert refused > 10

    def test_a_head_that_is_wrong_where_it_is_sure_is_told_to_improve(self):
        features, codes = draw(200)
        found = answer(features, codes)
        with pytest.raises(InputError, match="fit a better head"):
            Guard.fit(features, replace(found, predicted=np.roll(found.y, 1))).threshold(0.1)


class TestSets:
    @pytest.mark.parametrize("coverage", [0.95, 0.9])
    @pytest.mark.parametrize("per_class", [False, True])
    def test_they_cover_and_are_small(self, coverage, per_class):
        features, codes = draw(2000, spread=0.8)
        guard = Guard.fit(features, answer(features, codes, spread=0.8))
        new, true = draw(4000, seed=1, spread=0.8)
        sets = guard.check(new, score(new, spread=0.8), coverage=coverage, per_class=per_class).sets
        held = sets[np.arange(len(true)), true]
        rates = [held[true == code].mean() for code in range(3)] if per_class else [held.mean()]
        assert all(abs(rate - coverage) < 0.025 for rate in rates)
        assert sets.sum(axis=1).mean() < 2

    def test_labels(self, guard):
        new, _ = draw(2, seed=1)
        labels = guard.check(new, np.array([[1.0, 0, 0], [0, 0, 1.0]]), coverage=0.9).labels()
        assert labels == [("class 00",), ("class 02",)]

    @pytest.mark.parametrize(("coverage", "per_class", "said"), [(0.999, False, "999"), (0.995, True, "199")])
    def test_too_few_images_are_refused_with_the_number(self, guard, coverage, per_class, said):
        new, _ = draw(1, seed=1)
        with pytest.raises(InputError, match=f"at least {said} are needed"):
            guard.check(new, score(new), coverage=coverage, per_class=per_class)

    @pytest.mark.heavy
    @pytest.mark.parametrize("coverage", [0.95, 0.9])
    def test_they_are_those_of_mapie(self, coverage):
        from mapie.classification import SplitConformalClassifier
        from sklearn.linear_model import LogisticRegression

        features, codes = draw(900, spread=0.8)
        head = LogisticRegression(C=0.1).fit(features[:300], codes[:300])
        kept, new = slice(300, 700), slice(700, 900)
        oracle = SplitConformalClassifier(head, confidence_level=coverage, conformity_score="lac", prefit=True)
        oracle.conformalize(features[kept], codes[kept])
        expected = oracle.predict_set(features[new])[1][:, :, 0]
        found = replace(answer(features[kept], codes[kept]), probabilities=head.predict_proba(features[kept]))
        guard = Guard.fit(features[kept], found)
        sets = guard.check(features[new], head.predict_proba(features[new]), coverage=coverage).sets
        assert sets.tolist() == expected.astype(bool).tolist()


class TestIntervals:
    @pytest.mark.parametrize("coverage", [0.95, 0.9])
    def test_they_cover_and_adapt(self, regression, coverage):
        new, _ = draw(3000, seed=1)
        y, predicted = _numbers(new, 2)
        ends = regression.check(new, predicted, coverage=coverage).intervals
        held = (ends[:, 0] <= y) & (y <= ends[:, 1])
        assert held.mean() == pytest.approx(coverage, abs=0.03)
        width = ends[:, 1] - ends[:, 0]
        hard = new[:, 0] > np.median(new[:, 0])
        assert width[hard].mean() > 1.2 * width[~hard].mean()

    def test_those_of_a_logarithm_are_positive_and_travel_with_arrays(self):
        features, _ = draw(400)
        rng = np.random.default_rng(5)
        y = np.exp(rng.normal(0, 1.0, 400))
        found = OutOfFold(np.arange(400), np.arange(400) % 4, y, np.ones(400), None, None, y[:, None], y[:, None])
        guard = Guard.fit(features, found, log_target=True)
        new, _ = draw(1000, seed=1)
        ends = guard.check(new, np.ones(1000), coverage=0.9).intervals
        true = np.exp(rng.normal(0, 1.0, 1000))
        assert (ends > 0).all()
        np.testing.assert_allclose(ends[:, 0] * ends[:, 1], 1.0)  # as far below as above, as a factor
        assert ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean() == pytest.approx(0.9, abs=0.04)
        arrays = guard.to_arrays()
        assert "weights" not in arrays  # earlier versions refuse the file
        loaded = Guard.from_arrays(arrays).check(new, np.ones(1000), coverage=0.9).intervals
        np.testing.assert_allclose(loaded, ends, rtol=1e-2)
        with pytest.raises(InputError, match="no logarithm"):
            guard.check(new[:1], np.zeros(1), coverage=0.9)

    def test_a_regression_promises_no_error_and_has_no_classes(self, regression):
        new, _ = draw(2, seed=1)
        with pytest.raises(InputError, match="regression has no probabilities"):
            regression.check(new, np.zeros(2), risk=0.1)
        with pytest.raises(InputError, match="no classes"):
            regression.check(new, np.zeros(2), coverage=0.9, per_class=True)


class TestPriors:
    def test_shares_and_probabilities_follow_the_new_images(self, guard):
        new, true = draw(3000, seed=1)
        rows = np.concatenate([np.flatnonzero(true == 0)[:800], np.flatnonzero(true == 1)[:150]])
        adapted = guard.adapt_prior(score(new[rows]))
        expected = np.array([800, 150, 0]) / 950
        assert np.abs(adapted.shares - expected).sum() < 0.1
        assert adapted.probabilities.sum(axis=1) == pytest.approx(np.ones(950))
        assert np.abs(adapted.fitted_shares - 1 / 3).max() < 0.1


class TestRestandardize:
    def test_a_change_of_all_features_is_undone(self, guard):
        new, _ = draw(2000, seed=1)
        aligned = guard.restandardize(3 * new)
        assert np.corrcoef(aligned[:, 0], new[:, 0])[0, 1] > 0.99
        assert aligned.mean() == pytest.approx(draw(400)[0].mean(), rel=0.05)

    def test_few_images_are_refused(self, guard):
        with pytest.raises(InputError, match="at least 30"):
            guard.restandardize(draw(29)[0])


class TestFit:
    def test_below_fifty_images_there_is_none(self):
        features, codes = draw(49)
        with pytest.raises(InputError, match="49 images are too few for a guard; at least 50"):
            Guard.fit(features, answer(features, codes))

    def test_a_group_counts_once(self):
        features, codes = draw(300)
        guard = Guard.fit(features, answer(features, codes), groups=np.arange(300) // 3)
        assert guard.n_images == 100
        with pytest.raises(InputError, match="30 groups"):
            Guard.fit(features, answer(features, codes), groups=np.arange(300) // 10)

    def test_many_folds_and_rows_that_are_left_out_twice(self):
        features, codes = draw(80)
        once = answer(features, codes, n_folds=80)
        columns = {name: getattr(once, name) for name in ("y", "predicted", "probabilities", "candidates", "losses")}
        twice = {name: np.concatenate([column, column]) for name, column in columns.items()}
        found = replace(once, rows=np.tile(once.rows, 2), folds=np.arange(160), **twice)
        assert Guard.fit(features, found).n_images == 80

    def test_a_head_without_probabilities_has_p_values_alone(self):
        features, codes = draw(60)
        guard = Guard.fit(features, replace(answer(features, codes), probabilities=None))
        assert guard.check(features[:3]).outlier.shape == (3,)
        with pytest.raises(InputError, match="its head has none"):
            guard.threshold(0.1)

    @pytest.mark.parametrize("value", [0, 1, -0.1, True, "0.1", float("nan")])
    def test_a_rate_is_between_0_and_1(self, guard, value):
        with pytest.raises(InputError, match="between 0 and 1"):
            guard.threshold(value)

    @pytest.mark.parametrize("features", [np.zeros(WIDTH), np.zeros((2, 3)), np.full((2, WIDTH), np.nan)])
    def test_features_of_another_kind_are_refused(self, guard, features):
        with pytest.raises(InputError, match="features"):
            guard.check(features)


class TestArrays:
    @pytest.mark.parametrize("kind", ["guard", "regression"])
    def test_nothing_changes_on_the_way(self, kind, request):
        guard = request.getfixturevalue(kind)
        again = Guard.from_arrays(guard.to_arrays())
        new, _ = draw(20, seed=1)
        given = score(new) if kind == "guard" else np.zeros(20)
        one, other = (each.check(new, given, coverage=0.9) for each in (guard, again))
        assert one.outlier.tolist() == other.outlier.tolist()
        for name in ("sets", "intervals"):
            assert np.array_equal(getattr(one, name), getattr(other, name)) or getattr(one, name) is None

    @pytest.mark.parametrize("kind", ["guard", "regression"])
    def test_every_damage_is_found(self, kind, request):
        arrays = request.getfixturevalue(kind).to_arrays()
        for name, array in arrays.items():
            if name == "scaling":
                continue
            with pytest.raises(ValueError, match=r"array|decode"):
                Guard.from_arrays({**arrays, name: array[..., None]})
            if array.dtype.kind == "f":
                with pytest.raises(ValueError, match="damaged"):
                    Guard.from_arrays({**arrays, name: np.full_like(array, np.nan)})
        with pytest.raises(ValueError, match="no array basis"):
            Guard.from_arrays({name: array for name, array in arrays.items() if name != "basis"})

    def test_it_holds_no_row_of_the_features(self):
        features, codes = draw(60)
        arrays = Guard.fit(features, answer(features, codes)).to_arrays()
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        for row in np.concatenate([features, features / lengths]):
            for array in arrays.values():
                if array.ndim and array.shape[-1] == WIDTH:
                    assert not np.isclose(array.reshape(-1, WIDTH).astype(float), row, atol=1e-3).all(axis=1).any()


def test_the_level_of_outliers_can_be_reached():
    assert OUTLIER_LEVEL > 1 / 51
