"""Convert the backbone of an export to another precision and measure how many predictions change."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from featx._files import scratch_folder
from featx._validation import check_choice
from featx.backbones import Backbone, tap
from featx.backbones.file import read_backbone
from featx.deploy.agreement import Agreement, measure_agreement
from featx.deploy.reference import Reference
from featx.errors import ExportError, InputError
from featx.extractor import FeatureExtractor
from featx.heads import respond
from featx.recipes.quantize import PRECISIONS, convert_precision
from featx.session import run_batches

__all__ = ["ConvertedBackbone", "convert_backbone"]

#: Largest number of calibration images; more images did not help.
_MAX_CALIBRATION_IMAGES = 100
#: Smallest number of images for a share.
_MIN_IMAGES = 30
_BATCH_SIZE = 8

_Features = npt.NDArray[np.float32]


class ConvertedBackbone(NamedTuple):
    """A backbone in another precision, whose file was removed, and the comparison of the head's predictions."""

    backbone: Backbone
    graph: bytes  # from pixels to features
    features: _Features  # of the reference images
    agreement: Agreement


def convert_backbone(
    precision: str,
    backbone: Backbone,
    extractor: FeatureExtractor,
    head: Any,
    reference: Reference,
    min_agreement: float,
) -> ConvertedBackbone:
    """Convert a float32 backbone, and compare the predictions of a head that was fitted on the original.

    A third of the reference images, at most 100, calibrates the copy; the other images are compared. Raises
    ExportError if the agreement is smaller than ``min_agreement``.
    """
    canvases, features = reference.canvases, reference.features
    check_choice("precision", precision, PRECISIONS)
    if not 0 <= min_agreement <= 1:
        raise InputError(f"min_agreement={min_agreement!r}: expected a share from 0 to 1")
    if len(canvases) < _MIN_IMAGES:
        raise InputError(
            f"precision={precision!r}: got {len(canvases)} images to calibrate and measure with, "
            f"expected at least {_MIN_IMAGES}"
        )
    order = np.random.default_rng(0).permutation(len(canvases))
    n_calibrated = min(_MAX_CALIBRATION_IMAGES, len(canvases) // 3)
    chosen, held_out = np.sort(order[:n_calibrated]), np.sort(order[n_calibrated:])
    # transformers have blocks instead of stages
    first = next((layer.name for layer in backbone.layers if layer.name == "stage1"), backbone.layers[0].name)
    with scratch_folder() as folder:
        file = folder / f"{precision}.onnx"
        convert_precision(
            backbone,
            file,
            precision=precision,
            calibration=canvases[chosen],
            held_out=canvases[held_out[:1]],  # the head's predictions decide instead, and are measured below
            min_cosine=-1.0,
            keep_float=first,
        )
        copy = read_backbone(file)
        graph = tap(copy, extractor.layer, extractor.pooling, bool(extractor.l2_normalize))
    batches = ({"pixels": canvases[i : i + _BATCH_SIZE]} for i in range(0, len(canvases), _BATCH_SIZE))
    ours = np.concatenate([rows for (rows,) in run_batches(graph, batches, ["features"])])
    if not extractor.l2_normalize:
        shift = (features[chosen].mean(0) - ours[chosen].mean(0)).astype(np.float32)
        graph, ours = _add_shift(graph, shift), ours + shift
    both = features[held_out], ours[held_out]
    responses = respond(head, both[0]), respond(head, both[1])
    agreement = measure_agreement(precision, n_calibrated, both, responses, min_agreement)
    if not agreement.agreement >= min_agreement:
        raise ExportError(
            f"{agreement}; the head was fitted on other features: "
            f"fit with precision={precision!r} and export that pipeline, or lower min_agreement"
        )
    return ConvertedBackbone(copy, graph, ours, agreement)


def _add_shift(graph: bytes, shift: _Features) -> bytes:
    """Restore the mean of every feature. On clothing this keeps two more labels per hundred, and on ants none."""
    model = onnx.load_from_string(graph)
    last = next(node for node in model.graph.node if "features" in node.output)
    last.output[0] = "features_before_shift"
    model.graph.initializer.append(numpy_helper.from_array(shift, "feature_shift"))
    model.graph.node.append(helper.make_node("Add", [last.output[0], "feature_shift"], ["features"], "feature_shift"))
    return bytes(model.SerializeToString())
