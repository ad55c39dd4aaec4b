"""Build the part of an ONNX graph that is appended to a backbone, node by node."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["ML_OPSET", "Graph", "Value"]

#: The name of a tensor in the graph, or an array that becomes a constant.
Value: TypeAlias = "str | npt.NDArray[Any]"

#: Version of the ai.onnx.ml operators: the first with float64 thresholds and leaves of trees.
ML_OPSET = 3


class Graph:
    """Nodes in the order of computation, and constants.

    Heads compute in float64, like most of scikit-learn. This costs little beside a convolutional network, and rules out
    rounding as the cause of a difference. ``prefix`` keeps all names
    distinct from the backbone's.
    """

    def __init__(self, prefix: str = "pipeline_") -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._doubles: dict[str, str] = {}
        self._n = 0

    def op(self, kind: str, *inputs: Value, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output and return the output's name."""
        return self.ops(kind, *inputs, n_outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: Value, n_outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add an operator with several outputs and return their names."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        outputs = [self.name(kind.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, names, outputs, outputs[0], domain=domain, **attributes))
        return outputs

    def name(self, hint: str) -> str:
        """Return a new name, distinct from the backbone's."""
        self._n += 1
        return f"{self._prefix}{hint}_{self._n}"

    def constant(self, values: npt.NDArray[Any]) -> str:
        """Add numbers or strings. Float64 arrays that float32 holds without loss are stored as float32."""
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
        """Add a conversion to another dtype."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def double(self, name: str) -> str:
        """Add a conversion to float64, once per tensor."""
        if name not in self._doubles:
            self._doubles[name] = self.cast(name, np.float64)
        return self._doubles[name]

    def columns(self, *values: Value) -> str:
        """Concatenate tensors of shape (N, n) along the columns."""
        return self.op("Concat", *values, axis=1)

    def column(self, value: Value) -> str:
        """Reshape (N,) or (N, 1) to (N, 1)."""
        return self.op("Reshape", value, np.array([-1, 1]))

    def flat(self, value: Value) -> str:
        """Reshape (N, 1) to (N,)."""
        return self.op("Reshape", value, np.array([-1]))

    def take(self, value: Value, columns: npt.ArrayLike) -> str:
        """Select columns of (N, n)."""
        return self.op("Gather", value, np.asarray(columns, np.int64), axis=1)

    def total(self, value: Value) -> str:
        """Sum each row of (N, n); the result is (N, 1)."""
        return self.op("ReduceSum", value, np.array([1]), keepdims=1)

    def shares(self, values: Value, otherwise: float) -> str:
        """Divide each row of (N, n) by its sum; ``otherwise`` is the share in a row of zeros."""
        total = self.total(values)
        is_zero = self.op("Equal", total, np.array(0.0))
        shares = self.op("Div", values, self.op("Where", is_zero, np.array(1.0), total))
        return self.op("Where", is_zero, np.array(otherwise), shares)

    def mean(self, *values: Value, weights: npt.ArrayLike | None = None) -> str:
        """Average tensors of the same shape."""
        shares = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
        shares = shares / shares.sum()
        parts = [self.op("Mul", value, np.array(share)) for value, share in zip(values, shares, strict=True)]
        return parts[0] if len(parts) == 1 else self.op("Sum", *parts)

    def argmax(self, scores: Value) -> str:
        """Find the first largest value of each row: (N, n) to int64 (N,)."""
        return self.op("ArgMax", scores, axis=1, keepdims=0)

    def both(self, positive: str) -> str:
        """Return the probabilities of two classes, (N, 2), from that of the second class, (N,) or (N, 1)."""
        second = self.column(positive)
        return self.columns(self.op("Sub", np.array(1.0), second), second)

    def is_positive(self, decision: str, threshold: float = 0.0) -> str:
        """Return the index of one of two classes, int64 (N,), from a decision (N,)."""
        return self.cast(self.op("Greater", decision, np.array(threshold)), np.int64)
