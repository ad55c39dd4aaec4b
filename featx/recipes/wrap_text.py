"""Make a backbone of a text encoder in ONNX, in the layouts of optimum and sentence-transformers; needs no PyTorch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from featx._files import write_whole
from featx._validation import check_choice
from featx.backbones.catalogue import own_file, verdicts_dir
from featx.backbones.download import file_digest
from featx.backbones.file import BackboneDescription, Layer, is_described, load_model, read_backbone
from featx.backbones.graph import cut, set_fields, tap
from featx.backbones.sandbox import inspect_file
from featx.backbones.tokenization import Tokenization
from featx.errors import BackboneError, MissingDependencyError, first_line
from featx.recipes.build import write_backbone
from featx.recipes.classifier import move_shapes, raise_opset
from featx.recipes.layers import count_parameters, sole_live_tensors
from featx.recipes.network import strip
from featx.recipes.verify import Conversion, measure_difference
from featx.session import Session, run_graph

__all__ = ["is_text_model", "wrap_text_backbone"]

_PROJECTIONS = ("text_embeds", "sentence_embedding", "pooler_output")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_BLOCK = re.compile(r"(?:^|[./])(?:layers?|h|blocks?|resblocks)[./](\d+)[./]")
#: A tokenizer without a limit states a length of at least this number.
_NO_LIMIT = 1_000_000
_LENGTHS = (5, 8, 3)  # tokens of the texts on which the file is compared with its source


@dataclass(frozen=True)
class _Files:
    """The files beside an ONNX file, in its folder or the folders above."""

    path: Path

    def find(self, name: str) -> Path | None:
        folders = (self.path.parent, self.path.parent.parent)
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file; return {} without the file."""
        found = self.find(name)
        try:
            content = json.loads(found.read_text(encoding="utf-8")) if found else {}
        except ValueError as error:
            raise BackboneError(f"{found}: is not JSON ({error}); download it again") from None
        if not isinstance(content, dict):
            raise BackboneError(f"{found}: expected a JSON object; download it again")
        return content


def is_text_model(path: str | os.PathLike[str]) -> bool:
    """Return True if an ONNX file takes ``input_ids``."""
    return any(value.name == "input_ids" for value in load_model(path).graph.input)


