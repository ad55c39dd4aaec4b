"""Convert estimators without a converter here by skl2onnx, one at a time; the export verifies the result."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from onnx import compose, helper

from featx._optional import import_optional
from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.graph import ML_OPSET

__all__ = ["make_tables"]

#: Estimators that skl2onnx 1.20 converts wrongly or not at all, and the reason.
_UNSUPPORTED = {
    "GaussianProcessClassifier": "skl2onnx uses operators outside of the ONNX standard for it",
    "KernelRidge": "skl2onnx has no converter for it; use SVR with the same kernel",
    "MultiOutputClassifier": "it has several outputs; export one classifier per output",
    "ClassifierChain": "it has several outputs; export one classifier per output",
    "RegressorChain": "skl2onnx has no converter for it; use MultiOutputRegressor",
}


def make_tables(opset: int) -> Tables:
    """Return tables that convert any estimator to the given version of the ONNX operators."""

    def transform(converter: Converter, step: Estimator, x: Rows) -> str:
        return _convert(converter, step, x, opset, {})[0]

    def classify(converter: Converter, head: Estimator, x: Rows) -> Answer:
        if not hasattr(head, "predict_proba"):
            raise converter.refuse(head, "it has no predict_proba, which featx reads from skl2onnx's graph")
        _, probabilities = _convert(converter, head, x, opset, {"zipmap": False})
        double = converter.graph.double(probabilities)
        return Answer(converter.graph.argmax(double), double)

    def regress(converter: Converter, head: Estimator, x: Rows) -> str:
        value = converter.graph.double(_convert(converter, head, x, opset, {})[0])
        return converter.graph.flat(value) if np.ndim(head.predict(x.sample)) == 1 else value

    return Tables({object: transform}, {object: classify}, {object: regress})


def _convert(converter: Converter, estimator: Estimator, x: Rows, opset: int, options: dict[str, Any]) -> list[str]:
    """Convert an estimator, append its nodes after ``x`` and return the names of its outputs."""
    name = type(estimator).__name__
    if name in _UNSUPPORTED:
        raise converter.refuse(estimator, _UNSUPPORTED[name])
    skl2onnx = import_optional("skl2onnx", "deploy")
    kind = skl2onnx.common.data_types.FloatTensorType([None, x.sample.shape[1]])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = skl2onnx.convert_sklearn(
                estimator,
                initial_types=[("rows", kind)],
                target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
                options={id(estimator): options} if options else None,
            )
    except Exception as error:  # skl2onnx raises errors of its own, and others with a newer scikit-learn
        reason = " ".join(str(error).split())[:200]
        raise converter.refuse(estimator, f"skl2onnx {skl2onnx.__version__} fails on it ({reason})") from error
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx.ml") or entry.version > max(opset, ML_OPSET):
            raise converter.refuse(
                estimator, f"skl2onnx needs operators of {entry.domain!r} version {entry.version} for it"
            )
    model = compose.add_prefix(model, converter.graph.name(name.lower()) + "_")
    source = model.graph.input[0].name
    converter.graph.nodes.append(
        helper.make_node("Identity", [converter.graph.cast(x.name, np.float32)], [source], source)
    )
    converter.graph.nodes.extend(model.graph.node)
    converter.graph.constants.extend(model.graph.initializer)
    return [value.name for value in model.graph.output]
