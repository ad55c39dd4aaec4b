"""Tune a small network of each family for one step; the weights are random, and the graphs are the exporter's."""

import numpy as np
import pytest

from featx import FeatureExtractor
from featx.backbones.file import BackboneDescription
from featx.images.reference import list_real_images
from featx.recipes.make import convert_network, timm_preprocess
from featx.tuning import embed_activations, list_depths, tune_tail

NETWORKS = {
    "vgg11": {},
    "resnet18": {},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2, 2, 2)},
    "mobilenetv2_050": {},
    "mobilenetv3_small_050": {},
    "efficientnet_b0": {},
    "regnety_002": {},
    "convnext_atto": {},
    "vit_small_patch14_dinov2": {"depth": 3, "img_size": 56, "num_classes": 3},
}


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_tunes_and_comes_back(name, tmp_path):
    """`TunedTail.write` compares torch and ONNX Runtime, and raises beyond 1e-4."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **NETWORKS[name]).eval()
    is_transformer = "vit" in name
    description = BackboneDescription(name=name, preprocess=timm_preprocess(network, 56 if is_transformer else 64))
    path = tmp_path / "frozen.onnx"
    frozen = convert_network(network, path, description, classifier=is_transformer).backbone
    depth = list_depths(frozen)[-1]
    activations = embed_activations(list_real_images(), FeatureExtractor(path), depth, n_views=1)
    tuned = tune_tail(frozen, depth, activations, np.arange(12) % 2, epochs=1, batch_size=12, n_threads=1)
    moved = [key for key, value in tuned.weights.items() if not np.array_equal(value, activations.trunk.weights[key])]
    assert moved == list(activations.trunk.weights)
    assert tuned.write(tmp_path / "tuned.onnx", 1.0).identity != frozen.identity
