"""Write a graph node by node: what is appended to a backbone."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["ML_OPSET", "Graph", "Value"]

#: The name of a tensor in the graph, or numbers that become a constant.
Value: TypeAlias = "str | npt.NDArray[Any]"

#: Of the operators for trees; the first version that holds their numbers in float64.
ML_OPSET = 3


class Graph:
    """Nodes and constants, in the order in which they compute.

    Heads compute in float64, as scikit-learn does with most of its own: it costs nothing beside
    a convolutional network, and leaves no doubt what a difference comes from.

    Parameters
    ----------
    prefix : str, default="pipeline_"
        Begins every name, so that it is none of a backbone's.
    """

    def __init__(self, prefix: str = "pipeline_") -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._doubles: dict[str, str] = {}
        self._n = 0

    def op(self, kind: str, *inputs: Value, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output, and name that."""
        return self.ops(kind, *inputs, n_outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: Value, n_outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add an operator with several outputs, and name them."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        outputs = [self.name(kind.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, names, outputs, outputs[0], domain=domain, **attributes))
        return outputs

    def name(self, hint: str) -> str:
        """Make a name that no backbone has."""
        self._n += 1
        return f"{self._prefix}{hint}_{self._n}"

    def constant(self, values: npt.NDArray[Any]) -> str:
        """Add numbers or strings; float64 that float32 holds without loss takes half the place."""
        name = self.name("constant")
        if values.dtype.kind in "UO":
            texts = [str(value).encode("utf-8") for value in values.ravel()]
            self.constants.append(
                TensorProto(name=name, data_type=TensorProto.STRING, dims=values.shape, string_data=texts)
            )
            return name
        short = values.astype(np.float32) if values.dtype == np.float64 and values.size > 64 else values
        if short is not values and (short == values).all():
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(short), name))
            return self.cast(name, np.float64)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def cast(self, value: Value, dtype: npt.DTypeLike) -> str:
        """Convert to another type."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def double(self, name: str) -> str:
        """Convert to float64, once for whoever asks."""
        if name not in self._doubles:
            self._doubles[name] = self.cast(name, np.float64)
        return self._doubles[name]

    def columns(self, *values: Value) -> str:
        """Put tensors of shape (N,) or (N, n) side by side."""
        return self.op("Concat", *values, axis=1)

    def column(self, value: Value) -> str:
        """Make (N, 1) of (N,) or (N, 1)."""
        return self.op("Reshape", value, np.array([-1, 1]))

    def flat(self, value: Value) -> str:
        """Make (N,) of (N, 1)."""
        return self.op("Reshape", value, np.array([-1]))

    def take(self, value: Value, columns: npt.ArrayLike) -> str:
        """Pick columns of (N, n)."""
        return self.op("Gather", value, np.asarray(columns, np.int64), axis=1)

    def total(self, value: Value) -> str:
        """Sum each row of (N, n), to (N, 1)."""
        return self.op("ReduceSum", value, np.array([1]), keepdims=1)

    def mean(self, *values: Value, weights: npt.ArrayLike | None = None) -> str:
        """Average tensors of one shape."""
        shares = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
        shares = shares / shares.sum()
        parts = [self.op("Mul", value, np.array(share)) for value, share in zip(values, shares, strict=True)]
        return parts[0] if len(parts) == 1 else self.op("Sum", *parts)

    def argmax(self, scores: Value) -> str:
        """Find the first of the largest in each row: (N, n) to int64 (N,)."""
        return self.op("ArgMax", scores, axis=1, keepdims=0)

    def both(self, positive: str) -> str:
        """Give the probabilities of two classes from that of the second, (N,) or (N, 1)."""
        second = self.column(positive)
        return self.columns(self.op("Sub", np.array(1.0), second), second)

    def is_positive(self, decision: str, threshold: float = 0.0) -> str:
        """Give the index of one of two classes, int64 (N,), from a decision (N,)."""
        return self.cast(self.op("Greater", decision, np.array(threshold)), np.int64)
