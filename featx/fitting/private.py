"""Fit a head with differential privacy: one release, and nothing else about the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from featx._events import Events
from featx.backbones import open_backbone
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting.features import make_extractor
from featx.fitting.labelled import Inputs
from featx.fitting.refusals import refuse
from featx.fitting.result import FitResult
from featx.heads import PrivateClassifier
from featx.heads.private import check_budget, find_directions, random_directions
from featx.inference.spec import list_backbones
from featx.selection.target import check_target

__all__ = ["check_private", "fit_private"]

_DELTA = 1e-5


def check_private(given: Mapping[str, Any]) -> None:
    """Raise InputError if a parameter of `featx.fit` asks for more than the one release."""
    private, delta, head = given["private"], given["delta"], given["head"]
    if private is None:
        if delta is not None:
            raise InputError(f"delta={delta!r}: belongs to a private fit; set private=EPSILON")
        if head == "private":
            raise InputError(
                'head="private": its estimate, the counts of classes and other facts on the images would be released '
                "as well; set private=EPSILON instead, which releases nothing else"
            )
        return
    try:
        check_budget(private, _DELTA if delta is None else delta)
    except InputError as error:
        raise InputError(str(error).replace("epsilon=", "private=", 1)) from None
    if head not in (None, "private"):
        raise InputError(f"head={head!r}: a private fit has a head of its own; leave it out")
    if given["task"] == "regression":
        raise InputError('task="regression": a private fit releases sums of classes, and cannot predict numbers')
    refuse("private", given, private=private)


def fit_private(
    inputs: Inputs,
    task: str | None,
    *,
    epsilon: float,
    delta: float | None,
    groups: Any,
    extractor: FeatureExtractor | None,
    events: Events,
) -> FitResult:
    """Fit a `PrivateClassifier` on the labelled images, without cache, counts, scores and near-duplicates."""
    delta = _DELTA if delta is None else delta
    task, values = inputs.read_labels(task)
    if task != "classification":
        raise InputError(
            f"private={epsilon:g}: the labels are numbers, and only classes have sums to release; for classes with "
            'numbers as names, set task="classification"'
        )
    check_target(values, task, log_target=False, images="readable")
    labelled = np.flatnonzero(~inputs.missing)
    check_budget(epsilon, delta, len(labelled))  # before the long work
    extractor = make_extractor(extractor, inputs, cache=False)
    embeddings = inputs.embed(labelled, extractor, events)
    y = values[np.searchsorted(labelled, embeddings.positions)]
    features = embeddings.take()
    check_target(y, task, log_target=False, images="readable")
    if groups is not None:
        events.note("groups: the unit of the promise is one image, not a group of images")
    head = PrivateClassifier(epsilon, delta=delta, directions=_find_directions(extractor, features.shape[1]))
    head.fit(features, y)
    events.note(
        "private: nothing is estimated, counted, cached or searched for near-duplicates, because each would be a "
        "further release; the number of images and the names of the classes count as public. Each further fit on "
        "these images spends the budget again"
    )
    return FitResult(
        pipeline=Pipeline([("features", extractor), ("head", head)]),
        task=task,
        classes=tuple(head.classes_.tolist()),
        head="private",
        n_images=len(y),
        n_unlabelled=int(inputs.missing.sum()),
        score=None,
        duplicates=(),
        to_label=(),
        failures=tuple(embeddings.failures),
        notes=(),
        info={
            "task": task,
            "path_column": inputs.path_column,
            "target_column": inputs.target_column,
            "n": len(y),
            "head": "private",
            "private": {
                "epsilon": float(epsilon),
                "delta": float(delta),
                "mechanism": "one release of class sums with Gaussian noise, calibrated by Balle and Wang (2018)",
                "noise": round(head.noise_, 6),
                "unit": "one image, present or blank",
            },
        },
        device=extractor.open_session().device if inputs.dataset is None else None,
    )


def _find_directions(extractor: FeatureExtractor, n_features: int) -> Any:
    """Return public directions of the features; None if the head finds them itself."""
    names = list_backbones(extractor.backbone)
    backbones = [open_backbone(name, extractor.precision) for name in names]
    if len(backbones) == 1:
        (backbone,) = backbones
        if backbone.name == "efficientnet_lite0" and n_features == backbone.layer("head").channels:
            return None
        if (found := find_directions(backbone, n_features)) is not None:
            return found
    return random_directions(n_features, int(backbones[0].identity[:12], 16))
