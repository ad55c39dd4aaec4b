"""Export a fitted pipeline of several kinds of columns as one ONNX graph with an input per column."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, version_converter
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from featx.backbones import open_backbone, tap
from featx.backbones.file import require_text
from featx.deploy.assemble import assemble, declare_types, write_facts
from featx.deploy.converter import Converter, Estimator, Rows, Tables
from featx.deploy.converters import columns as column_tables
from featx.deploy.converters.skl2onnx import make_tables
from featx.deploy.draft import TABLES, compare_answers, convert_answer, name_targets, run_model
from featx.deploy.parity import Parity
from featx.deploy.reference import make_canvases
from featx.deploy.words import count_terms, cut_tokens, refuse_words
from featx.errors import ExportError, Failure, InputError
from featx.heads import respond
from featx.inference.mean import MeanOfColumns, is_absent
from featx.inference.spec import list_backbones
from featx.inference.transformer import BackboneTransformer
from featx.pipelines import find_columns, find_extractors, find_several, name_columns
from featx.text import TokenAnalyzer
from featx.text.engine import describe_tokenizer, explain_unreadable, tokenize

__all__ = ["ColumnsDraft", "convert_columns"]

_Array = npt.NDArray[Any]

_BATCH_SIZE = 16
_MAX_ROWS = 64
#: Name that stands for the data frame in the graph; no node may read it.
_FRAME = "featx_frame"
#: A category that no table has.
_UNKNOWN = "\0featx: a category that no table has"
#: Names of outputs. No input may have one of these names.
_OUTPUTS = ("label", "class_index", "probabilities", "scores", "value")


class _Columns:
    """Build the inputs of a graph column by column, and the nodes that read each input."""

    def __init__(self, frame: Any, opset: int, *, is_text: bool) -> None:
        self.frame = frame
        self.opset = opset
        self.is_text = is_text  # a single column of texts has the input of a text model
        self.ir_version = 8
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.feeds: dict[str, Any] = {}  # values of each input for the rows of the frame
        self.facts: dict[str, dict[str, Any]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._embedded: dict[tuple[Any, ...], str] = {}
        self._tokenizers: dict[str, Any] = {}

    @property
    def has_text(self) -> bool:
        """True with texts: a batch must have one number of tokens, so rows are run one by one."""
        return any(fact["kind"] == "text" for fact in self.facts.values())

    def convert(self, converter: Converter, step: Estimator, x: Rows) -> str:
        """Convert a ColumnTransformer and return its output, of shape (N, n)."""
        parts = []
        for name, part, columns in step.transformers_:
            if isinstance(part, str) and part == "drop":
                continue
            if (step.transformer_weights or {}).get(name) not in (None, 1):
                raise converter.refuse(step, "it has transformer_weights")
            at = name_columns(step, columns)
            if not at:
                continue
            steps = [one for _, one in part.steps] if isinstance(part, Pipeline) else [part]
            if isinstance(steps[0], MeanOfColumns):
                rows = self._average(converter, steps[0], at)
                for inner in steps[1:]:
                    rows = converter.transform(inner, rows)
                parts.append(converter.graph.double(rows.name))
            elif isinstance(steps[0], BackboneTransformer):
                if len(at) > 1:
                    raise converter.refuse(steps[0], f"it reads {len(at)} columns; use an extractor per column")
                rows = self._embed(converter, steps[0], at[0])
                for inner in steps[1:]:
                    rows = converter.transform(inner, rows)
                parts.append(converter.graph.double(rows.name))
            elif isinstance(part, OneHotEncoder):
                parts.append(self._one_hot(converter, part, at))
            elif isinstance(steps[0], (CountVectorizer, HashingVectorizer)):
                rows = self._count(converter, steps[0], at[0])
                for inner in steps[1:]:
                    rows = converter.transform(inner, rows)
                parts.append(converter.graph.double(rows.name))
            else:
                tensors = [converter.graph.double(self._number(column)) for column in at]
                sample = self.frame[at].to_numpy(np.float64)
                rows = converter.transform(part, Rows(converter.graph.columns(*tensors), sample), name)
                parts.append(converter.graph.double(rows.name))
        return converter.graph.columns(*parts)

    def _add(self, name: str, column: str, dtype: int, shape: list[Any], feed: Any, **facts: Any) -> None:
        if self.facts.setdefault(column, {"input": name, **facts})["kind"] != facts["kind"]:
            raise ExportError(
                f"column {column!r}: is read as {self.facts[column]['kind']} and as {facts['kind']}; "
                "copy it to another column"
            )
        if name not in self.inputs:
            self.inputs[name] = helper.make_tensor_value_info(name, dtype, shape)
            self.feeds[name] = feed

    def _number(self, column: str) -> str:
        values = self.frame[column].to_numpy(np.float32)[:, None]
        self._add(column, column, TensorProto.FLOAT, ["N", 1], values, kind="number")
        return column

    def _one_hot(self, converter: Converter, step: Any, columns: list[str]) -> str:
        """Look each category up in a table of the encoder's rows; the last row is for unknown categories."""
        if step.handle_unknown == "error":
            raise converter.refuse(
                step, 'a graph cannot raise for an unknown category; fit with handle_unknown="ignore"'
            )
        parts, start = [], 0
        for i, (column, categories) in enumerate(zip(columns, step.categories_, strict=True)):
            known = categories.tolist()
            if other := [one for one in known if not isinstance(one, str) and not _is_missing(one)]:
                raise converter.refuse(step, f"column {column!r} has the category {other[0]!r}, expected strings")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the unknown category is intended
                answers = step.transform(self._probe(step, i, [*known, _UNKNOWN]))
            answers = np.asarray(answers.toarray() if hasattr(answers, "toarray") else answers, np.float64)
            width = int(step._n_features_outs[i])
            table, start = answers[:, start : start + width], start + width
            keys = ["" if _is_missing(one) else one for one in known]
            values = ["" if _is_missing(one) else str(one) for one in self.frame[column]]
            cells = np.array(values, dtype=object)[:, None]
            self._add(column, column, TensorProto.STRING, ["N", 1], cells, kind="category", categories=keys)
            index = converter.graph.op(
                "LabelEncoder",
                column,
                domain="ai.onnx.ml",
                keys_strings=keys,
                values_int64s=list(range(len(keys))),
                default_int64=len(keys),
            )
            flat = converter.graph.op("Reshape", index, np.array([-1]))
            parts.append(converter.graph.op("Gather", table, flat, axis=0))
        return converter.graph.columns(*parts)

    def _probe(self, step: Any, at: int, cells: list[Any]) -> Any:
        """Return one row per cell, which has the cell in one column and the first category in the other columns."""
        rows = np.empty((len(cells), len(step.categories_)), object)
        for i, categories in enumerate(step.categories_):
            rows[:, i] = categories[0]
        rows[:, at] = cells
        return rows

    def _read_tokens(self, converter: Converter, step: Any, column: str, tokenizer: str) -> str:
        """Add an input for the tokens of whole texts, which a column's encoder and words share; return its name."""
        known = self._tokenizers.setdefault(column, json.loads(tokenizer))
        if known != json.loads(tokenizer):
            raise converter.refuse(step, f"column {column!r} has two tokenizers; use the words of its encoder")
        name = "input_ids" if self.is_text else f"{column}_input_ids"
        feed = [np.array([tokenize(str(cell), tokenizer, None)], np.int64) for cell in self.frame[column]]
        self._add(
            name,
            column,
            TensorProto.INT64,
            ["N", "n_tokens"],
            feed,
            kind="text",
            preprocess={"kind": "text", **describe_tokenizer(tokenizer, None)},
            rows_per_run="one, or rows whose texts have the same number of tokens",
        )
        return name

    def _count(self, converter: Converter, step: Any, column: str) -> Rows:
        """Add nodes that compute the weights of a column's words."""
        if type(step) not in (CountVectorizer, TfidfVectorizer) or not isinstance(step.analyzer, TokenAnalyzer):
            raise refuse_words(converter, step)
        source = self._read_tokens(converter, step, column, step.analyzer.tokenizer)
        self.facts[column]["words"] = {"n": len(step.vocabulary_), "ngram_range": list(step.analyzer.ngram_range)}
        sample = np.asarray(step.transform(self.frame[column]).toarray(), np.float64)
        return Rows(count_terms(converter, step, source), sample)

    def _embed(self, converter: Converter, extractor: Any, column: str) -> Rows:
        """Add the graph of a backbone with a unique prefix, once per column and features."""
        sample = np.asarray(extractor.transform(self.frame[column]))
        key = (column, str(extractor.backbone_identity_), repr(extractor.value_parameters_))
        if key in self._embedded:
            return Rows(self._embedded[key], sample)
        backbone, facts = self._open(converter, extractor)
        if extractor.kind == "text":
            rules = require_text(backbone)
            name = self._read_tokens(converter, extractor, column, rules.tokenizer)
            facts["backbone"]["max_tokens"] = rules.max_tokens
            self.facts[column] |= facts
            tokens = f"tokens{len(self._embedded)}"
            nodes, constants = cut_tokens(name, tokens, rules.max_tokens, self.facts[column]["preprocess"]["n_last"])
            self.nodes.extend(nodes)
            self.weights.extend(constants)
            self._embedded[key], _ = self._run(extractor, backbone, tokens)
        else:
            facts["preprocess"] = backbone.preprocess.to_dict()
            feed = make_canvases(list(self.frame[column]), extractor, backbone)
            self._embedded[key], shape = self._run(extractor, backbone, column)
            self._add(column, column, TensorProto.UINT8, ["N", *shape[1:]], feed, kind=extractor.kind, **facts)
        return Rows(self._embedded[key], sample)

    def _average(self, converter: Converter, mean: MeanOfColumns, columns: list[str]) -> Rows:
        """Run a backbone once on several columns of images, and return the mean of the images that a row has.

        For an image that a row lacks, any array will do, and the input for its presence is False.
        """
        extractor, graph = mean.extractor_, converter.graph
        sample = np.asarray(mean.transform(self.frame[columns]))
        key = (*columns, str(extractor.backbone_identity_), repr(extractor.value_parameters_))
        if key in self._embedded:
            return Rows(self._embedded[key], sample)
        backbone, facts = self._open(converter, extractor)
        joined = f"images{len(self._embedded)}"
        self.nodes.append(helper.make_node("Concat", columns, [joined], joined, axis=0))
        embedded, shape = self._run(extractor, backbone, joined)
        given = []
        for column in columns:
            cells = list(self.frame[column])
            held = np.array([not is_absent(cell) for cell in cells])
            feed = np.zeros((len(cells), *shape[1:]), np.uint8)
            if held.any():
                feed[held] = make_canvases([cell for cell in cells if not is_absent(cell)], extractor, backbone)
            presence = f"{column}_present"
            if presence in self.frame:
                raise ExportError(f"column {presence!r}: an input of the file has this name; rename the column")
            about = {
                **facts,
                "preprocess": backbone.preprocess.to_dict(),
                "presence": presence,
                "combined": "mean of the images that are present",
            }
            self._add(column, column, TensorProto.UINT8, ["N", *shape[1:]], feed, kind="image", **about)
            self.inputs[presence] = helper.make_tensor_value_info(presence, TensorProto.BOOL, ["N", 1])
            self.feeds[presence] = held[:, None]
            given.append(graph.op("Unsqueeze", graph.cast(presence, np.float64), np.array([0])))
        n_features = sample.shape[1]
        each = graph.op("Reshape", graph.double(embedded), np.array([len(columns), -1, n_features]))
        weights = graph.op("Concat", *given, axis=0)
        total, count = (
            graph.op("ReduceSum", value, np.array([0]), keepdims=0)
            for value in (graph.op("Mul", each, weights), weights)
        )
        self._embedded[key] = graph.op("Div", total, count)
        return Rows(graph.cast(self._embedded[key], sample.dtype), sample)

    def _open(self, converter: Converter, extractor: Any) -> tuple[Any, dict[str, Any]]:
        """Open the only backbone of an extractor, and describe it."""
        paths = list_backbones(extractor.backbone)
        if len(paths) > 1:
            raise converter.refuse(extractor, "it has several backbones; use an extractor per backbone")
        backbone = open_backbone(paths[0], extractor.precision)
        named = ("name", "identity", "precision", "license", "source")
        return backbone, {
            "backbone": {name: getattr(backbone, name) for name in named},
            "features": extractor.value_parameters_,
        }

    def _run(self, extractor: Any, backbone: Any, source: str) -> tuple[str, list[Any]]:
        """Add the graph of a backbone on a tensor; return its output and the shape of its input."""
        model = onnx.load_from_string(tap(backbone, extractor.layer, extractor.pooling, bool(extractor.l2_normalize)))
        opset = _read_opset(model)
        if opset != self.opset:
            model = version_converter.convert_version(model, self.opset)
        self.ir_version = max(self.ir_version, model.ir_version)
        prefix = f"column{len(self._embedded)}_"
        model = compose.add_prefix(model, prefix)
        (own,) = model.graph.input
        self.nodes.append(helper.make_node("Identity", [source], [own.name], f"{prefix}input"))
        self.nodes.extend(model.graph.node)
        self.weights.extend(model.graph.initializer)
        return model.graph.output[0].name, [dim.dim_value or dim.dim_param for dim in own.type.tensor_type.shape.dim]

    def list_batches(self) -> Iterator[Mapping[str, _Array]]:
        """Yield inputs of the graph; the first row is a batch of its own, which checks that the batch size is free."""
        n = len(self.frame)
        bounds = range(n + 1) if self.has_text else [0, *range(1, n, _BATCH_SIZE), n]
        for first, last in pairwise(bounds):
            if first < last:
                yield {
                    name: feed[first] if isinstance(feed, list) else feed[first:last]
                    for name, feed in self.feeds.items()
                }


