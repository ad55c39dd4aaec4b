"""Read CSV, TSV and Parquet tables, and choose their columns."""

import math

import pandas as pd
import pytest

from featx._validation import is_missing
from featx.errors import SourceError
from featx.sources import list_images
from featx.sources.table import Table


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write a table in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="t.csv"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write


def read(name):
    """List a table to its end, and read its columns."""
    opened = Table(name)
    assert list(opened.entries())
    return opened.read_columns()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "path,label\na.png,ant\nb.png,bee\n"),
        ("t.CSV", "path,label\r\na.png,ant\r\nb.png,bee\r\n"),
        ("t.csv", "path;label\na.png;ant\nb.png;bee\n"),
        ("t.tsv", "path\tlabel\na.png\tant\nb.png\tbee\n"),
        ("t.csv", "\ufeffpath,label\na.png,ant\nb.png,bee"),
        ("t.csv", '"path","label"\n"a.png","ant"\n\n"b.png","bee"\n\n'),
    ],
    ids=["comma", "crlf", "semicolon", "tab", "byte-order-mark", "quoted-and-blank-lines"],
)
def test_ways_to_write_the_same_table(table, name, content):
    assert read(table(content, name)) == {"path": ["a.png", "b.png"], "label": ["ant", "bee"]}


def test_quoted_cells_keep_delimiters_and_unicode(table):
    columns = read(table('path,label\n"a, b;c.png",größe\n'))
    assert columns == {"path": ["a, b;c.png"], "label": ["größe"]}


def test_parquet_keeps_types(tmp_path):
    file = tmp_path / "t.parquet"
    pd.DataFrame({"path": ["a.png", "b.png"], "price": [1.5, None], "n": [1, 2]}).to_parquet(file)
    columns = read(str(file))
    assert columns["path"] == ["a.png", "b.png"]
    assert columns["n"] == [1, 2]
    assert columns["price"][0] == 1.5
    assert is_missing(columns["price"][1])


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "t.csv", "t.csv: empty"),
        ("\n\n", "t.csv", "t.csv: empty"),
        ("path,label,label\na,b,c\n", "t.csv", "t.csv: two columns have the same name in path, label, label"),
        ("path,label\na.png,b\nc.png\n", "t.csv", "t.csv: line 3 has 1 fields, the header 2"),
        ("path,label\n\n\na.png,b,c\n", "t.csv", "t.csv: line 4 has 3 fields, the header 2"),
        (b"path,label\n\xff\xfe,b\n", "t.csv", "t.csv: cannot be read as a table in UTF-8"),
        ("not parquet", "t.parquet", "t.parquet: cannot be read as Parquet"),
    ],
    ids=["empty", "blank", "duplicate", "short-line", "long-line-after-blanks", "not-utf8", "not-parquet"],
)
def test_tables_that_cannot_be_read(table, content, name, said):
    with pytest.raises(SourceError) as caught:
        read(table(content, name))
    assert str(caught.value).startswith(said)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.csv: no such file"):
        read(str(tmp_path / "gone.csv"))


@pytest.mark.parametrize(
    ("value", "missing"),
    [(None, True), ("", True), (math.nan, True), (0, False), (0.0, False), ("0", False), (" ", True), (False, False)],
)
def test_what_counts_as_an_empty_cell(value, missing):
    assert is_missing(value) is missing


def test_paths_are_relative_to_the_table_and_openable_from_here(table, tmp_path):
    (tmp_path / "far" / "off").mkdir(parents=True)
    absolute = str(tmp_path / "b.png")
    name = table(f"path,label\nx/a.png,ant\n{absolute},bee\n", "far/off/t.csv")
    assert list_images(name).items == ["far/off/x/a.png", absolute]


@pytest.mark.parametrize("header", ["path", "file", "filename", "file_path", "image", "Photo", "FILEPATH"])
def test_obvious_path_columns(table, header):
    listing = list_images(table(f"id,{header},label\n1,a,x\n2,b,y\n"))
    assert listing.path_column == header
    assert listing.items == ["a", "b"]
    assert listing.notes == (f"paths from column {header!r}", "label from column 'label'")


