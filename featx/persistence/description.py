"""Types of the description that a file of a fitted pipeline holds, as JSON."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

__all__ = ["BackboneFacts", "Description", "PipelineFacts", "RecordedPredictions"]


class BackboneFacts(TypedDict):
    """The backbone that a pipeline was fitted with; ``identity`` is the digest of its computation."""

    name: str
    identity: str
    license: str | None
    source: str | None


class PipelineFacts(TypedDict):
    """A fitted pipeline.

    ``estimator`` is its outline; in earlier files, its repr. ``task`` is "classification", "regression" or None.
    ``classes`` are the labels as text, or None. ``features`` holds the parameters of each extractor that change its
    features. ``contents`` says what the pipeline holds of its training images; earlier files have no ``contents``.
    """

    estimator: str
    task: str | None
    classes: list[str] | None
    features: list[dict[str, Any]]
    contents: NotRequired[str]


class RecordedPredictions(TypedDict):
    """The output of a method of the pipeline for four sample images, flattened."""

    method: str
    values: list[float]


class Description(TypedDict):
    """The description of a saved or exported pipeline.

    ``versions`` maps packages to the versions that made the file. ``info`` is the mapping that
    was passed to `featx.save`. Files written before November 2026 have no ``created`` (UTC),
    ``pipeline`` and ``answers``. Exported files have no ``format`` and ``answers``.
    """

    versions: dict[str, str]
    backbones: list[BackboneFacts]
    info: dict[str, Any]
    format: NotRequired[int]
    created: NotRequired[str]
    pipeline: NotRequired[PipelineFacts]
    answers: NotRequired[RecordedPredictions]
