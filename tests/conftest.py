import base64
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from featx.backbones import open_backbone, tap
from featx.backbones.file import canonical_pixels, read_backbone
from featx.session import Session


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
