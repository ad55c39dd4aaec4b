"""List folders, globs and image files; the files are empty, since nothing is opened."""

import os
import tempfile
from pathlib import Path

import pytest

from featx.errors import InputError, SourceError
from featx.sources import list_images, load_folder, open_sources


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
    return list_images(source).items


def list_job(source):
    (opened,) = open_sources(source)
    return list(opened.entries())


def test_sub_folders_are_classes_sorted_by_class_and_path(make_tree):
    make_tree("p/wasps/1.png", "p/ants/2.JPG", "p/ants/1.jpeg", "p/ants/deep/er/3.webp")
    listing = list_images("p", need_target=True)
    assert listing.items == ["p/ants/1.jpeg", "p/ants/2.JPG", "p/ants/deep/er/3.webp", "p/wasps/1.png"]
    assert listing.targets == ["ants", "ants", "ants", "wasps"]
    assert listing.target_column is None
    assert listing.path_column is None
    assert listing.notes == ()


def test_names_with_spaces_and_unicode_are_kept(make_tree):
    make_tree("my photos/bäume ü/ein bild.png", "my photos/日本/写真 [1].jpg")
    listing = list_images("my photos", need_target=True)
    assert listing.targets == ["bäume ü", "日本"]
    assert all(os.path.isfile(path) for path in listing.items)


def test_hidden_files_and_folders_are_passed_over_in_silence(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "p/.git/x.png", "p/a/.thumbs/t.png", "p/a/.1.png", "p/.DS_Store")
    listing = list_images("p", need_target=True)
    assert listing.items == ["p/a/1.png", "p/b/1.png"]
    assert listing.notes == ()


def test_other_files_are_counted(make_tree):
    make_tree("p/a/1.png", "p/a/notes.txt", "p/b/1.png", "p/b/x/data.json")
    (note,) = list_images("p", need_target=True).notes
    assert note == "2 files are not images by their names: .txt 1, .json 1"


def test_formats_of_cameras_and_phones_are_named(make_tree, monkeypatch):
    monkeypatch.setattr("featx.sources.names.heif_available", lambda: False)
    make_tree("p/1.png", "p/1.HEIC", "p/2.heic", "p/3.cr2", "p/Makefile")
    listing = list_images("p")
    (note,) = listing.notes
    assert listing.items == ["p/1.png"]
    assert note.startswith("4 files are not images by their names: .heic 2, ")
    assert "HEIC is read with the extra heif" in note
    assert "RAW is not read" in note
    monkeypatch.setattr("featx.sources.names.heif_available", lambda: True)
    assert list_images("p").items == ["p/1.HEIC", "p/1.png", "p/2.heic"]


def test_a_class_folder_without_images_is_no_class_and_named(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "p/c/")
    listing = list_images("p", need_target=True)
    assert set(listing.targets) == {"a", "b"}
    assert listing.notes == ("sub-folders without images, not taken as classes: c",)


@pytest.mark.parametrize("names", [["p/a/1.png"], ["p/a/1.png", "p/b/"]])
def test_one_class_is_enough_to_list_and_evaluate(make_tree, names):
    make_tree(*names)
    assert list_images("p", need_target=True).targets == ["a"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["p/a/", "p/b/"], "no images in this folder"),
        (["p/a/1.png", "p/b/1.png", "p/loose.png"], "1 images lie beside the class folders (loose.png)"),
        (["p/1.png", "p/2.png"], "images without classes"),
    ],
)
def test_a_folder_that_is_not_one_of_classes_is_refused(make_tree, names, said):
    make_tree(*names)
    with pytest.raises(SourceError) as caught:
        list_images("p", need_target=True)
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
        list_images("p", need_target=True)
    assert f"featx fit p/{train} -o MODEL.featx" in str(caught.value)
    assert f"featx evaluate MODEL.featx p/{rest}" in str(caught.value)
    assert f"featx.fit('p/{train}')" in str(caught.value)


