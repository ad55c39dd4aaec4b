"""Classify images by the names of their classes, with a network that was trained with a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from featx._events import Events, combine
from featx.backbones.catalogue import find_text_tower, open_backbone
from featx.errors import BackboneError, InputError
from featx.extractor import FeatureExtractor
from featx.fitting.head import ChosenHead
from featx.fitting.result import FitResult
from featx.heads import make_head
from featx.text import TextExtractor

__all__ = ["ClassNames", "check_zero_shot", "fit_names", "name_classes"]

_LAYER = "projection"
_TEMPLATE = "a photo of a {}"


@dataclass(frozen=True)
class ClassNames:
    """Hold names of classes, and the sentence around a name; None stands for the labels and ``"a photo of a {}"``."""

    classes: Sequence[str] | None = None
    template: str | list[str] | None = None

    def or_labels(self, labels: npt.NDArray[Any]) -> ClassNames:
        """Return the names, or else those of the labels."""
        return self if self.classes else replace(self, classes=sorted(map(str, set(labels.tolist()))))


def check_zero_shot(head: str | None, classes: Any, template: Any, has_images: bool) -> None:
    """Raise InputError if class names are given to another head, or if there are neither names nor images."""
    for name, value in (("classes", classes), ("template", template)):
        if value is not None and head != "zero_shot":
            raise InputError(f'{name}={value!r}: only head="zero_shot" takes it; set head, or leave it out')
    if isinstance(classes, str):
        raise InputError(f"classes={classes!r}: expected a sequence of names")
    if not has_images and (head != "zero_shot" or classes is None):
        raise InputError('X: expected images and their labels, or head="zero_shot" with the names of the classes')


def name_classes(
    extractor: FeatureExtractor | None, names: ClassNames, class_weight: Any = None
) -> tuple[FeatureExtractor, ChosenHead]:
    """Return the extractor of an image tower, and an unfitted head with the names of the classes.

    Parameters
    ----------
    extractor : FeatureExtractor or None
        Its backbone must have a text tower; its layer becomes ``projection``.
    names : ClassNames
        Names of the classes, not None.
    class_weight : None
        The head takes no weights; any other value raises InputError.
    """
    extractor = clone(extractor or FeatureExtractor())
    if isinstance(extractor.backbone, (list, tuple)):
        raise InputError(f'backbone={extractor.backbone!r}: head="zero_shot" takes one image tower')
    tower = find_text_tower(backbone := open_backbone(extractor.backbone, extractor.precision))
    if tower is None:
        raise BackboneError(
            f'backbone={backbone.name!r}: has no text tower, which head="zero_shot" needs; pull a repository that has '
            "both, such as featx backbones pull hf:OWNER/NAME of a CLIP (docs/backbones.md)"
        )
    shared = backbone.layer(_LAYER).name
    if extractor.layer not in (None, _LAYER, shared):
        raise InputError(f'layer={extractor.layer!r}: head="zero_shot" takes {_LAYER!r}, the layer that texts share')
    texts = TextExtractor(str(tower.path), layer=_LAYER, device=extractor.device)
    text_extractor = texts.fit(None)
    head = make_head(
        "zero_shot", classes=names.classes, template=names.template or _TEMPLATE, text_extractor=text_extractor
    )
    named = ChosenHead("zero_shot", "classification", False, is_named=True, tuned=head, class_weight=class_weight)
    named.make()  # raises if there are weights
    return extractor.set_params(layer=_LAYER), named


def fit_names(extractor: FeatureExtractor | None, names: ClassNames, events: Events | None) -> FitResult:
    """Return a model made from the names of the classes alone; `featx.fit` calls it if there are no images."""
    noted = "the model was made without images, so its accuracy is unknown; evaluate it on labelled images"
    combine(events).note(noted)
    extractor, chosen = name_classes(extractor, names)
    extractor.fit(None)
    head = chosen.make().fit(np.zeros((1, extractor.n_features)))
    return FitResult(
        pipeline=Pipeline([("features", extractor), ("head", head)]),
        task="classification",
        classes=tuple(head.classes_.tolist()),
        head=chosen.name,
        n_images=0,
        n_unlabelled=0,
        score=None,
        duplicates=(),
        to_label=(),
        failures=(),
        notes=(noted,),
        info={
            "task": "classification",
            "path_column": None,
            "target_column": None,
            "n": 0,
            "counts": dict.fromkeys(map(str, head.classes_.tolist()), 0),
            "head": chosen.name,
        },
        device=extractor.open_session().device,
    )
