"""Text encoders of hub repositories: a random BERT from a server on this machine."""

import json
import subprocess
import sys

import numpy as np
import pytest

import featx
from featx.backbones import list_here, open_backbone
from featx.cli import main
from featx.errors import BackboneError, InputError
from featx.recipes.hub import pull_repository
from tests.recipes.hub_server import COMMIT
from tests.recipes.test_wrap_text import CONFIGS, POSITIONS, export, write_files

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
