"""Write tuned weights back into the file of a backbone, and check the result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from featx._files import write_whole
from featx._optional import import_optional
from featx.backbones.file import Backbone, BackboneDescription, load_model, read_backbone
from featx.backbones.graph import tap
from featx.backbones.tokenization import Tokenization
from featx.errors import BackboneError
from featx.images.reference import real_images
from featx.recipes.build import write_backbone
from featx.recipes.verify import measure_difference
from featx.session import Session, runtime_version
from featx.text.reference import reference_tokens
from featx.tuning.graph import Trunk
from featx.tuning.tail import Tail

__all__ = ["write_tuned"]


def write_tuned(
    path: str | os.PathLike[str],
    trunk: Trunk,
    weights: Mapping[str, npt.NDArray[np.float32]],
    facts: Mapping[str, Any],
    *,
    name: str | None = None,
) -> Backbone:
    """Write a backbone with new weights after the cut, if torch and ONNX Runtime compute the same features.

    Names, layers, preprocessing, licence and everything up to the cut stay as they are. ``facts`` go into the
    recipe, beside the identity of the backbone that was tuned and the versions of the packages.

    Raises
    ------
    BackboneError
        The file computes other features than torch, or the backbone's file has changed since the cut.
    """
    backbone = trunk.backbone
    model = load_model(backbone.path)
    missing = dict(weights)
    for tensor in model.graph.initializer:
        if (value := missing.pop(tensor.name, None)) is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), tensor.name))
    if missing:
        raise BackboneError(
            f"{backbone.path}: has changed since it was cut: no weights {', '.join(sorted(missing)[:3])}; tune again"
        )
    recipe = {
        "tuned_from": backbone.identity,
        **facts,
        "torch": str(import_optional("torch", "tune").__version__),
        "onnx": onnx.__version__,
        "onnxruntime": runtime_version(),
        "origin": backbone.recipe,
    }
    description = BackboneDescription(
        name=name or f"{backbone.name}_tuned",
        preprocess=backbone.preprocess,
        layers=backbone.layers,
        default_layer=backbone.default_layer,
        parameters=backbone.parameters,
        gflops=backbone.gflops,
        license=backbone.license,
        source=f"{backbone.source}, tuned after {trunk.layer} on {facts['n_images']:,} {_name_inputs(backbone)}",
        recipe=recipe,
    )
    with write_whole(path) as scratch:
        write_backbone(scratch, model, description)
        written = read_backbone(scratch)
        _compare(trunk, weights, written, path)
    return replace(written, path=Path(path))


def _compare(
    trunk: Trunk, weights: Mapping[str, npt.NDArray[np.float32]], written: Backbone, path: str | os.PathLike[str]
) -> None:
    """Raise BackboneError unless torch and the new file compute the same features of real images or sentences."""
    rules = written.preprocess
    inputs: list[npt.NDArray[Any]] = (
        reference_tokens(rules) if isinstance(rules, Tokenization) else [real_images(rules)]
    )
    frozen = Session(trunk.model, "cpu")
    full = Session(tap(written, trunk.output, trunk.pooling, trunk.l2_normalize), "cpu")
    tail = Tail(trunk)
    tensors = tail.weights(weights)
    expected = np.concatenate([tail.embed(frozen.run(batch), tensors) for batch in inputs])
    features = np.concatenate([full.run(batch) for batch in inputs])
    difference = measure_difference("features", expected, features)
    if not difference.acceptable:
        raise BackboneError(f"{path}: not written, ONNX Runtime computes other features than torch ({difference})")


def _name_inputs(backbone: Backbone) -> str:
    return "texts" if isinstance(backbone.preprocess, Tokenization) else "images"
