import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from featx.errors import InputError
from featx.guard import Guard, KindCells
from featx.guard.columns import fit_column, measure_unknown
from featx.persistence.guards import read_guard, write_guard
from tests.guard.guard_tools import answer, draw, score

KINDS = {"front": "image", "area": "number", "place": "category"}


def make_rows(n, seed):
    """Return rows and their codes; the image shows the class."""
    features, codes = draw(n, seed=seed)
    rng = np.random.default_rng(seed)
    area = [None if rng.random() < 0.1 else float(v) for v in np.exp(codes + rng.normal(size=n))]
    cells = {"front": [None] * n, "area": area, "place": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]).tolist()}
    return KindCells(cells, KINDS, {"front": features}, {}), codes


@pytest.fixture(scope="module")
def guard():
    rows, codes = make_rows(300, seed=1)
    return Guard.fit_kinds(rows, answer(rows.features["front"], codes))


def check(guard, rows, **options):
    return guard.check(guard.read_rows(rows), score(rows.features["front"]), **options)


def test_p_values_of_new_rows_are_uniform(guard):
    rows, _ = make_rows(2000, seed=2)
    p_values = check(guard, rows).outlier
    for level in (0.02, 0.05, 0.2, 0.5, 0.8):
        assert (p_values < level).mean() == pytest.approx(level, abs=0.01 + 0.25 * level)


def test_the_strange_kind_and_column_are_named(guard):
    rows, _ = make_rows(4, seed=3)
    rows.cells["area"][:3] = [1000.0, 1.0, 2.0]
    rows.cells["place"][:4] = ["a"] * 4
    rows.features["front"][1] = np.random.default_rng(0).normal(size=24) * 9
    checked = check(guard, rows, risk=0.5)
    assert checked.kinds[:2] == ("columns: area", "images")
    assert checked.kinds[2] is None
    assert "unlike the rows of the fit in columns: area" in checked.reasons[0]


def test_a_file_gives_the_same_guard_and_other_rows_are_refused(guard):
    rows, _ = make_rows(60, seed=4)
    loaded = read_guard(write_guard(guard))
    assert repr(loaded) == repr(guard) == "Guard(300 rows of images, columns; 3 classes)"
    for options in ({}, {"coverage": 0.9}):
        np.testing.assert_allclose(check(loaded, rows, **options).outlier, check(guard, rows, **options).outlier)
    assert check(loaded, rows).kinds == check(guard, rows).kinds
    with pytest.raises(InputError, match="which these rows lack"):
        loaded.read_rows(KindCells({"area": [1.0]}, {"area": "number"}, {}, {}))
    arrays = guard.to_arrays()
    with pytest.raises(ValueError, match="damaged"):
        Guard.from_arrays(arrays | {"column0_values": np.array([0, 0.5], np.float32)})


def test_a_set_with_other_columns_has_shifted(guard):
    rows, _ = make_rows(100, seed=5)
    same = guard.check_set(guard.read_rows(rows), score(rows.features["front"]))
    assert same.p_value > 0.05
    moved = KindCells({**rows.cells, "place": ["z"] * 100}, KINDS, rows.features, {})
    found = guard.check_set(guard.read_rows(moved), score(rows.features["front"]))
    assert found.p_value < 1e-3
    assert found.p_kinds["columns"] < 1e-3 < found.p_kinds["images"]


def test_numbers_outside_and_rare_values_surprise():
    rng = np.random.default_rng(0)
    number = fit_column("n", "number", [*rng.normal(size=500), *[0.0] * 200])
    surprises = number.measure([0.0, 1.0, 3.0, 30.0, None, np.inf])
    assert surprises[0] == 0
    assert list(np.diff(surprises[:4]) > 0) == [True] * 3
    assert surprises[4] == pytest.approx(np.log(701 * 700))  # no cell of the fit is missing
    assert fit_column("n", "number", [1.0, None] * 50).measure([None])[0] == pytest.approx(np.log(2))
    counts = fit_column("n", "number", [1, 1, 1, 2, 2, 3] * 20)
    assert counts.measure([1])[0] < counts.measure([3])[0] < 1.2
    category = fit_column("c", "category", ["a"] * 90 + ["b"] * 9 + [None])
    assert np.all(np.diff(category.measure(["a", "b", np.nan, "new"])) > -1e-9)


def test_an_unseen_category_says_the_more_the_more_frequent_all_categories_are():
    found = [fit_column("c", "category", cells).measure(["z"])[0] for cells in (["a"] * 99 + ["b"], ["a", "b"] * 50)]
    np.testing.assert_allclose(found, [np.log(101), np.log(101 * 50)], rtol=1e-6)


def test_a_row_with_a_category_that_the_fit_has_not_seen_is_an_outlier(guard):
    rows, _ = make_rows(200, seed=6)
    rows.cells["place"][:] = ["z"] * 200
    checked = check(guard, rows)
    assert checked.is_outlier.mean() > 0.95
    assert np.mean([kind == "columns: place" for kind in checked.kinds if kind]) > 0.9


def test_unknown_words_are_a_share_and_a_row_of_the_fit_does_not_know_itself():
    texts = {"t": ["red car", "red dog", "blue lamp blue", ""]}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2)).fit(texts["t"])
    assert measure_unknown(texts, {"t": vectorizer}).tolist() == [0, 0, 0, 1]
    assert measure_unknown(texts, {"t": vectorizer}, np.arange(4)).tolist() == [0.5, 0.5, 1, 1]
    assert measure_unknown({"t": ["red sky"]}, {"t": vectorizer}).tolist() == [0.5]
