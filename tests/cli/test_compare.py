"""featx compare: what it prints, draws and refuses."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from featx.selection.timing import Timing
from tests.cli.cli_tools import CLASSES, listing, start, write_csv

SMALL = ["--layer", "head", "--layer", "stem", "--pooling", "avg", "--crop", "whole"]


@pytest.fixture(autouse=True)
def _only_bundled(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path_factory.mktemp("no-backbones")))


@pytest.fixture
def _no_timing(monkeypatch):
    monkeypatch.setattr(Timing, "_time", lambda self, extractors: [1.0 + i for i in range(len(extractors))])


def test_a_folder_gives_a_table_a_sentence_and_options_for_fit(featx, to_world, here):
    ran = featx("compare", f"{to_world}/train", "--backbone", "efficientnet_lite0", *SMALL)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split()[0] == "candidate"
    assert lines[1].startswith("efficientnet_lite0 head, avg, whole * ")
    assert lines[2].startswith("efficientnet_lite0 stem, avg, whole ")
    assert "predicts 3 classes with the lowest squared error of the probabilities" in ran.out
    options = lines[-1].split()
    assert options == [
        *("--backbone", "efficientnet_lite0", "--layer", "head", "--pooling", "avg", "--crop", "whole"),
    ]
    assert listing(here) == []
    fitted = featx("fit", f"{to_world}/train", *options, "-o", "m.featx", "--no-cross-validation")
    assert fitted.code == 0


def test_json_is_one_object_with_everything(featx, to_world):
    ran = featx("compare", f"{to_world}/train", "--backbone", "efficientnet_lite0", *SMALL, "--json")
    facts = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(facts) == [
        *("recommended", "reason", "task", "metric", "n_images", "n_used", "n_unlabelled", "notes"),
        *("failures", "candidates"),
    ]
    assert facts["recommended"] == {
        **{"backbone": "efficientnet_lite0", "layer": "head", "pooling": "avg", "crop": "whole"}
    }
    assert (facts["task"], facts["metric"], facts["n_images"], facts["n_used"]) == (
        *("classification", "accuracy", 36, 36),
    )
    assert [candidate["layer"] for candidate in facts["candidates"]] == ["head", "stem"]
    values = {"score", "low", "high", "ms", "mb", "behind", "behind_error", "on_front", "stopped"}
    assert values <= set(facts["candidates"][0])


@pytest.mark.usefixtures("_no_timing")
def test_an_archive_is_compared_and_patterns_choose_its_images(featx, world, here):
    shutil.make_archive("photos", "zip", world / "train")
    options = ["--backbone", "efficientnet_lite0", *SMALL, "--json"]
    whole = json.loads(featx("compare", "photos.zip", *options).out)
    folder = json.loads(featx("compare", world / "train", *options).out)
    assert whole["n_images"] == folder["n_images"] == 36
    assert whole["recommended"] == folder["recommended"]
    first, second, third = CLASSES
    some = json.loads(
        featx("compare", "photos.zip", "--include", f"{first}/*", "--include", f"{second}/*", *options).out
    )
    rest = json.loads(featx("compare", world / "train", "--exclude", f"{third}/*", *options).out)
    assert some["n_images"] == rest["n_images"] == 24


@pytest.mark.usefixtures("_no_timing")
def test_the_best_are_shown_and_all_of_them_if_wanted(featx, to_world):
    some = ["--backbone", "efficientnet_lite0_int8", "--crop", "whole", "--pooling", "avg", "--pooling", "max"]
    some += ["--pooling", "std", "--max-mb", "3.6"]
    few = featx("compare", f"{to_world}/train", *some)
    n_shown = few.out.count("\nefficientnet_lite0_int8 ")
    assert n_shown == 9
    assert "more with --all" not in few.out
    assert "12 of 21 candidates exceed the budget" in few.err
    assert "Of 9 candidates within 3.6 MB, it predicts " in few.out
    many = featx("compare", f"{to_world}/train", *some[:-2])
    n_shown = many.out.count("\nefficientnet_lite0_int8 ")
    assert 12 <= n_shown < 21
    assert f"\n{21 - n_shown} more with --all\n" in many.out
    every = featx("compare", f"{to_world}/train", *some[:-2], "--all")
    assert every.out.count("\nefficientnet_lite0_int8 ") == 21
    assert "more with --all" not in every.out


@pytest.mark.usefixtures("_no_timing")
def test_the_plot_is_an_image(featx, to_world, here):
    ran = featx("compare", f"{to_world}/train", "--backbone", "efficientnet_lite0", *SMALL, "--plot", "x.PNG")
    assert ran.code == 0
    with Image.open("x.PNG") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    assert listing(here) == ["x.PNG"]


@pytest.mark.usefixtures("_no_timing")
def test_a_table_with_holes_and_a_broken_image(featx, to_world, here):
    table = [["path", "light", "kind"]]
    for i, name in enumerate(("bag", "coat", "sandal") * 8):
        path = f"{to_world}/train/{name}"
        table.append([f"{path}/{listing(path)[i // 3]}", f"{i * 1.37:.2f}", name])
    table[3][1] = ""
    table[5][0] = f"{to_world}/broken.png"
    write_csv("t.csv", *table)
    ran = featx("compare", "t.csv", "--target", "light", "--backbone", "efficientnet_lite0", *SMALL, "--json")
    assert ran.code == 0
    facts = json.loads(ran.out)
    assert (facts["task"], facts["metric"]) == ("regression", "r2")
    assert (facts["n_images"], facts["n_used"], facts["n_unlabelled"]) == (23, 22, 1)
    assert [failure["source"] for failure in facts["failures"]] == [f"{to_world}/broken.png"]
    assert "1 image without a label left out" in ran.err
    assert "1 image could not be read, left out" in ran.err
    kinds = featx("compare", "t.csv", "--target", "kind", "--backbone", "efficientnet_lite0", *SMALL, "--json")
    assert json.loads(kinds.out)["task"] == "classification"


@pytest.mark.usefixtures("_no_timing")
def test_ordered_levels_are_numbers(featx, to_world, here):
    rows = [["path", "grade", "word"]]
    for i, name in enumerate(("bag", "coat", "sandal") * 4):
        path = f"{to_world}/train/{name}"
        rows.append([f"{path}/{listing(path)[i // 3]}", i % 3, "abc"[i % 3]])
    write_csv("t.csv", *rows)
    some = ["--backbone", "efficientnet_lite0", *SMALL]
    ran = featx("compare", "t.csv", "--target", "grade", "--task", "ordinal", *some, "--json")
    facts = json.loads(ran.out)
    assert (facts["task"], facts["metric"]) == ("ordinal", "r2 of the levels")
    words = featx("compare", "t.csv", "--target", "word", "--task", "ordinal", *some)
    assert words.code == 2
    assert "expected levels that are numbers: column 'word': 'a'" in words.err


MISTAKES = {
    "no source": ("", "required: SOURCE"),
    "no such folder": ("nowhere", "nowhere: no such file or folder"),
    "no classes": ("W/train/bag", "images without classes"),
    "bad pooling": ("W/train --pooling mean", "invalid choice: 'mean'"),
    "bad crop": ("W/train --crop middle", "invalid choice: 'middle'"),
    "bad backbone": ("W/train --backbone resnet9000", "resnet9000"),
    "bad layer": ("W/train --layer stage9", "stage9"),
    "bad task": ("W/train --task ranking", "invalid choice: 'ranking'"),
    "several labels": ("W/train --task multilabel", "multilabel: a source has one label per image"),
    "log of classes": ("W/train --log-target", "expected a regression"),
    "no milliseconds": ("W/train --max-ms 0", "0: expected a number above 0"),
    "nan megabytes": ("W/train --max-mb nan", "nan: expected a number above 0"),
    "a word for a budget": ("W/train --max-ms fast", "invalid float value: 'fast'"),
    "budget impossible": ("W/train --max-mb 0.001 --backbone efficientnet_lite0", "--max-mb 0.001"),
    "one image": ("W/train --max-images 1", "--max-images 1: expected an integer of at least 2"),
    "plot is no image": ("W/train --plot x.pdf", "--plot x.pdf: expected a name ending in .png"),
    "plot without folder": ("W/train --plot no/x.png", "the folder no does not exist"),
    "plot is a source": ("P --plot W/train/bag/FIRST", "is one of the images"),
    "one class": ("one.csv --target y", "every labelled image is of class ant"),
    "single images": ("single.csv --target y", "classes have a single labelled image"),
    "nothing labelled": ("empty.csv --target y", "all 2 rows are empty"),
}


@pytest.mark.usefixtures("_no_timing")
@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_gives_one_line_and_no_file(featx, to_world, here, name):
    command, said = MISTAKES[name]
    first = listing(f"{to_world}/train/bag")[0]
    images = [f"{to_world}/train/bag/{image}" for image in listing(f"{to_world}/train/bag")[:3]]
    for file, labels in (("one.csv", "ant ant"), ("single.csv", "ant bee bee"), ("empty.csv", " ")):
        write_csv(file, ["path", "y"], *zip(images, labels.split(" "), strict=False))
    write_csv("images.csv", ["path", "y"], *zip(images[:2], "ab", strict=True))
    before = listing(here), Path(images[0]).read_bytes()
    words = command.replace("P ", "images.csv ").replace("W/", f"{to_world}/").replace("FIRST", first).split()
    ran = featx("compare", *words)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) <= 3  # notes, and one line
    assert (listing(here), Path(images[0]).read_bytes()) == before


def test_without_matplotlib_the_extra_is_named(featx, to_world, monkeypatch):
    class Hidden:
        @staticmethod
        def find_spec(name, *_):
            if name == "matplotlib":
                raise ModuleNotFoundError(name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])
    ran = featx("compare", f"{to_world}/train", "--plot", "x.png")
    assert ran.code == 2
    assert 'matplotlib is not installed; run: pip install "featx[plot]"' in ran.err


def test_interrupted_it_leaves_nothing(here, to_world):
    image = f"{to_world}/test/bag/{listing(f'{to_world}/test/bag')[0]}"
    write_csv("big.csv", ["path", "y"], *([image, "ab"[i % 2]] for i in range(6000)))
    process = start("compare", "big.csv", "--target", "y", "--plot", "x.png", "--max-images", "6000", cwd=here)
    assert "paths from column 'path'" in process.stderr.readline()  # the images are listed
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "featx: interrupted; nothing half-written was left"
    assert listing(here) == ["big.csv"]


@pytest.mark.usefixtures("_no_timing")
def test_heads_are_compared_on_the_recommended_features(featx, to_world):
    some = ["--backbone", "efficientnet_lite0_int8", "--layer", "stem", "--pooling", "avg", "--crop", "whole"]
    ran = featx("compare", f"{to_world}/train", *some, "--head", "ridge", "--head", "knn")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    [head] = [i for i, line in enumerate(lines) if line.startswith("head ")]
    assert {"accuracy", "behind,", "MB"} <= set(lines[head].split())
    assert {line.split()[0] for line in lines[head + 1 : head + 3]} == {"ridge", "knn"}
    assert lines[-1].split()[-2:] == ["--head", lines[head + 1].split()[0]]
    facts = json.loads(featx("compare", f"{to_world}/train", *some, "--head", "ridge", "--json").out)
    assert [score["head"] for score in facts["heads"]["scores"]] == ["ridge"]
    assert featx("compare", f"{to_world}/train", *some, "--head", "rigde").code == 2
