"""A fitted pipeline as one ONNX file, written only if it gives the same answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featx._files import check_writable, write_whole
from featx.backbones import Backbone, open_backbone, tap
from featx.deploy.assemble import assemble, describe, name_answer, name_value
from featx.deploy.converter import Converter, Rows, Step
from featx.deploy.converters import calibration, kernels, linear, meta, preprocessing, quantiles, trees
from featx.deploy.converters.skl2onnx import make_tables
from featx.deploy.fidelity import MIN_AGREEMENT, RESIZE_TOLERANCES, Agreement, Answers, Resized, check_resizing
from featx.deploy.parity import TOLERANCE, Parity, check_steps, differ, find_culprit, make_rows, may_flip, run_steps
from featx.deploy.precision import convert
from featx.deploy.resizing import take_any_size
from featx.errors import ExportError, Failure, InputError
from featx.extractor import FeatureExtractor
from featx.images.containers import list_items
from featx.images.decode import decode
from featx.images.preprocess import to_canvas
from featx.images.reference import list_real_images
from featx.inference.spec import list_backbones
from featx.pipelines import split_pipeline
from featx.session import run_batches

__all__ = ["ExportResult", "export"]

_TABLES = [module.TABLES for module in (preprocessing, quantiles, linear, kernels, trees, calibration, meta)]
RESIZES = ("before", "in-graph")
_ONCE = 16  # images a run: as many as a small machine's memory takes of any network


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Parameters
    ----------
    path : str
        The file.
    task : {"classification", "regression"}
        What it answers.
    outputs : tuple of str
        ``label``, ``class_index`` and ``probabilities`` (``scores`` where the head has no
        probabilities, and neither for a vote), or ``value``; ``features`` on request.
    digest : str
        Of all that computes.
    parity : Parity
        How near it comes to the pipeline.
    failures : list of Failure
        Images to compare with that could not be read.
    resized : Resized or None
        How near the graph's own resizing comes to Pillow's; None where images come resized.
    agreement : Agreement or None
        How near another precision comes to the pipeline; None in the pipeline's own.
    """

    path: str
    task: str
    outputs: tuple[str, ...]
    digest: str
    parity: Parity
    failures: list[Failure]
    resized: Resized | None = None
    agreement: Agreement | None = None


