"""The code of a model card runs, and the card holds what a reader asks."""

import contextlib
import io
import re

import numpy as np
import onnx
import pytest
from PIL import Image
from skimage import data
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import featx
from featx.deploy import export
from featx.report.card import make_card
from featx.report.snippets import describe_onnx, use_onnx, use_saved

X = [np.asarray(Image.fromarray(image).convert("RGB")) for image in (data.astronaut(), data.coffee(), data.rocket())]


def code(markdown, language):
    return re.search(rf"```{language}\n(.*?)```", markdown, re.S)[1]


def run_python(markdown):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code(markdown, "python"), "card", "exec"), {})
    return out.getvalue().strip()


@pytest.mark.parametrize("resize", ["before", "in-graph"])
@pytest.mark.parametrize("crop", ["center", "whole", "pad"])
def test_the_python_code_answers_as_the_pipeline_does(crop, resize, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = make_pipeline(featx.FeatureExtractor(crop=crop), Ridge()).fit(X, [1.0, 20.0, 300.0])
    export(pipeline, "m.onnx", resize=resize, images=X)
    card = use_onnx("m.onnx", onnx.load("m.onnx"))
    for image in X:
        Image.fromarray(image).save("image.png")
        Image.open("image.png").save("image.jpg", quality=95)
        expected = pipeline.predict(["image.jpg"])[0]
        near = 1e-3 if resize == "before" else 0.3  # of targets up to 300
        assert float(run_python(card).strip("[]")) == pytest.approx(expected, abs=near)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK"])
def test_the_python_code_takes_images_of_any_kind_as_the_pipeline_does(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = make_pipeline(featx.FeatureExtractor(), Ridge()).fit(X, [1.0, 20.0, 300.0])
    export(pipeline, "m.onnx", images=X)
    image = Image.fromarray(X[1])
    if mode.endswith("A"):
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    image.convert(mode).save("image.jpg", format="TIFF")  # by its content, whatever it is called
    given = float(run_python(use_onnx("m.onnx", onnx.load("m.onnx"))).strip("[]"))
    assert given == pytest.approx(pipeline.predict(["image.jpg"])[0], abs=1e-3)


def test_the_card_of_an_exported_file_says_what_it_is(tmp_path):
    pipeline = make_pipeline(featx.FeatureExtractor(), featx.make_head("knn")).fit(X * 4, ["a", "b", "c|\nd"] * 4)
    export(pipeline, tmp_path / "m.onnx", images=X)
    model = onnx.load(tmp_path / "m.onnx")
    card = make_card("m.onnx", describe_onnx(model), use_onnx("m.onnx", model), ["This file is fine."])
    assert "Tells 3 classes of images apart: a, b, c" in card
    assert "licence Apache-2.0" in card
    assert "This file is fine." in card
    assert "AsEnumerable<string>()" in code(card, "csharp")
    assert "(N, 3, 224, 224)" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        *("## Features", "## Fitted on", "## How good it is", "## Run it", "## Made with")
    ]


def test_numbers_as_labels_are_long_in_csharp(tmp_path):
    pipeline = make_pipeline(featx.FeatureExtractor(layer="stem"), featx.make_head("knn")).fit(X * 4, [0, 1, 7] * 4)
    export(pipeline, tmp_path / "m.onnx", images=X)
    assert "AsEnumerable<long>()" in code(use_onnx("m.onnx", onnx.load(tmp_path / "m.onnx")), "csharp")


ODD = ["a|b", "new\nline", "**bold**", "<b>", "[here](https://x)", "_so_", "`tick`", "\x1b[31mred", "snake_case-1"]


def test_labels_stay_in_their_cells_whatever_they_are():
    about = {
        "backbones": [{"name": "n|et", "identity": "0" * 64, "license": "<i>", "source": "a\nb"}],
        "versions": {"featx": "1\n2"},
        "info": {"counts": dict.fromkeys(ODD, 3), "score": {"how": "a\nb", "values": {}, "intervals": {}}},
        "pipeline": {"task": "classification", "classes": ODD, "estimator": "Odd(\n```\n# not a heading\x1b[0m)"},
    }
    card = make_card("odd_|_*name*.featx", about, "...")
    lines = card.splitlines()
    assert lines[0] == r"# odd\_\|\_\*name\*.featx"
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert rows[:4] == [r"| a\|b | 3 |", r"| new\\nline | 3 |", r"| \*\*bold\*\* | 3 |", r"| \<b> | 3 |"]
    assert rows[4:7] == [r"| \[here\](https://x) | 3 |", r"| \_so\_ | 3 |", r"| \`tick\` | 3 |"]
    assert rows[8] == "| snake_case-1 | 3 |"
    assert sum(line.startswith("```") for line in lines) == 2
    assert all(letter.isprintable() for line in lines for letter in line)


@pytest.mark.parametrize("name", ['say "so".featx', "back\\slash.featx", "b\u00fccher \U0001f41d.featx", "```.featx"])
@pytest.mark.parametrize("head", [False, True])
def test_the_code_of_a_saved_pipeline_runs_whatever_its_name(name, head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(X[0]).save("image.jpg")
    extractor = featx.FeatureExtractor(layer="stem")
    pipeline = make_pipeline(extractor, Ridge()).fit(X, [1.0, 2.0, 3.0]) if head else extractor.fit(X)
    featx.save(pipeline, name)
    assert run_python(use_saved(name, featx.read_info(name))).startswith("[")