def test_the_commands_to_run_are_quoted(make_tree):
    make_tree("my p/train/a/1.png", "my p/val/a/1.png")
    with pytest.raises(SourceError, match=r"featx fit 'my p/train' -o .* MODEL\.featx 'my p/val'"):
        list_images("my p", need_target=True)


def test_one_class_called_test_is_a_class(make_tree):
    make_tree("p/test/1.png", "p/product/1.png")
    assert list_images("p", need_target=True).targets == ["product", "test"]


def test_a_split_is_fine_without_labels(make_tree):
    make_tree("p/train/a/1.png", "p/val/a/1.png")
    assert list_images("p").items == ["p/train/a/1.png", "p/val/a/1.png"]


def test_links_are_followed_but_never_round_or_up(make_tree):
    make_tree("p/a/1.png", "p/b/1.png", "elsewhere/2.png")
    os.symlink("../a", "p/a/itself")
    os.symlink("..", "p/a/root")
    os.symlink("../..", "p/b/above")
    os.symlink("../../elsewhere", "p/b/more")
    listing = list_images("p", need_target=True)
    assert listing.items == ["p/a/1.png", "p/b/1.png", "p/b/more/2.png"]
    assert listing.targets == ["a", "b", "b"]


def test_a_class_may_be_a_link(make_tree):
    make_tree("p/a/1.png", "elsewhere/2.png")
    os.symlink("../elsewhere", "p/b")
    assert list_images("p", need_target=True).targets == ["a", "b"]


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
    assert list_images(pattern).items == expected


def test_a_glob_passes_over_what_is_no_image(make_tree):
    make_tree("p/1.png", "p/a.txt", "p/x/2.png", "p/x/b.txt")
    listing = list_images("p/*")
    assert listing.items == ["p/1.png", "p/x/2.png"]  # as the shell hands folders on
    assert listing.notes == ("2 files are not images by their names: .txt 2",)
    assert list_images("p/**").items == ["p/1.png", "p/x/2.png"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(make_tree):
    make_tree("a[1].png", "a1.png")
    assert list_images("a[1].png").items == ["a[1].png"]


def test_sources_keep_their_order_and_may_mix(make_tree):
    make_tree("z.png", "p/b.png", "p/a.png", "y1.png", "y2.png")
    assert list_images(["z.png", "p", "y*.png"]).items == ["z.png", "p/a.png", "p/b.png", "y1.png", "y2.png"]


def test_a_file_is_taken_whatever_its_name(make_tree):
    make_tree("image-without-suffix")
    assert list_images("image-without-suffix").items == ["image-without-suffix"]


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        (["nowhere"], {}, "nowhere: no such file or folder"),
        (["p/*.gif"], {}, "p/*.gif: no image matches"),
        (["no-images"], {}, "no-images: no images in this folder (1 other files)"),
        (["nowhere.csv"], {}, "nowhere.csv: no such file"),
        (["nowhere.csv", "p"], {}, "nowhere.csv: no such file"),
        (["p"], {"path_column": "file"}, "p: path_column='file' names a column of a table"),
        (["p"], {"target": "y"}, "p: target='y' names a column of a table"),
        (["p/a/1.png"], {"need_target": True}, "p/a/1.png: images without classes"),
        (["p", "no-images"], {"need_target": True}, "no-images: no images in this folder"),
        (["p.tar.gz"], {}, "p.tar.gz: cannot be read as tar"),
        (["the p.zip"], {"need_target": True}, "the p.zip: cannot be read as zip"),
        (["vectors"], {}, "vectors: a dataset of embeddings; open it with featx.dataset.open"),
        (["vectors"], {"need_target": True}, "vectors: a dataset of embeddings"),
        (["p"], {"include": "*.gif"}, "p: include='*.gif' matches no image; patterns apply to names such as 'a/1.png'"),
        (["p"], {"include": ["*.png", "b/*"]}, "p: include='b/*' matches no image"),
        (["p"], {"exclude": "*"}, "p: exclude='*' leaves no image"),
    ],
)
def test_sources_that_cannot_be_used(make_tree, sources, options, said):
    make_tree("p/a/1.png", "no-images/x.txt", "p.tar.gz", "the p.zip", "vectors/_manifest.json")
    with pytest.raises(SourceError) as caught:
        list_images(sources, **options)
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


