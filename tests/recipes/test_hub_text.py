"""Text encoders of hub repositories: a random BERT from a server on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featx
from featx.backbones import list_here, open_backbone
from featx.cli import main
from featx.errors import BackboneError, DatasetError, InputError
from featx.recipes.hub import pull_repository
from tests.recipes import hub_models
from tests.recipes.hub_server import COMMIT
from tests.recipes.published import IMAGENET
from tests.recipes.test_wrap_text import CONFIGS, POSITIONS, TOWER, export, write_files

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]

TEXTS = ["a red car", "the dog runs the street", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Return the files of a repository and the network."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **CONFIGS["bert"], **POSITIONS)
    network = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    folder = tmp_path_factory.mktemp("hub") / "bert"
    path = write_files(folder, config.to_dict())
    export(network, path, ["input_ids", "attention_mask", "token_type_ids"], ["last_hidden_state"])
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def publish(hub, files, name="owner/tiny-bert", **card):
    return hub.publish(name, files, pipeline="feature-extraction", **{"license": "apache-2.0", "language": "en"} | card)


def test_the_extractor_pulls_once_and_then_works_offline(hub, bert, tmp_path, monkeypatch):
    reference = publish(hub, bert)
    features = featx.TextExtractor(reference).fit_transform(TEXTS)
    folder = tmp_path / "direct"
    for name, content in bert.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    direct = featx.recipes.wrap_text_backbone(folder / "onnx" / "model.onnx", tmp_path / "direct.onnx").backbone
    backbone = open_backbone(reference)
    np.testing.assert_array_equal(featx.TextExtractor(str(direct.path)).transform(TEXTS), features)
    assert (backbone.name, backbone.license, backbone.source) == (
        "tiny-bert",
        "apache-2.0",
        f"hf:owner/tiny-bert@{COMMIT}/onnx/model.onnx",
    )
    assert backbone.recipe["revision"] == COMMIT
    assert {"sha256 of onnx/model.onnx", "sha256 of tokenizer.json"} <= backbone.recipe.keys()
    assert backbone.preprocess.languages == ("en",)
    asked = len(hub.seen)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert np.array_equal(featx.TextExtractor(reference).transform(TEXTS), features)
    assert len(hub.seen) == asked
    assert reference in [name for name, _ in list_here(pytest.fail)]


def test_each_extractor_can_pull_by_itself():
    code = "import featx.text, sys; from featx.backbones.catalogue import _makers; assert _makers; "
    code += "assert 'featx.extractor' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_pulls_and_the_pooling_may_be_given(hub, bert, capsys):
    files = {name: content for name, content in bert.items() if "Pooling" not in name}
    reference = publish(hub, files)
    assert main(["backbones", "pull", reference]) == 2
    assert "--pooling" in capsys.readouterr().err
    assert main(["backbones", "pull", reference, "--pooling", "cls"]) == 0
    assert "texts of 16 tokens per second" in capsys.readouterr().out
    assert open_backbone(reference).default_layer == "cls"
    with pytest.raises(BackboneError, match="encodes text"):
        featx.FeatureExtractor(reference).fit(None)


def test_a_refusal_leaves_nothing(hub, bert, tmp_path):
    for change, part in [
        ({"license": "llama3"}, "accept_license='llama3'"),
        ({"config.json": {"model_type": "bert"}}, "vocab_size"),
    ]:
        files = bert | {name: json.dumps(body).encode() for name, body in change.items() if "." in name}
        card = {name: value for name, value in change.items() if "." not in name}
        with pytest.raises(BackboneError, match=part):
            pull_repository(publish(hub, files, **card))
    with pytest.raises(InputError, match=r"mean=.*is a text encoder"):
        pull_repository(publish(hub, bert), mean=(0, 0, 0))
    assert not [path for path in (tmp_path / "backbones").rglob("*") if path.is_file()]


PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": hub_models.SIDE, "resample": 3, **IMAGENET}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def towers(request, tmp_path_factory):
    """Return the files of a repository with two towers, and the text network with the name of its result."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    image, _, _ = hub_models.export(request.param)
    torch.manual_seed(0)
    if request.param == "clip":
        ends = {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
        config = transformers.CLIPTextConfig(**TOWER, **ends, projection_dim=12)
        network = transformers.CLIPTextModelWithProjection._from_config(config, attn_implementation="eager").eval()
        result = "text_embeds"
    else:
        config = transformers.SiglipTextConfig(**TOWER, pad_token_id=0, projection_size=24)
        network = transformers.SiglipTextModel._from_config(config, attn_implementation="eager").eval()
        result = "pooler_output"
    folder = tmp_path_factory.mktemp("hub") / request.param
    path = write_files(folder, {"model_type": request.param, "text_config": config.to_dict()})
    export(network, path, ["input_ids"], ["last_hidden_state", result])
    files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "onnx/text_model.onnx": path.read_bytes()}
    files["config.json"] = (folder / "config.json").read_bytes()
    return files | {"onnx/vision_model.onnx": image, "preprocessor_config.json": PROCESSOR}


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def embed(photos, folder, extractor):
    featx.dataset.embed(str(photos), folder, extractor)
    return featx.dataset.open(folder)


