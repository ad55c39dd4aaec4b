"""Make a cheaper copy of a backbone, and measure what that costs before it is written.

``int8`` for the CPU: weights a channel at a time and in seven bits, since processors
without VNNI add two products in sixteen; activations in eight, by the range that
calibration images take. What comes before ``stage1`` stays in float32: it holds few
weights and most of the error. ``float16`` for CUDA: everything but the normalisation.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx._files import write_whole
from featx._optional import import_optional
from featx.backbones import Backbone
from featx.backbones.file import load_model, read_backbone
from featx.backbones.graph import ancestors
from featx.errors import BackboneError, InputError
from featx.recipes.build import write_backbone
from featx.recipes.fidelity import Fidelity, measure_fidelity

__all__ = ["PRECISIONS", "quantize_backbone"]

Pixels = npt.NDArray[np.uint8]


def quantize_backbone(
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
    """Write a copy of a backbone that computes in another precision, if it is near enough.

    Parameters
    ----------
    backbone : Backbone
        In float32.
    output : str or path
        The file; written whole or not at all.
    precision : {"int8", "float16"}
        Of weights and activations.
    calibration : ndarray of uint8, shape (n, 3, height, width)
        Images on the canvas that show the range of activations; unused for float16.
    held_out : ndarray of uint8, shape (m, 3, height, width)
        Others, to measure on.
    labels : sequence or None
        Labels of ``held_out``, to measure what a head loses.
    min_cosine : float or None
        The mean cosine below which nothing is written; None is 0.98 for int8 and 0.9999
        for float16.
    keep_float : str, int or None
        Up to this layer int8 leaves everything in float32; None quantises all.

    Returns
    -------
    Fidelity

    Raises
    ------
    BackboneError
        When it comes out further away than ``min_cosine``, or is not float32 to begin with.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    if backbone.precision != "float32":
        raise BackboneError(f"{backbone.path}: computes in {backbone.precision} already; give the float32 one")
    convert, least = PRECISIONS[precision]
    least = least if min_cosine is None else min_cosine
    model, tensors = convert(backbone, calibration, keep_float)
    recipe = {
        "float32_identity": backbone.identity,
        "onnx": onnx.__version__,
        "onnxruntime": _onnxruntime().__version__,
    }
    if precision == "int8":
        recipe |= {"calibration_images": len(calibration), "float32_until": keep_float or ""}
    with write_whole(output) as scratch:
        write_backbone(
            scratch,
            model,
            {
                "name": f"{backbone.name}_{precision}",
                "preprocess": backbone.preprocess,
                "layers": [replace(layer, tensor=tensors[layer.tensor]) for layer in backbone.layers],
                "default_layer": backbone.default_layer,
                "parameters": backbone.parameters,
                "gflops": backbone.gflops,
                "license": backbone.license,
                "source": f"{backbone.source}, as {precision}",
                "recipe": recipe,
            },
        )
        fidelity = measure_fidelity(backbone, read_backbone(scratch), held_out, labels)
        if not fidelity.cosine >= least:
            raise BackboneError(f"{output}: not written, {fidelity}; wanted a cosine of at least {least}")
    return fidelity


def _quantize(
    backbone: Backbone, calibration: Pixels, keep_float: str | int | None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Put pairs of QuantizeLinear and DequantizeLinear around everything but the beginning."""
    from onnxruntime import quantization

    model = load_model(backbone.path)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    kept = ancestors(model.graph, {"normalized"} if keep_float is None else {backbone.layer(keep_float).tensor})

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images: Iterator[Pixels] = iter(calibration)

        def get_next(self) -> dict[str, Pixels] | None:
            image = next(self.images, None)
            return None if image is None else {"pixels": image[None]}

    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        target = Path(folder, "int8.onnx")
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it would advise a preparation that this graph has had
        try:
            quantization.quantize_static(
                model,
                target,
                Images(),
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
    made = {name for node in quantized.graph.node for name in node.output}
    # behind the pair, since the pair also does the work of an activation that it swallowed
    tensors = {layer.tensor: f"{layer.tensor}_DequantizeLinear_Output" for layer in backbone.layers}
    return quantized, {before: after if after in made else before for before, after in tensors.items()}


def _halve(
    backbone: Backbone, calibration: Pixels, keep_float: str | int | None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Compute in float16 behind the normalisation, and hand out every layer as float32."""
    float16 = import_optional("onnxruntime.transformers.float16", "cpu")
    model = load_model(backbone.path)
    graph = model.graph
    pixels, outputs = deepcopy(graph.input[0]), deepcopy(list(graph.output))
    normalization = ancestors(graph, {"normalized"})
    rest = [node for node in graph.node if node not in normalization]
    constants = [tensor for tensor in graph.initializer if any(tensor.name in node.input for node in normalization)]
    graph.input[0].CopyFrom(helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["N", 3, None, None]))
    del graph.node[:]
    graph.node.extend(rest)
    for tensor in constants:
        graph.initializer.remove(tensor)
    named = {value.name for value in outputs}
    taps = [layer.tensor for layer in backbone.layers if layer.tensor not in named]
    # as outputs they stay float32 under their names
    graph.output.extend(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in taps)
    halved = float16.convert_float_to_float16(model, keep_io_types=True)
    rest = list(halved.graph.node)
    for field, values in (("node", [*normalization, *rest]), ("input", [pixels]), ("output", outputs)):
        del getattr(halved.graph, field)[:]
        getattr(halved.graph, field).extend(values)
    halved.graph.initializer.extend(constants)
    del halved.graph.value_info[:]
    import_optional("onnxruntime.transformers.onnx_model", "cpu").OnnxModel(halved).topological_sort()
    return halved, {layer.tensor: layer.tensor for layer in backbone.layers}


def _onnxruntime() -> Any:
    return import_optional("onnxruntime", "cpu")


Converter = Callable[[Backbone, Pixels, "str | int | None"], tuple[onnx.ModelProto, dict[str, str]]]

#: name -> how to convert, and the mean cosine below which the copy is of no use.
PRECISIONS: dict[str, tuple[Converter, float]] = {"int8": (_quantize, 0.98), "float16": (_halve, 0.9999)}
