"""Convert estimators into graphs, and compare the graphs with scikit-learn before they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from sklearn.base import is_classifier

from featx.deploy.agreement import count_wrong, name_label
from featx.deploy.assemble import assemble, declare_types, name_outputs
from featx.deploy.converter import Converter, Rows, Step
from featx.deploy.converters import calibration, kernels, linear, meta, preprocessing, quantiles, trees
from featx.deploy.converters.skl2onnx import make_tables
from featx.deploy.doubt import Doubts
from featx.deploy.heat_map import HEAT_MAP, HeatMap
from featx.deploy.parity import MAX_FLIPPED_SHARE, Parity, check_steps, differ, find_culprit, make_rows, run_steps
from featx.deploy.reference import Reference, TextReference
from featx.errors import ExportError
from featx.explanation import Explanation
from featx.heads import Response
from featx.pipelines import find_several
from featx.session import run_batches

__all__ = [
    "TABLES",
    "Draft",
    "compare_answers",
    "compare_draft",
    "compare_heat_map",
    "convert_answer",
    "convert_head",
    "name_targets",
    "run_model",
]

#: Converters of the estimators of a head.
TABLES = [module.TABLES for module in (preprocessing, quantiles, linear, kernels, trees, calibration, meta)]


@dataclass(frozen=True)
class Draft:
    """A model that is not compared yet, with the steps of its head; ``classes`` is None for a regression."""

    model: onnx.ModelProto
    converter: Converter
    steps: list[Step]
    task: str
    classes: npt.NDArray[Any] | None
    targets: list[str] | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the model's outputs."""
        return tuple(output.name for output in self.model.graph.output)


class _MismatchError(ExportError):
    """The prediction of the whole pipeline differs; the step responsible is not known yet."""


def convert_answer(
    converter: Converter, estimator: Any, rows: Rows, several: tuple[str, tuple[str, ...]] | None
) -> tuple[str, dict[str, str], npt.NDArray[Any] | None]:
    """Convert an estimator; return its task, the tensor of each output, and its classes or labels.

    ``several`` is the task and the names of several labels or numbers, as of `featx.pipelines.find_several`.
    """
    if not is_classifier(estimator):
        outputs = {"value": converter.graph.cast(converter.regress(estimator, rows, ""), np.float32)}
        return "regression", outputs, None
    task, names = ("classification", estimator.classes_) if several is None else several
    answer, classes = converter.classify(estimator, rows, ""), np.asarray(names)
    return task, name_outputs(converter, answer, classes, is_multilabel=several is not None), classes


def name_targets(several: tuple[str, tuple[str, ...]] | None, info: Mapping[str, Any]) -> list[str] | None:
    """Return the names of several numbers from the record of the fit, or else from the estimator."""
    if several is None or several[0] == "multilabel":
        return None
    known = list(info.get("targets") or ())
    return known if len(known) == len(several[1]) else list(several[1])


def convert_head(
    head: Any,
    tapped: onnx.ModelProto,
    features: npt.NDArray[np.float32],
    info: Mapping[str, Any],
    *,
    with_features: bool,
    heat_map: HeatMap | None,
    doubts: Doubts | None,
) -> Draft:
    """Convert a head and append it to the backbone's graph; ``info`` is the record of the fit."""
    opset = next(entry.version for entry in tapped.opset_import if entry.domain in ("", "ai.onnx"))
    converter = Converter(TABLES, make_tables(opset), opset, max(tapped.ir_version, 8))
    several = find_several(head, features.shape[1])
    task, outputs, classes = convert_answer(converter, head, Rows("features", features), several)
    if doubts is not None:
        outputs |= doubts.add(converter.graph, outputs.get("probabilities"), outputs.get("value"))
    if heat_map is not None:
        outputs[HEAT_MAP] = "heat_sum"
    others = [] if heat_map is None else heat_map.nodes
    model = assemble(tapped, converter, outputs, features=with_features, others=others)
    used = {name for node in model.graph.node for name in (*node.input, *node.output)}
    steps = [step for step in converter.steps if step.target in used]
    return Draft(model, converter, steps, task, classes, name_targets(several, info))


