"""The network of an export in another precision, if the head still answers alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from featx.backbones import Backbone, tap
from featx.backbones.file import read_backbone
from featx.deploy.fidelity import Agreement, Answers, agree
from featx.errors import ExportError, InputError
from featx.extractor import FeatureExtractor
from featx.recipes.quantize import PRECISIONS, convert_precision
from featx.session import run_batches

__all__ = ["convert"]

#: Images that show the range of activations; more gained nothing.
_CALIBRATE = 100
#: Fewer say nothing of a share.
_LEAST = 30
_ONCE = 8

_Features = npt.NDArray[np.float32]


def convert(
    backbone: Backbone,
    extractor: FeatureExtractor,
    precision: str,
    canvases: npt.NDArray[np.uint8],
    features: _Features,
    answer: Callable[[_Features], Answers],
    least: float,
    path: str | os.PathLike[str],
) -> tuple[Backbone, bytes, _Features, Agreement]:
    """Make a copy of a backbone, and measure what a head that learned from the original makes of it.

    Parameters
    ----------
    backbone : Backbone
        In float32.
    extractor : FeatureExtractor
        Where to cut, how to pool.
    precision : {"int8", "float16"}
        Of the copy.
    canvases : ndarray of uint8, shape (n, 3, height, width)
        Some calibrate, the others are compared.
    features : ndarray of float32, shape (n, n_features)
        The original's, of the same images.
    answer : callable
        The head.
    least : float
        The agreement below which the copy is refused.
    path : str or path
        What it is made for; named in errors.

    Returns
    -------
    tuple of Backbone, bytes, ndarray and Agreement
        What the copy says of itself (its file is gone), its graph from pixels to features, and
        its features of all images.

    Raises
    ------
    ExportError
        When the head answers otherwise to too many.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    if not 0 <= least <= 1:
        raise InputError(f"min_agreement={least!r}: expected a share from 0 to 1")
    if len(canvases) < _LEAST:
        raise InputError(
            f"precision={precision!r}: {len(canvases)} images; some calibrate and others measure, so give {_LEAST}"
        )
    order = np.random.default_rng(0).permutation(len(canvases))
    n_calibrated = min(_CALIBRATE, len(canvases) // 3)
    chosen, held_out = np.sort(order[:n_calibrated]), np.sort(order[n_calibrated:])
    first = next((layer.name for layer in backbone.layers if layer.name == "stage1"), backbone.layers[0].name)
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        file = Path(folder, f"{precision}.onnx")
        convert_precision(
            backbone,
            file,
            precision=precision,
            calibration=canvases[chosen],
            held_out=canvases[held_out[:1]],  # what the head makes of it counts, and is measured below
            min_cosine=-1.0,
            keep_float=first,  # transformers have blocks and no stages
        )
        copy = read_backbone(file)
        tapped = tap(copy, extractor.layer, extractor.pooling, bool(extractor.l2_normalize))
    batches = ({"pixels": canvases[i : i + _ONCE]} for i in range(0, len(canvases), _ONCE))
    ours = np.concatenate([rows for (rows,) in run_batches(tapped, batches, ["features"])])
    if not extractor.l2_normalize:
        shift = (features[chosen].mean(0) - ours[chosen].mean(0)).astype(np.float32)
        tapped, ours = _shift(tapped, shift), ours + shift
    both = features[held_out], ours[held_out]
    agreement = agree(precision, n_calibrated, both, (answer(both[0]), answer(both[1])), least)
    if not agreement.agreement >= least:
        raise ExportError(
            f"{path}: not written: {agreement}; the head learned from other features: "
            f"fit with precision={precision!r} and export that, or ask for less agreement"
        )
    return copy, tapped, ours, agreement


def _shift(tapped: bytes, shift: _Features) -> bytes:
    """Give every feature the mean it had before: on clothing two labels in a hundred fewer changed, on ants none."""
    model = onnx.load_from_string(tapped)
    last = next(node for node in model.graph.node if "features" in node.output)
    last.output[0] = "features_before_shift"
    model.graph.initializer.append(numpy_helper.from_array(shift, "feature_shift"))
    model.graph.node.append(helper.make_node("Add", [last.output[0], "feature_shift"], ["features"], "feature_shift"))
    return bytes(model.SerializeToString())
