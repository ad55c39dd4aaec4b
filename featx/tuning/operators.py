"""Compute ONNX operators in torch; one row of a table per operator.

Each row holds a function and the positions of the inputs that can hold weights. The function takes the torch module,
the inputs and the attributes. torch is an argument, so that this module imports without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

__all__ = ["OPERATORS", "Operator"]

#: Takes the torch module, the inputs (None for an input that is left out) and the attributes. Returns the output, or a
#: tuple of outputs.
Compute = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Operator:
    """An ONNX operator in torch.

    Parameters
    ----------
    compute : callable
        Takes the torch module, the inputs and the attributes, and returns the output, or a tuple of outputs.
    weights : tuple of int, default=()
        Positions of the inputs that can hold weights.
    passes : bool, default=False
        The operator rearranges its first input, which can be a weight of the next operator.
    """

    compute: Compute
    weights: tuple[int, ...] = ()
    passes: bool = False


def _numbers(value: Any) -> list[int]:
    return [int(number) for number in value.reshape(-1).tolist()]


def _optional(inputs: Sequence[Any], at: int) -> Any:
    return inputs[at] if len(inputs) > at else None


def _find_pads(x: Any, attributes: Mapping[str, Any], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the padding at the beginning and at the end of each spatial axis."""
    n = len(kernel)
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b""):
        pads = list(attributes.get("pads", [0] * 2 * n))
        return pads[:n], pads[n:]
    if mode == b"VALID":
        return [0] * n, [0] * n
    strides = attributes.get("strides", [1] * n)
    dilations = attributes.get("dilations", [1] * n)
    before, after = [], []
    for size, k, step, gap in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // step) - 1) * step + gap * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if mode == b"SAME_UPPER" else large)
        after.append(large if mode == b"SAME_UPPER" else small)
    return before, after


