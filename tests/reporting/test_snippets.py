"""The code in a model card runs and predicts as the pipeline does."""

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
from featx.reporting.snippets import use_onnx, use_saved

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


@pytest.mark.parametrize("name", ['say "so".featx', "back\\slash.featx", "b\u00fccher \U0001f41d.featx", "```.featx"])
@pytest.mark.parametrize("head", [False, True])
def test_the_code_of_a_saved_pipeline_runs_whatever_its_name(name, head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(X[0]).save("image.jpg")
    extractor = featx.FeatureExtractor(layer="stem")
    pipeline = make_pipeline(extractor, Ridge()).fit(X, [1.0, 2.0, 3.0]) if head else extractor.fit(X)
    featx.save(pipeline, name)
    assert run_python(use_saved(name, featx.read_info(name))).startswith("[")
