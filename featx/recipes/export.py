"""From a PyTorch network to a verified backbone file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx._optional import import_optional
from featx.backbones.file import read_backbone
from featx.errors import BackboneError, first_line
from featx.images.preprocess import Preprocess
from featx.images.reference import real_images
from featx.recipes.build import build_backbone
from featx.recipes.network import export_network
from featx.recipes.verify import Difference, compare_layers, compare_logits

__all__ = [
    "create_timm_network",
    "export_backbone",
    "load_weights",
    "timm_preprocess",
    "versions",
]


def export_backbone(
    network: Any,
    output: str | os.PathLike[str],
    *,
    name: str,
    preprocess: Preprocess,
    license: str,
    source: str,
    recipe: Mapping[str, Any],
    pixels: npt.NDArray[np.uint8] | None = None,
    classifier: bool = True,
) -> list[Difference]:
    """Write a backbone file, if it computes what the network computes.

    Parameters
    ----------
    network : torch.nn.Module
        One of timm's, in evaluation mode, float32, from normalised images to class scores.
    output : str or path
        The file; written whole or not at all.
    name, license, source : str
        For the metadata.
    preprocess : Preprocess
        How the network was trained.
    recipe : mapping
        Versions and digests to keep.
    pixels : ndarray of uint8, shape (n, 3, height, width), or None
        Real images to compare on; None takes `real_images`.
    classifier : bool, default=True
        False leaves out all that comes behind the layer ``head``, such as 500 MB of a VGG.

    Returns
    -------
    list of Difference
        One for each layer, one for the default features, and with the classifier one for its
        class scores.

    Raises
    ------
    BackboneError
        When the file differs from the network; the message says where first.
    """
    pixels = real_images(preprocess) if pixels is None else pixels
    with write_whole(output) as scratch:
        build_backbone(
            scratch,
            export_network(network, preprocess.height, preprocess.width),
            preprocess,
            name=name,
            stages={info["module"]: info["reduction"] for info in network.feature_info},
            parameters=sum(p.numel() for p in network.parameters()) if classifier else None,
            license=license,
            source=source,
            recipe=dict(recipe),
            classifier=classifier,
        )
        backbone = read_backbone(scratch)
        differences = compare_layers(backbone, network, pixels)
        if classifier:
            differences.append(compare_logits(backbone, network, pixels))
        if wrong := [found for found in differences if not found.acceptable]:
            raise BackboneError(
                f"{output}: not written, it differs from PyTorch, first at {wrong[0].what} ({wrong[0]})"
            )
    return differences


def create_timm_network(
    architecture: str, weights: str | os.PathLike[str] | None = None, size: int | None = None
) -> Any:
    """Create one of timm's networks with its pretrained weights, or with those of a file.

    Parameters
    ----------
    architecture : str
        timm's identifier, such as ``"resnet50.a1_in1k"``.
    weights : str, path or None
        A state dict, ``.pth`` or ``.safetensors``; None lets timm download its own.
    size : int or None
        Side of the canvas in pixels, for networks that must know; None is timm's own.

    Raises
    ------
    BackboneError
        When timm has no such network, or the weights cannot be had or do not fit.
    """
    timm = import_optional("timm", "export")
    try:
        config = timm.get_pretrained_cfg(architecture)
        sized = {"img_size": size} if size and config and config.fixed_input_size else {}
        network = timm.create_model(architecture, pretrained=weights is None, **sized)
    except Exception as error:  # timm's, huggingface_hub's and the network's own
        hint = "" if weights else "; without network access give --weights FILE"
        raise BackboneError(f"timm:{architecture}: cannot be created ({first_line(error)}){hint}") from error
    if weights is not None:
        state, mine = load_weights(weights), network.state_dict()
        lists = {
            "missing": sorted(set(mine) - set(state)),
            "unexpected": sorted(set(state) - set(mine)),
            "of another shape": [key for key in mine if key in state and state[key].shape != mine[key].shape],
        }
        if any(lists.values()):
            text = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:5])}" for what, keys in lists.items() if keys)
            raise BackboneError(f"{weights}: does not fit {architecture}: {text}")
        network.load_state_dict(state)
    return network.eval()


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a state dict without executing anything in the file.

    Raises
    ------
    BackboneError
        When it is missing, damaged, or holds more than tensors.
    """
    if not os.path.isfile(path):
        raise BackboneError(f"{path}: no such file")
    try:
        if str(path).endswith(".safetensors"):
            state = import_optional("safetensors.torch", "export").load_file(path)
        else:
            state = import_optional("torch", "export").load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, torch's and safetensors' own
        raise BackboneError(f"{path}: cannot be read as weights alone ({first_line(error)})") from error
    for key in ("state_dict", "model"):  # what training scripts wrap them in
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(hasattr(value, "shape") for value in state.values()):
        raise BackboneError(f"{path}: holds no state dict")
    return {key.removeprefix("module."): value for key, value in state.items()}


def timm_preprocess(network: Any, size: int | None = None) -> Preprocess:
    """Read how a timm network was trained from its configuration.

    Another ``size`` changes the canvas alone; at the one that timm tests with, its crop is timm's too.
    """
    config = import_optional("timm.data", "export").resolve_model_data_config(network)
    if size:
        tested = network.pretrained_cfg.get("test_input_size") == (3, size, size)
        crop = network.pretrained_cfg.get("test_crop_pct") if tested else None
        config |= {"input_size": (3, size, size), "crop_pct": crop or config["crop_pct"]}
    _, height, width = config["input_size"]
    if config["crop_mode"] != "center":
        raise BackboneError(f"crop_mode={config['crop_mode']!r}: featx only crops from the centre")
    mean, std = ((255 * red, 255 * green, 255 * blue) for red, green, blue in (config["mean"], config["std"]))
    resize = int(min(height, width) / config["crop_pct"])
    return Preprocess(height, width, resize, config["interpolation"], mean, std)


def versions(*names: str) -> dict[str, str]:
    """Note the installed versions of what shapes a file."""
    return {name: metadata.version(name) for name in names}
