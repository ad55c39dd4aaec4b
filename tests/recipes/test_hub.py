"""Backbones of hub repositories: random networks from a server on this machine."""

import numpy as np
import pytest

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.errors import BackboneError
from featx.recipes.hub import pull_repository
from featx.recipes.hub_repository import fetch_repository
from featx.recipes.hub_search import search_repositories
from tests.recipes import hub_models
from tests.recipes.hub_server import COMMIT
from tests.recipes.published import IMAGENET, prepare, sample_photos

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default")]

PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": hub_models.SIDE, "resample": 3, **IMAGENET}


@pytest.fixture(scope="module")
def exports():
    made = {}

    def get(kind, side=hub_models.SIDE):
        if kind not in made:
            made[kind] = hub_models.export(kind, side)
        return made[kind]

    return get


def publish(hub, content, name="owner/tiny", processor=PROCESSOR, files=None, **card):
    card = {"license": "apache-2.0", **card}
    files = {"config.json": {"model_type": "x", "hidden_size": 24}, "onnx/model.onnx": content, **(files or {})}
    if processor:
        files["preprocessor_config.json"] = processor
    return hub.publish(name, files, **card)


def backbones(tmp_path):
    return sorted(path.name for path in (tmp_path / "backbones").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("kind", "side", "layers"),
    [
        ("vit", 32, {"block1", "block2", "patches", "head"}),
        ("dinov2", 32, {"block1", "block2", "patches", "head"}),
        ("dinov2 tokens", 32, {"block1", "block2", "patches", "head"}),
        ("clip", 32, {"block1", "block2", "head", "projection"}),
        ("siglip", 32, {"block1", "block2", "head"}),
        ("resnet", 64, {"stem", "stage1", "stage2", "stage3", "head"}),
        ("convnext", 64, {"stage1", "stage2", "stage3", "stage4", "head"}),
        ("swin", 64, {"stage1", "stage2", "stage3", "head"}),
        ("timm", 64, {"stem", "stage1", "stage2", "stage3", "head"}),
    ],
)
def test_features_are_those_of_the_network(hub, exports, kind, side, layers):
    import torch

    from featx.recipes.preprocessing_config import read_preprocessing

    content, network, _ = exports(kind, side)
    config = PROCESSOR | {"size": side}
    reference = publish(hub, content, processor=config)
    record = pull_repository(reference)
    backbone = open_backbone(reference)
    assert layers <= {layer.name for layer in backbone.layers}
    assert (record.revision, backbone.license) == (COMMIT, "apache-2.0")
    assert backbone.recipe["images_per_second"] > 0
    assert backbone.gflops > 0
    photo = sample_photos()[0]
    values = prepare(read_preprocessing(config), photo)
    with torch.no_grad():
        result = network(torch.tensor(values[None], dtype=torch.float32))
    layer = {"clip": "projection"}.get(kind, "head")
    ours = FeatureExtractor(reference, layer=layer, device="cpu").fit_transform([photo])[0]
    expected = {
        "dinov2": lambda: result.pooler_output,
        "dinov2 tokens": lambda: result.last_hidden_state[:, 0],
        "clip": lambda: result.image_embeds,
        "siglip": lambda: result.pooler_output,
        "convnext": lambda: result.pooler_output,
    }
    if kind in expected:
        np.testing.assert_allclose(ours, expected[kind]().numpy()[0], atol=1e-4)
    if kind in ("dinov2", "dinov2 tokens"):
        patches = FeatureExtractor(reference, layer="patches", device="cpu").fit_transform([photo])[0]
        np.testing.assert_allclose(patches, result.last_hidden_state[0, 1:].mean(0).numpy(), atol=1e-4)


def test_the_extractor_pulls_once_and_then_works_offline(hub, exports, monkeypatch):
    reference = publish(hub, exports("vit")[0])
    photo = sample_photos()[0]
    first = FeatureExtractor(reference, device="cpu").fit_transform([photo])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.seen)
    assert np.array_equal(FeatureExtractor(reference, device="cpu").fit_transform([photo]), first)
    assert len(hub.seen) == asked
    with pytest.raises(BackboneError, match="offline"):
        pull_repository(reference)


def test_external_data_is_merged(hub, exports):
    content = exports("vit")[0]
    graph, data = hub_models.outside(content, "model.onnx_data")
    whole = publish(hub, content, "owner/whole")
    parts = publish(hub, graph, "owner/parts", files={"onnx/model.onnx_data": data})
    pull_repository(whole)
    pull_repository(parts)
    assert open_backbone(parts).identity == open_backbone(whole).identity
    elsewhere, _ = hub_models.outside(content, "../secret")
    with pytest.raises(BackboneError, match="keeps weights in"):
        pull_repository(publish(hub, elsewhere, "owner/bad", files={"onnx/model.onnx_data": data}))


def test_a_licence_that_is_not_free_must_be_accepted(hub, exports, tmp_path):
    terms = {"license": "other", "license_name": "dinov3-license", "license_link": "https://example.org/terms"}
    reference = publish(hub, exports("vit")[0], **terms)
    with pytest.raises(BackboneError, match=r"example.org/terms.*accept_license='dinov3-license'"):
        FeatureExtractor(reference, device="cpu").fit([sample_photos()[0]])
    assert backbones(tmp_path) == []
    pull_repository(reference, accept_license="dinov3-license")
    assert open_backbone(reference).license == "dinov3-license"


def test_the_licence_may_be_that_of_the_base_model(hub, exports):
    publish(hub, b"", "base/model", license="mit")
    assert fetch_repository(publish(hub, b"", license=None, base_model="base/model")).license == "mit"


@pytest.mark.parametrize(
    ("processor", "stable"),
    [
        (None, "states no preprocessing"),
        ({key: value for key, value in PROCESSOR.items() if key != "image_mean"}, "set mean="),
    ],
)
def test_a_refusal_leaves_nothing(hub, exports, tmp_path, processor, stable):
    with pytest.raises(BackboneError, match=stable):
        pull_repository(publish(hub, exports("vit")[0], processor=processor))
    assert backbones(tmp_path) == []


def test_two_configurations_that_contradict_are_refused(hub, exports):
    timm = {"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    reference = publish(hub, exports("vit")[0], files={"config.json": {"pretrained_cfg": timm}})
    with pytest.raises(BackboneError, match="preprocessing='timm'"):
        pull_repository(reference)
    pull_repository(reference, preprocessing="timm")
    assert open_backbone(reference).preprocess.mean == (127.5,) * 3


def test_dynamic_quantisation_is_refused_with_the_reason(hub, exports, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    (tmp_path / "model.onnx").write_bytes(exports("vit")[0])
    quantize_dynamic(tmp_path / "model.onnx", tmp_path / "dynamic.onnx")
    content = (tmp_path / "dynamic.onnx").read_bytes()
    reference = publish(hub, exports("vit")[0], files={"onnx/model_quantized.onnx": content})
    with pytest.raises(BackboneError, match="takes its range from the whole batch"):
        pull_repository(reference, precision="int8")
    with pytest.raises(BackboneError, match="no ONNX file in float16"):
        pull_repository(reference, precision="float16")


def test_search_lists_what_can_be_pulled(hub, exports):
    reference = publish(hub, exports("vit")[0])
    hub.publish("owner/tiny-text", {"config.json": {}})
    (row,) = search_repositories("tiny")
    assert (row.reference, row.license, row.features) == (reference, "apache-2.0", 24)
