"""Translate the preprocessing in files of the Hugging Face hub into featx's rules.

`read_preprocessing` reads the ``preprocessor_config.json`` of transformers in its forms since 2021, and the
``pretrained_cfg`` of timm. Each image processor of transformers has a row in a table. The rules are those of its
Pillow implementation and of timm's evaluation transforms. `benchmarks/RESULTS.md` states the differences. A file
that does not state the size, mean, standard deviation or interpolation is refused unless the caller supplies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featx.errors import BackboneError
from featx.images.preprocess import Preprocess

__all__ = ["HubPreprocess", "read_preprocessing"]

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_INTERPOLATION_OF = "expected 0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)"


@dataclass(frozen=True)
class HubPreprocess:
    """Preprocessing of a repository's network, and the channel order of its input.

    Parameters
    ----------
    preprocess : Preprocess
        Rules from any image to the canvas, with mean and std in RGB order.
    channel_order : {"RGB", "BGR"}
        Channel order that the network expects.
    """

    preprocess: Preprocess
    channel_order: str = "RGB"


@dataclass(frozen=True)
class _Processor:
    """Rules of an image processor of transformers for keys that its file may leave out."""

    square: bool  # an integer size is both height and width, not the shorter side
    resample: int
    crops: bool = False
    normalizes: bool = True
    size: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Any, Any] | None] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def _crop_of_convnext(sizes: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Return the resized length and the canvas; from 384 pixels on nothing is cropped."""
    short = _integer("size", sizes.get("shortest_edge"))
    if short >= 384:
        return (short, short), (short, short)
    share = _number("crop_pct", config.get("crop_pct", 224 / 256))
    return int(short / share), (short, short)


def _resize_of_poolformer(sizes: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, Any] | None:
    share = _number("crop_pct", config.get("crop_pct", 0.9))
    return (int(_integer("size", sizes["shortest_edge"]) / share), None) if "shortest_edge" in sizes else None


def _resize_of_levit(sizes: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, Any] | None:
    return (int(256 / 224 * _integer("size", sizes["shortest_edge"])), None) if "shortest_edge" in sizes else None


_VIT = _Processor(square=True, resample=2)
_CLIP = _Processor(square=False, resample=3, crops=True)
_CONVNEXT = _Processor(square=False, resample=3, size=_crop_of_convnext)
_MOBILENET = _Processor(square=False, resample=2, crops=True)
_MOBILEVIT = _Processor(square=False, resample=3, crops=True, normalizes=False, extra={"flips": True})

#: Image processors by the name before ``ImageProcessor`` or ``FeatureExtractor``.
_PROCESSORS: dict[str, _Processor] = {
    "ViT": _VIT,
    "DeiT": _Processor(square=True, resample=3, crops=True),
    "Beit": _Processor(square=True, resample=3),
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "ConvNext": _CONVNEXT,
    "DINOv3ViT": _VIT,
    "EfficientNet": _Processor(square=True, resample=3, extra={"normalizes_again": True}),
    "Levit": _Processor(square=False, resample=3, crops=True, size=_resize_of_levit),
    "MobileNetV1": _MOBILENET,
    "MobileNetV2": _MOBILENET,
    "MobileViT": _MOBILEVIT,
    "PoolFormer": _Processor(square=False, resample=3, crops=True, size=_resize_of_poolformer),
    "Pvt": _VIT,
    "Segformer": _VIT,
    "Siglip": _Processor(square=True, resample=3),
}