def export(
    pipeline: Any,
    path: str | os.PathLike[str],
    *,
    features: bool = False,
    images: Any = None,
    tolerance: float = TOLERANCE,
    resize: str = "before",
    resize_tolerance: float | None = None,
    precision: str | None = None,
    min_agreement: float = MIN_AGREEMENT,
) -> ExportResult:
    """Write a fitted pipeline as one ONNX file, from pixels to answer.

    Real images go through both first, and rows of features in the range of theirs through
    every step; where a label differs, or a probability by more than ``tolerance``, nothing is
    written and the step to blame is named.

    Parameters
    ----------
    pipeline : Pipeline
        Begins with a `FeatureExtractor` of one backbone and ends in a classifier or a
        regressor; or a search or meta-estimator over such pipelines, with the same features.
    path : str or path
        The file, written whole or not at all. Its input is ``pixels``, uint8 of shape (N, 3,
        height, width): images on the backbone's canvas, as its metadata says.
    features : bool, default=False
        Give the features, too.
    images : sequence or None, default=None
        Images to compare with, as for `FeatureExtractor.transform`; best of the kind that
        the file is for. None takes a dozen that come with scikit-learn and featx.
    tolerance : float, default=1e-4
        Largest difference of a probability or decision; of values, as a part of the largest.
    resize : {"before", "in-graph"}, default="before"
        ``"in-graph"`` takes ``pixels`` of any size, uint8 of shape (N, H, W, 3), RGB, one size
        in a batch: the graph resizes and crops. Rounding then differs from Pillow's in a few
        values, which is measured and held to ``resize_tolerance`` as well.
    resize_tolerance : float or None, default=None
        As ``tolerance``, between an image resized in the graph and by Pillow; None is 0.01, and
        0.1 for int8, whose steps make more of a value that is rounded otherwise.
    precision : {"int8", "float16"} or None, default=None
        Compute the network of a float32 pipeline in another precision. One in three of
        ``images``, 100 at most, shows int8 the range of activations, the rest measures what the
        head, which learned from float32, makes of it; give images that the pipeline was not
        fitted on, since it is more certain of those. None keeps the pipeline's own.
    min_agreement : float, default=0.95
        Share of the measured images that must keep their label in that precision; of values, R².

    Returns
    -------
    ExportResult

    Raises
    ------
    ExportError
        When a step cannot be written, or answers otherwise than scikit-learn.
    MissingDependencyError
        When a step needs skl2onnx (extra ``deploy``).

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> import featx
    >>> from featx.deploy import export
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> head = featx.make_head("knn")
    >>> pipeline = make_pipeline(featx.FeatureExtractor(), head).fit(X[::15], y[::15])
    >>> export(pipeline, "clothes.onnx", images=X[:4]).outputs
    ('label', 'class_index', 'probabilities')
    """
    if resize not in RESIZES:
        raise InputError(f"resize={resize!r}: expected one of {', '.join(RESIZES)}")
    check_writable(path)
    extractor, head = _take_apart(pipeline)
    backbone = open_backbone(list_backbones(extractor.backbone)[0], extractor.precision)
    items = list_real_images() if images is None else list_items(images)
    embedded = extractor.embed(items)
    items, seen = [items[i] for i in embedded.kept], embedded.features[embedded.kept]
    if not len(seen):
        raise ExportError("no image to compare with was given")
    canvases = _canvases(items, extractor, backbone)
    agreement = None
    if precision is None:
        content = tap(backbone, extractor.layer, extractor.pooling, bool(extractor.l2_normalize))
    else:
        if images is None:
            raise InputError(f"precision={precision!r}: give images of your own to calibrate with and to measure on")
        backbone, content, seen, agreement = convert(
            backbone, extractor, precision, canvases, seen, lambda rows: _expect(head, rows), min_agreement, path
        )
    tapped = onnx.load_from_string(content)

    converter = _make_walk(tapped)
    rows = Rows("features", seen)
    classes = None
    if is_classifier(head):
        answer = converter.classify(head, rows, "")
        classes = np.asarray(head.classes_)
        outputs = name_answer(converter, answer, classes)
    else:
        outputs = name_value(converter, converter.regress(head, rows, ""))
    model = assemble(tapped, converter, outputs, features=features)
    used = {name for node in model.graph.node for name in (*node.input, *node.output)}
    steps = [step for step in converter.steps if step.target in used]
    names = tuple(output.name for output in model.graph.output)
    made_up, resized = make_rows(seen), None
    try:
        check_steps(converter, steps, np.concatenate([seen, made_up]), tolerance)
        _check_head(head, converter, steps, made_up, tolerance)
        difference = _check_images(
            _expect(head, seen), seen, _run(model.SerializeToString(), canvases, names), tolerance
        )
        if resize == "in-graph":
            take_any_size(model, backbone.preprocess, extractor.crop)
            whole = (np.asarray(decode(item)) for item in items)
            allowed = RESIZE_TOLERANCES[backbone.precision] if resize_tolerance is None else resize_tolerance
            resized = check_resizing(model, whole, canvases, seen, _expect(head, seen), allowed)
    except _PartedError as error:
        culprit = find_culprit(converter, steps, seen, tolerance)
        raise ExportError(f"{path}: not written: {error}; {culprit}") from None
    except ExportError as error:
        raise ExportError(f"{path}: not written: {error}") from None
    task = "regression" if classes is None else "classification"
    parity = Parity(len(seen), len(made_up), difference, tolerance)
    compared = {"parity": parity, "resized": resized, "agreement": agreement}
    digest = describe(
        model, backbone, extractor, task=task, head=str(head), classes=classes, resize=resize, compared=compared
    )
    onnx.checker.check_model(model, full_check=True)
    with write_whole(path) as scratch:
        scratch.write_bytes(model.SerializeToString())
    return ExportResult(os.fspath(path), task, names, digest, parity, embedded.failures, resized, agreement)


