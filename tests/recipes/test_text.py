import hashlib
import json
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import featx
from featx.backbones import open_backbone
from featx.backbones.file import canonical_input
from featx.inference.self_check import check_canonical
from featx.recipes import make_text_backbone
from featx.recipes.text import TEXT_ENCODERS, TextEncoderSource, build_text_encoder
from tests.text.conftest import CONFIG, draw_weights, encoder, source  # noqa: F401


def normalize(x, weights, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def compute_blocks(ids, weights):
    """Compute the blocks of a BERT encoder for one text in float64, after Devlin et al. (2019)."""
    weights = {name: values.astype(float) for name, values in weights.items()}
    heads, erf = CONFIG["num_attention_heads"], np.vectorize(math.erf)

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = normalize(x + weights["embeddings.position_embeddings.weight"][: len(ids)], weights, "embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        q, k, v = (np.split(dense(x, f"{p}attention.self.{n}"), heads, axis=1) for n in ("query", "key", "value"))
        mixed = []
        for one, other, value in zip(q, k, v, strict=True):
            scores = np.exp(one @ other.T / math.sqrt(one.shape[1]))
            mixed.append(scores / scores.sum(1, keepdims=True) @ value)
        attended = dense(np.concatenate(mixed, axis=1), f"{p}attention.output.dense")
        x = normalize(attended + x, weights, f"{p}attention.output.LayerNorm")
        wide = dense(x, f"{p}intermediate.dense")
        x = normalize(
            dense(wide * (1 + erf(wide / math.sqrt(2))) / 2, f"{p}output.dense") + x, weights, f"{p}output.LayerNorm"
        )
        yield x


def test_every_block_is_that_of_a_plain_implementation(encoder, source):  # noqa: F811
    weights = load_file(source / "model.safetensors")
    ids = [2, 4, 5, 7, 3]  # [CLS] a red car [SEP]
    for name, block in zip(("block1", "block2"), compute_blocks(ids, weights), strict=True):
        row = featx.TextExtractor(encoder, layer=name).transform(["A red car"])[0]
        np.testing.assert_allclose(row, block.mean(0), atol=2e-5)


def test_the_file_describes_itself(encoder):  # noqa: F811
    backbone = open_backbone(encoder)
    assert (backbone.kind, backbone.default_layer, backbone.precision) == ("text", "block2", "float32")
    assert backbone.preprocess.max_tokens == 8
    assert canonical_input(backbone).shape == (1, 8)
    assert check_canonical(backbone, "cpu").passed


def test_another_tokenizer_is_another_identity(encoder, source, tmp_path):  # noqa: F811
    shutil.copytree(source, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = None
    path.write_text(json.dumps(tokenizer))
    other = make_text_backbone("tiny", tmp_path / "other.onnx", folder=tmp_path / "other")
    assert other.identity != open_backbone(encoder).identity


@pytest.mark.parametrize(
    ("change", "part"), [({"model_type": "gpt2"}, "'gpt2', expected 'bert'"), ({"hidden_act": "relu"}, "hidden_act")]
)
def test_other_networks_are_refused(change, part):
    with pytest.raises(featx.BackboneError, match=part):
        build_text_encoder(draw_weights(CONFIG), CONFIG | change)


def test_missing_parts_are_named(source, tmp_path):  # noqa: F811
    with pytest.raises(featx.BackboneError, match="not a folder"):
        make_text_backbone("tiny", tmp_path / "a.onnx", folder=tmp_path / "none")
    with pytest.raises(featx.InputError, match="did you mean 'minilm_l6'"):
        make_text_backbone("minilm_l5", tmp_path / "a.onnx")
    shutil.copytree(source, tmp_path / "part")
    weights = load_file(source / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "part" / "model.safetensors")
    with pytest.raises(featx.BackboneError, match=r"layer\.1\.output\.dense\.bias is missing"):
        make_text_backbone("tiny", tmp_path / "a.onnx", folder=tmp_path / "part")
    (tmp_path / "part" / "tokenizer.json").unlink()
    with pytest.raises(featx.BackboneError, match=r"tokenizer.json is missing|output.dense.bias is missing"):
        make_text_backbone("tiny", tmp_path / "a.onnx", folder=tmp_path / "part")
    assert not (tmp_path / "a.onnx").exists()


def test_known_weights_of_a_folder_have_the_licence_of_their_origin(source, tmp_path, monkeypatch):  # noqa: F811
    made = make_text_backbone("tiny", tmp_path / "tiny.onnx", folder=source)
    assert (made.license, made.source) == ("unknown", source.name)
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    row = TextEncoderSource("package", "module", "model.zip", digest, "owner/tiny", "Apache-2.0", ("en",))
    monkeypatch.setitem(TEXT_ENCODERS, "tiny", row)
    known = make_text_backbone("tiny", tmp_path / "known.onnx", folder=source)
    assert known.license == "Apache-2.0"
    assert "weights of owner/tiny, whose model card states the licence" in known.source
    assert known.identity == made.identity
