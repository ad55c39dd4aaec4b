"""Convert a PyTorch network to a backbone file, and compare the two."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_whole
from featx._optional import import_optional
from featx.backbones.catalogue import own_file
from featx.backbones.download import file_digest
from featx.backbones.file import BackboneDescription, read_backbone, require_images
from featx.backbones.zoo import find_entry
from featx.errors import BackboneError, InputError, first_line
from featx.images.preprocess import Preprocess
from featx.images.reference import real_images
from featx.recipes.build import build_backbone
from featx.recipes.network import export_network
from featx.recipes.verify import Conversion, compare_layers, compare_logits

__all__ = [
    "convert_network",
    "create_timm_network",
    "installed_versions",
    "load_weights",
    "make_backbone",
    "timm_preprocess",
]


def make_backbone(
    network: str,
    output: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    classifier: bool = True,
) -> Conversion:
    """Make a backbone file from one of timm's networks; needs the extra ``export``.

    The file is written only if every layer agrees with PyTorch on real images.

    Parameters
    ----------
    network : str
        ``timm:`` and timm's identifier, such as ``"timm:resnet50.a1_in1k"``.
    output : str, path or None
        The file; None writes ``NAME.onnx`` to the user's folder, where `open_backbone` finds it by name.
    weights : str, path or None
        A state dict, ``.pth`` or ``.safetensors``; None lets timm download its own weights.
    size : int or None
        Side of the canvas in pixels; None takes timm's.
    classifier : bool, default=True
        False leaves out everything after the layer ``head``, for example 500 MB of a VGG.

    Returns
    -------
    Conversion
        The new backbone and its differences from PyTorch.

    Raises
    ------
    BackboneError
        timm has no such network, the weights cannot be loaded, or the file differs from the network.
    InputError
        The name does not begin with ``timm:``.

    Examples
    --------
    >>> from featx.recipes import make_backbone
    >>> conversion = make_backbone("timm:resnet50.a1_in1k")  # doctest: +SKIP
    """
    kind, _, architecture = network.partition(":")
    if kind != "timm" or not architecture:
        raise InputError(f"network={network!r}: expected timm:NAME, such as timm:resnet18.a1_in1k")
    output = output or own_file(architecture)
    created = create_timm_network(architecture, weights, size)
    recipe = installed_versions("timm", "torch", "onnxscript", "onnx")
    if weights:
        recipe["weights_sha256"] = file_digest(weights)
    entry = find_entry(architecture)
    description = BackboneDescription(
        name=architecture,
        preprocess=timm_preprocess(created, size),
        license=entry.license if entry else str(created.pretrained_cfg.get("license") or "unknown"),
        source=network + (f" with {weights}" if weights else ""),
        recipe=recipe,
    )
    return convert_network(created, output, description, classifier=classifier)


def convert_network(
    network: Any,
    output: str | os.PathLike[str],
    description: BackboneDescription,
    *,
    pixels: npt.NDArray[np.uint8] | None = None,
    classifier: bool = True,
) -> Conversion:
    """Write the backbone file of a timm network in evaluation mode, if it computes the same on real images.

    The result has a difference for each layer, one for the default features, and one for the class scores if
    there is a classifier. Raises BackboneError with the first layer that differs too much.
    """
    preprocess = require_images(description)
    pixels = real_images(preprocess) if pixels is None else pixels
    with write_whole(output) as scratch:
        build_backbone(
            scratch,
            *export_network(network, preprocess.height, preprocess.width),
            description,
            stages={info["module"]: info["reduction"] for info in network.feature_info},
            parameters=sum(p.numel() for p in network.parameters()) if classifier else None,
            classifier=classifier,
        )
        backbone = read_backbone(scratch)
        differences = compare_layers(backbone, network, pixels)
        if classifier:
            differences.append(compare_logits(backbone, network, pixels))
        if wrong := [difference for difference in differences if not difference.acceptable]:
            raise BackboneError(
                f"{output}: not written, it differs from PyTorch, first at {wrong[0].name} ({wrong[0]})"
            )
    return Conversion(replace(backbone, path=Path(output)), tuple(differences))


def create_timm_network(
    architecture: str, weights: str | os.PathLike[str] | None = None, size: int | None = None
) -> Any:
    """Create a timm network with its pretrained weights, or with the weights in a file; see `make_backbone`."""
    timm = import_optional("timm", "export")
    try:
        config = timm.get_pretrained_cfg(architecture)
        sized = {"img_size": size} if size and config and config.fixed_input_size else {}
        network = timm.create_model(architecture, pretrained=weights is None, **sized)
    except Exception as error:  # timm's, huggingface_hub's and the network's own
        hint = "" if weights else "; without network access, set weights=FILE"
        raise BackboneError(f"timm:{architecture}: cannot be created ({first_line(error)}){hint}") from error
    if weights is not None:
        state, expected = load_weights(weights), network.state_dict()
        problems = {
            "missing": sorted(set(expected) - set(state)),
            "unexpected": sorted(set(state) - set(expected)),
            "of another shape": [key for key in expected if key in state and state[key].shape != expected[key].shape],
        }
        if any(problems.values()):
            text = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:5])}" for what, keys in problems.items() if keys)
            raise BackboneError(f"{weights}: does not fit {architecture}: {text}")
        network.load_state_dict(state)
    return network.eval()


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a state dict without executing anything in the file."""
    if not os.path.isfile(path):
        raise BackboneError(f"{path}: no such file")
    try:
        if str(path).endswith(".safetensors"):
            state = import_optional("safetensors.torch", "export").load_file(path)
        else:
            state = import_optional("torch", "export").load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, torch's and safetensors' own
        raise BackboneError(f"{path}: cannot be read as weights alone ({first_line(error)})") from error
    for key in ("state_dict", "model"):  # training scripts wrap the weights in one of these
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(hasattr(value, "shape") for value in state.values()):
        raise BackboneError(f"{path}: holds no state dict")
    return {key.removeprefix("module."): value for key, value in state.items()}


def timm_preprocess(network: Any, size: int | None = None) -> Preprocess:
    """Read the preprocessing of a timm network from its configuration.

    Another ``size`` changes the canvas alone, except that timm's own test size also brings timm's test crop.
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


def installed_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of packages, for a recipe."""
    return {name: metadata.version(name) for name in names}
