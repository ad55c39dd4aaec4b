"""Run the tail of a cut backbone in torch, with its initialisers as parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from featx._optional import import_optional
from featx.errors import BackboneError, DeviceError
from featx.tuning.graph import Trunk
from featx.tuning.operators import OPERATORS, Compute

__all__ = ["Tail", "choose_device", "limit_threads"]


class Tail:
    """The tail of a cut backbone as a function of the value at the cut and of its weights.

    Parameters
    ----------
    trunk : Trunk
        The cut backbone.
    device : str, default="cpu"
        Device of torch.
    """

    def __init__(self, trunk: Trunk, device: str = "cpu") -> None:
        self.torch = import_optional("torch", "tune")
        self.trunk, self.device = trunk, device
        self._constants: dict[str, Any] = {"": None}
        for tensor in trunk.tail.graph.initializer:
            if tensor.name not in trunk.weights:
                self._constants[tensor.name] = self._constant(numpy_helper.to_array(tensor))
        self._steps: list[tuple[str, Compute, list[str], list[str], dict[str, Any]]] = []
        for node in trunk.tail.graph.node:
            row = OPERATORS[node.op_type]
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if "value" in attributes:
                attributes["value"] = self._constant(numpy_helper.to_array(attributes["value"]))
            step = (node.op_type, row.compute, list(node.input), list(node.output), attributes)
            if all(name in self._constants for name in node.input):
                self._compute(step, self._constants)
            else:
                self._steps.append(step)

    def weights(self, values: Mapping[str, npt.NDArray[np.float32]] | None = None) -> dict[str, Any]:
        """Return weights as tensors on the device; None takes those of the backbone."""
        values = self.trunk.weights if values is None else values
        return {name: self._to_device(np.array(value, np.float32)) for name, value in values.items()}

    def run(self, activations: Any, weights: Mapping[str, Any]) -> Any:
        """Compute features (n, n_features) from values at the cut (n, *trunk.shape) with the given weights."""
        if activations.ndim == 4:
            activations = activations.contiguous(memory_format=self.torch.channels_last)
        values = {**self._constants, **weights, self.trunk.tensor: activations}
        n_tokens = activations.shape[1 + self.trunk.shape.index(0)] if 0 in self.trunk.shape else -1
        for name, shape in self.trunk.shapes.items():
            sizes = [{0: len(activations), -1: n_tokens}.get(size, size) for size in shape]
            values[name] = self.torch.tensor(sizes, dtype=self.torch.int64)
        for step in self._steps:
            self._compute(step, values)
        return values["features"]

    def embed(
        self, activations: npt.NDArray[np.float32], weights: Mapping[str, Any], batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Compute features in batches, without gradients."""
        with self.torch.inference_mode():
            rows = [
                self.run(self._to_device(activations[i : i + batch_size]), weights).cpu().numpy()
                for i in range(0, len(activations), batch_size)
            ]
        return np.concatenate(rows)

    def _compute(self, step: tuple[str, Compute, list[str], list[str], dict[str, Any]], values: dict[str, Any]) -> None:
        operator, compute, inputs, outputs, attributes = step
        try:
            result = compute(self.torch, [values[name] for name in inputs], attributes)
        except (NotImplementedError, TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
            if isinstance(error, self.torch.OutOfMemoryError):
                raise
            raise BackboneError(
                f"{self.trunk.backbone.path}: operator {operator} ({outputs[0]}) after layer {self.trunk.layer} "
                f"failed in torch: {error}; choose a later layer"
            ) from error
        results = result if isinstance(result, (tuple, list)) else (result,)
        values.update(zip(outputs, results, strict=False))

    def _constant(self, value: npt.NDArray[Any]) -> Any:
        """Return a tensor; shapes and indices stay on the CPU, since Python reads them."""
        tensor = self.torch.from_numpy(np.array(value))
        return tensor.to(self.device) if tensor.is_floating_point() and tensor.ndim else tensor

    def _to_device(self, value: npt.NDArray[np.float32]) -> Any:
        tensor = self.torch.from_numpy(value).to(self.device)
        return tensor.contiguous(memory_format=self.torch.channels_last) if tensor.ndim == 4 else tensor


def choose_device(device: str) -> str:
    """Return the device of torch for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        CUDA is requested and torch has none.
    """
    torch = import_optional("torch", "tune")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise DeviceError(f"device={device!r}: the installed torch has no CUDA; set device='cpu' or 'auto'")
    return device


@contextmanager
def limit_threads(n_threads: int) -> Iterator[None]:
    """Let torch use this number of threads within a block."""
    torch = import_optional("torch", "tune")
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
