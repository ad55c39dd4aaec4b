import csv

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featx
from featx import TextExtractor
from featx.cli import main
from featx.fitting.inputs import read_rows
from tests.text.conftest import encoder, source  # noqa: F401

ROWS = [("a red car", "car"), ("the dog runs", "dog"), ("", "none"), ("a blue car", "car"), ("a good dog", "dog")]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("review,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


def embed(table, folder, encoder, **options):  # noqa: F811
    return featx.dataset.embed(table, folder, TextExtractor(encoder), text_column="review", **options)


@pytest.mark.heavy
def test_a_column_of_texts_becomes_a_dataset_that_follows_it(table, encoder, tmp_path):  # noqa: F811
    folder = tmp_path / "vectors"
    summary = embed(table, folder, encoder, shard_size=2)
    assert (summary.n_images, summary.n_failed, summary.complete) == (5, 1, True)
    opened = featx.dataset.open(folder)
    kept = [0, 1, 3, 4]
    assert list(opened.keys) == [str(i + 1) for i in kept]
    assert list(opened.y) == [ROWS[i][1] for i in kept]
    np.testing.assert_array_equal(opened.X, TextExtractor(encoder).transform([ROWS[i][0] for i in kept]))
    (failure,) = opened.failures()
    assert (failure.source, failure.reason.split(";")[0]) == ("3", "no text")
    table.write_text(table.read_text().replace("a blue car,car", "a bad street,street") + "good bad,car\n")
    again = embed(table, folder, encoder)
    assert (again.n_embedded, again.n_replaced, again.n_images) == (2, 1, 6)
    assert embed(table, folder, encoder).n_embedded == 0
    assert featx.dataset.verify(folder, table) == []


@pytest.mark.heavy
def test_shards_are_the_same_after_an_interruption(table, encoder, tmp_path, monkeypatch):  # noqa: F811
    embed(table, tmp_path / "whole", encoder, shard_size=2)
    with pytest.raises(featx.SourceError, match="max_failures=0"):
        embed(table, tmp_path / "part", encoder, shard_size=2, max_failures=0)
    embed(table, tmp_path / "part", encoder)
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "featx.json"):
        paths = [tmp_path / folder / name for folder in ("whole", "part")]
        assert [path.exists() for path in paths] in ([True, True], [False, False])
        if paths[0].exists():
            assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.heavy
def test_the_nearest_texts_of_a_text(table, encoder, tmp_path, capsys):  # noqa: F811
    folder = str(tmp_path / "vectors")
    given = ["embed", str(table), "--text-column", "review", "-o", folder, "--backbone", encoder]
    assert main(given) == 0
    assert "1 text could not be read" in capsys.readouterr().err
    assert main(["neighbors", folder, "--text", "a red car", "-k", "1"]) == 0
    out = capsys.readouterr().out
    assert "a red car: 1 of 4 texts" in out
    assert "1.0000\t1\tcar" in out
    assert main(["neighbors", folder, "bee.jpg"]) == 2
    assert "--text or --key" in capsys.readouterr().err
    assert main([*given[:5], str(tmp_path / "one.csv"), *given[6:]]) == 0
    assert '\n3,none,"no text; drop' in (tmp_path / "one.csv").read_text()
    assert main([*given, "--dry-run"]) == 0


def test_an_empty_text_of_parquet_is_a_text_and_null_is_not(tmp_path):
    pq.write_table(pa.table({"review": ["", None, "a"]}), tmp_path / "t.parquet")
    listing = featx.sources.list_texts(tmp_path / "t.parquet", text_column="review")
    assert (listing.items, listing.targets) == (["", None, "a"], None)


def test_a_row_has_the_same_name_in_every_reader(tmp_path):
    columns = {"id": ["x", "y", "z"], "text": ["a", " ", "7"]}
    frame = pd.DataFrame(columns)
    frame.to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"id": ["x", "x", "z"], "text": [7, 8, 9]}).to_parquet(tmp_path / "u.parquet")
    for given, names, texts in [
        (tmp_path / "t.csv", ["x", "y", "z"], ["a", None, "7"]),
        (tmp_path / "u.parquet", ["1", "2", "3"], ["7", "8", "9"]),
    ]:
        listing = featx.sources.list_texts(given, text_column="text")
        inputs = read_rows(given, None, {"text": "text"})
        assert listing.names == list(inputs.item_names) == names
        assert listing.items == [row["text"] for row in inputs.items] == texts
    assert [row["text"] for row in read_rows(frame, None, {"text": "text"}).items] == columns["text"]
    both = featx.sources.list_texts([tmp_path / "t.csv", tmp_path / "u.parquet"], text_column="text")
    assert both.names[-1].endswith("u.parquet/3")


def test_a_long_text_is_read_and_a_quotation_mark_that_is_not_closed_is_named(tmp_path, monkeypatch):
    (tmp_path / "long.csv").write_text('text,label\n"' + "a " * 100_000 + '",x\nb,y\n')
    assert [len(text) for text in featx.sources.list_texts(tmp_path / "long.csv", text_column="text").items] == [
        200_000,
        1,
    ]
    monkeypatch.setattr("featx.sources.tabular._MAX_CELL", 1000)
    before = csv.field_size_limit(1000)
    try:
        with pytest.raises(featx.SourceError, match=r"after line 1 has more than 1,000 .* quotation mark"):
            featx.sources.list_texts(tmp_path / "long.csv", text_column="text")
    finally:
        csv.field_size_limit(before)


def test_another_encoding_is_named_with_its_byte_and_line(tmp_path):
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(featx.SourceError, match=r"UTF-8 after line 0 .*byte 0xe9.*save it as UTF-8"):
        featx.sources.list_texts(tmp_path / "latin.csv", text_column="text")


def test_wrong_kinds_are_named(table, tmp_path):
    with pytest.raises(featx.SourceError, match="no column 'text'"):
        featx.sources.list_texts(table, text_column="text")
    with pytest.raises(featx.SourceError, match="text_column='text' needs a table"):
        featx.sources.list_texts(tmp_path, text_column="text")
    with pytest.raises(featx.InputError, match="set text_column=NAME"):
        featx.dataset.embed(table, tmp_path / "v", TextExtractor("x"))
    with pytest.raises(featx.InputError, match="expected a TextExtractor"):
        featx.dataset.embed(table, tmp_path / "v", featx.FeatureExtractor(), text_column="review")
