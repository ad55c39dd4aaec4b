"""Backbones of hub repositories: random networks from a server on this machine."""

import numpy as np
import pytest
from PIL import Image

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.cli import main
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
            name, _, dynamo = kind.partition(", ")
            made[kind] = hub_models.export(name, side, bool(dynamo))
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


BLOCKS = {"block1", "block2", "patches", "head"}
STAGES = {"stem", "stage1", "stage2", "stage3", "head"}
#: The kind of a network, the side of its images, its layers, and its features by the library that made it.
NETWORKS = {
    "vit": (32, BLOCKS, lambda net, x: net.base_model(x).last_hidden_state[:, 0]),
    "deit": (32, BLOCKS, lambda net, x: net.base_model(x).last_hidden_state[:, 0]),
    "beit": (32, BLOCKS, lambda net, x: net.base_model(x).pooler_output),
    "dinov2": (32, BLOCKS, lambda net, x: net(x).pooler_output),
    "dinov2 tokens": (32, BLOCKS, lambda net, x: net(x).last_hidden_state[:, 0]),
    "dinov3": (32, BLOCKS, lambda net, x: net(x).pooler_output),
    "dinov3, dynamo": (32, BLOCKS, lambda net, x: net(x).pooler_output),
    "clip": (32, {"block1", "block2", "head", "projection"}, lambda net, x: net(x).image_embeds),
    "siglip": (32, BLOCKS, lambda net, x: net(x).pooler_output),
    "resnet": (64, STAGES, lambda net, x: net.base_model(x).pooler_output),
    "convnext": (64, STAGES - {"stem"} | {"stage4"}, lambda net, x: net(x).pooler_output),
    "convnext classes": (64, STAGES - {"stem"}, lambda net, x: net.base_model(x).last_hidden_state.mean((2, 3))),
    "swin": (64, STAGES - {"stem"}, lambda net, x: net.base_model(x).pooler_output),
    "mobilenet v1": (64, STAGES, lambda net, x: net.base_model(x).pooler_output),
    "mobilenet v2": (64, STAGES, lambda net, x: net.base_model(x).pooler_output),
    "efficientnet": (64, STAGES | {"stage4"}, lambda net, x: net.base_model(x).pooler_output),
    "levit": (64, STAGES, lambda net, x: net.classifier.batch_norm(net.base_model(x).pooler_output)),
    "timm": (64, STAGES, lambda net, x: net.forward_features(x).mean((2, 3))),
    "timm without classes": (32, BLOCKS, lambda net, x: net(x)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_those_of_the_network(hub, exports, kind):
    import torch

    from featx.recipes.preprocessing_config import read_preprocessing

    side, layers, compute = NETWORKS[kind]
    content, network, _ = exports(kind, side)
    config = PROCESSOR | {"size": side}
    settings = {"architecture": "x", "num_classes": 0} if kind.endswith("without classes") else {"model_type": "x"}
    reference = publish(hub, content, processor=config, files={"config.json": settings})
    record = pull_repository(reference)
    backbone = open_backbone(reference)
    assert layers <= {layer.name for layer in backbone.layers}
    assert (record.revision, backbone.license) == (COMMIT, "apache-2.0")
    assert backbone.recipe["images_per_second"] > 0
    assert backbone.gflops > 0
    photo = sample_photos()[0]
    x = torch.tensor(prepare(read_preprocessing(config), photo)[None], dtype=torch.float32)

    def features(layer):
        return FeatureExtractor(reference, layer=layer, device="cpu").fit_transform([photo])[0]

    with torch.no_grad():
        expected = compute(network, x).flatten().numpy()
        hidden = None if kind.startswith("timm") else network(x, output_hidden_states=True).hidden_states
        tokens = network(x).last_hidden_state if kind.startswith("dino") else None
    np.testing.assert_allclose(features("projection" if kind == "clip" else "head"), expected, atol=1e-4)
    if "block1" in layers and hidden:
        np.testing.assert_allclose(features("block1"), hidden[1][0, -16:].mean(0).numpy(), atol=1e-4)
    if kind == "resnet":
        np.testing.assert_allclose(features("stage3"), hidden[3][0].mean((1, 2)).numpy(), atol=1e-4)
    if kind == "clip":
        names = {alias: layer.name for layer in backbone.layers for alias in layer.aliases}
        assert (names["patches"], names["cls"]) == ("block2", "head")
    if tokens is not None:
        np.testing.assert_allclose(features("patches"), tokens[0, -16:].mean(0).numpy(), atol=1e-4)


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
    pull_repository(reference)  # accepted before
    publish(hub, exports("vit")[0], **terms | {"license_name": "other-terms"})
    with pytest.raises(BackboneError, match="other-terms"):
        pull_repository(reference)


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


def test_a_damaged_body_of_the_right_length_is_refused(hub, exports, tmp_path):
    content = exports("vit")[0]
    reference = publish(hub, content)
    hub.damaged["onnx/model.onnx"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(BackboneError, match="the hub lists"):
        pull_repository(reference)
    assert backbones(tmp_path) == []


def test_commands_take_the_name_of_a_repository(hub, exports, tmp_path, capsys):
    reference = publish(hub, exports("vit")[0])
    pull_repository(reference)
    rng = np.random.default_rng(0)
    for i in range(20):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 128 * (1 + i % 2), (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    source, model = str(tmp_path / "photos"), str(tmp_path / "photos.featx")
    assert main(["compare", source, "--backbone", reference, "--layer", "head", "--crop", "center"]) == 0
    assert f"{reference} head, avg, center" in capsys.readouterr().out
    assert main(["fit", source, "--backbone", reference, "--head", "knn", "-o", model]) == 0
    assert f"knn on {reference} (cpu)" in capsys.readouterr().out
    assert main(["backbones", "--here"]) == 0
    assert "images/s" in capsys.readouterr().out.split(reference)[1].splitlines()[0]
    assert main(["backbones", "show", reference]) == 0
    assert "images per second on" in capsys.readouterr().out


def test_two_configurations_that_contradict_are_refused(hub, exports):
    timm = {"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    reference = publish(hub, exports("vit")[0], files={"config.json": {"pretrained_cfg": timm}})
    with pytest.raises(BackboneError, match="preprocessing='timm'"):
        pull_repository(reference)
    pull_repository(reference, preprocessing="timm")
    assert open_backbone(reference).preprocess.mean == (127.5,) * 3
    again = publish(hub, exports("vit")[0], "owner/again", timm, files={"config.json": {"pretrained_cfg": timm}})
    pull_repository(again)  # a processor without a type says the same once more


def cheaper(content, way, folder):
    """Return a network in float16 or int8, as the tools of onnxruntime write it."""
    from types import SimpleNamespace

    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if way.startswith("float16"):
        model = convert_float_to_float16(onnx.load_from_string(content), keep_io_types="ends" not in way)
        return model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    if way == "dynamic":
        quantize_dynamic(folder / "model.onnx", folder / "cheaper.onnx")
    else:
        drawn = np.random.default_rng(0).normal(size=(8, 1, 3, 64, 64)).astype(np.float32)
        images = iter({"pixel_values": one} for one in drawn)
        reader = SimpleNamespace(get_next=lambda: next(images, None))
        quantize_static(
            folder / "model.onnx", folder / "cheaper.onnx", reader, quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=True, weight_type=QuantType.QInt8,
        )  # fmt: skip
    return (folder / "cheaper.onnx").read_bytes()


@pytest.mark.parametrize(
    ("kind", "way", "file"),
    [
        ("resnet", "static", "model_quantized"),
        ("dinov3", "float16", "model_fp16"),
        ("vit", "float16 to the ends", "model_fp16"),
    ],
)
def test_a_cheaper_file_is_compared_with_the_float32_file(hub, exports, tmp_path, kind, way, file):
    side, layers, _ = NETWORKS[kind]
    content = exports(kind, side)[0]
    files = {f"onnx/{file}.onnx": cheaper(content, way, tmp_path)}
    reference = publish(hub, content, processor=PROCESSOR | {"size": side}, files=files)
    precision = way.split()[0].replace("static", "int8")
    pull_repository(reference, precision=precision)
    backbone = open_backbone(reference, precision)
    assert backbone.precision == precision
    assert layers <= {layer.name for layer in backbone.layers}
    assert 0.98 < backbone.recipe["cosine_to_float32"] <= 1
    photos = sample_photos()[:3]
    extractor = FeatureExtractor(reference, precision=precision, device="cpu").fit(None)
    alone = [extractor.transform([photo])[0] for photo in photos]
    np.testing.assert_allclose(extractor.transform(photos), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "way", "stable"),
    [
        ("resnet", "dynamic", "takes its range from the whole batch"),
        ("mobilenet v1", "static", "differ from those of the float32 file"),
    ],
)
def test_a_cheaper_file_that_lies_is_refused_with_the_reason(hub, exports, tmp_path, kind, way, stable):
    files = {"onnx/model_quantized.onnx": cheaper(exports(kind, 64)[0], way, tmp_path)}
    reference = publish(hub, exports("resnet", 64)[0], processor=PROCESSOR | {"size": 64}, files=files)
    with pytest.raises(BackboneError, match=stable):
        pull_repository(reference, precision="int8")
    with pytest.raises(BackboneError, match="no ONNX file in float16"):
        pull_repository(reference, precision="float16")
    assert backbones(tmp_path) == []


def test_search_lists_what_can_be_pulled(hub, exports):
    reference = publish(hub, exports("vit")[0])
    hub.publish("owner/tiny-nothing", {"config.json": {}})
    text = {"config.json": {"hidden_size": 16}, "tokenizer.json": b"{}", "onnx/model.onnx": b"ab"}
    text = hub.publish("owner/tiny-text", text, pipeline="sentence-similarity", license="mit")
    pair = {"tokenizer.json": b"{}", "onnx/text_model.onnx": b"a", "onnx/vision_model.onnx": b"b"}
    pair = publish(hub, b"", "owner/tiny-pair", files=pair)
    hub.repositories["owner/tiny-pair"]["pipeline"] = "zero-shot-image-classification"
    rows = {row.reference: row for row in search_repositories("tiny")}
    assert {name: row.kind for name, row in rows.items()} == {reference: "image", text: "text", pair: "both"}
    assert (rows[text].license, rows[text].features, rows[text].size, rows[text].downloads) == ("mit", 16, 2, 3000)
    assert rows[reference].features == 24
    assert {row.kind for row in search_repositories("tiny", kind="text")} == {"text", "both"}
    assert {row.kind for row in search_repositories("tiny", kind="image")} == {"image", "both"}
