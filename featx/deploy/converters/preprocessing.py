"""Convert scalers, projections and feature selection."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from featx.deploy.converter import Converter, Estimator, Rows, Tables
from featx.heads import SignedSquareRoot

__all__ = ["TABLES", "UFUNCS", "apply_function"]


def _shift(converter: Converter, x: Rows, offset: Any, scale: Any) -> str:
    """Subtract and divide in scikit-learn's dtype, so that a tree after it reads the same bits."""
    name = x.name
    if offset is not None:
        name = converter.graph.op("Sub", name, np.asarray(offset).astype(x.dtype))
    if scale is not None:
        name = converter.graph.op("Div", name, np.asarray(scale).astype(x.dtype))
    return name


def _standard(converter: Converter, step: Estimator, x: Rows) -> str:
    return _shift(converter, x, step.mean_ if step.with_mean else None, step.scale_)


def _robust(converter: Converter, step: Estimator, x: Rows) -> str:
    return _shift(converter, x, step.center_, step.scale_)


def _max_abs(converter: Converter, step: Estimator, x: Rows) -> str:
    return _shift(converter, x, None, step.scale_)


def _min_max(converter: Converter, step: Estimator, x: Rows) -> str:
    name = converter.graph.op("Mul", x.name, step.scale_.astype(x.dtype))
    name = converter.graph.op("Add", name, step.min_.astype(x.dtype))
    if step.clip:
        low, high = (np.array(bound, x.dtype) for bound in step.feature_range)
        name = converter.graph.op("Clip", name, low, high)
    return name


def _normalizer(converter: Converter, step: Estimator, x: Rows) -> str:
    graph = converter.graph
    kind = {"l1": "ReduceL1", "l2": "ReduceL2", "max": "ReduceMax"}[step.norm]
    values = graph.op("Abs", x.name) if step.norm == "max" else x.name
    norm = graph.op(kind, values, np.array([1]), keepdims=1)
    zero = graph.op("Equal", norm, np.array(0, x.dtype))  # a row of zeros is not scaled
    return graph.op("Div", x.name, graph.op("Where", zero, np.array(1, x.dtype), norm))


def _signed_root(converter: Converter, step: Estimator, x: Rows) -> str:
    graph = converter.graph
    return graph.op("Mul", graph.op("Sign", x.name), graph.op("Sqrt", graph.op("Abs", x.name)))


def _pca(converter: Converter, step: Estimator, x: Rows) -> str:
    graph = converter.graph
    name = graph.double(x.name)
    if step.mean_ is not None:
        name = graph.op("Sub", name, step.mean_.astype(np.float64))
    name = graph.op("MatMul", name, step.components_.T.astype(np.float64))
    if step.whiten:
        scale = np.sqrt(step.explained_variance_.astype(np.float64))
        name = graph.op("Div", name, np.maximum(scale, np.finfo(scale.dtype).eps))
    return name


def _ica(converter: Converter, step: Estimator, x: Rows) -> str:
    name = converter.graph.double(x.name)
    if step.whiten:
        name = converter.graph.op("Sub", name, step.mean_.astype(np.float64))
    return converter.graph.op("MatMul", name, step.components_.T.astype(np.float64))


def _svd(converter: Converter, step: Estimator, x: Rows) -> str:
    return converter.graph.op("MatMul", converter.graph.double(x.name), step.components_.T.astype(np.float64))


def _select(converter: Converter, step: Estimator, x: Rows) -> str:
    return converter.graph.take(x.name, step.get_support(indices=True))


#: NumPy functions as ONNX operators, each with an operand or None.
UFUNCS: dict[Any, list[tuple[str, float | None]]] = {
    np.exp: [("Exp", None)],
    np.log: [("Log", None)],
    np.sqrt: [("Sqrt", None)],
    np.abs: [("Abs", None)],
    np.square: [("Pow", 2.0)],
    np.log1p: [("Add", 1.0), ("Log", None)],
    np.expm1: [("Exp", None), ("Sub", 1.0)],
    np.exp2: [("Mul", float(np.log(2))), ("Exp", None)],
    np.log2: [("Log", None), ("Div", float(np.log(2)))],
    np.log10: [("Log", None), ("Div", float(np.log(10)))],
}


def apply_function(converter: Converter, step: Estimator, function: Any, name: str) -> str:
    """Apply one of `UFUNCS` to a float64 tensor; None is the identity."""
    if function is None:
        return name
    if not isinstance(function, np.ufunc) or function not in UFUNCS:
        expected = ", ".join(f"np.{ufunc.__name__}" for ufunc in UFUNCS)
        got = getattr(function, "__name__", function)
        raise converter.refuse(step, f"its function is {got}, expected one of {expected}")
    for kind, operand in UFUNCS[function]:
        name = converter.graph.op(kind, name, *([] if operand is None else [np.array(operand)]))
    return name


def _function(converter: Converter, step: Estimator, x: Rows) -> str:
    if step.kw_args:
        raise converter.refuse(step, "its function takes kw_args")
    return apply_function(converter, step, step.func, converter.graph.double(x.name))


TABLES = Tables(
    transformers={
        StandardScaler: _standard,
        RobustScaler: _robust,
        MaxAbsScaler: _max_abs,
        MinMaxScaler: _min_max,
        Normalizer: _normalizer,
        SignedSquareRoot: _signed_root,
        PCA: _pca,
        IncrementalPCA: _pca,
        FastICA: _ica,
        TruncatedSVD: _svd,
        FunctionTransformer: _function,
        **dict.fromkeys(
            (
                *(RFE, RFECV, GenericUnivariateSelect, SelectFdr, SelectFpr, SelectFromModel, SelectFwe),
                *(SelectKBest, SelectPercentile, SequentialFeatureSelector, VarianceThreshold),
            ),
            _select,
        ),
    }
)