@dataclass(frozen=True)
class ColumnsDraft:
    """A model of several columns that was compared with scikit-learn, and its description.

    ``failures`` are the rows without a text, which were left out of the comparison.
    """

    model: onnx.ModelProto
    task: str
    digest: str
    parity: Parity
    failures: list[Failure]


def convert_columns(pipeline: Any, frame: Any, tolerance: float, info: Mapping[str, Any]) -> ColumnsDraft:
    """Convert a pipeline, compare it with scikit-learn on rows of a data frame, and describe it in the metadata.

    ``info`` is the record of the fit. Raises ExportError if a part has no converter or a row gets another prediction.
    """
    kinds = find_columns(pipeline)
    if missing := [name for name in kinds if name not in getattr(frame, "columns", ())]:
        raise InputError(f"rows=...: no column {missing[0]!r}; expected a table with {', '.join(kinds)}")
    if taken := [name for name in kinds if name in _OUTPUTS]:
        raise ExportError(f"column {taken[0]!r}: an output of the file has this name; rename the column")
    frame, failures = _drop_missing_texts(frame, [name for name, kind in kinds.items() if kind == "text"])
    if not len(frame):
        raise ExportError("rows: got no row with a text to compare with; pass some rows")
    n = min(len(frame), _MAX_ROWS)
    frame = frame.iloc[[i * len(frame) // n for i in range(n)]]
    is_text = list(kinds.values()) == ["text"]
    columns = _Columns(frame, _find_opset(pipeline), is_text=is_text)
    own = Tables(transformers={ColumnTransformer: columns.convert})
    converter = Converter([own, column_tables.TABLES, *TABLES], make_tables(columns.opset), columns.opset, 8)
    rows = Rows(_FRAME, frame)
    with warnings.catch_warnings():
        # steps get arrays, although the pipeline was fitted on data frames
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        warnings.filterwarnings("ignore", ".*more than .* tokens", UserWarning)  # a row may be too long on purpose
        several = find_several(pipeline)
        task, outputs, classes = convert_answer(converter, pipeline, rows, several)
        expected = respond(pipeline, frame)
    converter.ir_version = max(columns.ir_version, converter.ir_version)
    body = helper.make_model(
        helper.make_graph(columns.nodes, "columns", list(columns.inputs.values()), [], columns.weights)
    )
    model = assemble(body, converter, outputs, features=False)
    if any(_FRAME in node.input for node in model.graph.node):
        raise ExportError(f"{type(pipeline).__name__}: expected a ColumnTransformer as the first step of each member")
    given = run_model(model, columns, tuple(outputs))
    declare_types(model, given)
    noun = "text" if is_text else "row"
    parity = Parity(n, 0, compare_answers(given, expected, noun, tolerance), tolerance, noun)
    labels = None if classes is None else classes.tolist()
    facts = {
        "task": task,
        "classes": labels,
        "targets": name_targets(several, info),
        "head": str(pipeline),
        "columns": columns.facts,
        "compared": {"parity": {"n_rows": n, "difference": parity.difference}},
    }
    if is_text:  # for programs that take texts
        facts["preprocess"] = next(iter(columns.facts.values()))["preprocess"]
    digest = write_facts(model, facts, json.dumps([columns.facts, labels], sort_keys=True))
    onnx.checker.check_model(model)
    return ColumnsDraft(model, task, digest, parity, failures)


def _drop_missing_texts(frame: Any, columns: list[str]) -> tuple[Any, list[Failure]]:
    """Leave out rows with a cell that is not a text; return the other rows and the failures."""
    failures: dict[int, Failure] = {}
    for column in columns:
        for i, cell in enumerate(frame[column]):
            if reason := explain_unreadable(cell):
                failures.setdefault(i, Failure(i, f"rows[{i}]", f"column {column}: {reason}"))
    return frame.iloc[[i for i in range(len(frame)) if i not in failures]], [failures[i] for i in sorted(failures)]


def _find_opset(pipeline: Any) -> int:
    """Return the highest opset of all backbones, at least 18."""
    opsets = [18]
    for extractor in find_extractors(pipeline):
        for path in list_backbones(extractor.backbone):
            backbone = open_backbone(path, extractor.precision)
            opsets.append(_read_opset(onnx.load(backbone.path)))
    return max(opsets)


def _read_opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _is_missing(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"
