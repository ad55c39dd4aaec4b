"""``featx fit --search``, near-duplicates, and images without a label."""

import shutil

import pytest

from featx.persistence.archive import load, read_info
from featx.selection.search import EFFORTS
from featx.selection.timing import Timing
from tests.cli.cli_tools import listing, write_csv

QUICKLY = ("--backbone", "efficientnet_lite0_int8", "--threads", "2")


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    monkeypatch.setattr(Timing, "_time", lambda self, extractors: [1.0 + i for i in range(len(extractors))])


def images(world, name):
    return sorted((world / "train" / name).iterdir())


@pytest.mark.parametrize(
    "effort", [pytest.param(effort, marks=pytest.mark.heavy if effort == "thorough" else ()) for effort in EFFORTS]
)
def test_a_search_chooses_features_and_head(featx, here, world, effort):
    ran = featx("fit", world / "train", "--search", effort, *QUICKLY, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert "Recommended: efficientnet_lite0_int8 " in ran.err
    most = 3 if effort == "quick" else 5  # a busy machine measures higher costs, which leave fewer heads in the budget
    shown = ["the only head that was tried", *(f"best of {n} heads" for n in range(2, most + 1))]
    assert any(each in ran.out for each in shown)
    tables = [line.split()[0] for line in ran.err.splitlines() if line.startswith(("candidate ", "head "))]
    assert tables == ["candidate", "head"]
    assert "search: embedded " in ran.err
    assert "left-out images, 5 folds" in ran.out
    assert listing(here) == ["m.featx", "m.featx.md"]
    extractor = load("m.featx")[0]
    assert extractor.backbone == "efficientnet_lite0_int8"
    assert f", {extractor.pooling}, {extractor.crop}: best of" in ran.out
    assert featx("evaluate", "m.featx", world / "test").code == 0


def test_what_is_asked_for_by_name_is_kept(featx, here, world):
    options = ("--layer", "stage3", "--pooling", "max", "--crop", "pad", "--head", "ridge", "--max-mb", "20")
    ran = featx("fit", world / "train", "--search", "quick", *QUICKLY, *options, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert "the only head that was tried" in ran.out
    extractor = load("m.featx")[0]
    assert (extractor.layer, extractor.pooling, extractor.crop) == ("stage3", "max", "pad")
    assert (extractor.cache, extractor.progress) == (False, False)


def test_a_search_for_a_number(featx, here, world):
    table = world / "brightness-train.csv"
    options = ("--target", "brightness", "--log-target", "--layer", "stem", "--crop", "whole")
    ran = featx("fit", table, "--search", "quick", *QUICKLY, *options, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert float(ran.out.rpartition("r2 ")[2]) > 0.7
    assert read_info("m.featx")["info"]["task"] == "regression"


def test_twins_are_named_and_stay_on_one_side(featx, here, world):
    shutil.copytree(world / "train", here / "photos")
    for i, source in enumerate(images(world, "bag")[:3]):
        shutil.copy(source, here / "photos" / ("bag" if i else "coat") / f"again{i}.png")
    ran = featx("fit", "photos", *QUICKLY, "-o", "m.featx")
    assert ran.code == 0
    assert "3 of 39 images are near-duplicates of others:" in ran.err
    named = [line for line in ran.err.splitlines() if "again" in line]
    assert len(named) == 3
    assert "again0.png" in named[0]
    assert "(labelled bag and coat: one label is probably wrong)" in named[0]
    assert "labelled" not in named[1]
    assert "5 folds, near-duplicates on one side: accuracy" in ran.out


def test_a_class_of_copies_is_still_estimated(featx, here, world):
    for name in ("bag", "coat"):
        (here / "photos" / name).mkdir(parents=True)
    for i in range(6):
        shutil.copy(images(world, "bag")[0], here / "photos" / "bag" / f"{i}.png")
        shutil.copy(images(world, "coat")[i], here / "photos" / "coat" / f"{i}.png")
    ran = featx("fit", "photos", *QUICKLY, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert "left-out images, 5 folds: accuracy" in ran.out


def test_images_without_a_label_are_a_pool(featx, here, world):
    rows = [[path, path.parent.name] for name in ("bag", "coat") for path in images(world, name)]
    pool = [[path, ""] for path in images(world, "sandal")]
    write_csv("some.csv", ["path", "label"], *rows, *pool, ["gone.png", ""])
    ran = featx("fit", "some.csv", *QUICKLY, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert "24 images, 2 classes" in ran.out
    assert "13 images have no label and no part in the fit; the head is least sure of " in ran.err
    assert ran.err.rpartition("least sure of ")[2].count("sandal") == 5
    assert "1 image could not be read, left out:\n  gone.png: no such file" in ran.err
    ran = featx("compare", "some.csv", "--layer", "head", "--crop", "center", *QUICKLY)
    assert ran.code == 0, ran.err
    assert "13 images without a label" in ran.err


def test_a_pool_that_cannot_be_read_does_not_lose_the_fit(featx, here, world):
    rows = [[path, path.parent.name] for name in ("bag", "coat") for path in images(world, name)]
    write_csv("some.csv", ["path", "label"], *rows, ["gone.png", ""])
    ran = featx("fit", "some.csv", *QUICKLY, "-o", "m.featx")
    assert ran.code == 0, ran.err
    assert "1 image has no label and no part in the fit" in ran.err
    assert "gone.png" in ran.err
    assert load("m.featx").classes_.tolist() == ["bag", "coat"]


def test_no_label_at_all(featx, here, world):
    write_csv("none.csv", ["path", "label"], *[[path, ""] for path in images(world, "bag")])
    ran = featx("fit", "none.csv", "--target", "label", "-o", "m.featx")
    assert ran.code == 2
    assert "all 12 rows are empty" in ran.err