def read_preprocessing(
    config: Mapping[str, Any],
    *,
    size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> HubPreprocess:
    """Read a ``preprocessor_config.json`` of transformers or a ``pretrained_cfg`` of timm.

    Parameters
    ----------
    config : dict
        Content of ``preprocessor_config.json``, or of a ``config.json`` that holds ``pretrained_cfg``.
    size : int, tuple of int or None
        Side, or height and width, of the canvas in pixels, if the file does not state it. The file must not state
        another size.
    resize : int or None
        Shorter side before the crop in pixels, if the file does not state it.
    interpolation : str or None
        Pillow's filter, if the file does not state it.
    mean, std : sequence of 3 floats or None
        Mean and standard deviation in RGB order, on the scale 0 to 255, if the file does not state them.

    Raises
    ------
    BackboneError
        The file does not state a value, contradicts itself, or names a rule that featx does not follow.

    Examples
    --------
    >>> from featx.recipes.preprocessing_config import read_preprocessing
    >>> config = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2}
    >>> read_preprocessing(config | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}).preprocess.rule
    'both_sides'
    """
    given = {"size": size, "resize": resize, "interpolation": interpolation, "mean": mean, "std": std}
    timm = config.get("pretrained_cfg") if isinstance(config.get("pretrained_cfg"), Mapping) else None
    if timm is None and "input_size" in config and "interpolation" in config:
        timm = config
    values, order = _read_timm(timm, given) if timm is not None else _read_transformers(config, given)
    try:
        return HubPreprocess(Preprocess(**values), order)
    except (TypeError, ValueError) as error:
        raise BackboneError(f"preprocessing: {error}") from None


def _read_timm(config: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read timm's configuration by the rules of timm's ``resolve_data_config`` and evaluation transforms."""
    stated = _size(config["input_size"][1:]) if _has(config, "input_size", list, tuple) else None
    if config.get("fixed_input_size") is False and given["size"] is not None:
        stated = None  # the network takes any size
    height, width = _choose("input_size", stated, _size(given["size"]), "size")
    share = _number("crop_pct", _stated(config, "crop_pct", "resize", None if given["resize"] is None else 1.0))
    mode = config.get("crop_mode") or "center"
    rules = {"center": "shorter_side", "squash": "both_sides", "border": "longer_side"}
    if mode not in rules:
        raise BackboneError(f"crop_mode={mode!r}: expected center, squash or border")
    scaled = [math.floor(side / share) for side in (height, width)]
    shorter = min(scaled)
    if mode == "center" and height != width:
        raise BackboneError(
            f"crop_mode='center' of a canvas {height}x{width}: expected a square canvas; set size=VALUE"
        )
    if rules[mode] != "shorter_side" and scaled != [shorter * side // min(height, width) for side in (height, width)]:
        raise BackboneError(
            f"crop_pct={share} of a canvas {height}x{width}: the sides would be scaled differently; set size=VALUE"
        )
    filter_ = given["interpolation"] or _stated(config, "interpolation", "interpolation")
    values = {
        "height": height,
        "width": width,
        "resize": shorter if given["resize"] is None else given["resize"],
        "interpolation": filter_,
        "mean": _three("mean", config, given["mean"], 255.0),
        "std": _three("std", config, given["std"], 255.0),
        "rule": rules[mode],
    }
    return values, "RGB"


def _read_transformers(config: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    processor = _find_processor(config)
    normalizes = _flag(config, "do_normalize", processor.normalizes) and not processor.extra.get("flips")
    factor = _number("rescale_factor", config.get("rescale_factor", 1 / 255))
    scale = 1 / factor if _flag(config, "do_rescale", True) else 1.0
    if normalizes:
        mean = _three("image_mean", config, given["mean"], scale)
        std = _three("image_std", config, given["std"], scale)
    else:
        mean, std = (0.0,) * 3, (scale,) * 3
    if config.get("rescale_offset"):  # pixels * factor - 1
        mean = tuple(value + scale for value in mean)
    if processor.extra.get("normalizes_again") and _flag(config, "include_top", True):
        again = _three("image_std", config, None if given["std"] is None else [v / 255 for v in given["std"]], 1.0)
        std = tuple(value * second for value, second in zip(std, again, strict=True))
    values = _find_canvas(config, processor, given)
    if config.get("do_pad") and _size(config.get("pad_size")) != (values["height"], values["width"]):
        raise BackboneError(
            f"do_pad=true, pad_size={config.get('pad_size')!r}: featx does not add margins after resizing; "
            f"expected do_pad=false, or a pad_size of {values['height']}x{values['width']}, which adds none"
        )
    _choose("a canvas of", (values["height"], values["width"]), _size(given["size"]), "size")
    values |= {"mean": mean, "std": std, "crop_rounding": "down"}
    resample = _RESAMPLE.get(config.get("resample", processor.resample))
    if resample is None and given["interpolation"] is None:
        raise BackboneError(f"resample={config['resample']!r}: {_INTERPOLATION_OF}; set interpolation=VALUE")
    values["interpolation"] = given["interpolation"] or resample
    flips = processor.extra.get("flips") and _flag(config, "do_flip_channel_order", True)
    return values, "BGR" if flips else "RGB"


def _find_processor(config: Mapping[str, Any]) -> _Processor:
    names = [config[key] for key in ("image_processor_type", "feature_extractor_type") if config.get(key)]
    if not names:
        raise BackboneError(
            "preprocessor_config.json has neither image_processor_type nor feature_extractor_type; "
            "download the ONNX file and wrap it: featx backbones wrap FILE.onnx --mean ... --std ... --size ..."
        )
    found = []
    for name in names:
        plain = str(name).removesuffix("Fast").removesuffix("Pil")
        plain = plain.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
        if plain not in _PROCESSORS:
            raise BackboneError(
                f"image_processor_type={name!r}: expected one of {', '.join(_PROCESSORS)}; "
                "download the ONNX file and wrap it: featx backbones wrap FILE.onnx --mean ... --std ... --size ..."
            )
        found.append(_PROCESSORS[plain])
    if len({id(processor) for processor in found}) > 1:
        raise BackboneError(
            f"image_processor_type and feature_extractor_type contradict each other: {' and '.join(names)}; "
            "correct a copy of the file"
        )
    return found[0]


def _find_canvas(config: Mapping[str, Any], processor: _Processor, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return height, width, resize and rule."""
    sizes = _read_sizes(config, processor, given)
    special = processor.size(sizes, config) if processor.size and sizes else None
    crops = _flag(config, "do_center_crop", processor.crops)
    crop = None
    if special and special[1]:
        crop, crops = special[1], True
    elif crops:
        crop = _choose("crop_size", _size(config.get("crop_size")), _size(given["size"]), "size")
    resized = special[0] if special else None
    if not _flag(config, "do_resize", True):
        raise BackboneError("do_resize=false: the canvas depends on the image; set do_resize to true in a copy")
    if resized is None:
        if "height" in sizes and "width" in sizes:
            resized = (_integer("size", sizes["height"]), _integer("size", sizes["width"]))
        elif set(sizes) == {"shortest_edge"}:
            resized = _integer("size", sizes["shortest_edge"])
        else:
            raise BackboneError(f"size={dict(sizes)!r}: expected shortest_edge, or height and width; set size=VALUE")
    if isinstance(resized, int):
        if crop is None:
            raise BackboneError(
                "size has shortest_edge and do_center_crop is false, so the canvas depends on the image; set size=VALUE"
            )
        return {"height": crop[0], "width": crop[1], "resize": given["resize"] or resized, "rule": "shorter_side"}
    height, width = crop or resized
    short = min(height, width)
    shorter = min(resized)
    if resized != (shorter * height // short, shorter * width // short):
        raise BackboneError(
            f"size {resized[0]}x{resized[1]} and crop_size {height}x{width} have different proportions; "
            "expected equal proportions"
        )
    return {"height": height, "width": width, "resize": given["resize"] or shorter, "rule": "both_sides"}


def _read_sizes(config: Mapping[str, Any], processor: _Processor, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``size`` as a dict; a file may state it as a number, a pair or a dict."""
    size = config.get("size")
    if size is None:
        if given["resize"] is not None:
            return {"shortest_edge": given["resize"]}
        if given["size"] is None:
            raise BackboneError("preprocessor_config.json does not state size; set size=VALUE")
        height, width = _size(given["size"]) or (0, 0)
        return {"height": height, "width": width} if processor.square else {"shortest_edge": min(height, width)}
    if isinstance(size, Mapping):
        return {key: value for key, value in size.items() if value is not None}
    if isinstance(size, (list, tuple)) and len(size) == 2:  # Pillow's width and height
        return {"width": size[0], "height": size[1]}
    side = _integer("size", size)
    return {"height": side, "width": side} if processor.square else {"shortest_edge": side}


def _size(value: Any) -> tuple[int, int] | None:
    """Return height and width from a side, a pair or a dict."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        if set(value) != {"height", "width"}:
            raise BackboneError(f"crop_size={dict(value)!r}: expected height and width; set size=VALUE")
        return _integer("height", value["height"]), _integer("width", value["width"])
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return _integer("height", value[0]), _integer("width", value[1])
    side = _integer("size", value)
    return side, side


def _choose(key: str, stated: Any, given: Any, parameter: str) -> Any:
    if stated is None and given is None:
        raise BackboneError(f"the repository does not state {key}; set {parameter}=VALUE")
    if stated is not None and given not in (None, stated):
        raise BackboneError(f"{parameter}={given}: the repository states {key} {stated}; leave it out")
    return given if stated is None else stated


def _stated(config: Mapping[str, Any], key: str, parameter: str, given: Any = None) -> Any:
    value = config.get(key)
    if value is None and given is None:
        raise BackboneError(f"the repository does not state {key}; set {parameter}=VALUE")
    return given if value is None else value


def _three(key: str, config: Mapping[str, Any], given: Sequence[float] | None, scale: float) -> tuple[float, ...]:
    """Return three stated numbers times ``scale``, or the given numbers, which are on the scale of pixels."""
    stated = config.get(key)
    if stated is None:
        if given is None:
            raise BackboneError(f"the repository does not state {key}; set {key.removeprefix('image_')}=VALUE")
        return tuple(float(value) for value in given)
    if isinstance(stated, (int, float)):
        stated = [stated] * 3
    if len(stated) != 3 or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in stated):
        raise BackboneError(f"{key}={stated!r}: expected three numbers")
    values = tuple(float(value) * scale for value in stated)
    if given is not None and any(abs(a - b) > 0.05 for a, b in zip(values, given, strict=True)):
        raise BackboneError(
            f"{key.removeprefix('image_')}={tuple(given)}: the repository states {tuple(round(v, 2) for v in values)}"
        )
    return values


def _has(config: Mapping[str, Any], key: str, *kinds: type) -> bool:
    return isinstance(config.get(key), kinds) and len(config[key]) == 3


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    return default if value is None else bool(value)


def _integer(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BackboneError(f"{key}={value!r}: expected a number of pixels; set size=VALUE")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise BackboneError(f"{key}={value!r}: expected a number above 0 and at most 1")
    return float(value)
