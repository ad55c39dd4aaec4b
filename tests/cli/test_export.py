"""``featx export``: from a saved pipeline to a file that answers alike."""

import re

import numpy as np
import onnx
import pytest
from PIL import Image

from featx.persistence import load
from featx.session import run_graph
from tests.cli.cli_tools import CLASSES, listing
from tests.deploy.test_export import canvases, metadata


def list_paths(folder):
    return [str(path) for path in sorted(folder.rglob("*.png"))]


def test_the_file_gives_the_labels_that_predict_does(featx, here, world, models):
    ran = featx("export", models["classes"], "-o", "m.onnx", "--images", world / "test", "--features")
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.splitlines()
    assert first.startswith("m.onnx: pixels to label, class_index, probabilities, features, ")
    assert second.startswith("  12 images and 256 rows of features give the same predictions (largest difference ")
    assert listing(here) == ["m.onnx", "m.onnx.md"]
    paths = list_paths(world / "test")
    pixels = canvases(paths, "efficientnet_lite0")
    (labels,) = run_graph((here / "m.onnx").read_bytes(), {"pixels": pixels}, ["label"])
    assert labels.tolist() == load(models["classes"]).predict(paths).tolist()
    assert metadata(here / "m.onnx")["featx.classes"] == list(CLASSES)


def test_a_regression_gives_a_value_and_compares_with_what_is_at_hand(featx, here, models):
    ran = featx("export", models["brightness"], "-o", "m.onnx")
    assert ran.code == 0
    assert ran.out.startswith("m.onnx: pixels to value, ")
    assert "12 images and 256 rows" in ran.out
    assert [output.name for output in onnx.load("m.onnx").graph.output] == ["value"]


def test_a_file_that_resizes_says_how_far_it_is_from_pillow(featx, here, world, models):
    ran = featx("export", models["classes"], "-o", "m.onnx", "--resize", "in-graph", "--images", world / "test")
    assert (ran.code, ran.err) == (0, "")
    assert "  resized in the graph: 0.0" in ran.out.splitlines()[2]
    paths = list_paths(world / "test")
    for path, label in zip(paths, load(models["classes"]).predict(paths), strict=True):
        pixels = np.asarray(Image.open(path).convert("RGB"))[None]
        assert run_graph((here / "m.onnx").read_bytes(), {"pixels": pixels}, ["label"])[0].tolist() == [label]


@pytest.mark.heavy
def test_another_precision_says_how_many_labels_stay(featx, here, world, models):
    ran = featx("export", models["classes"], "-o", "m.onnx", "--precision", "float16", "--images", world / "train")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"\n  float16: [\d.]+% of \d+ held-out images agree with the pipeline", ran.out)
    assert metadata(here / "m.onnx")["featx.backbone"]["precision"] == "float16"


def test_images_that_cannot_be_read_are_named_and_left_out(featx, here, world, models):
    (here / "some").mkdir()
    (here / "some" / "broken.png").write_bytes((world / "broken.png").read_bytes())
    good = next((world / "test" / "bag").iterdir())
    (here / "some" / "good.png").write_bytes(good.read_bytes())
    ran = featx("export", models["classes"], "-o", "m.onnx", "--images", "some")
    assert ran.code == 0
    assert "1 image could not be read, left out:\n  some/broken.png: " in ran.err
    assert "  1 images and" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-o", "m.pt"), "m.pt: expected a name that ends in .onnx"),
        (("-o", "no/m.onnx"), "the folder no does not exist"),
        (("-o", "m.onnx", "--images", "nowhere"), "nowhere: no such file or folder"),
        (("-o", "m.onnx", "--tolerance", "0"), "m.onnx: not written: "),
        (
            ("-o", "m.onnx", "--resize", "in-graph", "--resize-tolerance", "0"),
            "m.onnx: not written: resized in the graph",
        ),
        (("-o", "m.onnx", "--resize", "after"), "argument --resize: invalid choice: 'after'"),
        (("-o", "m.onnx", "--precision", "int8"), "expected images to calibrate"),
        (("-o", "m.onnx", "--min-agreement", "95"), "argument --min-agreement: invalid"),
        (("-o", "m.onnx", "--tolerance", "2"), "argument --tolerance: invalid"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(featx, here, models, arguments, why):
    ran = featx("export", models["classes"], *arguments)
    assert ran.code == 2
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert listing(here) == []
