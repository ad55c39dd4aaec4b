"""Make a cheaper copy of a backbone, and measure what it loses before it is written.

``int8`` is for the CPU. Weights are quantised per channel and to seven bits, since processors
without VNNI add two products in 16 bits. Activations are quantised to eight bits, by their range
on calibration images. Everything up to ``stage1`` stays in float32: it holds few weights and causes
most of the error. ``float16`` is for CUDA: everything but the normalisation is in float16.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx._files import scratch_folder, write_whole
from featx._optional import import_optional
from featx._validation import check_choice, check_integer
from featx.backbones.catalogue import open_backbone, own_file
from featx.backbones.file import Backbone, BackboneDescription, load_model, read_backbone, require_images
from featx.backbones.graph import ancestors, set_fields
from featx.errors import BackboneError, Failure, InputError
from featx.images.decode import UnreadableError, decode, describe
from featx.images.preprocess import Preprocess, to_canvas
from featx.recipes.build import write_backbone
from featx.recipes.fidelity import Fidelity, measure_fidelity
from featx.session import runtime_version
from featx.sources.listing import list_images

__all__ = ["PRECISIONS", "Quantization", "convert_precision", "quantize_backbone"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Quantization:
    """A copy of a backbone in another precision.

    Parameters
    ----------
    backbone : Backbone
        The copy.
    fidelity : Fidelity
        Its agreement with the original, on images that did not calibrate it.
    failures : tuple of Failure
        Images that could not be read and were left out.
    notes : tuple of str
        Remarks on the source, such as files passed over.
    """

    backbone: Backbone
    fidelity: Fidelity
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Quantization({str(self.backbone.path)!r}, {self.fidelity})"


def quantize_backbone(
    backbone: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    precision: str = "int8",
    labelled: bool = False,
    n_calibrate: int = 100,
    n_measure: int = 500,
    min_cosine: float | None = None,
    keep_float: str | int | None = "stage1",
) -> Quantization:
    """Make a copy of a backbone in another precision, calibrated and measured on your images.

    The copy has other features, so a head must be fitted on them again.

    Parameters
    ----------
    backbone : str or path
        A float32 backbone, as for `featx.backbones.open_backbone`.
    images : str, path or sequence of str or path
        Folders, globs, image files or a table.
    output : str, path or None
        The file; None writes ``NAME_int8.onnx`` to the user's folder, where ``precision="int8"`` finds it.
    precision : {"int8", "float16"}, default="int8"
        Precision of weights and activations.
    labelled : bool, default=False
        The images have labels: measure the accuracy of a head as well.
    n_calibrate, n_measure : int, default=100, 500
        Maximum number of images that calibrate the copy, and that measure it. They are drawn at random with a
        fixed seed and do not overlap.
    min_cosine : float or None, default=None
        Minimum mean cosine between the features of the copy and of the original; a copy below it is not
        written. None takes 0.98 for int8 and 0.9999 for float16.
    keep_float : str, int or None, default="stage1"
        int8 leaves everything up to this layer in float32; None quantises everything.

    Returns
    -------
    Quantization

    Raises
    ------
    InputError
        There are too few images.
    BackboneError
        The backbone is not float32, or its copy differs by more than ``min_cosine``.

    Examples
    --------
    >>> from featx.recipes import quantize_backbone
    >>> quantize_backbone("resnet50.a1_in1k", "photos/train")  # doctest: +SKIP
    """
    check_choice("precision", precision, PRECISIONS)
    check_integer("n_calibrate", n_calibrate)
    check_integer("n_measure", n_measure)
    original = open_backbone(backbone)
    output = output or own_file(f"{original.path.stem}_{precision}")
    listing = list_images(images, need_target=labelled)
    n_images = len(listing.items)
    n_calibrate = min(n_calibrate, n_images // 2)
    if not n_calibrate:
        raise InputError(f"images: got {n_images}, expected at least 2, to calibrate with one and measure with another")
    order = list(range(n_images))
    random.Random(0).shuffle(order)
    del order[n_calibrate + n_measure :]
    pixels, failures = _read_images([listing.items[i] for i in order], require_images(original))
    failed = [failure.index for failure in failures]
    calibration = np.setdiff1d(np.arange(n_calibrate), failed)
    held_out = np.setdiff1d(np.arange(n_calibrate, len(order)), failed)
    if not len(calibration) or not len(held_out):
        raise InputError("images: too few could be read to calibrate with some images and measure with others")
    labels = [listing.targets[order[i]] for i in held_out] if labelled and listing.targets else None
    fidelity = convert_precision(
        original,
        output,
        precision=precision,
        calibration=pixels[calibration],
        held_out=pixels[held_out],
        labels=labels,
        min_cosine=min_cosine,
        keep_float=keep_float,
    )
    return Quantization(read_backbone(output), fidelity, tuple(failures), tuple(listing.notes))


def convert_precision(
    backbone: Backbone,
    output: str | os.PathLike[str],
    *,
    precision: str,
    calibration: Pixels,
    held_out: Pixels,
    labels: Sequence[Any] | None = None,
    min_cosine: float | None = None,
    keep_float: str | int | None = "stage1",
) -> Fidelity:
    """Write a copy of a float32 backbone in another precision, if it is close enough.

    ``calibration`` and ``held_out`` are images on the canvas. ``calibration`` shows the range of activations, for
    int8 alone, and the copy is measured on ``held_out``. For ``min_cosine`` and ``keep_float`` see `quantize_backbone`.
    """
    check_choice("precision", precision, PRECISIONS)
    if backbone.precision != "float32":
        raise BackboneError(f"{backbone.path}: already computes in {backbone.precision}; pass the float32 backbone")
    convert, default_cosine = PRECISIONS[precision]
    least = default_cosine if min_cosine is None else min_cosine
    model, tensors = convert(backbone, calibration, keep_float)
    recipe: dict[str, Any] = {
        "float32_identity": backbone.identity,
        **({"origin": backbone.recipe} if "tuned_from" in backbone.recipe else {}),  # a search leaves out both
        "onnx": onnx.__version__,
        "onnxruntime": runtime_version(),
    }
    if precision == "int8":
        recipe |= {"calibration_images": len(calibration), "float32_until": keep_float or ""}
    description = BackboneDescription(
        name=f"{backbone.name}_{precision}",
        preprocess=backbone.preprocess,
        layers=tuple(replace(layer, tensor=tensors[layer.tensor]) for layer in backbone.layers),
        default_layer=backbone.default_layer,
        parameters=backbone.parameters,
        gflops=backbone.gflops,
        license=backbone.license,
        source=f"{backbone.source}, as {precision}",
        recipe=recipe,
    )
    with write_whole(output) as scratch:
        write_backbone(scratch, model, description)
        fidelity = measure_fidelity(backbone, read_backbone(scratch), held_out, labels)
        if not fidelity.cosine >= least:
            raise BackboneError(f"{output}: not written, {fidelity}; expected a cosine of at least {least}")
    return fidelity


def _read_images(items: Sequence[Any], preprocess: Preprocess) -> tuple[Pixels, list[Failure]]:
    """Put images on the canvas; images that cannot be read stay black."""
    pixels = np.zeros((len(items), 3, preprocess.height, preprocess.width), np.uint8)
    failures = []
    for i, item in enumerate(items):
        try:
            to_canvas(decode(item), preprocess, pixels[i])
        except UnreadableError as error:
            failures.append(Failure(i, describe(item), str(error)))
    return pixels, failures


def _quantize(
    backbone: Backbone, calibration: Pixels, keep_float: str | int | None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Put pairs of QuantizeLinear and DequantizeLinear around every operation after ``keep_float``."""
    from onnxruntime import quantization

    model = load_model(backbone.path)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    kept = ancestors(model.graph, {"normalized"} if keep_float is None else {backbone.layer(keep_float).tensor})
    images = ({"pixels": image[None]} for image in calibration)
    with scratch_folder() as folder:
        target = folder / "int8.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # quantize_static advises a preparation that this graph has had
        try:
            quantization.quantize_static(
                model,
                target,
                SimpleNamespace(get_next=lambda: next(images, None)),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[node.name for node in kept],
            )
        finally:
            root.setLevel(level)
        quantized = onnx.load(target)
    outputs = {name for node in quantized.graph.node for name in node.output}
    # a layer is the output of its pair, since the pair may include an activation
    tensors = {layer.tensor: f"{layer.tensor}_DequantizeLinear_Output" for layer in backbone.layers}
    return quantized, {before: after if after in outputs else before for before, after in tensors.items()}


