"""Heads on datasets of embedded texts, from Python and from the command line."""

import csv

import pytest

import featx
from featx.cli import main
from tests.text.test_fit import LABELS, TEXTS

pytestmark = pytest.mark.heavy
N_REPEATS = 3


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    """A folder with a table of texts and the dataset of their embeddings."""
    folder = tmp_path_factory.mktemp("texts")
    rows = list(zip(TEXTS, LABELS, [str(i % 4) for i in range(len(TEXTS))], strict=True)) * N_REPEATS
    with (folder / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["review", "stars", "author"], *rows])
    given = [str(folder / "reviews.csv"), "--text-column", "review", "--target", "stars", "--backbone", encoder]
    assert main(["embed", *given, "-o", str(folder / "vectors")]) == 0
    return folder


def test_a_dataset_of_texts_is_fitted_by_its_path(folder, tmp_path, capsys):
    vectors, model = str(folder / "vectors"), tmp_path / "stars.featx"
    assert main(["fit", vectors, "--cv", "3", "-o", str(model)]) == 0
    ran = capsys.readouterr()
    assert f"{len(TEXTS) * N_REPEATS} embeddings, 2 classes" in ran.out
    assert "words (TF-IDF) were not measured" in ran.err
    table = featx.predict(model, folder / "reviews.csv")  # the file knows the column
    stored = featx.predict(model, vectors)
    assert stored.predicted.tolist() == table.predicted.tolist()
    assert featx.evaluate(model, vectors).metrics == featx.evaluate(model, folder / "reviews.csv").metrics
    assert not [text for text in (str(table), str(stored), ran.out, ran.err) if "image" in text]


def test_a_column_beside_the_embedded_texts_is_a_group(folder):
    extractor = featx.dataset.open(folder / "vectors").extractor()
    result = featx.fit(folder / "vectors", extractor=extractor, groups="author", cv=2)
    assert len(set(result.images.groups)) == len({str(i % 4) for i in range(len(TEXTS))})


def test_the_commands_of_datasets_count_texts(folder, tmp_path, capsys):
    vectors = str(folder / "vectors")
    assert main(["dataset", "info", vectors]) == 0
    assert main(["dataset", "verify", vectors]) == 0
    assert main(["dataset", "merge", vectors, "-o", str(tmp_path / "merged")]) == 0
    said = capsys.readouterr().out
    assert said.count(f"{len(TEXTS) * N_REPEATS} texts") == 4
    assert "image" not in said


def test_compare_asks_for_the_texts_of_a_dataset(folder):
    with pytest.raises(featx.InputError, match="compare on their table, with text_column='review'"):
        featx.selection.compare(folder / "vectors")


def test_the_column_of_an_embedded_text_is_settled(folder, tmp_path, capsys):
    vectors = str(folder / "vectors")
    assert main(["fit", vectors, "--text-column", "review", "-o", str(tmp_path / "m.featx")]) == 2
    assert "--text-column: " in (said := capsys.readouterr().err)
    assert "holds embeddings, so this is settled" in said
    with pytest.raises(featx.InputError, match="text_column='review': a dataset of embeddings has no columns"):
        featx.fit(vectors, text_column="review", extractor=featx.dataset.open(vectors).extractor())
