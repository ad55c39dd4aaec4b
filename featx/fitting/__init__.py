"""Fit, evaluate and apply pipelines: labelled images in, a fitted pipeline and its measured quality out."""

from __future__ import annotations

from featx.fitting.active_learning import ToLabel, label_next
from featx.fitting.comparison import PairedEvaluation, compare_pipelines
from featx.fitting.evaluation import Evaluation, evaluate
from featx.fitting.explain import explain
from featx.fitting.fit import fit
from featx.fitting.model import FittedModel, open_model
from featx.fitting.prediction import Predictions, predict
from featx.fitting.result import DuplicateGroup, FitResult
from featx.fitting.shift import ImageShift, Shift, shift
from featx.fitting.tune import tune
from featx.reporting.metrics import Score

__all__ = [
    "DuplicateGroup",
    "Evaluation",
    "FitResult",
    "FittedModel",
    "ImageShift",
    "PairedEvaluation",
    "Predictions",
    "Score",
    "Shift",
    "ToLabel",
    "compare_pipelines",
    "evaluate",
    "explain",
    "fit",
    "label_next",
    "open_model",
    "predict",
    "shift",
    "tune",
]
