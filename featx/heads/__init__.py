"""Heads: scikit-learn classifiers and regressors that suit features, and a table of their names."""

from featx.heads.calibration import TemperatureScaledClassifier
from featx.heads.folds import stratify_labels
from featx.heads.labelwise import LabelwiseClassifier
from featx.heads.linear import LinearSVCPath, LogisticRegressionPath, RidgeClassifierPath, RidgeRegressionPath
from featx.heads.multioutput import MultiLabelPath, RidgeMultiRegressionPath
from featx.heads.out_of_fold import OutOfFold, correct_for_choice
from featx.heads.preprocessing import SignedSquareRoot
from featx.heads.private import PrivateClassifier
from featx.heads.response import Response, find_output, respond
from featx.heads.stack import MultiLabelStack, MultiRegressionStack
from featx.heads.table import (
    DEFAULT_HEADS,
    HEADS,
    TASKS,
    Head,
    choose_default_head,
    find_path,
    learns_in_parts,
    make_head,
    sgd_candidates,
)
from featx.heads.zero_shot import ZeroShotClassifier

__all__ = [
    "DEFAULT_HEADS",
    "HEADS",
    "TASKS",
    "Head",
    "LabelwiseClassifier",
    "LinearSVCPath",
    "LogisticRegressionPath",
    "MultiLabelPath",
    "MultiLabelStack",
    "MultiRegressionStack",
    "OutOfFold",
    "PrivateClassifier",
    "Response",
    "RidgeClassifierPath",
    "RidgeMultiRegressionPath",
    "RidgeRegressionPath",
    "SignedSquareRoot",
    "TemperatureScaledClassifier",
    "ZeroShotClassifier",
    "choose_default_head",
    "correct_for_choice",
    "find_output",
    "find_path",
    "learns_in_parts",
    "make_head",
    "respond",
    "sgd_candidates",
    "stratify_labels",
]
