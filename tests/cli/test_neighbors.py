"""``featx neighbors`` and ``featx dataset duplicates``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featx as library
from tests.cli.cli_tools import listing


@pytest.fixture
def vectors(featx, here, world):
    """The images of three classes and one that cannot be read, embedded."""
    shutil.copytree(world / "train", "photos")
    shutil.copy(world / "broken.png", "photos/bag/broken.png")
    assert featx("embed", "photos", "-o", "vectors", "--shard-size", 10).code == 0
    return library.dataset.open("vectors")


def pixels_of(path):
    """Pixels of a sheet."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def grey(pixels):
    return int((pixels == 0xD8).all(axis=2).sum())


def test_neighbours_are_printed_with_rank_cosine_key_and_label(featx, vectors, world):
    image = min((world / "test" / "bag").iterdir())
    ran = featx("neighbors", "vectors", image, "-k", 4)
    assert (ran.code, ran.err) == (0, "")
    first, *lines = ran.out.splitlines()
    assert first == f"{image}: 4 of 36 images"
    X = vectors.X / np.linalg.norm(vectors.X, axis=1, keepdims=True)
    query = library.FeatureExtractor().transform([image])[0]
    cosines = X @ query / np.linalg.norm(query)
    nearest = np.argsort(-cosines)[:4]
    expected = [f"{i}\t{cosines[row]:.4f}\t{vectors.keys[row]}\t{vectors.y[row]}" for i, row in enumerate(nearest, 1)]
    assert lines == expected


def test_a_key_is_searched_without_itself_and_an_image_with(featx, vectors):
    ran = featx("neighbors", "vectors", f"photos/{vectors.keys[0]}", "--key", vectors.keys[0], "-k", 3, "--json")
    image, key = json.loads(ran.out)["queries"]
    assert (image["query"], key["query"]) == (f"photos/{vectors.keys[0]}", vectors.keys[0])
    assert image["neighbors"][0] == {"rank": 1, "row": 0, "key": vectors.keys[0], "label": "bag", "similarity": 1.0}
    same = [one["key"] for one in key["neighbors"]]
    assert [one["key"] for one in image["neighbors"][1:]] == same[:2]
    assert vectors.keys[0] not in same


def test_odd_names_stay_on_their_lines(featx, here, world):
    image = min((world / "test" / "bag").iterdir())
    for name in ("a\tb", "new\nline", "\x1b[2J"):
        Path("odd", name).mkdir(parents=True)
        shutil.copy(image, Path("odd", name, "x.png"))
    assert featx("embed", "odd", "-o", "vectors").code == 0
    found = [line.split("\t") for line in featx("neighbors", "vectors", image).out.splitlines()[1:]]
    assert sorted(row[2:] for row in found) == [[f"{n}/x.png", n] for n in (r"\x1b[2J", r"a\tb", r"new\nline")]
    groups = [line.split("\t") for line in featx("dataset", "duplicates", "vectors").out.splitlines()[2:]]
    assert sorted(row[1:] for row in groups) == [[f"{n}/x.png", n] for n in (r"\x1b[2J", r"a\tb", r"new\nline")]
    (query,) = json.loads(featx("neighbors", "vectors", image, "--json").out)["queries"]
    assert "new\nline/x.png" in [one["key"] for one in query["neighbors"]]


def test_the_features_are_those_of_the_dataset(featx, here, world):
    how = ("--layer", "stage2,head", "--pooling", "max", "--crop", "whole", "--l2-normalize")
    assert featx("embed", world / "test", "-o", "vectors", *how).code == 0
    key = str(library.dataset.open("vectors").keys[7])
    ran = featx("neighbors", "vectors", world / "test" / key, "-k", 1)
    assert ran.out.splitlines()[1] == f"1\t1.0000\t{key}\t{key.split('/')[0]}"


def test_a_backbone_of_another_digest_is_refused(featx, vectors):
    path = Path("vectors/_manifest.json")
    about = json.loads(path.read_text())
    about["features"]["identity"] = "0" * 64
    path.write_text(json.dumps(about))
    for command in (("neighbors", "vectors", "photos/bag"), ("fit", "vectors", "-o", "m.featx")):
        ran = featx(*command)
        assert ran.code == 2
        assert "made with the backbone efficientnet_lite0 (000000000000), which is not on this machine" in ran.err
        assert "pass its file" in ran.err
    ran = featx("neighbors", "vectors", "photos/bag", "--backbone", "efficientnet_lite0")
    assert (ran.code, "efficientnet_lite0 is another backbone" in ran.err) == (2, True)


@pytest.mark.heavy
def test_a_sheet_shows_the_query_and_its_neighbours(featx, vectors):
    ran = featx("neighbors", "vectors", "photos/bag", "--key", vectors.keys[0], "-k", 5, "-o", "sheet.png")
    assert (ran.code, "photos/bag/broken.png: " in ran.err) == (0, True)  # one of the queries cannot be read
    assert ran.err.endswith("featx: sheet.png: written\n")
    pixels = pixels_of("sheet.png")
    assert grey(pixels) < 20_000  # less than a tile
    assert (pixels == (0xA3, 0x3A, 0x2C)).all(axis=2).sum() > 1000  # frames around queries
    assert [name for name in listing(".") if name.endswith(".png") and "/" not in name] == ["sheet.png"]


