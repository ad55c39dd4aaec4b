from dataclasses import fields

import numpy as np
import onnx
import pytest

import featx
from featx.backbones import open_backbone, tap
from featx.backbones.file import BackboneDescription, read_backbone
from featx.images.reference import real_images
from featx.recipes.build import write_backbone
from featx.session import Session, run_graph
from featx.tuning import cut, list_depths
from featx.tuning.operators import OPERATORS


@pytest.fixture(scope="module")
def tiny(tiny_backbone):
    return read_backbone(tiny_backbone)


@pytest.mark.parametrize("pooling", ["avg", "std"])
def test_trunk_and_tail_compute_the_features_of_the_whole_graph(tiny, pooling):
    trunk = cut(tiny, "stem", pooling=pooling, l2_normalize=True)
    pixels = real_images(tiny.preprocess)
    values = Session(trunk.model, "cpu").run(pixels)
    (features,) = run_graph(trunk.tail.SerializeToString(), {trunk.tensor: values}, ["features"])
    whole = Session(tap(tiny, None, pooling, True), "cpu").run(pixels)
    assert trunk.shape == (8, 16, 16)
    np.testing.assert_allclose(features, whole, atol=1e-6)


def test_only_weights_after_the_cut_are_tuned(tiny):
    assert set(cut(tiny, "stem").weights) == {"stage1.weight", "head.weight"}
    assert set(cut(tiny, "stage1").weights) == {"head.weight"}
    with pytest.raises(featx.InputError, match="no weights after it"):
        cut(tiny, "head")


def test_weights_that_the_trunk_uses_as_well_stay(tiny, tmp_path):
    model = onnx.load(tiny.path)
    nodes = {node.output[0]: node for node in model.graph.node}
    shared = onnx.numpy_helper.from_array(np.full((1, 1, 1, 2), 0.5, np.float32), "shared")
    model.graph.initializer.append(shared)
    for source, target in (("stem.conv", "stem"), ("stage1.conv", "stage1")):
        nodes[target].input[0] = f"{source}.doubled"
        shape = onnx.helper.make_node("ReduceMean", ["shared"], [f"{source}.half"], keepdims=1)
        mul = onnx.helper.make_node("Mul", [source, f"{source}.half"], [f"{source}.doubled"])
        at = list(model.graph.node).index(nodes[target])
        model.graph.node.insert(at, mul)
        model.graph.node.insert(at, shape)
    onnx.save(model, tmp_path / "shared.onnx")
    assert "shared" not in cut(read_backbone(tmp_path / "shared.onnx"), "stem").weights


def test_features_of_several_layers_come_from_after_the_cut(tiny):
    assert cut(tiny, "stem", output=["stage1", "head"]).output == ("stage1", "head")
    with pytest.raises(featx.InputError, match="features come from stem"):
        cut(tiny, "stage1", output=["stem", "head"])


def test_depths_of_the_bundled_backbone():
    backbone = open_backbone("efficientnet_lite0")
    assert list_depths(backbone) == ["stage4", "blocks.5", "blocks.5.1", "stage3"]


def test_a_copy_in_int8_is_refused():
    with pytest.raises(featx.BackboneError, match="tune the float32 file"):
        cut(open_backbone("efficientnet_lite0", "int8"), "stage4")


def test_an_operator_without_a_row_is_named(tiny, tmp_path):
    model = onnx.load(tiny.path)
    for node in model.graph.node:
        if node.output[0] == "head":
            node.op_type = "Softsign"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(featx.BackboneError, match="operator Softsign after layer stem"):
        cut(read_backbone(tmp_path / "odd.onnx"), "stem")


def test_a_backbone_without_any_depth_says_why(tiny, tiny_backbone, tmp_path, monkeypatch):
    description = {field.name: getattr(tiny, field.name) for field in fields(BackboneDescription)}
    description |= {"layers": tiny.layers[-1:], "default_layer": "head"}
    write_backbone(tmp_path / "alone.onnx", onnx.load(tiny_backbone), BackboneDescription(**description))
    with pytest.raises(featx.BackboneError, match=r"after any of its layers, head; choose another"):
        list_depths(read_backbone(tmp_path / "alone.onnx"))
    monkeypatch.delitem(OPERATORS, "Relu")
    with pytest.raises(featx.BackboneError, match=r"stem, stage1, head \(.*operator Relu"):
        list_depths(tiny)
