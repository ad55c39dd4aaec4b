"""Check that a backbone file computes the same as its source network, and the same on every execution provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx.backbones.file import Backbone, Layer, load_model, require_images
from featx.backbones.graph import tap
from featx.errors import DeviceError
from featx.inference.self_check import COSINES, CanonicalCheck, check_canonical
from featx.session import Session, list_providers, run_batches
from featx.similarity import cosine_rows

__all__ = [
    "Conversion",
    "Difference",
    "ProviderCheck",
    "compare_layers",
    "compare_logits",
    "measure_difference",
    "run_logits",
    "verify_backbone",
]

#: Limits of an acceptable difference.
_MIN_COSINE, _MAX_ABSOLUTE = 0.999999, 1e-4
#: Single values may differ ten times as much if the cosine is closer still: a channel of tiny variance
#: magnifies rounding.
_CLOSE_COSINE, _CLOSE_ABSOLUTE = 0.9999999, 1e-3


@dataclass(frozen=True)
class Difference:
    """Difference between two computations of the same rows.

    Parameters
    ----------
    name : str
        Name of the layer, ``"features"`` or ``"logits"``.
    cosine : float
        The smallest cosine between corresponding rows.
    absolute : float
        The largest absolute difference.
    scale : float
        The largest absolute value.
    """

    name: str
    cosine: float
    absolute: float
    scale: float

    def __str__(self) -> str:
        return f"cosine {self.cosine:.7f}, largest difference {self.absolute:.1e} of {self.scale:.3g}"

    @property
    def acceptable(self) -> bool:
        """True if rounding explains the difference; it is relative, since float32 does not hold 1e-4 of 100."""
        return self.is_close("float32")

    def is_close(self, precision: str) -> bool:
        """Return True if rounding in a precision explains the difference; in int8 and float16 the cosine decides."""
        if precision != "float32":
            return self.cosine >= COSINES[precision]
        relative = self.absolute / max(1.0, self.scale)
        return (self.cosine >= _MIN_COSINE and relative <= _MAX_ABSOLUTE) or (
            self.cosine >= _CLOSE_COSINE and relative <= _CLOSE_ABSOLUTE
        )


@dataclass(frozen=True)
class Conversion:
    """A backbone made from another network, and its differences from that network.

    Parameters
    ----------
    backbone : Backbone
        The new file.
    differences : tuple of Difference
        On real images; all are acceptable, since a file that differs is not written.
    """

    backbone: Backbone
    differences: tuple[Difference, ...]

    def __repr__(self) -> str:
        return f"Conversion({str(self.backbone.path)!r}, worst: {self.worst.name} {self.worst})"

    @property
    def worst(self) -> Difference:
        """The difference with the smallest cosine."""
        return min(self.differences, key=lambda difference: difference.cosine)


@dataclass(frozen=True)
class ProviderCheck:
    """Result of a backbone's canonical check on one execution provider.

    Parameters
    ----------
    provider : str
        onnxruntime's name.
    check : CanonicalCheck or None
        None if the provider did not run.
    error : str or None
        The reason why the provider did not run.
    """

    provider: str
    check: CanonicalCheck | None
    error: str | None = None

    @property
    def passed(self) -> bool:
        """True if the provider ran and computed the features in the file."""
        return self.check is not None and self.check.passed


def verify_backbone(backbone: Backbone) -> list[ProviderCheck]:
    """Run the canonical check of a backbone on every execution provider of the installed onnxruntime.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.recipes import verify_backbone
    >>> checks = verify_backbone(open_backbone("efficientnet_lite0"))
    >>> all(check.passed for check in checks)
    True
    """
    checks = []
    for provider in list_providers():
        try:
            checks.append(ProviderCheck(provider, check_canonical(backbone, providers=[provider])))
        except DeviceError as error:
            checks.append(ProviderCheck(provider, None, str(error)))
    return checks


def compare_layers(backbone: Backbone, network: Any, pixels: npt.NDArray[np.uint8]) -> list[Difference]:
    """Compare the whole map of every layer with the output of its PyTorch module, then the default features."""
    torch = import_optional("torch", "export")
    maps: dict[str, Any] = {}
    existing = dict(network.named_modules())
    hooks = []
    for layer in backbone.layers:
        names = [name for name in (*layer.aliases, layer.name) if name in existing and name != "head"]
        module = existing[names[0]] if names else None

        def keep(output: Any, layer: Layer = layer) -> None:
            maps[layer.name] = _flatten_output(output, layer).copy()  # the next module may work in place

        if module is not None:
            hooks.append(module.register_forward_hook(lambda _module, _inputs, output, keep=keep: keep(output)))
        else:  # the layer is the input of the classifier, not the output of a module
            hooks.append(
                network.get_classifier().register_forward_pre_hook(lambda _module, inputs, keep=keep: keep(inputs[0]))
            )
    with torch.inference_mode():
        network(_normalized(backbone, pixels))
    for hook in hooks:
        hook.remove()
    differences = [
        measure_difference(name, reference, Session(tap(backbone, name, "flatten", False), "cpu").run(pixels))
        for name, reference in maps.items()
    ]
    default = backbone.layer(None)
    features = maps[default.name].reshape(len(pixels), default.channels, -1).mean(axis=2)
    rows = Session(tap(backbone, None, "avg", False), "cpu").run(pixels)
    return [*differences, measure_difference("features", features, rows)]


def compare_logits(backbone: Backbone, network: Any, pixels: npt.NDArray[np.uint8]) -> Difference:
    """Compare the class scores of a backbone and of a PyTorch network."""
    torch = import_optional("torch", "export")
    with torch.inference_mode():
        reference = network(_normalized(backbone, pixels)).numpy()
    return measure_difference("logits", reference, run_logits(backbone, pixels))


def run_logits(
    backbone: Backbone, pixels: npt.NDArray[np.uint8], batch_size: int | None = None
) -> npt.NDArray[np.float32]:
    """Compute the class scores of a backbone's own classifier, in batches or at once."""
    model = load_model(backbone.path)
    step = batch_size or len(pixels)
    batches = ({"pixels": pixels[i : i + step]} for i in range(0, len(pixels), step))
    scores = run_batches(model.SerializeToString(), batches, [model.graph.output[-1].name])
    return np.concatenate([logits for (logits,) in scores])


def _flatten_output(output: Any, layer: Layer) -> npt.NDArray[np.float32]:
    """Flatten a module's output like the layer's map: channels first, and of tokens only the patches."""
    if output.ndim == 3:
        output = output[:, -layer.height * layer.width :].transpose(1, 2)
    return np.asarray(output.flatten(1).numpy())


def _normalized(backbone: Backbone, pixels: npt.NDArray[np.uint8]) -> Any:
    torch, rules = import_optional("torch", "export"), require_images(backbone)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (rules.mean, rules.std))
    return (torch.from_numpy(pixels).float() - mean) / std


def measure_difference(name: str, reference: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Difference:
    """Measure the difference between the rows of two arrays."""
    a, b = reference.astype(np.float64), rows.astype(np.float64)
    cosine = float(cosine_rows(a, b).min())
    return Difference(name, cosine, float(np.abs(a - b).max()), float(np.abs(a).max()))
