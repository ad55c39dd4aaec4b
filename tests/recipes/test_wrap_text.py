"""Text encoders that the test exports as optimum does, with random weights and a tokenizer of its own."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import featx
from featx.backbones import tap
from featx.cli import main
from featx.recipes import wrap_text_backbone
from featx.session import Session
from featx.tuning import embed_tokens, list_depths, tune_tail
from tests.text.conftest import WORDS, encoder, make_tokenizer, source  # noqa: F401

TEXTS = ["a red car", "the dog runs the street", "good", "a blue car", ""]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
POSITIONS = {"max_position_embeddings": 34, "vocab_size": len(WORDS), "pad_token_id": 0}
CONFIGS = {
    "bert": SMALL,
    "roberta": SMALL,
    "xlm-roberta": SMALL,
    "mpnet": SMALL,
    "modernbert": SMALL | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
}


def write_files(folder, config, pooling="mean"):
    (folder / "1_Pooling").mkdir(parents=True)
    modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 10, "do_lower_case": False}))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "onnx").mkdir()
    return folder / "onnx" / "model.onnx"


def export(network, path, names, results):
    torch = pytest.importorskip("torch")

    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, *values):
            output = self.network(**dict(zip(names, values, strict=True)))
            return tuple(getattr(output, result) for result in results)

    ids = torch.randint(4, len(WORDS), (2, 7))
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    torch.onnx.export(
        Exported().eval(),
        tuple(values[name] for name in names),
        path,
        input_names=names,
        output_names=results,
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
        opset_version=17,
        dynamo=False,
    )


@pytest.mark.heavy
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.filterwarnings("ignore")
def test_the_features_are_those_of_transformers(kind, pooling, tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    if pooling == "cls" and kind != "bert":
        pytest.skip("the rule is the same for each network")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind], **POSITIONS)
    network = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    path = write_files(tmp_path / kind, config.to_dict(), pooling)
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (kind == "bert")
    export(network, path, names, ["last_hidden_state"])
    conversion = wrap_text_backbone(path, tmp_path / "wrapped.onnx")
    backbone = conversion.backbone
    assert backbone.preprocess.max_tokens == 10
    assert [layer.name for layer in backbone.layers][:2] == ["block1", "block2"]
    assert backbone.default_layer == {"cls": "cls"}.get(pooling, "tokens" if kind == "modernbert" else "block2")
    extractor = featx.TextExtractor(str(backbone.path), batch_size=3)
    features = extractor.transform(TEXTS)
    np.testing.assert_array_equal(np.concatenate([extractor.transform([text]) for text in TEXTS]), features)
    tokenizer = make_tokenizer()
    tokenizer.no_padding()
    for text, row in zip(TEXTS, features, strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            found = network(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        tokens = found.last_hidden_state[0].numpy()
        np.testing.assert_allclose(row, tokens[0] if pooling == "cls" else tokens.mean(0), atol=2e-6)
        first = featx.TextExtractor(str(backbone.path), layer="block1").transform([text])[0]
        np.testing.assert_allclose(first, found.hidden_states[1][0].numpy().mean(0), atol=2e-6)


def write_plain(path, *, operator="Identity", output="last_hidden_state", extra=()):
    """Write a text encoder of one table."""
    table = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32)
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "T"]) for n in ("input_ids", *extra)]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    nodes.append(helper.make_node(operator, ["rows"], [output, "scale", "zero"][: 1 + 2 * (operator != "Identity")]))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", "T", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [onnx.numpy_helper.from_array(table, "table")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return table


@pytest.mark.heavy
def test_an_encoder_without_blocks_has_the_layer_tokens(tmp_path, capsys):
    path = write_files(tmp_path / "plain", {"vocab_size": len(WORDS), "max_position_embeddings": 12})
    table = write_plain(path)
    assert main(["backbones", "wrap", str(path), "-o", str(tmp_path / "w.onnx")]) == 0
    assert "the features are those of" in capsys.readouterr().out
    row = featx.TextExtractor(str(tmp_path / "w.onnx")).transform(["a red"])[0]
    np.testing.assert_allclose(row, table[[2, 4, 5, 3]].mean(0), rtol=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"operator": "DynamicQuantizeLinear"}, "takes its range from the whole batch"),
        ({"extra": ("position_ids",)}, "has the input position_ids"),
        ({"output": "logits"}, "has the outputs logits"),
    ],
)
def test_other_graphs_are_refused_by_name(change, part, tmp_path):
    path = write_files(tmp_path / "plain", {"vocab_size": len(WORDS), "max_position_embeddings": 12})
    write_plain(path, **change)
    with pytest.raises(featx.BackboneError, match=part):
        wrap_text_backbone(path, tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()


@pytest.mark.heavy
def test_missing_files_are_asked_for_by_name(tmp_path):
    path = write_files(tmp_path / "plain", {"vocab_size": len(WORDS), "max_position_embeddings": 12})
    write_plain(path)
    (tmp_path / "plain" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(featx.BackboneError, match="pools tokens by max_tokens"):
        wrap_text_backbone(path, tmp_path / "w.onnx")
    (tmp_path / "plain" / "1_Pooling" / "config.json").unlink()
    with pytest.raises(featx.BackboneError, match="set pooling='mean'"):
        wrap_text_backbone(path, tmp_path / "w.onnx")
    (tmp_path / "plain" / "tokenizer.json").unlink()
    with pytest.raises(featx.BackboneError, match="beside it; a slow tokenizer"):
        wrap_text_backbone(path, tmp_path / "w.onnx", pooling="mean")


TOWER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 12,
}


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.filterwarnings("ignore")
def test_a_text_tower_has_the_layer_projection(kind, tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    end = len(WORDS) - 1
    if kind == "clip":
        config = transformers.CLIPTextConfig(
            **TOWER, projection_dim=8, eos_token_id=end, bos_token_id=2, pad_token_id=0
        )
        network = transformers.CLIPTextModelWithProjection._from_config(config, attn_implementation="eager").eval()
        result = "text_embeds"
    else:
        config = transformers.SiglipTextConfig(**TOWER, pad_token_id=0, projection_size=16)
        network = transformers.SiglipTextModel._from_config(config, attn_implementation="eager").eval()
        result = "pooler_output"

    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, input_ids):
            return getattr(self.network(input_ids=input_ids), result)

    path = write_files(tmp_path / kind, {"model_type": kind, "text_config": config.to_dict()})
    ids = torch.randint(4, end, (2, 12))
    ids[:, -1] = end
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    options = {"input_names": ["input_ids"], "output_names": ["text_embeds"], "dynamic_axes": axes}
    torch.onnx.export(Exported().eval(), (ids,), path, opset_version=17, dynamo=False, **options)
    backbone = wrap_text_backbone(path, tmp_path / "w.onnx").backbone
    assert backbone.default_layer == "projection"
    assert backbone.layer(None).channels == (8 if kind == "clip" else 16)
    rng = np.random.default_rng(0)
    session = Session(tap(backbone, None, "avg", False), "cpu")
    for n in (3, 7):
        one = rng.integers(4, end, (1, n))
        one[0, -1] = end
        whole = np.zeros((1, 12), np.int64)
        whole[:, :n] = one
        with torch.no_grad():
            found = getattr(network(torch.tensor(whole)), result).numpy()
        np.testing.assert_allclose(session.run(one), found, atol=2e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.filterwarnings("ignore")
def test_a_wrapped_encoder_tunes(kind, tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **CONFIGS[kind], **POSITIONS)
    network = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    path = write_files(tmp_path / kind, config.to_dict())
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (kind == "bert")
    export(network, path, names, ["last_hidden_state"])
    backbone = wrap_text_backbone(path, tmp_path / "wrapped.onnx").backbone
    assert list_depths(backbone)[0] == "block1"
    extractor = featx.TextExtractor(str(backbone.path), n_threads=1)
    found = embed_tokens(TEXTS, extractor, "block1")
    tuned = tune_tail(found.trunk.backbone, "block1", found, ["x", "y", "x", "y", "x"], epochs=2, n_threads=1)
    written = tuned.write(tmp_path / "tuned.onnx")  # raises unless ONNX Runtime agrees with torch
    features = featx.TextExtractor(str(written.path)).transform(TEXTS)
    assert np.abs(features - extractor.transform(TEXTS)).max() > 1e-4
    np.testing.assert_allclose(tuned.features(found, np.arange(5)), features, atol=5e-3)  # float16 at the cut