def wrap_text_backbone(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    pooling: str | None = None,
    max_tokens: int | None = None,
    license: str = "unknown",
    languages: tuple[str, ...] = (),
    origin: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Conversion:
    """Make a backbone of a text encoder, and compare the two on sequences of tokens.

    Inside the graph the attention mask becomes ones, because texts of one length share a batch and nothing is padded. A
    network that was trained on texts padded to one length, such as SigLIP, pads them inside the graph.

    Parameters
    ----------
    source : str or path
        An ONNX file with the input ``input_ids`` and, if it has them, ``attention_mask`` and ``token_type_ids``.
        Beside it, or one folder above, lie ``tokenizer.json``, ``config.json`` and, for sentence-transformers,
        ``sentence_bert_config.json`` and ``1_Pooling/config.json``.
    output : str, path or None
        The new file. None writes ``NAME.onnx`` to the user's folder, where `TextExtractor` finds it by name.
    name : str or None
        The backbone's name; None takes the name of the file.
    pooling : {"mean", "cls"} or None
        Pooling of tokens that the training used. None takes it from ``1_Pooling/config.json``. A text tower with the
        output ``text_embeds`` pools inside the graph.
    max_tokens : int or None
        Largest number of tokens that is read. None takes the limit from the files.
    license : str
        SPDX identifier of the weights' licence.
    languages : tuple of str
        ISO 639-1 codes of the languages of its training.
    origin : str or None
        Address of the file, kept as the backbone's ``source``; None keeps the name of the file.
    recipe : mapping or None
        Further entries of the recipe, such as the name of the other tower.

    Returns
    -------
    Conversion
        The new backbone, and the difference of its features from the original's.

    Raises
    ------
    BackboneError
        If the file is not a text encoder or uses a refused operator, if a file beside it is missing or contradicts it,
        or if the backbone would compute other features.

    Examples
    --------
    >>> from featx.recipes import wrap_text_backbone
    >>> wrap_text_backbone("all-MiniLM-L6-v2/onnx/model.onnx")  # doctest: +SKIP
    """
    path = Path(source)
    files = _Files(path)
    inspect_file(path, verdicts_dir())
    original = load_model(path)
    if is_described(original):
        raise BackboneError(f"{path}: is already a backbone")
    config = files.read("config.json")
    text_config = config.get("text_config", config)
    tokenizer = files.find("tokenizer.json")
    if tokenizer is None:
        raise BackboneError(f"{path}: no tokenizer.json beside it; a slow tokenizer of transformers cannot be read")
    if "vocab_size" not in text_config:
        raise BackboneError(f"{path}: no config.json with a vocab_size beside it")
    result = _find_output(original, path, str(config.get("model_type", "")))
    pool = "inside" if result in _PROJECTIONS else _read_pooling(files, pooling)
    length = _fixed_length(original, config)
    limit = max_tokens or _read_limit(files, text_config, length, path)
    tokenization = Tokenization(
        tokenizer.read_text(encoding="utf-8"), limit, int(text_config["vocab_size"]), tuple(languages)
    )
    model = raise_opset(original, path)
    names = _block_names(model)
    _fold_inputs(model, path, length, int(text_config.get("pad_token_id") or 0))
    n_blocks = int(text_config.get("num_hidden_layers") or 0)
    layers = _add_layers(model, names, n_blocks, result, pool, length is not None, limit, path)
    strip(model)
    name = name or path.stem
    description = BackboneDescription(
        name=name,
        preprocess=tokenization,
        layers=tuple(layers),
        default_layer=layers[-1].name,
        parameters=count_parameters(model),
        license=license,
        source=origin or path.name,
        recipe={"wrapped_sha256": file_digest(path), "onnx": onnx.__version__, "pooling": pool, **(recipe or {})},
    )
    output = output or own_file(name)
    with write_whole(output) as scratch:
        try:
            write_backbone(Path(scratch), model, description)
            backbone = read_backbone(scratch)
            difference = _compare(original, backbone, result, pool, length, int(text_config.get("pad_token_id") or 0))
        except MissingDependencyError:
            raise
        except Exception as error:
            why = first_line(error).replace(os.fspath(scratch), os.fspath(output))
            raise BackboneError(f"{path}: cannot be made a backbone ({why})") from error
        if not difference.acceptable:
            raise BackboneError(f"{output}: not written, the features differ from those of {path}: {difference}")
    return Conversion(read_backbone(output), (difference,))


def _find_output(model: onnx.ModelProto, path: Path, kind: str) -> str:
    """Return the output that holds tokens, or the row of a text tower; SigLIP calls this row ``pooler_output``."""
    names = [value.name for value in model.graph.output]
    candidates: tuple[str, ...] = ("text_embeds", "last_hidden_state", "token_embeddings", "sentence_embedding")
    if kind.startswith("siglip"):
        candidates = ("text_embeds", "pooler_output")
    output = next((name for name in candidates if name in names), None)
    if output is None:
        raise BackboneError(f"{path}: has the outputs {', '.join(names)}, expected one of {', '.join(candidates)}")
    return output


def _read_pooling(files: _Files, pooling: str | None) -> str:
    """Return the pooling of tokens that the training used."""
    if pooling is not None:
        check_choice("pooling", pooling, ("mean", "cls"))
        return pooling
    config = files.read("1_Pooling/config.json")
    if isinstance(mode := config.get("pooling_mode"), str):  # the form of sentence-transformers since version 6
        chosen = [mode]
    else:
        chosen = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "mode" in key]
    rules = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if not chosen:
        raise BackboneError(
            f"{files.path}: no 1_Pooling/config.json beside it; set pooling='mean' or pooling='cls', "
            "as its model card says"
        )
    if len(chosen) > 1 or chosen[0] not in rules:
        raise BackboneError(f"{files.path}: pools tokens by {' and '.join(chosen)}, expected mean or cls")
    return rules[chosen[0]]


def _read_limit(files: _Files, config: Mapping[str, Any], length: int | None, path: Path) -> int:
    """Return the largest number of tokens; RoBERTa's positions begin after that of the padding token."""
    n_positions = config.get("max_position_embeddings")
    if n_positions is not None and config.get("model_type") in ("roberta", "xlm-roberta", "mpnet", "camembert"):
        n_positions -= int(config.get("pad_token_id", 1)) + 1
    max_tokens = files.read("sentence_bert_config.json").get("max_seq_length")
    if max_tokens is None:
        max_tokens = files.read("tokenizer_config.json").get("model_max_length")
    limits = [limit for limit in (n_positions, max_tokens, length) if limit is not None and limit < _NO_LIMIT]
    if not limits:
        raise BackboneError(f"{path}: the files beside it state no largest number of tokens; set max_tokens")
    return int(min(limits))


