"""Folders, globs and image files as a list of images; the files are empty, since nothing is opened."""

import os
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featx.errors import SourceError
from featx.sources.listing import list_labelled_folder, list_source
from featx.sources.opening import open_source


@pytest.fixture
def make_tree(tmp_path, monkeypatch):
    """Make empty files below the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                file.mkdir()
            else:
                file.touch()
        return tmp_path

    return make


def list_all(source):
    return list_source([source]).paths


def list_job(source):
    return list(open_source(source).entries())


def test_sub_folders_are_classes_sorted_by_class_and_path(make_tree):
    make_tree("p/wasps/1.png", "p/ants/2.JPG", "p/ants/1.jpeg", "p/ants/deep/er/3.webp")
    listing = list_source(["p"], need_target=True)
    assert listing.paths == ["p/ants/1.jpeg", "p/ants/2.JPG", "p/ants/deep/er/3.webp", "p/wasps/1.png"]
    assert listing.targets == ["ants", "ants", "ants", "wasps"]
    assert listing.target_column is None
    assert listing.path_column is None
    assert listing.notes == ()


def test_names_with_spaces_and_unicode_are_kept(make_tree):
    make_tree("my photos/bäume ü/ein bild.png", "my photos/日本/写真 [1].jpg")
    listing = list_labelled_folder("my photos")
    assert listing.targets == ["bäume ü", "日本"]
    assert all(os.path.isfile(path) for path in listing.paths)


def test_hidden_files_and_folders_are_passed_over_in_silence(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "p/.git/x.png", "p/a/.thumbs/t.png", "p/a/._1.png", "p/.DS_Store")
    listing = list_labelled_folder("p")
    assert listing.paths == ["p/a/1.png", "p/b/1.png"]
    assert listing.notes == ()


def test_other_files_are_counted(make_tree):
    make_tree("p/a/1.png", "p/a/notes.txt", "p/b/1.png", "p/b/x/data.json")
    assert list_labelled_folder("p").notes == ("passed over 2 other files, no images by their names",)


def test_a_class_folder_without_images_is_no_class_and_named(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "p/c/")
    listing = list_labelled_folder("p")
    assert set(listing.targets) == {"a", "b"}
    assert listing.notes == ("sub-folders without images, not taken as classes: c",)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["p/a/1.png"], "images of 1 class; at least two"),
        (["p/a/1.png", "p/b/"], "images of 1 class; at least two"),
        (["p/a/", "p/b/"], "images of 0 class; at least two"),
        (["p/a/1.png", "p/b/1.png", "p/loose.png"], "1 images lie beside the class folders (loose.png)"),
        (["p/1.png", "p/2.png"], "images without classes"),
    ],
)
def test_a_folder_that_is_not_one_of_classes_is_refused(make_tree, names, said):
    make_tree(*names)
    with pytest.raises(SourceError) as caught:
        list_labelled_folder("p")
    assert str(caught.value).startswith("p: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "train", "rest"),
    [
        (["train", "val"], "train", "val"),
        (["train", "test"], "train", "test"),
        (["Train", "Test", "Val"], "Train", "Test"),
        (["training", "validation"], "training", "validation"),
        (["annotations", "train", "val"], "train", "val"),
    ],
)
def test_a_split_is_refused_with_the_commands_to_run(make_tree, folders, train, rest):
    make_tree(*(f"p/{folder}/ants/1.png" for folder in folders))
    with pytest.raises(SourceError) as caught:
        list_labelled_folder("p")
    assert f"featx fit p/{train} -o MODEL.featx" in str(caught.value)
    assert f"featx evaluate MODEL.featx p/{rest}" in str(caught.value)


def test_the_commands_to_run_are_quoted(make_tree):
    make_tree("my p/train/a/1.png", "my p/val/a/1.png")
    with pytest.raises(SourceError, match=r"featx fit 'my p/train' -o .* MODEL\.featx 'my p/val'"):
        list_labelled_folder("my p")


def test_one_class_called_test_is_a_class(make_tree):
    make_tree("p/test/1.png", "p/product/1.png")
    assert list_labelled_folder("p").targets == ["product", "test"]


def test_a_split_is_fine_without_labels(make_tree):
    make_tree("p/train/a/1.png", "p/val/a/1.png")
    assert list_source(["p"]).paths == ["p/train/a/1.png", "p/val/a/1.png"]


def test_links_are_followed_but_never_round_or_up(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "elsewhere/2.png")
    os.symlink("../a", "p/a/itself")
    os.symlink("..", "p/a/root")
    os.symlink("../..", "p/b/above")
    os.symlink("../../elsewhere", "p/b/more")
    listing = list_labelled_folder("p")
    assert listing.paths == ["p/a/1.png", "p/b/1.png", "p/b/more/2.png"]
    assert listing.targets == ["a", "b", "b"]


def test_a_class_may_be_a_link(make_tree):
    make_tree("p/a/1.png", "elsewhere/2.png")
    os.symlink("../elsewhere", "p/b")
    assert list_labelled_folder("p").targets == ["a", "b"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.png", ["p/1.png", "p/2.png"]),
        ("p/?.png", ["p/1.png", "p/2.png"]),
        ("p/[2-9].*", ["p/2.png", "p/3.jpg"]),
        ("p/**/*.jpg", ["p/3.jpg", "p/x/4.jpg"]),
    ],
)
def test_globs(make_tree, pattern, expected):
    make_tree("p/1.png", "p/2.png", "p/3.jpg", "p/x/4.jpg")
    assert list_source([pattern]).paths == expected


def test_a_glob_passes_over_what_is_no_image(make_tree):
    make_tree("p/1.png", "p/a.txt", "p/x/2.png", "p/x/b.txt")
    listing = list_source(["p/*"])
    assert listing.paths == ["p/1.png", "p/x/2.png"]  # as the shell hands folders on
    assert listing.notes == ("passed over 2 other files, no images by their names",)
    assert list_source(["p/**"]).paths == ["p/1.png", "p/x/2.png"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(make_tree):
    make_tree("a[1].png", "a1.png")
    assert list_source(["a[1].png"]).paths == ["a[1].png"]


def test_sources_keep_their_order_and_may_mix(make_tree):
    make_tree("z.png", "p/b.png", "p/a.png", "y1.png", "y2.png")
    assert list_source(["z.png", "p", "y*.png"]).paths == ["z.png", "p/a.png", "p/b.png", "y1.png", "y2.png"]


def test_a_file_is_taken_whatever_its_name(make_tree):
    make_tree("image-without-suffix")
    assert list_source(["image-without-suffix"]).paths == ["image-without-suffix"]


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        (["nowhere"], {}, "nowhere: no such file or folder"),
        (["p/*.gif"], {}, "p/*.gif: no image matches"),
        (["no-images"], {}, "no-images: no images in this folder (1 other files)"),
        (["nowhere.csv"], {}, "nowhere.csv: no such file"),
        (["nowhere.csv", "p"], {}, "nowhere.csv: a table stands alone"),
        (["p"], {"path_column": "file"}, "p: --path-column and --target are columns of a table"),
        (["p"], {"target": "y"}, "p: --path-column and --target are columns of a table"),
        (["p/a/1.png"], {"need_target": True}, "p/a/1.png: no labels; give one folder"),
        (["p", "no-images"], {"need_target": True}, "p no-images: no labels; give one folder"),
        (["p.tar.gz"], {}, "p.tar.gz: an archive; embed it first: featx embed p.tar.gz -o DIR, then featx fit DIR"),
        (["the p.zip"], {"need_target": True}, "the p.zip: an archive; embed it first: featx embed 'the p.zip' -o DIR"),
        (["vectors"], {}, "vectors: a dataset of embeddings, and images are expected here"),
        (["vectors"], {"need_target": True}, "vectors: a dataset of embeddings, and images are expected here"),
    ],
)
def test_sources_that_cannot_be_used(make_tree, sources, options, said):
    make_tree("p/a/1.png", "no-images/x.txt", "p.tar.gz", "the p.zip", "vectors/_manifest.json")
    with pytest.raises(SourceError) as caught:
        list_source(sources, **options)
    assert str(caught.value).startswith(said)


@pytest.fixture
def nobody():
    """Run as a user to whom something can be forbidden, in a folder that everybody reaches."""
    before, mask = os.getcwd(), os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.chdir(folder)
        is_root = os.geteuid() == 0
        yield lambda: os.seteuid(65534) if is_root else None
        if is_root:
            os.seteuid(0)
        os.chmod("p/b", 0o755)
        os.chdir(before)
    os.umask(mask)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("pattern", ["p/*/*.png", "p/**/*.png", "p/*/c/1.png", "p/**", "p/*"])
@pytest.mark.parametrize("whole", [list_all, list_job], ids=["at once", "job"])
def test_a_glob_passes_over_no_folder_that_cannot_be_listed(nobody, pattern, whole):
    for name in ("p/a/c/1.png", "p/a/1.png", "p/b/1.png", "p/b/c/1.png"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        open(name, "w").close()
    assert whole(pattern)
    os.chmod("p/b", 0)
    nobody()
    with pytest.raises(SourceError, match=r"p/b: cannot be listed \(Permission denied\)"):
        whole(pattern)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\0\0", {"bytes": b"\x89PNG", "path": None}])
def test_a_table_of_images_is_no_table_of_paths(tmp_path, content):
    pq.write_table(pa.table({"image": [content] * 2, "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(SourceError) as caught:
        list_source([str(tmp_path / "t.parquet")], path_column="image")
    assert "column 'image' holds images, not paths; embed it first: featx embed" in str(caught.value)
    assert len(str(caught.value)) < 300
