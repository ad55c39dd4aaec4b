"""Backbones that the tests of this folder share."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from featx.backbones import open_backbone
from featx.backbones.file import BackboneDescription, Layer, describe_model, read_backbone
from featx.images.preprocess import Preprocess
from tests.backbones.backbone_tools import (
    features_of,
    make_model,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A sound backbone of three convolutions."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    rng = np.random.default_rng(0)
    names, widths = ("stem", "stage1", "head"), (3, 4, 6, 8)
    values = {"mean": np.full((1, 3, 1, 1), 127, np.float32), "std": np.full((1, 3, 1, 1), 128, np.float32)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["normalized"]),
    ]
    for i, (name, before) in enumerate(zip(names, ("normalized", *names), strict=False)):
        values[f"{name}.weight"] = rng.normal(size=(widths[i + 1], widths[i], 3, 3)).astype(np.float32)
        inputs = [before, f"{name}.weight"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.conv"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"{name}.conv"], [name]))
    made = make_model(*nodes, output="head", **values)
    description = BackboneDescription(
        name="small",
        preprocess=Preprocess(16, 16, 18, "bicubic", (127.0,) * 3, (128.0,) * 3),
        layers=tuple(
            Layer(name, (f"block{i}",), name, widths[i + 1], 8 >> i, 8 >> i, 2 << i) for i, name in enumerate(names)
        ),
        parameters=sum(value.size for value in values.values()),
        gflops=0.001,
        license="MIT",
        source="made here",
        recipe={"onnx": onnx.__version__},
    )
    describe_model(made, description, np.empty(0, np.float32))
    onnx.save(made, path)
    canonical = features_of(read_backbone(path))[0]
    describe_model(made, description, canonical)
    onnx.save(made, path)
    return path


@pytest.fixture
def model(small):
    return onnx.load(small)


@pytest.fixture(scope="session")
def bundled():
    return open_backbone("efficientnet_lite0")


@pytest.fixture
def bundled_model(bundled):
    return onnx.load(bundled.path)