@pytest.mark.parametrize("odd", ["$x^2$.png", "名前_猫.png", "a\\b&<i>.png"])
def test_a_sheet_with_odd_names(featx, vectors, odd):
    shutil.copy(f"photos/{vectors.keys[0]}", f"photos/bag/{odd}")
    assert featx("embed", "photos", "-o", "vectors").code == 0
    ran = featx("neighbors", "vectors", f"photos/bag/{odd}", "-k", 2, "-o", "sheet.png")
    assert (ran.code, ran.err) == (0, "featx: sheet.png: written\n")
    assert f"\t1.0000\tbag/{odd}\tbag" in ran.out


def test_images_that_are_gone_are_grey_tiles_until_it_is_said_where_they_are(featx, vectors):
    shutil.move("photos", "elsewhere")
    query = ("neighbors", "vectors", "--key", vectors.keys[0], "-k", 3, "-o", "sheet.png")
    ran = featx(*query)
    assert "featx: 4 images are grey tiles (photos: no such file or folder)" in ran.err
    assert grey(pixels_of("sheet.png")) > 4 * 20_000
    ran = featx(*query, "--source", "elsewhere")
    assert ran.err == "featx: sheet.png: written\n"
    assert grey(pixels_of("sheet.png")) < 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "x.png"], "nowhere: no such folder"),
        (["vectors"], "no query: give IMAGE, --text TEXT, or --key KEY"),
        (["vectors", "--text", "x", "--key", "a.png"], "--text and --key: expected one kind of query, got both"),
        (["vectors", "no.png"], "no.png: no such file or folder"),
        (["vectors", "photos/bag/broken.png"], "photos/bag/broken.png): "),
        (["vectors", "--key", "no.png"], "vectors: no.png: no image of this name"),
        (["vectors", "--key", "bag/broken.png"], "vectors: bag/broken.png: could not be read ("),
        (["vectors", "photos/bag", "-k", "0"], "-k 0: expected a number of at least 1"),
        (["vectors", "photos/bag", "-o", "s.jpg"], "s.jpg: expected a name that ends in .png"),
        (["vectors", "photos/bag", "-o", "no/s.png"], "the folder no does not exist"),
        (["vectors", "photos/bag", "--source", "photos"], "--source is only for a contact sheet"),
    ],
)
def test_mistakes(featx, vectors, arguments, message):
    ran = featx("neighbors", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def duplicates(featx, vectors):
    """A bag that is also called a coat, and a sandal that is there twice."""
    for old, new in (("bag/", "coat/zz-copy.png"), ("sandal/", "sandal/zz-copy.png")):
        key = next(key for key in vectors.keys if key.startswith(old))
        shutil.copy(f"photos/{key}", f"photos/{new}")
    assert featx("embed", "photos", "-o", "vectors").code == 0
    keys = sorted(vectors.keys)
    return [next(key for key in keys if key.startswith(label)) for label in ("bag", "sandal")]


def test_duplicates_with_several_labels_come_first(featx, duplicates):
    bag, sandal = duplicates
    ran = featx("dataset", "duplicates", "vectors", "--threshold", 0.9999, "-o", "duplicates.png")
    assert (ran.code, ran.err) == (0, "featx: duplicates.png: written\n")
    assert ran.out.splitlines() == [
        "vectors: 38 images, 2 duplicates in 2 sets, 1 with several labels",
        "set 1, labels bag and coat",
        f"1.0000\t{bag}\tbag",
        "1.0000\tcoat/zz-copy.png\tcoat",
        "set 2",
        f"1.0000\t{sandal}\tsandal",
        "1.0000\tsandal/zz-copy.png\tsandal",
    ]
    assert grey(pixels_of("duplicates.png")) < 1000
    ran = featx("dataset", "duplicates", "vectors", "--threshold", 0.9999, "-n", 1)
    assert ran.out.endswith("and 1 more set; show more with -n N\n")
    groups = json.loads(featx("dataset", "duplicates", "vectors", "--threshold", 0.9999, "--json").out)["duplicates"]
    assert [[one["label"] for one in group] for group in groups] == [["bag", "coat"], ["sandal", "sandal"]]


def test_no_duplicates_and_too_many(featx, vectors):
    ran = featx("dataset", "duplicates", "vectors", "--threshold", 1, "-o", "t.png")
    assert (ran.code, ran.out) == (0, "vectors: 36 images, no duplicates\n")
    assert ran.err == "featx: t.png: not written, because there are no duplicates\n"
    ran = featx("dataset", "duplicates", "vectors", "--threshold", 0.1)
    assert "very many images look alike to these features; use a --threshold nearer to 1" in ran.err
    assert "and 20 more; show all with --json" in ran.out
    assert featx("dataset", "duplicates", "vectors", "--threshold", 2).code == 2
    assert featx("dataset", "duplicates", "vectors", "-n", 0).code == 2
