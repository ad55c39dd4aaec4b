"""Export a fitted pipeline as one ONNX file, which is written only if it gives the same predictions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import onnx
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featx._files import check_writable, write_whole
from featx._optional import import_optional
from featx._results import format_html, to_plain
from featx._validation import check_choice
from featx.backbones import open_backbone, tap
from featx.backbones.file import require_images
from featx.deploy.agreement import MIN_AGREEMENT, RESIZE_TOLERANCES, Agreement, Resized, check_resizing
from featx.deploy.assemble import write_metadata
from featx.deploy.columns import convert_columns
from featx.deploy.doubt import Doubts
from featx.deploy.draft import compare_draft, compare_heat_map, convert_head, run_model
from featx.deploy.heat_map import make_heat_map
from featx.deploy.parity import TOLERANCE, Parity
from featx.deploy.precision import convert_backbone
from featx.deploy.reference import Reference, TextReference, list_texts, make_reference, make_text_reference
from featx.deploy.resizing import add_resizing
from featx.errors import ExportError, Failure, InputError
from featx.explanation import explain
from featx.guard import Guard
from featx.heads import respond
from featx.inference.spec import list_backbones
from featx.pipelines import find_columns, split_pipeline
from featx.reporting.card import check_card, make_card, write_card
from featx.reporting.snippets import describe_onnx, use_onnx
from featx.text import TextExtractor

__all__ = ["ExportResult", "export"]

RESIZES = ("before", "in-graph")
#: Maximum number of images of a folder: for the comparison alone, and to measure another precision.
MAX_COMPARED, MAX_MEASURED = 64, 500


@dataclass(frozen=True, repr=False)
class ExportResult:
    """The exported file and its comparison with the pipeline.

    Parameters
    ----------
    path : str
        The file.
    task : {"classification", "multilabel", "regression"}
        The task of the pipeline.
    outputs : tuple of str
        ``label``, ``class_index`` and ``probabilities`` (``scores`` if the head has no
        probabilities, neither for a hard vote), or ``value``; for several labels ``labels``, 0 and 1 of shape (N,
        n_labels), and ``probabilities``; ``features`` and ``heat_map`` on request; ``outlier``
        with a guard, and ``answered``, ``set`` or ``interval`` on request.
    n_bytes : int
        Size of the file.
    digest : str
        SHA-256 of graph, preprocessing and classes.
    parity : Parity
        Comparison with the pipeline.
    failures : list of Failure
        Images that could not be read, and were left out of the comparison.
    notes : list of str
        Remarks on the source of the images.
    resized : Resized or None
        Comparison of the graph's own resizing with Pillow's; None for ``resize="before"``.
    agreement : Agreement or None
        Comparison of another precision with the pipeline; None for the pipeline's own.
    """

    path: str
    task: str
    outputs: tuple[str, ...]
    n_bytes: int
    digest: str
    parity: Parity
    failures: list[Failure]
    notes: list[str]
    resized: Resized | None = None
    agreement: Agreement | None = None

    @property
    def measurements(self) -> list[str]:
        """The comparisons, a sentence each."""
        return [str(result) for result in (self.parity, self.resized, self.agreement) if result is not None]

    def __repr__(self) -> str:
        return f"ExportResult({self._summary})"

    def __str__(self) -> str:
        return "\n  ".join([self._summary, *self.measurements])

    def _repr_html_(self) -> str:
        row = {"task": self.task, "outputs": ", ".join(self.outputs), "MB": self.n_bytes / 1e6}
        return format_html(self.path, [row], self.measurements)

    def to_dict(self) -> dict[str, Any]:
        """Convert to dicts, lists, strings and numbers."""
        return to_plain(self)  # type: ignore[no-any-return]

    @property
    def _summary(self) -> str:
        inputs = {"image": "pixels", "text": "input_ids", "row": "columns"}[self.parity.kind]
        return f"{self.path}: {inputs} to {', '.join(self.outputs)}, {self.n_bytes / 1e6:.1f} MB"


def export(
    pipeline: Any,
    path: str | os.PathLike[str],
    *,
    features: bool = False,
    heat_map: bool = False,
    guard: Guard | None = None,
    risk: float | None = None,
    coverage: float | None = None,
    images: Any = None,
    texts: Any = None,
    rows: Any = None,
    tolerance: float = TOLERANCE,
    resize: str = "before",
    resize_tolerance: float | None = None,
    precision: str | None = None,
    min_agreement: float = MIN_AGREEMENT,
    card: bool = False,
    info: Mapping[str, Any] | None = None,
) -> ExportResult:
    """Write a fitted pipeline as one ONNX file, from pixels or tokens to prediction.

    The file is compared with the pipeline first: on real images or texts as a whole, and on synthetic rows
    of features at every step. If a label differs, or a probability by more than ``tolerance``,
    nothing is written and the error names the step.

    Parameters
    ----------
    pipeline : Pipeline
        A `FeatureExtractor` or `TextExtractor` of one backbone followed by a classifier or regressor; or a search or
        meta-estimator over such pipelines, all with the same features. Also a pipeline or a stack of pipelines that
        begin with a `ColumnTransformer` over named columns.
    path : str or path
        The file, written completely or not at all. Its input is ``pixels``, uint8 of shape (N, 3,
        height, width): images on the backbone's canvas, as the metadata describes. For a `TextExtractor`, it is
        ``input_ids``, int64 of shape (N, n_tokens), texts of the same number of tokens; the metadata hold the
        tokenizer. A pipeline over one column of texts has the same input. A pipeline over several columns has an input
        per column: ``front`` of images, ``front_input_ids`` of texts, ``front`` of numbers, float32 of shape (N, 1), or
        of categories, strings of shape (N, 1). Columns of images whose mean is taken have an input
        ``front_present`` as well, bool of shape (N, 1).
    features : bool, default=False
        Add the output ``features``.
    heat_map : bool, default=False
        Add the output ``heat_map``, float32 of shape (N, n_classes, rows, columns): what each cell of the network's
        map adds to the score of each class, as `featx.explain` returns it. The head must be linear. It is compared
        with `featx.explain` on the images.
    guard : Guard or None, default=None
        Guard of the pipeline, such as of `featx.load_guard`. It adds the output ``outlier``, float32 of shape (N,): the
        p-value of each image, small for an image unlike the images of the fit. It is compared with the p-value of the
        guard.
    risk : float or None, default=None
        Add the output ``answered``, bool of shape (N,): False for images whose answer would break this bound of the
        error, see `featx.Guard.threshold`. Needs a guard.
    coverage : float or None, default=None
        Add the output ``set``, bool of shape (N, n_classes): labels of a set that holds the true label for this
        share of images; or ``interval``, float32 of shape (N, 2), for a regression. Needs a guard.
    images : sequence, str, path or None, default=None
        Images to compare on, as for `FeatureExtractor.transform`, or a folder or table of which
        at most 64 are used (500 with ``precision``). Use images like those that the file will
        see. None takes a dozen images that come with scikit-learn and featx.
    texts : sequence of str, str, path or None, default=None
        Texts to compare on, for a pipeline of texts alone, or a file with one text per line, of which at most 256 are
        used (64 if the pipeline counts words). None takes a few texts of different length and script.
    rows : DataFrame or None, default=None
        Rows to compare on, of a pipeline over several columns; 64 at most are taken from the whole. Images are as
        for `FeatureExtractor.transform`.
    tolerance : float, default=1e-4
        Largest difference of a probability or decision. For a regression, relative to the largest
        value.
    resize : {"before", "in-graph"}, default="before"
        With ``"in-graph"``, ``pixels`` has any size, uint8 of shape (N, H, W, 3), RGB, one size
        per batch: the graph resizes and crops. Its rounding differs from Pillow's in a few values,
        which is measured and limited by ``resize_tolerance``.
    resize_tolerance : float or None, default=None
        As ``tolerance``, between images resized in the graph and by Pillow. None takes 0.01, or
        0.1 for int8, because its quantisation steps amplify rounding differences.
    precision : {"int8", "float16"} or None, default=None
        Convert the float32 backbone to this precision. One in three of ``images``, 100 at most,
        calibrates int8. The other images measure the effect on the head, which was fitted on
        float32 features. Use images that the pipeline was not fitted on, because its predictions
        for the images of the fit are more certain. None keeps the pipeline's precision.
    min_agreement : float, default=0.95
        Share of the measured images that must keep their label in that precision. For a
        regression, R².
    card : bool, default=False
        Write a model card beside the file, named ``path`` and ``.md``, with code that runs it.
    info : mapping or None, default=None
        Facts about fitting for the card, and the names of several numbers: ``featx.read_info("model.featx")["info"]``.

    Returns
    -------
    ExportResult

    Raises
    ------
    ExportError
        A step cannot be converted, or differs from scikit-learn.
    MissingDependencyError
        A step needs skl2onnx (extra ``deploy``).

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> import featx
    >>> from featx.deploy import export
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> head = featx.make_head("knn")
    >>> pipeline = make_pipeline(featx.FeatureExtractor(), head).fit(X[::15], y[::15])
    >>> export(pipeline, "clothes.onnx", images=X[:4])
    ExportResult(clothes.onnx: pixels to label, class_index, probabilities, ... MB)
    """
    check_choice("resize", resize, RESIZES)
    info = info or {}
    if precision is not None and images is None:
        raise InputError(f"precision={precision!r}: expected images to calibrate and to measure with")
    if precision is not None and heat_map:
        raise InputError(
            "heat_map=True: features of a converted backbone are corrected after pooling, so cells do not add up; "
            f'leave precision={precision!r} out, or fit the pipeline with FeatureExtractor(precision="{precision}")'
        )
    if kinds := find_columns(pipeline):
        is_text = list(kinds.values()) == ["text"]
        for_one_column = {
            **{f"risk={risk!r}": risk is not None, f"coverage={coverage!r}": coverage is not None},
            **{"images=...": images is not None, f"precision={precision!r}": precision},
            "texts=...": texts is not None and (rows is not None or not is_text),
            **{f"resize={resize!r}": resize != "before", "heat_map=True": heat_map, "features=True": features},
            "guard=...": guard is not None,
        }
        if asked := [name for name, is_asked in for_one_column.items() if is_asked]:
            raise InputError(f"{asked[0]}: this pipeline takes rows of several columns; leave it out")
        if is_text and rows is None:
            rows = import_optional("pandas", "pandas").DataFrame({next(iter(kinds)): list_texts(texts)}, dtype=object)
        return _export_columns(pipeline, path, rows, tolerance, info, card=card)
    if rows is not None:
        raise InputError("rows=...: this pipeline takes one column; expected images=... or texts=...")
    doubts = _read_doubts(guard, risk, coverage)
    _check_path(path, card=card)
    extractor, head = _split(pipeline)
    _check_kind(extractor, images=images, texts=texts, resize=resize, precision=precision, heat_map=heat_map)
    if guard is not None:
        guard.check_pipeline(type(pipeline).__name__, extractor.n_features, head)
    backbone = open_backbone(list_backbones(extractor.backbone)[0], extractor.precision, kind=extractor.kind)
    agreement = resized = None
    reference: Reference | TextReference
    if isinstance(extractor, TextExtractor):
        reference = make_text_reference(texts, extractor, head, backbone)
    else:
        reference = make_reference(images, extractor, head, backbone, MAX_MEASURED if precision else MAX_COMPARED)
    if precision is None:
        graph = tap(backbone, extractor.layer, extractor.pooling, bool(extractor.l2_normalize))
    elif isinstance(reference, Reference):
        with _naming(path):
            copy = convert_backbone(precision, backbone, extractor, head, reference, min_agreement)
        backbone, graph, agreement = copy.backbone, copy.graph, copy.agreement
        reference = replace(reference, features=copy.features, expected=respond(head, copy.features))
    with warnings.catch_warnings():
        # each step alone gets arrays, also if the pipeline was fitted on data frames
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        heat = make_heat_map(extractor, head, reference.features) if heat_map else None
        draft = convert_head(
            head,
            onnx.load_from_string(graph),
            reference.features,
            info,
            with_features=features,
            heat_map=heat,
            doubts=doubts,
        )
        with _naming(path):
            parity = compare_draft(draft, reference, tolerance)
            if doubts is not None:
                given = run_model(draft.model, reference, draft.outputs)
                expected = reference.expected
                answers = expected.numbers if expected.name in ("probabilities", "value") else None
                doubts.compare(given, reference.features, answers, tolerance)
            if heat is not None and isinstance(reference, Reference):
                compare_heat_map(draft, heat, reference, explain(pipeline, reference.items), tolerance)
    if resize == "in-graph" and isinstance(reference, Reference):
        with _naming(path):
            add_resizing(draft.model, require_images(backbone), extractor.crop)
            allowed = RESIZE_TOLERANCES[backbone.precision] if resize_tolerance is None else resize_tolerance
            resized = check_resizing(draft.model, reference, allowed)
    digest = write_metadata(
        draft.model,
        backbone,
        extractor,
        task=draft.task,
        head=str(head),
        classes=draft.classes,
        targets=draft.targets,
        resize=resize,
        heat_map=heat,
        doubts=doubts,
        compared={"parity": parity, "resized": resized, "agreement": agreement},
    )
    onnx.checker.check_model(draft.model)
    return _write(
        draft.model,
        path,
        info,
        card=card,
        task=draft.task,
        digest=digest,
        parity=parity,
        failures=reference.failures,
        notes=reference.notes,
        resized=resized,
        agreement=agreement,
    )


def _export_columns(
    pipeline: Any, path: str | os.PathLike[str], rows: Any, tolerance: float, info: Mapping[str, Any], *, card: bool
) -> ExportResult:
    """Write a pipeline of several kinds of columns, after a comparison on ``rows``."""
    if rows is None:
        raise InputError(
            f"rows=None: the pipeline reads the columns {', '.join(find_columns(pipeline))}, and featx has no rows of "
            "its own to compare the file on; pass a table with these columns, such as that of the fit"
        )
    _check_path(path, card=card)
    with _naming(path):
        found = convert_columns(pipeline, rows, tolerance, info)
    facts = {"task": found.task, "digest": found.digest, "parity": found.parity, "failures": found.failures}
    return _write(found.model, path, info, card=card, notes=[], **facts)


def _check_path(path: str | os.PathLike[str], *, card: bool) -> None:
    """Raise now if the file, or the card, cannot be written there later."""
    check_writable(path)
    if card:
        check_card(os.fspath(path))


def _write(
    model: onnx.ModelProto, path: str | os.PathLike[str], info: Mapping[str, Any], *, card: bool, **facts: Any
) -> ExportResult:
    """Write the file and its card; ``facts`` are the other fields of the result."""
    content = model.SerializeToString()
    with write_whole(path) as scratch:
        scratch.write_bytes(content)
    outputs = tuple(output.name for output in model.graph.output)
    result = ExportResult(path=os.fspath(path), outputs=outputs, n_bytes=len(content), **facts)
    if card:
        _write_card(result, model, info)
    return result


def _write_card(result: ExportResult, model: onnx.ModelProto, info: Mapping[str, Any]) -> None:
    """Write the card of an exported file beside it."""
    name = os.path.basename(result.path)
    remarks = [f"This file compared with the pipeline: {measurement}." for measurement in result.measurements]
    facts = {name: value for name, value in info.items() if name != "sources"}  # names of folders stay here
    description = describe_onnx(model, facts)
    write_card(result.path, make_card(name, description, use_onnx(name, model), remarks))


def _read_doubts(guard: Guard | None, risk: float | None, coverage: float | None) -> Doubts | None:
    """Return the guard and its promises; raise InputError if it cannot give them."""
    if guard is None:
        asked = [f"{name}={value!r}" for name, value in (("risk", risk), ("coverage", coverage)) if value is not None]
        if asked:
            raise InputError(f"{asked[0]}: needs the guard of the pipeline; featx.fit makes one of 50 inputs and more")
        return None
    guard.check_promises(risk=risk, coverage=coverage)
    return Doubts(guard, risk, coverage)


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the file that was not written to the message of an ExportError."""
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{path}: not written: {error}") from None


