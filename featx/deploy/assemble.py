"""Join the graphs of a backbone and a head into one model, and write its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from featx.backbones import Backbone
from featx.backbones.graph import ancestors
from featx.backbones.tokenization import Tokenization
from featx.deploy.converter import Answer, Converter
from featx.deploy.doubt import Doubts
from featx.deploy.heat_map import HeatMap
from featx.errors import ExportError
from featx.inference.transformer import BackboneTransformer
from featx.text.engine import describe_tokenizer

__all__ = ["assemble", "declare_types", "name_outputs", "write_facts", "write_metadata"]

#: Version of the keys that `write_metadata` writes.
_METADATA_VERSION = 1


def name_outputs(
    converter: Converter, answer: Answer, classes: npt.NDArray[Any], *, is_multilabel: bool = False
) -> dict[str, str]:
    """Map the output names of the file to the tensors of a classifier."""
    graph = converter.graph
    if is_multilabel:
        numbers = {"probabilities": answer.probabilities} if answer.probabilities else {"scores": answer.decision}
        held = {name: graph.cast(tensor, np.float32) for name, tensor in numbers.items() if tensor}
        return {"labels": answer.index, **held}
    kind = classes.dtype.kind
    if kind == "O" and not all(isinstance(label, str) for label in classes):
        raise ExportError(f"classes {classes[:3].tolist()}: expected strings only, or numbers only")
    labels = classes.astype({"i": np.int64, "u": np.int64, "f": np.float64}[kind]) if kind in "iuf" else classes
    outputs = {"label": graph.op("Gather", labels, answer.index, axis=0), "class_index": answer.index}
    if answer.probabilities:
        outputs["probabilities"] = graph.cast(answer.probabilities, np.float32)
    elif answer.decision:
        outputs["scores"] = graph.cast(answer.decision, np.float32)
    return outputs


def assemble(
    tapped: onnx.ModelProto,
    converter: Converter,
    outputs: Mapping[str, str],
    *,
    features: bool,
    others: Sequence[onnx.NodeProto] = (),
) -> onnx.ModelProto:
    """Append to the backbone's graph all nodes that the outputs need, such as those of the head.

    The outputs have no types yet.
    """
    renamed = [helper.make_node("Identity", [tensor], [name], name) for name, tensor in outputs.items()]
    both = onnx.GraphProto()
    both.node.extend([*tapped.graph.node, *converter.graph.nodes, *others, *renamed])
    nodes = ancestors(both, {*outputs, *(["features"] if features else [])})
    if foreign := sorted({node.domain for node in nodes} - {"", "ai.onnx", "ai.onnx.ml"}):
        raise ExportError(f"operators of {', '.join(foreign)} are not part of the ONNX standard")
    used = {name for node in nodes for name in node.input}
    named = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "featx_pipeline",
        list(tapped.graph.input),
        named + ([tapped.graph.output[0]] if features else []),
        [tensor for tensor in (*tapped.graph.initializer, *converter.graph.constants) if tensor.name in used],
    )
    return helper.make_model(
        graph, opset_imports=converter.opsets, ir_version=converter.ir_version, producer_name="featx"
    )


def declare_types(model: onnx.ModelProto, given: Mapping[str, npt.NDArray[Any]]) -> None:
    """Declare the type of every output from the arrays of a run.

    ONNX's own inference does not know all operators that skl2onnx uses.
    """
    for value in model.graph.output:
        array = given[value.name]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["N", *array.shape[1:]]))


def write_metadata(
    model: onnx.ModelProto,
    backbone: Backbone,
    extractor: BackboneTransformer,
    *,
    task: str,
    head: str,
    classes: npt.NDArray[Any] | None,
    targets: Sequence[str] | None,
    resize: str,
    heat_map: HeatMap | None,
    doubts: Doubts | None,
    compared: Mapping[str, Any],
) -> str:
    """Write the metadata of a model, each value as JSON, and return the digest of the computation.

    ===================== ===============================================================
    featx.pipeline        integer, the version of these keys
    featx.task            classification, multilabel or regression
    featx.classes         labels in the order of the probabilities; null for a regression
    featx.targets         names of several numbers; null for a single one, and for classes
    featx.head            repr of the scikit-learn estimators
    featx.backbone        name, identity, precision, license, source, recipe
    featx.preprocess      preprocessing of images, as in a backbone's file; of texts, ``kind`` (text), ``tokenizer``
                          (the content of tokenizer.json), ``max_tokens``, and ``n_last`` special tokens that
                          stay at the end of a text that is cut
    featx.features        layer, pooling, crop, l2_normalize, decode
    featx.resize          before (input is planes on the canvas) or in-graph (any size, channels last)
    featx.heat_map        base, quantity and grid (rows, columns) of the heat map; null without it
    featx.guard           number of images of the p-values, level of outliers, risk, coverage; null without a guard
    featx.compared        parity, resized, agreement: comparison with the pipeline; null if not measured
    featx.versions        versions of the packages that made the file
    featx.date            date of the export, UTC
    featx.digest          sha256 of graph, preprocessing and classes
    ===================== ===============================================================
    """
    preprocess = backbone.preprocess.to_dict()
    if isinstance(backbone.preprocess, Tokenization):
        preprocess |= describe_tokenizer(backbone.preprocess.tokenizer, backbone.preprocess.max_tokens)
    labels = None if classes is None else classes.tolist()
    facts = {
        "task": task,
        "classes": labels,
        "targets": None if targets is None else list(targets),
        "head": head,
        "backbone": {
            **{name: getattr(backbone, name) for name in ("name", "identity", "precision", "license", "source")},
            "recipe": backbone.recipe,
        },
        "preprocess": preprocess,
        "features": extractor.value_parameters_,
        "resize": resize,
        "heat_map": None if heat_map is None else heat_map.describe(),
        "guard": None if doubts is None else doubts.describe(),
        "compared": {name: None if result is None else asdict(result) for name, result in compared.items()},
    }
    return write_facts(model, facts, json.dumps([preprocess, getattr(extractor, "crop", None), labels]))


def write_facts(model: onnx.ModelProto, facts: Mapping[str, Any], computed: str) -> str:
    """Write facts, versions, date and digest into the metadata of a model; return the digest.

    The digest covers the graph, and ``computed``: what decides besides the graph, as JSON.
    """
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True))
    digest.update(computed.encode())
    values = {
        "pipeline": _METADATA_VERSION,
        **facts,
        "versions": {name: metadata.version(name) for name in ("featx", "scikit-learn", "numpy", "onnx")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": digest.hexdigest(),
    }
    del model.metadata_props[:]
    for key, value in values.items():
        model.metadata_props.add(key=f"featx.{key}", value=json.dumps(value, sort_keys=True))
    return digest.hexdigest()