def compare_draft(draft: Draft, reference: Reference | TextReference, tolerance: float) -> Parity:
    """Compare a draft with the pipeline: each step, the head on synthetic rows, and the whole on images or texts."""
    features = reference.features
    synthetic = make_rows(features)
    check_steps(draft.converter, draft.steps, np.concatenate([features, synthetic]), tolerance)
    try:
        _check_head(draft, synthetic, tolerance)
        difference = _check_whole(draft, reference, tolerance)
    except _MismatchError as error:
        raise ExportError(f"{error}; {find_culprit(draft.converter, draft.steps, features, tolerance)}") from None
    kind = "text" if isinstance(reference, TextReference) else "image"
    return Parity(len(features), len(synthetic), difference, tolerance, kind)


def _check_head(draft: Draft, rows: npt.NDArray[np.float32], tolerance: float) -> None:
    """Compare the last step on synthetic rows, of which a few may lie on a threshold."""
    last = draft.steps[-1]
    ours = run_steps(draft.converter, [last], rows)[last.target]
    theirs = last.compute(rows)
    n_wrong = int(count_wrong(ours, theirs) if last.exact else (differ(theirs, ours) > tolerance).sum())
    if n_wrong > int(MAX_FLIPPED_SHARE * len(rows)):
        raise _MismatchError(f"{n_wrong} of {len(rows)} synthetic rows get another prediction")


def _check_whole(draft: Draft, reference: Reference | TextReference, tolerance: float) -> float:
    """Compare predictions of the whole, declare the types of the outputs, and return the largest difference."""
    given = run_model(draft.model, reference, draft.outputs)
    noun = "text" if isinstance(reference, TextReference) else "image"
    declare_types(draft.model, given)
    if "features" in given:
        difference = float(differ(reference.features, given["features"]).max())
        if difference > tolerance:
            name = "TextExtractor" if noun == "text" else "FeatureExtractor"
            raise ExportError(f"features ({name}): differ from scikit-learn by {difference:.1e}")
    return compare_answers(given, reference.expected, noun, tolerance)


def compare_answers(given: Mapping[str, npt.NDArray[Any]], expected: Response, noun: str, tolerance: float) -> float:
    """Return the largest difference between the outputs of a graph and scikit-learn's answers, or raise ExportError."""
    if expected.labels is not None and (n_wrong := count_wrong(given[name_label(expected)], expected.labels)):
        raise _MismatchError(f"{n_wrong} of {len(expected.labels)} {noun}s get another label")
    worst = float(differ(expected.numbers, given[expected.name]).max()) if expected.numbers.size else 0.0
    if worst > tolerance:
        raise _MismatchError(f"{expected.name} of a {noun} differ by {worst:.1e} ({tolerance:.0e} allowed)")
    return worst


def compare_heat_map(
    draft: Draft, heat_map: HeatMap, reference: Reference, expected: Explanation, tolerance: float
) -> None:
    """Check that the cells are equal to the cells of `featx.explain`, and add up to the scores."""
    (cells,) = run_model(draft.model, reference, [HEAT_MAP]).values()
    total = heat_map.base + cells.sum((2, 3), dtype=np.float64)
    worst = max(np.abs(cells - expected.maps).max(), np.abs(total - expected.scores).max())
    worst /= np.abs(expected.scores).max()
    if worst > tolerance:
        raise ExportError(f"heat_map: differs from featx.explain by {worst:.1e} of the largest score")


class _Batches(Protocol):
    """Inputs of a graph."""

    def list_batches(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """Return the inputs; the first batch has another size, which checks that the size is free."""


def run_model(model: onnx.ModelProto, inputs: _Batches, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Run a model on batches, and return its outputs for all of them."""
    runs = list(run_batches(model.SerializeToString(), inputs.list_batches(), names))
    return {name: np.concatenate(values) for name, values in zip(names, zip(*runs, strict=True), strict=True)}