@pytest.mark.parametrize("header", ["label", "class", "target", "category", "y", "value", "Label"])
def test_obvious_target_columns_are_named_when_needed(table, header):
    listing = list_images(table(f"path,id,{header}\na,1,x\nb,2,y\n"), need_target=True)
    assert listing.target_column == header
    assert listing.targets == ["x", "y"]
    assert listing.notes == ("paths from column 'path'", f"target from column {header!r}")


def test_path_and_label_win_over_other_obvious_names(table):
    listing = list_images(table("file,path,class,label\nf,p,c,l\n"), need_target=True)
    assert (listing.path_column, listing.target_column) == ("path", "label")


def test_the_only_column_that_looks_like_images_is_taken(table):
    listing = list_images(table("where,breed\na.png,x\nb.JPG,y\n"), need_target=True)
    assert (listing.path_column, listing.target_column) == ("where", "breed")


def test_columns_that_are_named_are_taken_without_a_note(table):
    name = table("path,other,label,n\np,o.png,l,1\n")
    listing = list_images(name, path_column="other", target="n", need_target=True)
    assert (listing.items, listing.targets, listing.notes) == (["o.png"], ["1"], ())


def test_the_other_columns_are_kept_in_their_order(table):
    listing = list_images(table("z,path,label,a\n1,x.png,ant,7\n2,y.png,,8\n"))
    assert listing.columns == {"z": ["1", "2"], "label": ["ant", ""], "a": ["7", "8"]}
    assert list(listing.columns) == ["z", "label", "a"]
    assert listing.targets == ["ant", ""]


def test_patterns_select_rows_with_all_their_columns(table):
    listing = list_images(table("path,label,n\na.png,x,1\nb.jpg,y,2\nc.png,z,3\n"), include="*.png")
    assert (listing.items, listing.targets) == (["a.png", "c.png"], ["x", "z"])
    assert listing.columns == {"label": ["x", "z"], "n": ["1", "3"]}


def test_tables_with_the_same_columns_are_one_listing(table):
    first = table("path,label\na.png,ant\n", "a.csv")
    listing = list_images([first, table("label,path\nbee,b.png\n", "b.csv")], need_target=True)
    assert (listing.items, listing.targets, listing.target_column) == (["a.png", "b.png"], ["ant", "bee"], "label")
    assert listing.columns == {"label": ["ant", "bee"]}
    listing = list_images([first, table("path,x\nc.png,1\n", "c.csv")])
    assert (listing.targets, listing.columns) == (["ant", None], None)


def test_targets_keep_the_types_of_parquet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"path": ["a.png", "b.png"], "price": [1.5, 2.0]}).to_parquet("t.parquet")
    listing = list_images("t.parquet", target="price")
    assert listing.targets == [1.5, 2.0]


def test_an_address_in_a_table_is_fetched(table, tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    listing = list_images(table(f"path\nfile://{tmp_path}/a.png\na.png\n"))
    assert listing.names == [f"file://{tmp_path}/a.png", "a.png"]
    assert listing.items[0].fetch() == b"image"
    assert listing.items[1] == "a.png"


def test_a_table_without_targets_is_fine_when_none_is_needed(table):
    listing = list_images(table("path,a,b\np.png,1,2\n"))
    assert listing.targets is None
    assert listing.target_column is None


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("path,label\n", {}, "t.csv: no rows"),
        ("a,b\nx,y\n", {}, "t.csv: which column holds the paths? Set path_column=NAME, one of a, b"),
        ("a,b\nx.png,y.png\n", {}, "t.csv: which column holds the paths? Set path_column=NAME, one of a, b"),
        (
            "path,a,b\nx,y,z\n",
            {"need_target": True},
            "t.csv: which column is to be predicted? Set target=NAME",
        ),
        ("path\nx.png\n", {"need_target": True}, "t.csv: which column is to be predicted?"),
        ("path,label\nx,y\n", {"path_column": "file"}, "t.csv: no column 'file', there are path, label"),
        ("path,label\nx,y\n", {"target": "price"}, "t.csv: no column 'price', there are path, label"),
        ("path,label\nx,y\n,z\n,z\n", {}, "t.csv: data row 2 has no path in column 'path' (2 in all)"),
    ],
)
def test_columns_that_cannot_be_taken(table, content, options, said):
    with pytest.raises(SourceError) as caught:
        list_images(table(content), **options)
    assert str(caught.value).startswith(said)