def test_a_split_is_taken_one_part_at_a_time(make_tree):
    make_tree("p/train/ants/1.png", "p/train/bees/1.png", "p/val/ants/1.png", "p/val/bees/1.png")
    listing = list_images("p", include="train/*", need_target=True)
    assert listing.items == ["p/train/ants/1.png", "p/train/bees/1.png"]
    assert listing.targets == ["ants", "bees"]
    with pytest.raises(SourceError, match=r'fit on one with include="train/\*" and evaluate .* include="val/\*"'):
        list_images("p/*", need_target=True)


def test_patterns_select_by_the_path_below_the_folder(make_tree):
    make_tree("p/a/1.png", "p/a/1_mask.png", "p/b/1.jpg", "p/drafts/1.png")
    listing = list_images("p", include=["*.png", "*.jpg"], exclude=["*_mask.png", "drafts/*"])
    assert listing.items == ["p/a/1.png", "p/b/1.jpg"]
    assert listing.notes == ("include and exclude leave out 2 images",)
    assert list_images("p", exclude="*_mask.png").items[:2] == ["p/a/1.png", "p/b/1.jpg"]


def test_patterns_count_over_all_sources(make_tree):
    make_tree("p/a/1.png", "q/b/2.png")
    assert list_images(["p", "q"], include="a/*").items == ["p/a/1.png"]
    with pytest.raises(SourceError, match=r"include='c/\*' matches no image"):
        list_images(["p", "q"], include=["a/*", "c/*"])


@pytest.mark.parametrize("pattern", [[""], [3], ["a", None]])
def test_a_pattern_is_text(make_tree, pattern):
    make_tree("p/1.png")
    with pytest.raises(InputError, match=r"exclude=.*expected a glob pattern"):
        list_images("p", exclude=pattern)


def test_several_sources_are_labelled_each_by_its_folders(make_tree):
    make_tree("p/a/1.png", "q/b/2.png", "q/notes.txt")
    listing = list_images(["p", "q"], need_target=True)
    assert (listing.items, listing.targets) == (["p/a/1.png", "q/b/2.png"], ["a", "b"])
    assert listing.notes == ("q: 1 file is not an image by its name: .txt 1",)


def test_a_glob_is_labelled_as_its_folder(make_tree):
    make_tree("p/ants/1.png", "p/ants/deep/2.png", "p/bees/1.png", "p/loose.png")
    assert list_images("p/*/**/*.png", need_target=True).targets == ["ants", "ants", "bees"]
    assert list_images("p").targets == ["ants", "ants", "bees", None]
    assert list_images("p/*.png").targets is None


@pytest.mark.parametrize("folder", ["p", "./p", "p/", "../{here}/p"])
def test_paths_are_spelled_as_the_folder_is(make_tree, folder):
    folder = folder.format(here=make_tree("p/a/1.png").name)
    (item,) = list_images(folder).items
    assert item == os.path.join(folder, "a", "1.png")
    assert os.path.exists(item)


def test_parts_of_a_listing(make_tree):
    make_tree("p/a/1.png", "p/b/2.png", "p/c/3.png")
    part = list_images("p").take([2, 0])
    assert (len(part), part.items, part.targets) == (2, ["p/c/3.png", "p/a/1.png"], ["c", "a"])


def test_a_folder_becomes_images_and_labels(make_tree):
    make_tree("p/ants/1.png", "p/bees/1.png", "p/bees/2.png")
    X, y = load_folder(Path("p"), exclude="bees/2*")
    assert X == ["p/ants/1.png", "p/bees/1.png"]
    assert y.tolist() == ["ants", "bees"]
    assert y.dtype.kind == "U"
    with pytest.raises(SourceError, match="nowhere: no such folder"):
        load_folder("nowhere")