def _fixed_length(model: onnx.ModelProto, config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens to which every text is padded; None without padding.

    SigLIP reads the last of 64 tokens and has no mask. CLIP reads the token at the end of the text, which depends only
    on earlier tokens, so padding changes nothing.
    """
    (value,) = [one for one in model.graph.input if one.name == "input_ids"] or [None]
    dims = [] if value is None else value.type.tensor_type.shape.dim
    if len(dims) == 2 and dims[1].dim_value:
        return int(dims[1].dim_value)
    if str(config.get("model_type", "")).startswith("siglip"):
        return int(config.get("text_config", config).get("max_position_embeddings", 64))
    return None


def _block_names(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of the block that computes each tensor, from the scopes that exporters write."""
    numbers = {}
    for node in model.graph.node:
        texts = [node.name, *(prop.value for prop in node.metadata_props), *node.output]
        match = next((match for text in texts if (match := _BLOCK.search(text))), None)
        if match:
            numbers.update(dict.fromkeys(node.output, int(match[1])))
    return numbers


def _fold_inputs(model: onnx.ModelProto, path: Path, length: int | None, pad: int) -> None:
    """Keep only the input ``input_ids``: the mask becomes ones, and the segments become zeros."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    if unknown := sorted(inputs.keys() - set(_INPUTS)):
        raise BackboneError(f"{path}: has the input {unknown[0]}, expected {', '.join(_INPUTS)}")
    if "input_ids" not in inputs:
        raise BackboneError(f"{path}: has no input input_ids, expected a text encoder")
    nodes: list[onnx.NodeProto] = []
    # the network's tensors keep their names; its input is renamed
    for node in graph.node:
        node.input[:] = ["featx_ids" if one == "input_ids" else one for one in node.input]
    tokens = "input_ids"
    if length is not None:
        for label, values in (("featx_zero", [0]), ("featx_one", [1]), ("featx_two", [2]), ("featx_length", [length])):
            graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), label))
        graph.initializer.append(numpy_helper.from_array(np.array([[pad]], np.int64), "featx_pad"))
        nodes += [
            helper.make_node("Shape", ["input_ids"], ["featx_given"]),
            helper.make_node("Slice", ["featx_given", "featx_zero", "featx_one"], ["featx_texts"]),
            helper.make_node("Slice", ["featx_given", "featx_one", "featx_two"], ["featx_tokens"]),
            helper.make_node("Sub", ["featx_length", "featx_tokens"], ["featx_rest"]),
            helper.make_node("Concat", ["featx_texts", "featx_rest"], ["featx_shape_pads"], axis=0),
            helper.make_node("Expand", ["featx_pad", "featx_shape_pads"], ["featx_pads"]),
            helper.make_node("Concat", ["input_ids", "featx_pads"], ["featx_padded"], axis=1),
        ]
        tokens = "featx_padded"
    kind = inputs["input_ids"].type.tensor_type.elem_type
    nodes.append(helper.make_node("Cast", [tokens], ["featx_ids"], to=kind))
    nodes.append(helper.make_node("Shape", ["input_ids"], ["featx_shape"]))
    for name, fill in (("attention_mask", 1), ("token_type_ids", 0)):
        if name in inputs:
            dtype = helper.tensor_dtype_to_np_dtype(inputs[name].type.tensor_type.elem_type)
            value = numpy_helper.from_array(np.array([fill], dtype))
            if length is None or name == "token_type_ids":
                shape = "featx_shape" if length is None else "featx_shape_all"
                if length is not None:
                    nodes.append(helper.make_node("Shape", ["featx_padded"], [shape]))
                nodes.append(helper.make_node("ConstantOfShape", [shape], [name], value=value))
                continue
            zeros = numpy_helper.from_array(np.array([0], dtype))
            nodes += [
                helper.make_node("ConstantOfShape", ["featx_shape"], ["featx_mask_given"], value=value),
                helper.make_node("ConstantOfShape", ["featx_shape_pads"], ["featx_mask_pads"], value=zeros),
                helper.make_node("Concat", ["featx_mask_given", "featx_mask_pads"], [name], axis=1),
            ]
    value = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "T"])
    set_fields(graph, node=[*nodes, *graph.node], input=[value], value_info=[])


def _add_layers(
    model: onnx.ModelProto,
    numbers: Mapping[str, int],
    n_blocks: int,
    result: str,
    pool: str,
    is_padded: bool,
    limit: int,
    path: Path,
) -> list[Layer]:
    """Add the layers as maps (N, channels, tokens, 1) to a graph, and cut off all later nodes."""
    graph = model.graph
    row = result if pool == "inside" else None
    cut(graph, {result})
    set_fields(graph, node=move_shapes(graph.node))
    live = [] if is_padded else [*sole_live_tensors(graph), *([result] if row is None else [])]
    numbers = numbers or _number_normalisations(graph, live, n_blocks)
    candidates = [tensor for tensor in live if tensor in numbers]
    shapes = _run(model, [*candidates, result])
    is_tokens = {name: shape[:2] == (2, 7) and len(shape) == 3 for name, shape in shapes.items()}
    last = {numbers[tensor]: tensor for tensor in candidates if is_tokens[tensor]}  # the last tensor of each block
    tensors = {f"block{number + 1}": tensor for number, tensor in sorted(last.items())}
    if row is None:
        if not is_tokens[result]:
            raise BackboneError(f"{path}: {result} has the shape {shapes[result]}, expected texts, tokens, channels")
        if not tensors or list(tensors.values())[-1] != result:
            tensors["tokens"] = result  # a normalisation may follow the last block
    axis = numpy_helper.from_array(np.array([3], np.int64), "featx_axis_width")
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "featx_axes_cell")
    first = numpy_helper.from_array(np.array(0, np.int64), "featx_first")
    graph.initializer.extend([axis, axes, first])
    layers = []
    for name, tensor in tensors.items():
        rows, layer = f"featx_rows_{name}", f"featx_layer_{name}"
        graph.node.append(helper.make_node("Transpose", [tensor], [rows], perm=[0, 2, 1]))
        graph.node.append(helper.make_node("Unsqueeze", [rows, axis.name], [layer]))
        layers.append(Layer(name, (), layer, int(shapes[tensor][2]), limit, 1, 1))
    if row is not None or pool == "cls":
        name = "projection" if row is not None else "cls"
        if row is None:
            row = "featx_cls"
            graph.node.append(helper.make_node("Gather", [result, first.name], [row], axis=1))
        graph.node.append(helper.make_node("Unsqueeze", [row, axes.name], [f"featx_layer_{name}"]))
        layers.append(Layer(name, (), f"featx_layer_{name}", int(shapes[result][-1]), 1, 1, 1))
    width = layers[-1].channels
    dims: list[str | int | None] = ["N", width, "T" if layers[-1].height > 1 else 1, 1]
    set_fields(
        graph, output=[helper.make_tensor_value_info(layers[-1].tensor, TensorProto.FLOAT, dims)], sparse_initializer=[]
    )
    used = {one for node in graph.node for one in node.input}
    set_fields(graph, initializer=[tensor for tensor in graph.initializer if tensor.name in used])
    return layers


def _number_normalisations(graph: onnx.GraphProto, live: list[str], n_blocks: int) -> dict[str, int]:
    """Return the number of the block that computes each tensor in a file without scopes, if its network is like BERT.

    BERT normalises its embeddings once, and each block twice, the second time at its end.
    """
    normalised = {node.output[0] for node in graph.node if node.op_type == "LayerNormalization"}
    tensors = [tensor for tensor in dict.fromkeys(live) if tensor in normalised]
    if not n_blocks or len(tensors) != 2 * n_blocks + 1:
        return {}
    return {tensor: i for i, tensor in enumerate(tensors[2::2])}


def _run(model: onnx.ModelProto, tensors: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors for two texts of seven tokens."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    set_fields(copy.graph, output=[onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors)])
    names = list(dict.fromkeys(tensors))
    values = run_graph(copy.SerializeToString(), {"input_ids": np.ones((2, 7), np.int64)}, names)
    return {name: value.shape for name, value in zip(names, values, strict=True)}


def _compare(original: onnx.ModelProto, backbone: Any, result: str, pool: str, length: int | None, pad: int) -> Any:
    """Compare the default layer with the original file, text by text."""
    session = Session(tap(backbone, None, "avg", False), "cpu")
    rng, rows, expected = np.random.default_rng(0), [], []
    limit = backbone.preprocess.max_tokens
    content, inputs = original.SerializeToString(), {value.name: value for value in original.graph.input}
    for n in (min(n, limit) for n in _LENGTHS):
        ids = rng.integers(1, backbone.preprocess.n_vocabulary, (1, n))
        ids[0, -1] = (
            backbone.preprocess.n_vocabulary - 1
        )  # the token at the end of a text, which CLIP finds as the largest number
        rows.append(session.run(ids)[0])
        whole = np.full((1, length or n), pad, np.int64)
        whole[:, :n] = ids
        mask = (np.arange(whole.shape[1]) < n)[None]
        given = {"input_ids": whole, "attention_mask": mask, "token_type_ids": 0 * whole}
        feed: dict[str, npt.NDArray[Any]] = {
            name: given[name].astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for name, value in inputs.items()
            if name in given
        }
        (found,) = run_graph(content, feed, [result])
        expected.append(found[0] if pool == "inside" else found[0, 0] if pool == "cls" else found[0].mean(0))
    return measure_difference("features", np.stack(expected), np.stack(rows))
