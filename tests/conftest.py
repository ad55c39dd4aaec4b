import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from featx.backbones import open_backbone


@pytest.fixture(scope="session")
def other_backbone(tmp_path_factory):
    """A backbone file that computes something else: the bundled one with its first filters halved."""
    model = onnx.load(open_backbone("efficientnet_lite0").path)
    stem = next(t for t in model.graph.initializer if t.name == "conv_stem.weight")
    stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(0.5), stem.name))
    path = tmp_path_factory.mktemp("backbones") / "halved.onnx"
    onnx.save(model, path)
    return path
