"""Prove that a backbone file computes what the PyTorch network computes, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._optional import import_optional
from featx.backbones.file import Backbone, Layer, load_model
from featx.backbones.graph import tap
from featx.session import Session, run_graph
from featx.similarity import cosine_rows

__all__ = ["Difference", "compare_layers", "compare_logits", "difference", "run_logits"]

COSINE, ABSOLUTE = 0.999999, 1e-4
#: Single values may be ten times as far apart where the whole is nearer still: rounding that a
#: channel of tiny variance has blown up, not another network.
CLOSE_COSINE, CLOSE_ABSOLUTE = 0.9999999, 1e-3


@dataclass(frozen=True)
class Difference:
    """How far two computations of the same rows lie apart.

    Parameters
    ----------
    what : str
        Layer, or ``"logits"``.
    cosine : float
        The smallest cosine between corresponding rows.
    absolute : float
        The largest absolute difference.
    scale : float
        The largest absolute value.
    """

    what: str
    cosine: float
    absolute: float
    scale: float

    def __str__(self) -> str:
        return f"cosine {self.cosine:.7f}, largest difference {self.absolute:.1e} of {self.scale:.3g}"

    @property
    def acceptable(self) -> bool:
        """Whether the two are the same network; float32 cannot agree to 1e-4 where values reach 100."""
        relative = self.absolute / max(1.0, self.scale)
        return (self.cosine >= COSINE and relative <= ABSOLUTE) or (
            self.cosine >= CLOSE_COSINE and relative <= CLOSE_ABSOLUTE
        )


def compare_layers(backbone: Backbone, network: Any, pixels: npt.NDArray[np.uint8]) -> list[Difference]:
    """Compare the whole map of every layer with its module's output, then the default features.

    Parameters
    ----------
    backbone : Backbone
        The file.
    network : torch.nn.Module
        In evaluation mode, float32.
    pixels : ndarray of uint8, shape (n, 3, height, width)
        Real images on the backbone's canvas.
    """
    torch = import_optional("torch", "export")
    maps: dict[str, Any] = {}
    existing = dict(network.named_modules())
    hooks = []
    for layer in backbone.layers:
        names = [name for name in (*layer.aliases, layer.name) if name in existing and name != "head"]
        module = existing[names[0]] if names else None

        def keep(output: Any, layer: Layer = layer) -> None:
            maps[layer.name] = _rows(output, layer).copy()  # since the next module may work in place

        if module is not None:
            hooks.append(module.register_forward_hook(lambda _module, _inputs, output, keep=keep: keep(output)))
        else:  # no module's output, but what the classifier takes
            hooks.append(
                network.get_classifier().register_forward_pre_hook(lambda _module, inputs, keep=keep: keep(inputs[0]))
            )
    with torch.inference_mode():
        network(_normalized(backbone, pixels))
    for hook in hooks:
        hook.remove()
    differences = [
        difference(name, maps[name], Session(tap(backbone, name, "flatten", False), "cpu").run(pixels)) for name in maps
    ]
    default = backbone.layer(None)
    features = maps[default.name].reshape(len(pixels), default.channels, -1).mean(axis=2)
    ours = Session(tap(backbone, None, "avg", False), "cpu").run(pixels)
    return [*differences, difference("features", features, ours)]


def compare_logits(backbone: Backbone, network: Any, pixels: npt.NDArray[np.uint8]) -> Difference:
    """Compare the class scores, which nothing but the whole network gives."""
    torch = import_optional("torch", "export")
    with torch.inference_mode():
        reference = network(_normalized(backbone, pixels)).numpy()
    return difference("logits", reference, run_logits(backbone, pixels))


def run_logits(backbone: Backbone, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Run the file through to its own classifier."""
    model = load_model(backbone.path)
    scores = model.graph.output[-1].name
    (logits,) = run_graph(model.SerializeToString(), {"pixels": pixels}, [scores])
    return np.asarray(logits)


def _rows(output: Any, layer: Layer) -> npt.NDArray[np.float32]:
    """Flatten a module's output as the layer's map is: channels first, patches alone of tokens."""
    if output.ndim == 3:
        output = output[:, -layer.height * layer.width :].transpose(1, 2)
    return np.asarray(output.flatten(1).numpy())


def _normalized(backbone: Backbone, pixels: npt.NDArray[np.uint8]) -> Any:
    torch = import_optional("torch", "export")
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    return (torch.from_numpy(pixels).float() - mean) / std


def difference(what: str, one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Difference:
    """Measure how far the rows of two arrays lie apart."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    cosine = float(cosine_rows(a, b).min())
    return Difference(what, cosine, float(np.abs(a - b).max()), float(np.abs(a).max()))
