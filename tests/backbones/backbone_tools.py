"""Build, change and read the backbone files of these tests."""

import json
import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from featx.backbones import tap
from featx.backbones.file import canonical_pixels, read_backbone
from featx.errors import BackboneError
from featx.session import Session

GIANT = [2**20, 2**20]


def make_model(*nodes, output="y", values=(), **initializers):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
        value_info=list(values),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def features_of(backbone):
    return Session(tap(backbone, None, "avg", False), "cpu").run(canonical_pixels(backbone.preprocess))


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def metadata(model, key):
    return next(prop for prop in model.metadata_props if prop.key == f"featx.{key}")


def change_metadata(model, key, change):
    prop = metadata(model, key)
    value = json.loads(prop.value)
    change(value)
    prop.value = json.dumps(value)


def set_metadata(model, key, value):
    for prop in model.metadata_props:
        if prop.key == key:
            prop.value = value


def value_info(name, shape):
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]


def read_or_refuse(path, what):
    """Return the backbone, or None if an error that names the file refuses it."""
    try:
        backbone = read_backbone(path)
    except Exception as error:
        if not isinstance(error, BackboneError) or path.name not in str(error):
            pytest.fail(f"{what}: {error!r}")
        return None
    assert backbone.layer(None) in backbone.layers, what
    assert all(min(layer.size) > 0 for layer in backbone.layers), what
    assert backbone.canonical.ndim == 1, what
    assert math.isfinite(backbone.gflops), what
    assert len(backbone.identity) == 64, what
    assert f"{backbone.name} {backbone.license} {backbone.source} {backbone.recipe}".encode(), what
    return backbone


def flip(content, rng, most=50):
    data = np.frombuffer(content, np.uint8).copy()
    where = rng.integers(len(data), size=rng.integers(1, most + 1))
    data[where] ^= (1 << rng.integers(8, size=len(where))).astype(np.uint8)
    return data.tobytes()