def _pad_space(torch: Any, x: Any, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Any:
    """Pad the spatial axes."""
    both = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return torch.nn.functional.pad(x, both, value=value) if any(both) else x


def _conv(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, weight = inputs[:2]
    n = weight.ndim - 2
    before, after = _find_pads(x, attributes, weight.shape[2:])
    if before != after:
        x, before = _pad_space(torch, x, before, after), [0] * n
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[n - 1]
    strides, dilations = attributes.get("strides", [1] * n), attributes.get("dilations", [1] * n)
    return convolve(x, weight, _optional(inputs, 2), strides, before, dilations, attributes.get("group", 1))


def _max_pool(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, kernel = inputs[0], attributes["kernel_shape"]
    x = _pad_space(torch, x, *_find_pads(x, attributes, kernel), value=float("-inf"))
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    ceil = bool(attributes.get("ceil_mode", 0))
    return torch.nn.functional.max_pool2d(x, kernel, strides, 0, dilations, ceil)


def _average_pool(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, kernel, pool = inputs[0], attributes["kernel_shape"], torch.nn.functional.avg_pool2d
    strides, ceil = attributes.get("strides", [1, 1]), bool(attributes.get("ceil_mode", 0))
    before, after = _find_pads(x, attributes, kernel)
    counts_pads = bool(attributes.get("count_include_pad", 0))
    if before == after:
        return pool(x, kernel, strides, before, ceil, counts_pads)
    pooled = pool(_pad_space(torch, x, before, after), kernel, strides, 0, ceil)
    if counts_pads:
        return pooled
    inside = _pad_space(torch, torch.ones_like(x[:1, :1]), before, after)
    return pooled / pool(inside, kernel, strides, 0, ceil)


def _gemm(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    product = a @ b * attributes.get("alpha", 1.0)
    c = _optional(inputs, 2)
    return product if c is None else product + c * attributes.get("beta", 1.0)


def _clip(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    low, high = (_optional(inputs, i) for i in (1, 2))
    low = attributes.get("min") if low is None else low.item()
    high = attributes.get("max") if high is None else high.item()
    return inputs[0].clamp(low, high)


def _batch_norm(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Normalise by the statistics in the file, which stay as they are."""
    x, scale, bias, mean, variance = inputs[:5]
    epsilon = attributes.get("epsilon", 1e-5)
    return torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _layer_norm(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, scale = inputs[:2]
    shape = x.shape[attributes.get("axis", -1) :]
    bias, epsilon = _optional(inputs, 2), attributes.get("epsilon", 1e-5)
    weights = (None if each is None else each.expand(shape) for each in (scale, bias))
    return torch.nn.functional.layer_norm(x, shape, *weights, epsilon)


def _instance_norm(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    epsilon = attributes.get("epsilon", 1e-5)
    return torch.nn.functional.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=epsilon)


def _group_norm(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    epsilon = attributes.get("epsilon", 1e-5)
    return torch.nn.functional.group_norm(inputs[0], attributes["num_groups"], *inputs[1:3], epsilon)


def _sqrt(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Compute square roots whose gradient at 0 is 0 instead of infinite."""
    x = inputs[0]
    if not x.is_floating_point() or not x.requires_grad:
        return x.sqrt()
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), torch.where(x == 0, 0.0, x * float("nan")))


def _reduce(name: str, **fixed: Any) -> Compute:
    """Return the function of a reduction; its axes are an input or, in older graphs, an attribute."""

    def compute(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        x, axes = inputs[0], _optional(inputs, 1)
        numbers = attributes.get("axes") if axes is None else _numbers(axes)
        if not numbers:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            numbers = range(x.ndim)
        function = torch.linalg.vector_norm if name == "vector_norm" else getattr(torch, name)
        return function(x, dim=tuple(numbers), keepdim=bool(attributes.get("keepdims", 1)), **fixed)

    return compute


def _global_pool(name: str) -> Compute:
    def compute(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        return getattr(torch, name)(inputs[0], dim=tuple(range(2, inputs[0].ndim)), keepdim=True)

    return compute


def _softmax(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return torch.softmax(inputs[0], attributes.get("axis", -1))


def _gelu(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    approximate = attributes.get("approximate", b"none").decode()
    return torch.nn.functional.gelu(inputs[0], approximate=approximate)


def _hard_sigmoid(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return (inputs[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)).clamp(0, 1)


def _div(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    a, b = inputs
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _extreme(name: str) -> Compute:
    def compute(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        result = inputs[0]
        for other in inputs[1:]:
            result = getattr(torch, name)(result, other)
        return result

    return compute


def _sum(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return sum(inputs[1:], inputs[0])


def _slice(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x = inputs[0]
    starts, ends = _numbers(inputs[1]), _numbers(inputs[2])
    axes, steps = (_optional(inputs, i) for i in (3, 4))
    axis_numbers = range(len(starts)) if axes is None else _numbers(axes)
    strides = [1] * len(starts) if steps is None else _numbers(steps)
    for start, end, axis, step in zip(starts, ends, axis_numbers, strides, strict=True):
        index = torch.arange(x.shape[axis], device=x.device)[:: 1 if step > 0 else -1]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
        else:
            kept = list(range(x.shape[axis]))[slice(start, end if end >= -x.shape[axis] else None, step)]
            x = x.index_select(axis, torch.tensor(kept, dtype=index.dtype, device=x.device))
    return x


def _split(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, axis, sizes = inputs[0], attributes.get("axis", 0), _optional(inputs, 1)
    if sizes is not None:
        return torch.split(x, _numbers(sizes), axis)
    if "split" in attributes:
        return torch.split(x, list(attributes["split"]), axis)
    return torch.split(x, -(-x.shape[axis] // attributes["num_outputs"]), axis)


def _gather(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, index, axis = inputs[0], inputs[1].to(inputs[0].device), attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    rows = x.index_select(axis, index.reshape(-1))
    axis %= x.ndim
    return rows.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _reshape(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, shape = inputs[0], _numbers(inputs[1])
    if not attributes.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


def _flatten(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, axis = inputs[0], attributes.get("axis", 1)
    n = 1
    for size in x.shape[:axis]:
        n *= size
    return x.reshape(n, -1)


def _transpose(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x = inputs[0]
    return x.permute(attributes.get("perm", list(range(x.ndim))[::-1]))


def _squeeze(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, axes = inputs[0], _optional(inputs, 1)
    numbers = attributes.get("axes") if axes is None else _numbers(axes)
    return x.squeeze() if numbers is None else x.squeeze(tuple(numbers))


def _unsqueeze(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, axes = inputs[0], _optional(inputs, 1)
    numbers = list(attributes["axes"]) if axes is None else _numbers(axes)
    rank = x.ndim + len(numbers)
    for axis in sorted(axis % rank for axis in numbers):
        x = x.unsqueeze(axis)
    return x


def _expand(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x = inputs[0]
    return x.expand(torch.broadcast_shapes(x.shape, _numbers(inputs[1])))


def _shape(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    sizes = list(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _cast(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    dtypes = {
        TensorProto.FLOAT: torch.float32,
        TensorProto.INT64: torch.int64,
        TensorProto.INT32: torch.int32,
        TensorProto.BOOL: torch.bool,
        TensorProto.DOUBLE: torch.float64,
    }
    if attributes["to"] not in dtypes:
        raise NotImplementedError(f"Cast to {TensorProto.DataType.Name(attributes['to'])}")
    return inputs[0].to(dtypes[attributes["to"]])


def _pad(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    x, mode, axes = inputs[0], attributes.get("mode", b"constant").decode(), _optional(inputs, 3)
    pads = _numbers(inputs[1])
    n = len(pads) // 2
    axis_numbers = range(n) if axes is None else [axis % x.ndim for axis in _numbers(axes)]
    both = [[0, 0] for _ in range(x.ndim)]
    for i, axis in enumerate(axis_numbers):
        both[axis] = [pads[i], pads[n + i]]
    flat = [size for pair in reversed(both) for size in pair]
    value = _optional(inputs, 2)
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=0.0 if value is None else value.item())
    return torch.nn.functional.pad(x, flat[: 2 * (x.ndim - 2)], mode={"edge": "replicate"}.get(mode, mode))


def _constant_of_shape(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    value = attributes.get("value")
    return torch.full(_numbers(inputs[0]), 0.0) if value is None else value.reshape(()).expand(_numbers(inputs[0]))


def _where(torch: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    return torch.where(*inputs)


def _unary(name: str) -> Compute:
    return lambda torch, inputs, attributes: getattr(torch, name)(inputs[0])


def _binary(name: str) -> Compute:
    return lambda torch, inputs, attributes: getattr(torch, name)(inputs[0], inputs[1])


def _activation(name: str) -> Compute:
    return lambda torch, inputs, attributes: getattr(torch.nn.functional, name)(inputs[0])


#: Operators by name. To support an operator, add a row.
OPERATORS: dict[str, Operator] = {
    "Abs": Operator(_unary("abs")),
    "Add": Operator(_binary("add"), (0, 1)),
    "And": Operator(_binary("logical_and")),
    "AveragePool": Operator(_average_pool),
    "BatchNormalization": Operator(_batch_norm, (1, 2)),
    "Cast": Operator(_cast),
    "Clip": Operator(_clip),
    "Concat": Operator(lambda torch, inputs, attributes: torch.cat(list(inputs), attributes["axis"])),
    "Constant": Operator(lambda torch, inputs, attributes: attributes["value"]),
    "ConstantOfShape": Operator(_constant_of_shape),
    "Conv": Operator(_conv, (1, 2)),
    "Cos": Operator(_unary("cos")),
    "Div": Operator(_div),
    "Dropout": Operator(lambda torch, inputs, attributes: inputs[0]),
    "Elu": Operator(lambda torch, inputs, attributes: torch.nn.functional.elu(inputs[0], attributes.get("alpha", 1.0))),
    "Equal": Operator(_binary("eq")),
    "Erf": Operator(_unary("erf")),
    "Exp": Operator(_unary("exp")),
    "Expand": Operator(_expand),
    "Flatten": Operator(_flatten, passes=True),
    "Gather": Operator(_gather),
    "Gelu": Operator(_gelu),
    "Gemm": Operator(_gemm, (1, 2)),
    "GlobalAveragePool": Operator(_global_pool("mean")),
    "GlobalMaxPool": Operator(_global_pool("amax")),
    "GreaterOrEqual": Operator(_binary("ge")),
    "GroupNormalization": Operator(_group_norm, (1, 2)),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": Operator(_activation("hardswish")),
    "Identity": Operator(lambda torch, inputs, attributes: inputs[0], passes=True),
    "InstanceNormalization": Operator(_instance_norm, (1, 2)),
    "LayerNormalization": Operator(_layer_norm, (1, 2)),
    "LeakyRelu": Operator(
        lambda torch, inputs, attributes: torch.nn.functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01))
    ),
    "Less": Operator(_binary("lt")),
    "LessOrEqual": Operator(_binary("le")),
    "Log": Operator(_unary("log")),
    "MatMul": Operator(_binary("matmul"), (0, 1)),
    "Max": Operator(_extreme("maximum")),
    "MaxPool": Operator(_max_pool),
    "Min": Operator(_extreme("minimum")),
    "Mish": Operator(_activation("mish")),
    "Mul": Operator(_binary("mul"), (0, 1)),
    "Neg": Operator(_unary("neg")),
    "PRelu": Operator(
        lambda torch, inputs, attributes: torch.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0]), (1,)
    ),
    "Pad": Operator(_pad),
    "Pow": Operator(_binary("pow")),
    "Range": Operator(lambda torch, inputs, attributes: torch.arange(*(value.item() for value in inputs))),
    "Reciprocal": Operator(_unary("reciprocal")),
    "ReduceL2": Operator(_reduce("vector_norm")),
    "ReduceMax": Operator(_reduce("amax")),
    "ReduceMean": Operator(_reduce("mean")),
    "ReduceMin": Operator(_reduce("amin")),
    "ReduceSum": Operator(_reduce("sum")),
    "Relu": Operator(_activation("relu")),
    "Reshape": Operator(_reshape, passes=True),
    "Shape": Operator(_shape),
    "Sigmoid": Operator(_unary("sigmoid")),
    "Sin": Operator(_unary("sin")),
    "Slice": Operator(_slice),
    "Softmax": Operator(_softmax),
    "Softplus": Operator(_activation("softplus")),
    "Split": Operator(_split),
    "Sqrt": Operator(_sqrt),
    "Squeeze": Operator(_squeeze, passes=True),
    "Sub": Operator(_binary("sub")),
    "Sum": Operator(_sum),
    "Tanh": Operator(_unary("tanh")),
    "Transpose": Operator(_transpose, passes=True),
    "Unsqueeze": Operator(_unsqueeze, passes=True),
    "Where": Operator(_where),
}
