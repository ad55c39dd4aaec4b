"""Tune the network on labelled images if that is better on left-out images than the frozen network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from featx._events import Events
from featx.extractor import FeatureExtractor
from featx.fitting.fit import fit
from featx.fitting.result import FitResult
from featx.text import TextExtractor

__all__ = ["tune"]


def tune(
    X: Any,
    y: Any = None,
    *,
    task: str | None = None,
    log_target: bool = False,
    class_weight: str | Mapping[Any, float] | None = None,
    groups: Any = None,
    cv: Any = None,
    extractor: FeatureExtractor | TextExtractor | None = None,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    depth: str = "auto",
    epochs: int | str = "auto",
    alpha: float | str = "auto",
    views: int | None = None,
    random_state: int = 0,
    backbone_out: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: float = 2e9,
    keep_on_interrupt: bool = False,
    guard: bool = True,
    events: Events | None = None,
) -> FitResult:
    """Tune the last layers of a backbone on labelled images or texts, if that is better on left-out images or texts.

    A head is fitted on the frozen network as `featx.fit` does it. On the same folds, the network is tuned after one of
    several layers. A tuned network is chosen if its loss on the left-out images is smaller by more than a standard
    error. It is then tuned on all images. Otherwise the result is that of `featx.fit`. Needs the extra ``tune``
    (PyTorch).

    Parameters
    ----------
    X, y, task, log_target, class_weight, groups, cv, path_column, text_column, target, include, exclude
        As for `featx.fit`. A dataset of embeddings holds no images, and cannot be tuned on.
    extractor : FeatureExtractor, TextExtractor or None, default=None
        The frozen network, a float32 backbone, and its features. None is the default extractor, and with
        ``text_column`` the last three blocks of the default text encoder.
    depth : str, default="auto"
        Layer after which the network is tuned. ``"auto"`` tries the last layers (`featx.tuning.list_depths`).
    epochs : int or "auto", default="auto"
        Passes over the images. ``"auto"`` is 6, and 12 if that is better; for texts 2 and 4.
    alpha : float or "auto", default="auto"
        The weights are ``(1 - alpha) * frozen + alpha * trained`` (WiSE-FT; Wortsman et al., 2022). ``"auto"``
        chooses among `featx.tuning.strategy.ALPHAS`.
    views : int or None, default=None
        Views of each image to tune on: the plain one, its mirror image, and crops. None is 6. Texts have none.
    random_state : int, default=0
        Seed of the training.
    backbone_out : str, path or None, default=None
        Write the tuned backbone to this file as well. None keeps it in the pipeline's file alone.
    folder : str, path or None, default=None
        Folder that keeps the values of the frozen layers. If a killed run is repeated, it goes on from them. None is
        a temporary folder.
    max_bytes : float, default=2e9
        Largest number of bytes of these values, all layers together. Fewer views are used if one layer would take
        more.
    keep_on_interrupt : bool, default=False
        Ctrl-C ends the trials, or the last training, and the best network so far is used.
    guard : bool, default=True
        Fit a `featx.Guard` on the left-out answers, and on features by the networks that were tuned without the image.
    events : Events or None, default=None
        Receives progress, and a note per epoch.

    Returns
    -------
    FitResult
        Its ``tuning`` is the choice, a `featx.tuning.race.Strategy`. The pipeline is plain: an extractor of the
        new backbone and a linear head, which need no torch. `FitResult.save` stores the new backbone in the file.

    Raises
    ------
    InputError
        If the source, the labels or the parameters do not allow a fit, or there are too few images to compare on.
    BackboneError
        If the backbone cannot be tuned.
    MissingDependencyError
        If torch is not installed (extra ``tune``).

    See Also
    --------
    featx.FineTuned : The same as a scikit-learn estimator.
    featx.fit : A head on the frozen network.

    Examples
    --------
    >>> import featx
    >>> result = featx.tune("photos/train")  # doctest: +SKIP
    >>> result.tuning.chosen.alpha, result.score.value  # doctest: +SKIP
    (0.5, 0.789)
    """
    return fit(
        *(X, y),
        task=task,
        log_target=log_target,
        class_weight=class_weight,
        groups=groups,
        cv=cv,
        extractor=extractor,
        path_column=path_column,
        text_column=text_column,
        target=target,
        include=include,
        exclude=exclude,
        guard=guard,
        tune={
            **{"depth": depth, "epochs": epochs, "alpha": alpha, "views": views, "random_state": random_state},
            **{"backbone_out": backbone_out, "folder": folder, "max_bytes": max_bytes},
            "keep_on_interrupt": keep_on_interrupt,
        },
        events=events,
    )
