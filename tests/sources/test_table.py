"""Read CSV, TSV and Parquet tables, and choose their columns."""

import json
import math
import pickle
import unicodedata

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featx._validation import is_missing
from featx.errors import SourceError
from featx.images.decode import UnreadableError, decode
from featx.sources import list_images, open_sources
from featx.sources.labels import Target, read_target
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
        ("t.csv", "path|label\na.png|ant\nb.png|bee\n"),
        ("t.csv", "sep=;\npath;label\na.png;ant\nb.png;bee\n"),
        ("t.csv", "\ufeffpath,label\na.png,ant\nb.png,bee"),
        ("t.csv", '"path","label"\n"a.png","ant"\n\n"b.png","bee"\n\n'),
    ],
    ids=["comma", "crlf", "semicolon", "tab", "bar", "named", "byte-order-mark", "quoted-and-blank-lines"],
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


def test_addresses_of_files_may_be_percent_encoded(table, tmp_path):
    for name in ("red ants/1.png", "100%.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    uris = [(tmp_path / "red ants" / "1.png").as_uri(), f"file://{tmp_path}/100%.png"]
    assert "%20" in uris[0]
    listing = list_images(table("path\n" + "\n".join(uris) + "\n"))
    assert [item.fetch() for item in listing.items] == [b"red ants/1.png", b"100%.png"]
    assert list_images((tmp_path / "red ants").as_uri()).items[0].fetch() == b"red ants/1.png"


def test_a_table_without_targets_is_fine_when_none_is_needed(table):
    listing = list_images(table("path,a,b\np.png,1,2\n"))
    assert listing.targets is None
    assert listing.target_column is None


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("path,label\n", {}, "t.csv: no rows"),
        ("a,b\nx,y\n", {}, "t.csv: which column holds the paths? Set path_column=NAME, one of a, b"),
        (
            "a,b\na waste of time,1\n",
            {},
            "t.csv: which column holds the paths? Set path_column=NAME, one of a, b; column 'a' looks like texts",
        ),
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


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("path,label\na.png,ant\nb.png,bee\n".encode("utf-16"), "t.csv"),
        ("path;label\na.png;ant\nb.png;bee\n".encode("utf-16-le"), "t.csv"),
        ("\ufeffpath\tlabel\na.png\tant\nb.png\tbee\n".encode("utf-16-be"), "t.tsv"),
        ("path,label\na.png,ant\nb.png,bee\n".encode("utf-32"), "t.csv"),
        (b"path, label\na.png, ant\nb.png, bee\n", "t.csv"),
        (b' path , label \n"a.png", "ant"\n"b.png", "bee"\n', "t.csv"),
    ],
    ids=["utf-16", "no-mark", "big-endian", "utf-32", "blanks", "blanks-and-quotes"],
)
def test_encodings_and_blanks_make_no_difference(table, content, name):
    listing = list_images(table(content, name), need_target=True)
    assert (listing.items, listing.targets, listing.target_column) == (["a.png", "b.png"], ["ant", "bee"], "label")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("p/a.png,ant\np/b.png,bee\n", {}),
        ("p/a.png;1\np/b.png;2\n", {"target": "label"}),
        ("ant\thttp://x/a.JPG?size=2\nbee\thttp://x/b.JPG\n", {}),
        ("a.heic,ant\nb.heic,bee\n", {}),
        ("a.png,ant\nb.png,bee\n", {"path_column": "path"}),
    ],
)
def test_a_table_without_a_header_is_refused(table, content, options):
    with pytest.raises(SourceError, match=r"t\.csv: has no header, .*write the names of the columns above it"):
        list_images(table(content), **options)


def test_a_column_may_be_called_like_an_image(table):
    assert list_images(table("path,mean.png\na.png,1\n")).items == ["a.png"]


@pytest.mark.parametrize("x", ["x", "X"])
def test_y_beside_x_is_a_coordinate(table, x):
    name = table(f"path,{x},y,species\na.png,1,2,ant\nb.png,3,4,bee\n")
    with pytest.raises(SourceError, match=r"which column is to be predicted\? .* species"):
        list_images(name, need_target=True)
    assert list_images(name).targets is None
    assert list_images(name, target="y").targets == ["2", "4"]


