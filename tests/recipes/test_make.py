"""Recipes need torch and timm: `make test-all`."""

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.exceptions import ConvergenceWarning

import featx
from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.backbones.file import BackboneDescription
from featx.backbones.zoo import ZOO
from featx.recipes.layers import count_gflops, find_layers
from featx.samples import load_fashion_mnist

ROOT = Path(__file__).parents[2]


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
    layers = find_layers(model, scopes, {"layer1": 2}, (8, 8))
    assert [(layer.name, layer.aliases, layer.tensor, layer.stride) for layer in layers] == [
        ("conv1", (), "a", 2),
        ("head", ("layer1", "layer1.0", "stem"), "c", 2),
    ]
    assert (layers[-1].channels, layers[-1].height, layers[-1].width) == (4, 4, 4)


def test_gflops_count_each_multiply_add_once():
    model, _ = small_graph()
    assert round(count_gflops(model) * 1e9) == 16 * 4 * (3 * 9 + 4 * 9)


@pytest.mark.heavy
def test_the_recipe_reproduces_the_bundled_file(tmp_path):
    out = tmp_path / "efficientnet_lite0.onnx"
    done = subprocess.run(
        [sys.executable, ROOT / "models" / "efficientnet_lite.py", "--output", out],
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
    from efficientnet_lite import load_network

    return load_network("lite0")


@pytest.fixture(scope="module")
def pixels():
    from featx.images.reference import real_images

    return real_images(open_backbone("efficientnet_lite0").preprocess)


@pytest.mark.heavy
def test_the_bundled_file_computes_what_pytorch_computes(network, pixels):
    from featx.recipes.verify import compare_layers, compare_logits

    bundled = open_backbone("efficientnet_lite0")
    *layers, features = compare_layers(bundled, network, pixels)
    assert len(layers) == len(bundled.layers) == 31
    assert [difference.name for difference in layers if not difference.acceptable] == []
    assert features.name == "features"
    for difference in (features, compare_logits(bundled, network, pixels)):
        assert difference.cosine >= 0.999999
        assert difference.absolute <= 1e-4


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
    with pytest.raises(ValueError, match="got "):
        load_in_order(network, state)


def random_network(architecture):
    """One of timm's networks with random weights, and batch-norm statistics of a few real images."""
    import timm
    import torch

    from featx.images.reference import real_images
    from featx.recipes.make import timm_preprocess

    torch.manual_seed(0)
    network = timm.create_model(architecture, pretrained=False)
    preprocess = timm_preprocess(network.eval())
    pixels = real_images(preprocess)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms:
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
        batch = (torch.from_numpy(pixels).float() - mean) / std
        for module in norms:
            module.momentum = None  # plain averages over the batches
        network.train()
        with torch.no_grad():
            network(batch)
            network(batch.flip(3))
    return network.eval(), preprocess, pixels


def make_random(architecture, path, classifier=True):
    from featx.recipes.make import convert_network

    network, preprocess, pixels = random_network(architecture)
    description = BackboneDescription(name=architecture, preprocess=preprocess, license="none", source="random weights")
    differences = convert_network(network, path, description, pixels=pixels[:4], classifier=classifier).differences
    backbone = open_backbone(path)
    assert len(differences) == len(backbone.layers) + 1 + classifier
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return backbone, differences


#: Channels of the common layers, one network of each family.
ARCHITECTURES = {
    "resnet18": {"stem": 64, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512, "head": 512},
    "mobilenetv3_small_050": {"stem": 16, "stage1": 8, "stage2": 16, "stage3": 24, "head": 288},
    "convnext_atto": {"stage1": 40, "stage2": 80, "stage3": 160, "stage4": 320, "head": 320},
    "densenet121": {"stem": 64, "stage1": 256, "stage2": 512, "stage3": 1024, "head": 1024},
    "inception_v3": {"stem": 64, "stage1": 192, "stage2": 288, "stage3": 768, "head": 2048},
    "test_vit": {"block1": 64, "block6": 64, "head": 64},
}


@pytest.mark.heavy
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_timms_architectures_export_and_agree_at_every_layer(architecture, tmp_path):
    backbone, _ = make_random(architecture, tmp_path / "backbone.onnx")
    channels = ARCHITECTURES[architecture]
    assert {name: backbone.layer(name).channels for name in channels} == channels
    two = [next(iter(channels)), list(channels)[-1]]
    rows = FeatureExtractor(backbone.path, layer=two).transform(load_fashion_mnist("test")[0][:2])
    assert rows.shape == (2, channels[two[0]] + channels[two[1]])


@pytest.mark.full
@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_every_network_of_the_catalogue_exports_and_costs_what_it_says(entry, tmp_path):
    backbone, differences = make_random(entry.name, tmp_path / "backbone.onnx")
    worst = min(differences, key=lambda difference: difference.cosine)
    largest = max(difference.absolute / max(1.0, difference.scale) for difference in differences)
    print(f"\n{entry.name}: {len(backbone.layers)} layers, smallest cosine {worst.cosine:.9f}, largest {largest:.1e}")
    assert backbone.preprocess.height == entry.size
    assert backbone.layer(None).channels == entry.features
    assert round(backbone.parameters / 1e6, 2) == entry.parameters
    assert round(backbone.gflops, 2) == entry.gflops


@pytest.mark.heavy
def test_vgg16_without_its_top_flattened_feeds_a_head_of_1024_units(tmp_path):
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    backbone, _ = make_random("vgg16", tmp_path / "vgg16.onnx", classifier=False)
    sizes = {"stem": (128, 112, 112), "stage1": (256, 56, 56), "stage2": (512, 28, 28), "stage3": (512, 14, 14)}
    for name, size in (sizes | {"head": (512, 7, 7)}).items():
        assert backbone.layer(name).size == size
    assert backbone.path.stat().st_size < 60e6
    assert backbone.parameters in (14_714_688, 14_714_688 - 4_224)  # an exporter drops biases that are all zero
    X, y = load_fashion_mnist("test")
    chosen = [i for i, label in enumerate(y) if label in ("ankle-boot", "t-shirt")][:32]
    X, y = [X[i] for i in chosen], [y[i] for i in chosen]
    head = MLPClassifier((1024,), max_iter=20, random_state=0)
    pipeline = make_pipeline(FeatureExtractor(backbone.path, pooling="flatten"), StandardScaler(), head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(X, y)
    assert head.n_features_in_ == 25_088
    assert pipeline.score(X, y) > 0.9


@pytest.mark.heavy
def test_another_canvas_keeps_the_crop_and_takes_the_tested_one_where_timm_has_it():
    from featx.recipes.make import timm_preprocess

    network, _, _ = random_network("resnet10t")  # 176 to train, 224 to test
    config = network.pretrained_cfg
    tested = timm_preprocess(network, config["test_input_size"][1])
    assert tested.resize == int(tested.height / config["test_crop_pct"])
    other = timm_preprocess(network, 160)
    assert (other.height, other.resize) == (160, int(160 / config["crop_pct"]))


@pytest.mark.heavy
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    from featx.recipes import make

    network, preprocess, pixels = random_network("resnet10t")
    monkeypatch.setattr(make, "export_network", _export_with_a_halved_filter)
    description = BackboneDescription(name="x", preprocess=preprocess)
    with pytest.raises(featx.BackboneError, match="not written, it differs from PyTorch, first at"):
        make.convert_network(network, tmp_path / "x.onnx", description, pixels=pixels)
    assert not list(tmp_path.iterdir())


def _export_with_a_halved_filter(network, height, width):
    from featx.recipes.network import export_network

    model, scopes = export_network(network, height, width)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return model, scopes


@pytest.mark.heavy
def test_weights_come_from_a_file_and_execute_nothing(tmp_path):
    import torch

    from featx.recipes.make import create_timm_network, load_weights

    state = create_timm_network("test_resnet", _saved(tmp_path / "w.pth", "test_resnet")).state_dict()
    assert set(load_weights(tmp_path / "w.pth")) == set(state)
    with pytest.raises(featx.BackboneError, match=r"does not fit test_vit: .* missing: .* unexpected: "):
        create_timm_network("test_vit", tmp_path / "w.pth")
    with pytest.raises(featx.BackboneError, match="no such file"):
        create_timm_network("test_resnet", tmp_path / "nothing.pth")
    with pytest.raises(featx.BackboneError, match="cannot be created"):
        create_timm_network("resnet9000", tmp_path / "w.pth")
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(featx.BackboneError, match="cannot be read as weights alone"):
        load_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "evil").exists()


def _saved(path, architecture):
    import timm
    import torch

    torch.save({"state_dict": timm.create_model(architecture).state_dict()}, path)
    return path


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil",)
