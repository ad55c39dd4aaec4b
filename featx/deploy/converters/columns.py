"""Converters of transformers that only columns of numbers need."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import PowerTransformer

from featx.deploy.converter import Converter, Rows, Tables

__all__ = ["TABLES"]


def _impute(converter: Converter, step: Any, x: Rows) -> str:
    """Replace NaN by the statistics, drop columns without any value, and append the indicators."""
    graph = converter.graph
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        raise converter.refuse(step, f"its missing_values is {step.missing_values!r}, expected NaN")
    statistics = np.asarray(step.statistics_, np.float64)
    is_missing = graph.op("IsNaN", graph.double(x.name))
    filled = graph.op("Where", is_missing, np.nan_to_num(statistics)[None], graph.double(x.name))
    if not step.keep_empty_features and np.isnan(statistics).any():
        filled = graph.take(filled, np.flatnonzero(~np.isnan(statistics)))
    if not step.add_indicator or not len(step.indicator_.features_):
        return filled
    return graph.columns(filled, graph.take(graph.cast(is_missing, np.float64), step.indicator_.features_))


def _power(converter: Converter, step: Any, x: Rows) -> str:
    """Compute the powers of Yeo and Johnson (2000), separately for both signs, and standardise."""
    graph = converter.graph
    if step.method != "yeo-johnson":
        raise converter.refuse(step, f"its method is {step.method!r}, expected 'yeo-johnson'")
    powers = np.asarray(step.lambdas_, np.float64)[None]
    wide = graph.double(x.name)
    zero = np.array(0.0)
    sides = []
    for side, power in (
        (graph.op("Max", wide, zero), powers),
        (graph.op("Neg", graph.op("Min", wide, zero)), 2 - powers),
    ):
        base = graph.op("Add", side, np.array(1.0))
        is_log = np.abs(power) < np.spacing(1.0)
        safe = np.where(is_log, 1.0, power)
        raised = graph.op("Div", graph.op("Sub", graph.op("Pow", base, safe), np.array(1.0)), safe)
        sides.append(graph.op("Where", is_log, graph.op("Log", base), raised))
    value = graph.op("Sub", *sides)
    if step.standardize:
        value = graph.op("Div", graph.op("Sub", value, step._scaler.mean_[None]), step._scaler.scale_[None])
    return value


TABLES = Tables(transformers={SimpleImputer: _impute, PowerTransformer: _power})