def frame(labels):
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0, 1], ["1", "0", "1"]),
        ([1.0, None, 0.0], ["1", None, "0"]),
        ([1.5, None, 2.0], ["1.5", None, "2"]),
        ([True, False, True], ["True", "False", "True"]),
        (["01", "1", "x 1.0"], ["01", "1", "x 1.0"]),
        ([b"ant", b"bee", b"ant"], ["ant", "bee", "ant"]),
    ],
)
def test_a_label_has_one_spelling_however_the_table_was_written(tmp_path, monkeypatch, labels, expected):
    monkeypatch.chdir(tmp_path)
    frame(labels).to_parquet("t.parquet")
    text = [label.decode() if isinstance(label, bytes) else label for label in labels]
    frame(text).to_csv("t.csv", index=False)
    frame(text).astype({"label": str}).replace({"None": None, "nan": None}).to_parquet("text.parquet")
    (tmp_path / "lower.csv").write_text((tmp_path / "t.csv").read_text().replace("True", "true").replace("Fa", "FA"))
    for name in ("t.parquet", "t.csv", "text.parquet", "lower.csv"):
        if name == "t.parquet" and isinstance(labels[0], bytes):
            continue  # two columns of bytes
        assert [entry.label for entry in Table(name, "path").entries()] == expected


def test_a_column_of_lists_is_several_labels(tmp_path):
    name = str(tmp_path / "t.parquet")
    frame([["a", "b|c"], []]).to_parquet(name)
    listing = list_images(name, need_target=True)
    assert (listing.targets, listing.separator) == (["a|b\\|c", "|"], "|")
    assert [entry.label for entry in Table(name, "path").entries()] == listing.targets


@pytest.mark.parametrize("labels", [[{"x": 1}, {"x": 2}], ["['a']", "['a', 'b']"]])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_structs_and_lists_as_text_are_no_labels(tmp_path, labels, suffix):
    name = str(tmp_path / f"t.{suffix}")
    if suffix == "csv":
        labels = [str(label) for label in labels if not isinstance(label, dict)] or ["[1]", "[2]"]
        frame(labels).to_csv(name, index=False)
    else:
        frame([label if isinstance(label, dict) else {"x": label} for label in labels]).to_parquet(name)
    for options in ({"need_target": True}, {"target": "label"}):
        with pytest.raises(SourceError, match=r"column 'label' holds structs or lists as text"):
            list_images(name, **options)
    listing = list_images(name)
    assert listing.targets is None
    assert any("the images have no labels" in note for note in listing.notes)