def _halve(
    backbone: Backbone, calibration: Pixels, keep_float: str | int | None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Compute in float16 after the normalisation, and output every layer as float32."""
    float16 = import_optional("onnxruntime.transformers.float16", "cpu")
    model = load_model(backbone.path)
    graph = model.graph
    pixels, outputs = deepcopy(graph.input[0]), deepcopy(list(graph.output))
    normalization = ancestors(graph, {"normalized"})
    others = [node for node in graph.node if node not in normalization]
    used = {name for node in normalization for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.input[0].CopyFrom(helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["N", 3, None, None]))
    set_fields(graph, node=others, initializer=[tensor for tensor in graph.initializer if tensor.name not in used])
    named = {value.name for value in outputs}
    taps = [layer.tensor for layer in backbone.layers if layer.tensor not in named]
    # graph outputs stay float32 under their names
    graph.output.extend(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in taps)
    halved = float16.convert_float_to_float16(model, keep_io_types=True)
    nodes = [*normalization, *halved.graph.node]
    set_fields(halved.graph, node=nodes, input=[pixels], output=outputs, value_info=[])
    halved.graph.initializer.extend(constants)
    import_optional("onnxruntime.transformers.onnx_model", "cpu").OnnxModel(halved).topological_sort()
    return halved, {layer.tensor: layer.tensor for layer in backbone.layers}


Converter = Callable[[Backbone, Pixels, "str | int | None"], tuple[onnx.ModelProto, dict[str, str]]]

#: Converter of each precision, and the default of ``min_cosine``.
PRECISIONS: dict[str, tuple[Converter, float]] = {"int8": (_quantize, 0.98), "float16": (_halve, 0.9999)}
