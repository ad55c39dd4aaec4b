"""Other tools read the written files to the last bit."""

import csv

import numpy as np
import pandas as pd
import polars as pl
import pytest
from pyarrow.parquet import read_schema

from featx.errors import InputError
from featx.writers import FORMATS, TABLE_FORMATS, check_format, check_names, output_files, write

NAMES = [f"net_head_{i}" for i in range(7)]
PATHS = ["a.png", "b, c;.png", 'quote".png', "bäume/写真.png", "line\nbreak.png"]


@pytest.fixture
def features():
    """Rows of every magnitude; the second is NaN, as for an image that cannot be read."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(5, 7)) * 10.0 ** rng.integers(-30, 30, (5, 7))).astype(np.float32)
    values[0, :3] = [0.1, 0, -1e-40]
    values[1] = np.nan
    return values


@pytest.fixture
def columns():
    return {"path": PATHS, "error": [None, "damaged", None, None, None]}


def check_table(table, features):
    assert list(table.columns) == ["path", "error", *NAMES]
    assert table["path"].tolist() == PATHS
    assert [None if pd.isna(x) else x for x in table["error"]] == [None, "damaged", None, None, None]
    np.testing.assert_array_equal(table[NAMES].to_numpy(np.float32), features)


def test_csv_read_by_pandas_restores_every_float32(tmp_path, features, columns):
    write(tmp_path / "f.csv", columns, features, NAMES)
    check_table(pd.read_csv(tmp_path / "f.csv"), features)


def test_csv_read_by_polars_restores_every_float32(tmp_path, features, columns):
    write(tmp_path / "f.csv", columns, features, NAMES)
    table = pl.read_csv(tmp_path / "f.csv")
    np.testing.assert_array_equal(table.select(NAMES).to_numpy().astype(np.float32), features)
    assert table["path"].to_list() == PATHS


def test_parquet_read_by_pandas_keeps_float32(tmp_path, features, columns):
    write(tmp_path / "f.parquet", columns, features, NAMES)
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert {str(table[name].dtype) for name in NAMES} == {"float32"}
    check_table(table, features)


def test_parquet_read_by_polars_keeps_float32(tmp_path, features, columns):
    write(tmp_path / "f.parquet", columns, features, NAMES)
    table = pl.read_parquet(tmp_path / "f.parquet")
    assert table.schema[NAMES[0]] == pl.Float32
    assert table["path"].to_list() == PATHS
    np.testing.assert_array_equal(table.select(NAMES).to_numpy(), features)


def test_npy_has_its_paths_beside_it(tmp_path, features, columns):
    write(tmp_path / "f.v1.npy", columns, features, NAMES)
    stored = np.load(tmp_path / "f.v1.npy", allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, features)
    assert output_files(tmp_path / "f.v1.npy") == (tmp_path / "f.v1.npy", tmp_path / "f.v1.paths.csv")
    beside = pd.read_csv(tmp_path / "f.v1.paths.csv", keep_default_na=False)
    assert beside["path"].tolist() == PATHS
    assert beside["error"].tolist() == ["", "damaged", "", "", ""]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f.v1.npy", "f.v1.paths.csv"]


@pytest.mark.parametrize("suffix", TABLE_FORMATS)
def test_columns_of_numbers_and_gaps(tmp_path, suffix):
    file = tmp_path / f"p{suffix}"
    third = 1 / 3
    write(file, {"path": ["a", "b"], "value": [third, None]})
    table = getattr(pl, f"read_{suffix[1:]}")(file)
    assert table["value"].to_list() == [third, None]


def test_csv_keeps_file_names_that_are_no_utf8(tmp_path):
    write(tmp_path / "p.csv", {"path": ["caf\udce9.png"]})
    assert (tmp_path / "p.csv").read_bytes() == b"path\ncaf\xe9.png\n"


def test_parquet_says_that_it_cannot_hold_such_names(tmp_path):
    with pytest.raises(InputError, match=r"p\.parquet: .* is not valid UTF-8.*write \.csv"):
        write(tmp_path / "p.parquet", {"path": ["caf\udce9.png"]})
    with pytest.raises(InputError, match="is not valid UTF-8"):
        check_names(tmp_path / "p.parquet", ["a.png", "caf\udce9.png"])
    assert list(tmp_path.iterdir()) == []


def test_only_npy_needs_features_and_writes_two_files():
    assert tuple(suffix for suffix in FORMATS if suffix != ".npy") == TABLE_FORMATS
    assert {suffix: len(output_files(f"f{suffix}")) for suffix in FORMATS if suffix != ".npy"} == dict.fromkeys(
        TABLE_FORMATS, 1
    )
    assert [file.name for file in output_files("model.featx")] == ["model.featx"]


def test_npy_without_features_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds features only"):
        write(tmp_path / "p.npy", {"path": ["a"]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_columns_of_unequal_length_leave_no_file(tmp_path, suffix, features):
    with pytest.raises(ValueError, match="zip"):
        write(tmp_path / f"p{suffix}", {"path": ["a", "b"], "error": [None]}, features[:2], NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "suffix"), [("a.csv", ".csv"), ("x/a.b.NPY", ".npy"), ("a.Parquet", ".parquet")])
def test_the_suffix_names_the_format(path, suffix):
    assert check_format(path) == suffix


@pytest.mark.parametrize("path", ["a.txt", "a", ".csv", "csv", "a.csv.gz"])
def test_other_suffixes_are_refused_with_the_ones_there_are(path):
    with pytest.raises(InputError) as caught:
        check_format(path)
    assert str(caught.value) == f"{path}: expected a name ending in {', '.join(FORMATS)}"


def test_a_command_may_allow_fewer_formats():
    with pytest.raises(InputError, match=r"a\.npy: expected a name ending in \.csv$"):
        check_format("a.npy", (".csv",))


def test_suffixes_may_be_upper_case(tmp_path):
    features = np.eye(2, dtype=np.float32)
    write(tmp_path / "F.NPY", {"path": ["a", "b"]}, features, ["x", "y"])
    np.testing.assert_array_equal(np.load(tmp_path / "F.NPY"), features)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["F.NPY", "F.paths.csv"]


def test_a_parquet_column_without_a_value_is_text(tmp_path):
    write(tmp_path / "p.parquet", {"path": ["a"], "error": [None]})
    assert str(read_schema(tmp_path / "p.parquet").field("error").type) == "string"


def test_a_carriage_return_stays_in_its_cell(tmp_path):
    columns = {"path": ["a\rb.png", "a\r\nb.png", "plain.png", 'a"\r.png'], "label": ["x\r", "y", "z", None]}
    X = np.arange(8, dtype=np.float32).reshape(4, 2)
    write(tmp_path / "f.csv", columns, X, ["f\r0", "f1"])
    with open(tmp_path / "f.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "label", "f\r0", "f1"]
    assert [row[0] for row in rows] == columns["path"]
    assert [row[1] for row in rows] == ["x\r", "y", "z", ""]
    assert [[float(x) for x in row[2:]] for row in rows] == X.tolist()
    assert b"plain.png,z,4.0,5.0\n" in (tmp_path / "f.csv").read_bytes()
