"""Graphs cut from a backbone compute its layers, and nothing after them."""

import numpy as np
import onnx
import pytest

from featx.backbones import open_backbone, tap
from featx.backbones.file import canonical_pixels
from featx.session import Session
from tests.backbones.backbone_tools import (
    save,
)


@pytest.mark.parametrize(
    ("name", "channels", "size", "stride"),
    [
        ("stem", 16, 112, 2),
        ("stage1", 24, 56, 4),
        ("stage2", 40, 28, 8),
        ("stage3", 112, 14, 16),
        ("stage4", 320, 7, 32),
        ("head", 1280, 7, 32),
        ("blocks.3.1", 80, 14, 16),
    ],
)
def test_layers_have_the_size_they_say(bundled, name, channels, size, stride):
    layer = bundled.layer(name)
    assert (layer.channels, layer.height, layer.width, layer.stride) == (channels, size, size, stride)
    rows = Session(tap(bundled, name, "flatten", False), "cpu").run(canonical_pixels(bundled.preprocess))
    assert rows.shape == (1, channels * size * size)


def test_several_layers_come_side_by_side_from_one_graph(bundled):
    pixels = canonical_pixels(bundled.preprocess)
    rows = Session(tap(bundled, ["stage4", "stage2", -1], "avg", False), "cpu").run(pixels)
    alone = [Session(tap(bundled, name, "avg", False), "cpu").run(pixels) for name in ("stage4", "stage2", "head")]
    np.testing.assert_array_equal(rows, np.concatenate(alone, axis=1))


def test_cutting_removes_the_work_after_the_cut(bundled, bundled_model):
    cut = onnx.load_from_string(tap(bundled, "stage1", "avg", False))
    assert len(cut.graph.node) < len(bundled_model.graph.node) / 3
    assert len(cut.graph.initializer) < len(bundled_model.graph.initializer) / 3


def test_a_row_of_zeros_stays_zero_when_normalised(bundled, bundled_model, tmp_path):
    for tensor in bundled_model.graph.initializer:
        if tensor.name.startswith("conv_head"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    zero = open_backbone(save(bundled_model, tmp_path / "zero.onnx"))
    rows = Session(tap(zero, None, "avg", True), "cpu").run(canonical_pixels(bundled.preprocess))
    np.testing.assert_array_equal(rows, 0)