class _PartedError(Exception):
    """The whole differs; which step is to blame is not known yet."""


def _take_apart(pipeline: Any) -> tuple[FeatureExtractor, Any]:
    """Split into the extractor and all that comes behind it."""
    what = type(pipeline).__name__
    try:
        extractor, head = split_pipeline(pipeline)
    except InputError as error:
        raise ExportError(f"{what}: {error}") from None
    last = type(_last(head)).__name__
    if not hasattr(head, "predict"):
        raise ExportError(f"{what}: ends in {last}; expected a classifier or a regressor")
    if len(list_backbones(extractor.backbone)) > 1:
        raise ExportError("several backbones, each with a canvas of its own: a file takes one; fit with one")
    try:
        check_is_fitted(head)
    except NotFittedError:
        raise ExportError(f"{last}: not fitted; call fit first") from None
    return extractor, head


def _last(head: Any) -> Any:
    return head[-1] if isinstance(head, Pipeline) else head


def _make_walk(tapped: onnx.ModelProto) -> Converter:
    opset = next(entry.version for entry in tapped.opset_import if entry.domain in ("", "ai.onnx"))
    return Converter(_TABLES, make_tables(opset), opset, max(tapped.ir_version, 8))


def _canvases(items: list[Any], extractor: FeatureExtractor, backbone: Backbone) -> npt.NDArray[np.uint8]:
    rules, fast = backbone.preprocess, extractor.decode == "fast"
    pixels = np.empty((len(items), 3, rules.height, rules.width), np.uint8)
    for item, out in zip(items, pixels, strict=True):
        to_canvas(decode(item, rules.resize if fast else None), rules, out, crop=extractor.crop, fast=fast)
    return pixels


def _run(content: bytes, pixels: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Run the file, the first image by itself, so that a batch of any size is known to do."""
    cuts = [0, *range(1, len(pixels), _ONCE), len(pixels)]
    batches = ({"pixels": pixels[a:b]} for a, b in pairwise(cuts) if a < b)
    parts = list(run_batches(content, batches, names))
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _expect(head: Any, rows: npt.NDArray[np.float32]) -> Answers:
    """Give what scikit-learn answers."""
    if not is_classifier(head):
        return Answers("value", np.asarray(head.predict(rows)), None)
    for method, name in (("predict_proba", "probabilities"), ("decision_function", "scores")):
        if hasattr(head, method):
            return Answers(name, np.asarray(getattr(head, method)(rows)), np.asarray(head.predict(rows)))
    return Answers("label", np.empty((len(rows), 0)), np.asarray(head.predict(rows)))


def _check_images(
    expected: Answers, seen: npt.NDArray[np.float32], given: dict[str, npt.NDArray[Any]], tolerance: float
) -> float:
    """Compare answers from pixels, and give the largest difference."""
    name, numbers, labels = expected.name, expected.numbers, expected.labels
    if "features" in given and (apart := float(differ(seen, given["features"]).max())) > tolerance:
        raise ExportError(f"features (FeatureExtractor): differ from scikit-learn's by {apart:.1e}")
    if labels is not None and (wrong := int((given["label"] != labels).sum())):
        raise _PartedError(f"{wrong} of {len(seen)} images get another label")
    worst = float(differ(numbers, given[name]).max()) if numbers.size else 0.0
    if worst > tolerance:
        raise _PartedError(f"the {name} of an image differ by {worst:.1e}, and {tolerance:.0e} is allowed")
    return worst


def _check_head(
    head: Any, converter: Converter, steps: list[Step], made_up: npt.NDArray[np.float32], tolerance: float
) -> None:
    """Compare answers from made-up rows, where a few may lie on an edge."""
    values = run_steps(converter, steps[-1:], made_up)
    ours, last = values[steps[-1].target], steps[-1]
    theirs = last.compute(made_up)
    wrong = int((ours != theirs).sum() if last.exact else (differ(theirs, ours) > tolerance).sum())
    if wrong > may_flip(len(made_up)):
        raise _PartedError(f"{wrong} of {len(made_up)} made-up rows get another answer")