def test_images_are_found_by_words(hub, towers, photos, tmp_path, capsys, monkeypatch):
    reference = publish(hub, towers, "owner/two")
    assert main(["backbones", "pull", reference]) == 0
    assert "text tower two-text" in capsys.readouterr().out
    image, text = open_backbone(reference), open_backbone(reference, kind="text")
    assert (image.name, text.name, text.default_layer) == ("two", "two-text", "projection")
    assert image.recipe["pair"] == text.recipe["pair"] == f"owner/two@{COMMIT}"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tower = featx.TextExtractor(reference)
    query = tower.fit_transform(["a red car"])
    np.testing.assert_array_equal(featx.TextExtractor(f"{reference}#text").transform(["a red car"]), query)
    images = featx.FeatureExtractor(reference, layer="projection", device="cpu")
    data = embed(str(photos), tmp_path / "vectors", images)
    np.testing.assert_array_equal(data.embed_texts(["a red car"]), query)
    rows = images.transform(sorted(str(path) for path in photos.iterdir()))
    cosines = (rows @ query[0]) / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    assert main(["neighbors", str(tmp_path / "vectors"), "--text", "a red car", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["queries"][0]["neighbors"]
    assert [one["key"] for one in found] == [f"{i}.png" for i in np.argsort(-cosines)]
    np.testing.assert_allclose([one["similarity"] for one in found], np.sort(cosines)[::-1], atol=1e-5)
    np.testing.assert_array_equal(data.embed_texts(["a red car"], backbone=text.path), query)
    featx.save(tower, tmp_path / "tower.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "tower.featx").transform(["a red car"]), query)


def test_names_of_classes_make_a_model(hub, towers, photos, tmp_path, capsys):
    reference, model = publish(hub, towers, "owner/two"), str(tmp_path / "names.featx")
    pull_repository(reference)
    arguments = ["fit", "--head", "zero_shot", "--backbone", reference, "-o", model]
    assert main([*arguments, "--classes", "red car,dog", "--template", "the {}"]) == 0
    assert "made without images" in capsys.readouterr().err
    images = sorted(str(path) for path in photos.iterdir())
    rows = featx.FeatureExtractor(reference, layer="projection").transform(images)
    texts = featx.TextExtractor(reference, layer="projection").transform(["the dog", "the red car"])
    cosines = (rows / np.linalg.norm(rows, axis=1)[:, None]) @ (texts / np.linalg.norm(texts, axis=1)[:, None]).T
    predicted = featx.load(model).predict(images)
    assert predicted.tolist() == [["dog", "red car"][i] for i in cosines.argmax(axis=1)]
    for i, path in enumerate(images * 3):
        folder = photos / ["dog", "street"][i % 2]
        folder.mkdir(exist_ok=True)
        Image.open(path).rotate(90 * (i // 4)).save(folder / f"{i}.png")
    for path in images:
        Path(path).unlink()
    assert main(["fit", str(photos), *arguments[1:], "--classes", "dog,street,car"]) == 0
    head = featx.load(model)[-1]
    assert head.classes_.tolist() == ["car", "dog", "street"]
    assert head.n_features_in_ == rows.shape[1]
    assert main(["fit", str(photos), *arguments[1:], "--class-weight", "balanced"]) == 2
    assert "weighs all classes alike" in capsys.readouterr().err
    assert main(["fit", str(photos), "--head", "zero_shot", "-o", model]) == 2
    assert "has no text tower" in capsys.readouterr().err
    assert main(["fit", "--classes", "a,b", "-o", model]) == 2
    assert "--classes" in capsys.readouterr().err


def test_texts_are_refused_for_other_features(hub, towers, photos, tmp_path):
    reference = publish(hub, towers, "owner/two")
    block = featx.FeatureExtractor(reference, layer="block1", device="cpu")
    data = embed(str(photos), tmp_path / "block1", block)
    with pytest.raises(DatasetError, match="layer='projection'"):
        data.embed_texts(["a red car"])
    refused = {name: body for name, body in towers.items() if name != "tokenizer.json"}
    alone = publish(hub, refused, "owner/alone")
    data = embed(str(photos), tmp_path / "alone", featx.FeatureExtractor(alone, device="cpu"))
    with pytest.raises(DatasetError, match=r"has no text tower \(not made .*tokenizer.json"):
        data.embed_texts(["a red car"])
    with pytest.raises(DatasetError, match="has no text tower"):
        data.embed_texts(["a red car"], backbone=open_backbone(reference, kind="text").path)
    with pytest.raises(BackboneError, match="expected a text encoder"):
        featx.TextExtractor(alone).fit(None)
    with pytest.raises(BackboneError, match="without a text tower"):
        open_backbone(f"{alone}#text")
