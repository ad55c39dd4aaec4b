"""Images of any size, resized by the graph as by Pillow."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.deploy import export, resizing
from featx.deploy.resizing import add_resizing
from featx.errors import DeviceError, ExportError, InputError
from featx.extractor import FeatureExtractor
from featx.images.preprocess import CROPS, INTERPOLATIONS, Preprocess, to_canvas
from featx.session import run_batches, run_graph

from .test_export import metadata

#: Pillow runs the horizontal pass first for some sizes and the vertical pass for others.
SIZES = [(640, 427), (500, 300), (96, 96), (97, 33), (64, 72), (60, 50), (1, 1), (2, 3), (1, 700), (700, 1)]
SIZES += [(300, 451), (300, 601), (300, 602), (2400, 300), (300, 2400), (60, 2), (37, 80)]
#: Of long images Pillow resizes only the part that the crop keeps, with its corners in float32.
LONG = [(3000, 300), (300, 3000), (70, 1000), (1000, 70)]


def resizer(rules, crop):
    kind = ["N", 3, rules.height, rules.width]
    source, target = (helper.make_tensor_value_info(name, TensorProto.UINT8, kind) for name in ("pixels", "out"))
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["out"])], "none", [source], [target])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    add_resizing(model, rules, crop)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(load_sample_images().images[0])


def apart(photo, sizes, rules, crop):
    """Levels between the graph's canvas and Pillow's, of each size."""
    images = [photo.resize(size) for size in sizes]
    canvases = np.empty((len(sizes), 3, rules.height, rules.width), np.uint8)
    for image, canvas in zip(images, canvases, strict=True):
        to_canvas(image, rules, canvas, crop=crop)
    runs = run_batches(resizer(rules, crop), ({"pixels": np.asarray(image)[None]} for image in images), ["out"])
    return np.abs(np.concatenate([out for (out,) in runs]).astype(int) - canvases)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", [name for name in INTERPOLATIONS if name != "nearest"])
def test_the_graph_resizes_as_pillow_does(photo, interpolation, crop):
    rules = Preprocess(64, 60, 72, interpolation, (123.7, 116.3, 103.5), (1, 1, 1))
    levels = apart(photo, SIZES, rules, crop)
    assert levels.max() <= 2
    assert (levels > 0).mean((1, 2, 3)).max() < 0.1  # a filter of few pixels often gives just half a level
    long = apart(photo, LONG, rules, crop)
    assert long.max() <= 2
    assert (long > 0).mean((1, 2, 3)).max() < 0.1


def test_images_of_one_size_go_together_and_none_at_all_as_well(photo):
    rules = Preprocess(32, 32, 36, "bicubic", (0, 0, 0), (1, 1, 1))
    content = resizer(rules, "center")
    turned = [np.asarray(photo.rotate(angle)) for angle in (0, 90, 180)]
    (together,) = run_graph(content, {"pixels": np.stack(turned)}, ["out"])
    for image, out in zip(turned, together, strict=True):
        assert np.array_equal(run_graph(content, {"pixels": image[None]}, ["out"])[0][0], out)
    assert len(np.unique(together, axis=0)) == 3
    (none,) = run_graph(content, {"pixels": np.empty((0, 50, 40, 3), np.uint8)}, ["out"])
    assert none.shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((1, 0, 5, 3), "an_image_has_no_pixels"),
        ((1, 5, 0, 3), "an_image_has_no_pixels"),
        ((1, 5, 5, 4), "pixels"),
        ((1, 3, 5, 5), "pixels"),
        ((5, 5, 3), "pixels"),
    ],
)
def test_what_is_no_image_is_an_error(shape, why):
    content = resizer(Preprocess(32, 32, 36, "bicubic", (0, 0, 0), (1, 1, 1)), "center")
    with pytest.raises(DeviceError, match=why):
        run_graph(content, {"pixels": np.zeros(shape, np.uint8)}, ["out"])


def test_a_panorama_takes_no_more_memory_than_its_weights(photo):
    rules = Preprocess(224, 224, 256, "bicubic", (0, 0, 0), (1, 1, 1))
    for size in ((65_000, 2), (2, 65_000)):  # resized whole, gigabytes
        assert apart(photo, [size], rules, "center").max() <= 2


@pytest.mark.parametrize("changes", [{}, {"crop": "whole"}, {"crop": "pad"}, {"decode": "fast"}, {"precision": "int8"}])
def test_a_file_that_resizes_answers_as_the_pipeline(trials, tiny_backbone, photo, tmp_path, changes):
    _, y = trials.targets["3 classes"]
    extractor = FeatureExtractor(str(tiny_backbone), **changes).fit(None)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression()).fit(trials.images, y)
    path = tmp_path / "any.onnx"
    exported = export(pipeline, path, features=True, resize="in-graph", resize_tolerance=0.05)
    assert exported.outputs == ("label", "class_index", "probabilities", "features")
    assert exported.resized.n_images == 12
    assert exported.resized.cosine > 0.999
    images = [np.asarray(photo.crop((x, 0, x + 200, 100 + x))) for x in (0, 7, 90)]
    batches = [{"pixels": image[None]} for image in images]
    runs = run_batches(path.read_bytes(), batches, ["label", "probabilities"])
    labels, probabilities = (np.concatenate(values) for values in zip(*runs, strict=True))
    assert labels.tolist() == pipeline.predict(images).tolist()
    assert np.abs(probabilities - pipeline.predict_proba(images)).max() < 0.05
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["N", "H", "W", 3]
    facts = metadata(path)
    assert facts["featx.resize"] == "in-graph"
    assert facts["featx.compared"]["resized"]["cosine"] == exported.resized.cosine
    assert facts["featx.compared"]["agreement"] is None
    assert "Pillow" in str(exported.resized)


def test_numbers_are_resized_and_compared_as_well(trials, tmp_path):
    pipeline = trials.fit("numbers", make_pipeline(StandardScaler(), Ridge()))
    assert export(pipeline, tmp_path / "any.onnx", resize="in-graph").resized.difference < 0.01


def test_a_graph_that_resizes_otherwise_is_refused(trials, tmp_path, monkeypatch):
    def nearest(graph, x):
        return graph.cast(graph.op("LessOrEqual", x, np.array(0.5, np.float32)), np.float32)

    monkeypatch.setitem(resizing._FILTERS, "bilinear", nearest)
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(ExportError, match=r"not written: .*resized in the graph: \d\d\.\d+% of the values differ"):
        export(pipeline, tmp_path / "any.onnx", resize="in-graph")
    assert list(tmp_path.iterdir()) == []


def test_another_label_is_refused_whatever_the_tolerance(trials, tmp_path, monkeypatch):
    def center(graph, sides, short, rules):  # the corner
        return [(full, graph.constant(np.array(0))) for full, _ in before(graph, sides, short, rules)]

    before = resizing._SPANS["center"]
    monkeypatch.setitem(resizing._SPANS, "center", center)
    pipeline = trials.fit("3 classes", make_pipeline(StandardScaler(), LogisticRegression(C=100)))
    with pytest.raises(ExportError, match=r"not written: \d+ of 12 images get another label; resized"):
        export(pipeline, tmp_path / "any.onnx", resize="in-graph", resize_tolerance=1.0)
    assert list(tmp_path.iterdir()) == []


def test_only_two_places_to_resize_are_known(trials, tmp_path):
    with pytest.raises(InputError, match="resize='after': expected 'before' or 'in-graph'"):
        export(trials.fit("3 classes", LogisticRegression()), tmp_path / "any.onnx", resize="after")
