import base64
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from featx.backbones import open_backbone, tap
from featx.backbones.file import BackboneDescription, Layer, canonical_pixels, read_backbone
from featx.cache.decoded import DecodedImageCache
from featx.images.preprocess import Preprocess
from featx.inference import cached, engine
from featx.recipes.build import normalize_inside, write_backbone
from featx.recipes.quantize import convert_precision
from featx.session import Session


@pytest.fixture
def counts(monkeypatch):
    """Count decoded and read images, without decoded images of other tests."""
    counts = {"decode": 0, "read": 0}
    for module, name in ((engine, "decode"), (cached, "read"), (engine, "read")):
        real = getattr(module, name)

        def counting(item, *rest, real=real, name=name):
            counts[name] += 1
            return real(item, *rest)

        monkeypatch.setattr(module, name, counting)
    monkeypatch.setattr(cached, "decoded_images", DecodedImageCache())
    return counts


@pytest.fixture(scope="session")
def tampered_backbone(tmp_path_factory):
    """The bundled backbone with its first filters halved, and nothing else changed."""
    model = onnx.load(open_backbone("efficientnet_lite0").path)
    stem = next(t for t in model.graph.initializer if t.name == "conv_stem.weight")
    stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(0.5), stem.name))
    path = tmp_path_factory.mktemp("backbones") / "tampered.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def other_backbone(tampered_backbone):
    """A sound backbone that computes something else: the same network, with its own canonical features."""
    tampered = read_backbone(tampered_backbone)
    features = Session(tap(tampered, None, "avg", False), "cpu").run(canonical_pixels(tampered.preprocess))
    model = onnx.load(tampered_backbone)
    canonical = next(prop for prop in model.metadata_props if prop.key == "featx.canonical")
    canonical.value = json.dumps(base64.b64encode(features.astype("<f4").tobytes()).decode())
    path = tampered_backbone.with_name("halved.onnx")
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """Another network altogether: three convolutions at random on 32 x 32 pixels, and its int8 copy beside it."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    preprocess = Preprocess(32, 32, 36, "bilinear", (127.0,) * 3, (64.0,) * 3)
    nodes, weights, layers, before, width = [], [], [], "normalized", 3
    for i, name in enumerate(("stem", "stage1", "head")):
        layers.append(Layer(name, (), name, 8 * (i + 1), 16 >> i, 16 >> i, 2 << i))
        values = rng.normal(0, np.sqrt(2 / 9 / width), (8 * (i + 1), width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"{name}.weight"))
        nodes.append(
            helper.make_node("Conv", [before, weights[-1].name], [f"{name}.conv"], strides=[2, 2], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"{name}.conv"], [name]))
        before, width = name, 8 * (i + 1)
    source = helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["N", 3, 32, 32])
    target = helper.make_tensor_value_info("head", TensorProto.FLOAT, ["N", 24, 4, 4])
    graph = helper.make_graph(nodes, "tiny", [source], [target], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    normalize_inside(model.graph, preprocess)
    description = BackboneDescription(
        **{"name": "tiny", "preprocess": preprocess, "layers": tuple(layers)},
        **{"parameters": 5_400, "gflops": 0.001, "license": "MIT", "source": "made here"},
    )
    write_backbone(path, model, description)
    pixels = rng.integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    calibration, held_out = pixels[:8], pixels[8:]
    convert_precision(
        read_backbone(path),
        path.with_name("tiny_int8.onnx"),
        precision="int8",
        calibration=calibration,
        held_out=held_out,
    )
    return path