def _split(pipeline: Any) -> tuple[Any, Any]:
    """Split a pipeline into its extractor and its head; raise ExportError if it cannot be exported."""
    kind = type(pipeline).__name__
    try:
        extractor, head = split_pipeline(pipeline)
    except InputError as error:
        raise ExportError(f"{kind}: {error}") from None
    last = type(head[-1] if isinstance(head, Pipeline) else head).__name__
    if not hasattr(head, "predict"):
        raise ExportError(f"{kind}: ends in {last}, expected a classifier or a regressor")
    if len(list_backbones(extractor.backbone)) > 1:
        raise ExportError(f"{kind}: several backbones, each with its own canvas; an exported file takes one")
    try:
        check_is_fitted(head)
    except NotFittedError:
        raise ExportError(f"{last}: not fitted; call fit first") from None
    return extractor, head


def _check_kind(extractor: Any, *, images: Any, texts: Any, resize: str, precision: Any, heat_map: bool) -> None:
    """Raise InputError for a parameter that is not for this kind of inputs."""
    if extractor.kind != "text":
        if texts is not None:
            raise InputError("texts=...: this pipeline takes images; expected images=...")
        return
    for_images = {
        "images=...": images is not None,
        f"resize={resize!r}": resize != "before",
        f"precision={precision!r}": precision is not None,
        "heat_map=True": heat_map,
    }
    if asked := [name for name, is_asked in for_images.items() if is_asked]:
        raise InputError(f"{asked[0]}: this pipeline takes texts, and the parameter is for images; leave it out")
