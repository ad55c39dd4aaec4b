"""Recipes need torch and timm: `make test-all`."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from featx.backbones import open_backbone
from featx.recipes.layers import count_gflops, find_layers

ROOT = Path(__file__).parents[1]


def small_graph():
    """Build conv -> (conv, identity) -> add -> pool, with module names as an exporter would give them."""
    weights = [
        helper.make_tensor(
            name, TensorProto.FLOAT, [4, inputs, 3, 3], np.ones(36 * inputs, np.float32).tobytes(), raw=True
        )
        for name, inputs in (("w1", 3), ("w2", 4))
    ]
    nodes = [
        helper.make_node("Conv", ["normalized", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Conv", ["a", "w2"], ["b"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, ["N", 4, 1, 1])],
        weights,
    )
    scopes = {"a": ["conv1"], "b": ["layer1", "layer1.0", "layer1.0.conv"], "c": ["layer1", "layer1.0"], "d": ["pool"]}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), scopes


def test_taps_are_where_one_value_lives_and_are_named_after_finished_modules():
    model, scopes = small_graph()
    layers = find_layers(model, scopes, {"layer1": 2}, width=8)
    assert [(layer.name, layer.aliases, layer.tensor, layer.stride) for layer in layers] == [
        ("conv1", (), "a", 2),
        ("head", ("layer1", "layer1.0"), "c", 2),
    ]
    assert (layers[-1].channels, layers[-1].height, layers[-1].width) == (4, 4, 4)


def test_gflops_count_each_multiply_add_once():
    model, _ = small_graph()
    assert round(count_gflops(model) * 1e9) == 16 * 4 * (3 * 9 + 4 * 9)


@pytest.mark.heavy
def test_the_recipe_reproduces_the_bundled_file(tmp_path):
    out = tmp_path / "efficientnet_lite0.onnx"
    done = subprocess.run(
        [sys.executable, ROOT / "models" / "efficientnet_lite0.py", "--output", out],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    bundled = open_backbone("efficientnet_lite0").path
    assert hashlib.sha256(out.read_bytes()).hexdigest() == hashlib.sha256(bundled.read_bytes()).hexdigest()
    assert "features" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


@pytest.fixture(scope="module")
def network():
    sys.path.insert(0, str(ROOT / "models"))
    from efficientnet_lite0 import load_network

    return load_network()


@pytest.fixture(scope="module")
def pixels():
    from efficientnet_lite0 import load_pictures

    return load_pictures(None)


@pytest.mark.heavy
def test_the_bundled_file_computes_what_pytorch_computes(network, pixels):
    from featx.recipes.verify import compare_features, compare_layers, compare_logits

    bundled = open_backbone("efficientnet_lite0")
    for difference in (compare_features(bundled, network, pixels), compare_logits(bundled, network, pixels)):
        assert difference.cosine >= 0.999999
        assert difference.absolute <= 1e-4
    differences = compare_layers(bundled, network, pixels[:4])
    assert len(differences) == len(bundled.layers) == 31
    assert [d.what for d in differences if not d.acceptable] == []


@pytest.mark.heavy
def test_another_network_is_told_apart_at_the_first_layer(network, pixels, other_backbone):
    from featx.recipes.verify import compare_layers

    differences = compare_layers(open_backbone(other_backbone), network, pixels[:2])
    assert not differences[0].acceptable


@pytest.mark.heavy
def test_a_network_in_training_mode_is_refused(network):
    from featx.recipes.network import export_network

    network.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            export_network(network, 224, 224)
    finally:
        network.eval()


@pytest.mark.heavy
def test_weights_in_another_order_are_refused(network):
    from featx.recipes.network import load_in_order

    state = dict(reversed(network.state_dict().items()))
    with pytest.raises(ValueError, match="stands where"):
        load_in_order(network, state)


@pytest.mark.heavy
def test_the_file_is_an_onnx_model_that_the_checker_accepts():
    onnx.checker.check_model(str(open_backbone("efficientnet_lite0").path), full_check=True)
