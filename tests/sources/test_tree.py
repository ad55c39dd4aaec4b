"""The same rules label the images of every kind of source that names them by paths."""

import functools
import http.server
import io
import json
import os
import tarfile
import threading
import unicodedata
import zipfile

import fsspec
import pytest

from featx.errors import SourceError
from featx.sources import list_images, open_sources

KINDS = ["folder", "glob", "zip", "tar", "tar.gz", "memory"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write files, in this order, into a source of some kind, and return the source."""
    monkeypatch.chdir(tmp_path)
    fs = fsspec.filesystem("memory")

    def make_source(kind, members):
        if isinstance(members, (list, tuple)):
            members = dict.fromkeys(members, b"")
        members = {name: content.encode() if isinstance(content, str) else content for name, content in members.items()}
        if kind == "zip":
            with zipfile.ZipFile("s.zip", "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, content)
            return "s.zip"
        if kind.startswith("tar"):
            with tarfile.open(f"s.{kind}", f"w:{kind[4:]}") as archive:
                for name, content in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            return f"s.{kind}"
        for name, content in members.items():
            if kind == "memory":
                fs.pipe_file(f"/s/{name}", content)
            else:
                path = tmp_path / "s" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return {"memory": "memory://s", "glob": "s/**"}.get(kind, "s")

    yield make_source
    fs.store.clear()


def labels(source, **options):
    return {entry.key: entry.label for opened in open_sources(source, **options) for entry in opened.entries()}


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_parts_of_a_data_set_are_no_labels(make, kind):
    source = make(kind, ["train/ants/1.png", "train/bees/1.png", "val/ants/2.png", "Test/bees/3.png"])
    assert set(labels(source).values()) == {"ants", "bees"}
    with pytest.raises(SourceError, match=r"are parts of a data set"):
        list_images(source, need_target=True)
    assert list_images(source, include="train/*", need_target=True).targets == ["ants", "bees"]


@every_kind
def test_parts_of_a_data_set_in_a_folder_around_them_are_no_labels(make, kind):
    source = make(kind, ["photos/train/ants/1.png", "photos/train/bees/1.png", "photos/val/ants/2.png"])
    assert set(labels(source).values()) == {"ants", "bees"}
    with pytest.raises(SourceError, match=r"train and val are parts of a data set"):
        list_images(source, need_target=True)


@every_kind
def test_a_single_part_of_a_data_set_is_no_label(make, kind):
    source = make(kind, ["train/ants/1.png", "train/bees/1.png"])
    assert list_images(source, need_target=True).targets == ["ants", "bees"]


@every_kind
def test_parts_of_a_data_set_are_refused_if_files_label_the_images(make, kind):
    source = make(kind, {"train/1.png": b"", "train/1.cls": "ants", "test/2.png": b"", "test/2.cls": "bees"})
    assert labels(source) == {"train/1.png": "ants", "test/2.png": "bees"}
    with pytest.raises(SourceError, match=r"test and train are parts of a data set"):
        list_images(source, need_target=True)
    assert list_images(source, include="test/*", need_target=True).targets == ["bees"]


@every_kind
def test_cls_counts_before_json_and_a_caption_is_no_class(make, kind):
    members = {
        "a/1.json": json.dumps({"label": "json"}),
        "a/1.png": b"",
        "a/1.cls": "cls\n",
        "a/1.txt": "a photo of an ant",
        "a/2.png": b"",
        "a/2.json": json.dumps({"label": 3.0}),
        "a/3.png": b"",
        "a/3.json": json.dumps({"caption": "bees"}),
    }
    found = labels(make(kind, members))
    assert found == {"a/1.png": "cls", "a/2.png": "3", "a/3.png": None}


@every_kind
def test_captions_alone_leave_the_folders_as_labels(make, kind):
    source = make(kind, {"ants/1.png": b"", "ants/1.txt": "an ant", "bees/2.png": b"", "bees/2.txt": "a bee"})
    assert labels(source) == {"ants/1.png": "ants", "bees/2.png": "bees"}


@every_kind
def test_names_with_dots_in_any_order(make, kind):
    members = {
        "2021.03.05_02.cls": "bees",
        "2021.03.05_01.png": b"",
        "2021.03.05_02.png": b"",
        "x.left.png": b"",
        "2021.03.05_01.cls": "ants",
        "x.cls": "wasps",
    }
    expected = {"2021.03.05_01.png": "ants", "2021.03.05_02.png": "bees", "x.left.png": "wasps"}
    assert labels(make(kind, members)) == expected


@every_kind
def test_several_labels_in_a_file_are_named(make, kind):
    listing = list_images(make(kind, {"1.png": b"", "1.json": json.dumps({"label": ["ants", "bees"]})}))
    assert listing.targets is None
    assert any("several labels per image" in note for note in listing.notes)


@every_kind
def test_images_beside_labelled_ones_have_no_label_and_are_counted(make, kind):
    listing = list_images(make(kind, {"a/1.png": b"", "a/1.cls": "ants", "b/2.png": b""}))
    assert listing.targets == ["ants", None]
    assert any("1 image has no label" in note for note in listing.notes)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_in_an_archive_have_slashes_and_begin_at_its_root(make, kind):
    source = make(kind, ["./ants/1.png", r"bees\2.png", "././wasps/./3.png", "../flies/4.png"])
    assert labels(source) == {
        **{"ants/1.png": "ants", "bees/2.png": "bees", "wasps/3.png": "wasps", "flies/4.png": "flies"},
    }


@every_kind
def test_a_name_in_two_unicode_forms_is_one_class(make, kind):
    names = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
    source = make(kind, [f"{names[0]}/1.png", f"{names[1]}/2.png", "Biene/3.png"])
    assert set(labels(source).values()) == {names[0], "Biene"}
    assert set(labels(source, include=f"{names[1]}/*").values()) == {names[0]}


@every_kind
def test_names_that_programs_leave_behind_are_passed_over_and_counted(make, kind):
    left = ["@eaDir/1.png/THUMB_M.png", "@eaDir/x.jpg", ".ipynb_checkpoints/1-checkpoint.png", "._1.png", "Thumbs.db"]
    above = ["__MACOSX/ants/x.png", "lost+found/y.png", "$RECYCLE.BIN/z.png", "#recycle/b.png", ".Trash-1000/c.png"]
    source = make(kind, ["ants/1.png", "bees/2.png", *(f"ants/{name}" for name in left), *above])
    listing = list_images(source, need_target=True)
    assert listing.targets == ["ants", "bees"]
    (note,) = listing.notes
    assert "leave behind" in note
    names = ["@eaDir 1", "__MACOSX 1", "lost+found 1", "$RECYCLE.BIN 1", "#recycle 1"]
    names += [] if kind == "glob" else ["._* 1", ".ipynb_checkpoints 1", ".Trash-1000 1"]  # it matches no hidden names
    assert all(name in note for name in names)


def test_a_glob_that_names_a_folder_takes_it(make):
    make("folder", ["ants/@eaDir/1.png"])
    assert list(labels("s/*/@eaDir/*.png")) == ["ants/@eaDir/1.png"]


FOLDERS = ["photo/dog/1.png", "photo/cat/2.png", "sketch/dog/3.png", "sketch/horse/4.png"]


@every_kind
def test_folders_of_folders_are_asked_about(make, kind):
    source = make(kind, FOLDERS)
    with pytest.raises(SourceError, match=r"photo, sketch or cat, dog, horse\? Set target=\"1\" .* target=\"2\""):
        list_images(source, need_target=True)
    listing = list_images(source)
    assert (listing.targets, listing.notes) == (None, ())
    assert "photo, sketch or cat" in listing.question
    assert list_images(source, target="1", need_target=True).targets.count("photo") == 2
    listing = list_images(source, target="2", need_target=True)
    assert (sorted(listing.targets), listing.target_column) == (["cat", "dog", "dog", "horse"], None)
    assert list_images(source, target="0").targets is None
    assert set(labels(source, target="2").values()) == {"dog", "cat", "horse"}


@every_kind
def test_folders_of_folders_in_a_part_of_a_data_set_are_asked_about(make, kind):
    source = make(kind, [f"{part}/{name}" for part in ("train", "val") for name in FOLDERS])
    with pytest.raises(SourceError, match=r"photo, sketch or cat, dog, horse\? Set target=\"2\" .* target=\"3\""):
        list_images(source, include="train/*", need_target=True)
    with pytest.raises(SourceError, match=r"train and val are parts of a data set"):
        list_images(source, target="3", need_target=True)
    assert "horse" in list_images(source, target="3", include="train/*", need_target=True).targets


@every_kind
@pytest.mark.parametrize(
    ("members", "options", "expected"),
    [
        (["ants/1.png", "ants/2024/2.png", "bees/2024/3.png"], {}, {"ants", "bees"}),
        (["ants/images/1.png", "bees/images/2.png"], {}, {"ants", "bees"}),
        (["ants/images/1.png", "ants/masks/1.png", "bees/images/2.png"], {"exclude": "*/masks/*"}, {"ants", "bees"}),
        (["ants/train/1.png", "ants/test/2.png", "bees/train/3.png"], {}, {"ants", "bees"}),
    ],
)
def test_folders_that_are_clear_are_not_asked_about(make, kind, members, options, expected):
    assert set(list_images(make(kind, members), **options, need_target=True).targets) == expected


@every_kind
def test_a_part_of_a_data_set_that_is_selected_is_no_label(make, kind):
    source = make(kind, ["train/ants/1.png", "train/bees/2.png", "rest/x/3.png"])
    assert list_images(source, include="train/*", need_target=True).targets == ["ants", "bees"]


@every_kind
def test_a_source_without_images_names_what_it_has(make, kind):
    source = make(kind, ["a/1.CR2", "@eaDir/1.png"])
    with pytest.raises(
        SourceError, match=r"\(1 other files; RAW is not read.*leave behind are passed over: @eaDir 1\)"
    ):
        list_images(source)


def test_a_level_is_for_folders(make):
    source = make("folder", ["ants/1.png", "bees/1.png"])
    with pytest.raises(SourceError, match=r"for folders, set target=\"1\""):
        list_images(source, target="species")
    with pytest.raises(SourceError, match="images without classes"):
        list_images(source, target="2", need_target=True)


def test_names_at_a_web_server_are_unquoted(make):
    make("folder", ["red ants/1 %.png", "Bienen grün/2.png"])

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory="s")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            source = f"http://127.0.0.1:{server.server_port}/"
            assert labels(source) == {"red ants/1 %.png": "red ants", "Bienen grün/2.png": "Bienen grün"}
            assert list_images(source).notes == ()
            (item, _) = list_images(source).items
            assert item.fetch() == b""
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_label_that_cannot_be_read_is_an_error(make):
    source = make("folder", {"1.png": b"", "1.cls": "ants"})
    os.remove("s/1.cls")
    os.symlink("nowhere", "s/1.cls")
    with pytest.raises(SourceError, match=r"1\.cls: cannot be read"):
        labels(source)
