import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from featx.recipes import make_text_backbone

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "car", "dog", "runs", "the", "street", "good", "bad"]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "vocab_size": len(WORDS),
    "layer_norm_eps": 1e-12,
}


def draw_weights(config):
    """Draw the tensors of a BERT encoder by the names of transformers."""
    rng = np.random.default_rng(0)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        sizes = {"attention.self.query": (width, width), "attention.self.key": (width, width)}
        sizes |= {"attention.self.value": (width, width), "attention.output.dense": (width, width)}
        sizes |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
        for name, shape in sizes.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{i}.{name}.weight"] = shapes[f"encoder.layer.{i}.{name}.bias"] = (width,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def make_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=12)  # as the files of sentence encoders have it
    return tokenizer


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Return a folder in the layout of sentence-transformers that holds a tiny encoder."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    save_file(draw_weights(CONFIG), folder / "model.safetensors")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def encoder(source, tmp_path_factory):
    """Return the path of the tiny encoder as a backbone file."""
    return str(make_text_backbone("tiny", tmp_path_factory.mktemp("backbones") / "tiny.onnx", folder=source).path)