def write_features(path, labels, names):
    features = {"label": {"names": names, "_type": "ClassLabel"}, "path": {"dtype": "string", "_type": "Value"}}
    table = pa.table({"path": [f"{i}.png" for i in range(len(labels))], "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


def test_parquet_has_the_names_of_a_class_label(tmp_path):
    name = write_features(tmp_path / "t.parquet", [1, 0, -1, None], ["ants", unicodedata.normalize("NFD", "Käfer")])
    listing = list_images(name, need_target=True)
    assert listing.targets == ["Käfer", "ants", None, None]
    assert [entry.label for entry in Table(name).entries()] == listing.targets
    digits = list_images(write_features(tmp_path / "d.parquet", [0, 1], ["7", "9"]), need_target=True)
    assert read_target(digits, None) == Target("classification", ["7", "9"])


def test_words_for_a_missing_value_are_named(table):
    listing = list_images(table("path,label\na.png,NA\nb.png,ant\nc.png,NA\nd.png,nan\n"), need_target=True)
    assert any("'NA' in 2 rows, 'nan' in 1 row" in note for note in listing.notes)
    assert len(list_images(table("path,label\na.png,Nautilus\n"), need_target=True).notes) == 2


def test_names_without_suffix_are_found(table, tmp_path):
    for file in ("p/a.1.png", "p/b.JPG", "c", "d.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(file.encode())
    (tmp_path / "d").mkdir()
    listing = list_images(table("id,n\np/a.1,1\np/b,2\nc,3\nd,4\ngone,5\n"), path_column="id")
    assert listing.items == ["p/a.1.png", "p/b.JPG", "c", "d.png", "gone"]
    (tmp_path / "p" / "b.png").touch()
    with pytest.raises(SourceError, match=r"'p/b' may be p/b\.JPG or p/b\.png; write the suffix"):
        list_images("t.csv", path_column="id")


def test_names_without_suffix_are_found_at_an_address():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/ids/t.csv", b"path\np/a\n")
    fs.pipe_file("/ids/p/a.png", b"image")
    (item,) = list_images("memory://ids/t.csv").items
    assert (str(item), item.fetch()) == ("memory://ids/p/a.png", b"image")
    fs.store.clear()


@pytest.mark.parametrize("cells", [("[1, 2]", "[3]"), ("(1, 2)", "(3,)"), ("{'a': 1}", "{}")])
def test_cells_of_csv_with_several_labels(table, cells):
    one, two = cells
    path = table(f'path,label\na.png,"{one}"\nb.png,"{two}"\n')
    with pytest.raises(SourceError, match="lists as text; write several labels"):
        list_images(path, need_target=True)
    assert list_images(table("path,label\na.png,(unknown)\n")).targets == ["(unknown)"]


def test_backslashes_and_blanks_in_paths(table, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").touch()
    (tmp_path / r"b\c.png").touch()
    items = list_images(table("path\np\\a.png\n p/a.png \nb\\c.png\n./p/a.png\n")).items
    assert items == [r"p\a.png", "p/a.png", r"b\c.png", "./p/a.png"]
    with pytest.raises(UnreadableError, match="write paths with slashes"):
        decode(items[0])


def test_a_path_that_is_not_there_is_explained(table, tmp_path):
    for file in ("here/a.png", "far/train/b.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    table("path\nhere/a.png\nb.png\nb\nc.png\n/d.png\n", "far/t.csv")
    reasons = []
    for item in list_images("far/t.csv").items:
        for one in (item, pickle.loads(pickle.dumps(item))):
            with pytest.raises(UnreadableError) as caught:
                decode(one)
        reasons.append(str(caught.value))
    assert "is in the working directory, and paths are relative to the table" in reasons[0]
    assert "train/b.png is there" in reasons[1]
    assert "train/b.png is there" in reasons[2]
    assert reasons[3:] == [
        "no such file; check the path, which is relative to the table",
        "no such file; check the path",
    ]
    (opened,) = open_sources("far/t.csv")
    fetch = opened.contents()
    with pytest.raises(UnreadableError, match="relative to the table"):
        fetch("c.png", b"c.png")()


def test_every_type_of_bytes_is_an_image(tmp_path):
    data = [b"image-1", b"image-2"]
    kinds = {
        "view": pa.array(data, pa.binary_view()),
        "fixed": pa.array(data, pa.binary(7)),
        "dictionary": pa.array(data).dictionary_encode(),
        "large": pa.array(data, pa.large_binary()),
    }
    for name, values in kinds.items():
        pq.write_table(pa.table({"image": values, "label": ["a", "b"]}), tmp_path / f"{name}.parquet")
        items = list_images(str(tmp_path / f"{name}.parquet")).items
        assert [item.fetch() for item in items] == data


def test_a_struct_without_bytes_is_read_from_its_path(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    cells = [{"bytes": None, "path": "a.png"}, {"bytes": b"cell", "path": "b.png"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet")
    items = list_images(str(tmp_path / "t.parquet")).items
    assert [item.fetch() for item in items[1::-1]] == [b"cell", b"image"]
    with pytest.raises(UnreadableError, match="no image here"):
        items[2].fetch()
    fetch = Table(str(tmp_path / "t.parquet")).contents()
    assert [fetch("", str(row).encode())() for row in (0, 1)] == [b"image", b"cell"]


def test_two_columns_of_one_name_are_refused_in_parquet(tmp_path):
    table = pa.table([pa.array(["a.png"]), pa.array(["x"]), pa.array(["y"])], names=["path", "label", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="two columns have the same name in path, label, label"):
        list_images(str(tmp_path / "t.parquet"))
