"""What featx has no converter for goes through skl2onnx, one estimator at a time; parity then decides."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from onnx import compose, helper

from featx._optional import import_optional
from featx.deploy.converter import Answer, Converter, Estimator, Rows, Tables
from featx.deploy.graph import ML_OPSET

__all__ = ["make_tables"]

#: Wrong or out of reach in skl2onnx 1.20, as tried; better said before than found after.
_REFUSED = {
    "GaussianProcessClassifier": "skl2onnx needs operators for it that are not ONNX's own",
    "KernelRidge": "skl2onnx does not know it; SVR with the same kernel can",
    "MultiOutputClassifier": "it answers several questions at once; export one classifier for each",
    "ClassifierChain": "it answers several questions at once; export one classifier for each",
    "RegressorChain": "skl2onnx does not know it; MultiOutputRegressor can",
}


def make_tables(opset: int) -> Tables:
    """Make tables for graphs of one version of the operators."""

    def transform(converter: Converter, step: Estimator, x: Rows) -> str:
        return _convert(converter, step, x, opset, {})[0]

    def classify(converter: Converter, head: Estimator, x: Rows) -> Answer:
        if not hasattr(head, "predict_proba"):
            raise converter.refuse(head, "skl2onnx gives no probabilities of it")
        _, probabilities = _convert(converter, head, x, opset, {"zipmap": False})
        double = converter.graph.double(probabilities)
        return Answer(converter.graph.argmax(double), double)

    def regress(converter: Converter, head: Estimator, x: Rows) -> str:
        value = converter.graph.double(_convert(converter, head, x, opset, {})[0])
        return converter.graph.flat(value) if np.ndim(head.predict(x.sample)) == 1 else value

    return Tables({object: transform}, {object: classify}, {object: regress})


def _convert(converter: Converter, estimator: Estimator, x: Rows, opset: int, options: dict[str, Any]) -> list[str]:
    """Convert one estimator and put its nodes behind ``x``."""
    name = type(estimator).__name__
    if name in _REFUSED:
        raise converter.refuse(estimator, _REFUSED[name])
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
    except Exception as error:  # of many types of its own, and of Python's where it meets a version it does not know
        why = " ".join(str(error).split())[:200]
        raise converter.refuse(estimator, f"skl2onnx {skl2onnx.__version__} fails on it ({why})") from error
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx.ml") or entry.version > max(opset, ML_OPSET):
            raise converter.refuse(estimator, f"skl2onnx needs the operators {entry.domain!r} {entry.version} for it")
    model = compose.add_prefix(model, converter.graph.name(name.lower()) + "_")
    source = model.graph.input[0].name
    converter.graph.nodes.append(
        helper.make_node("Identity", [converter.graph.cast(x.name, np.float32)], [source], source)
    )
    converter.graph.nodes.extend(model.graph.node)
    converter.graph.constants.extend(model.graph.initializer)
    return [value.name for value in model.graph.output]
