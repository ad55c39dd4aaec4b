"""Compare new images with the images that a pipeline was fitted on, or with a folder of other images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_html, format_metric, make_frame
from featx._text import printable
from featx.errors import Failure, ImageError, InputError, TextError
from featx.extractor import FeatureExtractor
from featx.fitting.continuation import was_fitted_on
from featx.fitting.embeddings import Embeddings
from featx.fitting.inputs import read_inputs
from featx.fitting.labelled import Inputs
from featx.fitting.model import FittedModel, open_model
from featx.fitting.result import FitResult
from featx.guard import MIN_SET_IMAGES, OUTLIER_LEVEL, SHIFT_LEVEL, Guard
from featx.guard.shift import separate
from featx.reporting.contact_sheet import Tile, draw_sheet

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageShift", "Shift", "shift"]

#: Largest number of images of each set for the fit of a classifier.
_MAX_IMAGES = 2000
#: Number of most changed images that are printed, and that are drawn.
_MAX_NAMED, _MAX_DRAWN = 5, 24


@dataclass(frozen=True)
class ImageShift:
    """A new image, and how much it differs from the images of the reference.

    Parameters
    ----------
    name : str
        Name of the image, as it can be opened.
    p_value : float or None
        P-value of the image under the guard of a model; None without a model.
    score : float
        Order of the images, the most changed first: 1 - ``p_value``, or the score of a classifier that tells the two
        sets apart.
    """

    name: str
    p_value: float | None
    score: float


@dataclass(frozen=True, repr=False, eq=False)
class Shift:
    """The comparison of new images with those of a reference.

    Parameters
    ----------
    reference : str
        The model or the images that the new images are compared with.
    n_images : int
        Number of new images that could be read.
    p_value : float
        P-value of the hypothesis that the images are of the same kind as the reference.
    alpha : float
        Level below which the p-value is a shift.
    auc : float or None
        For two sets of images, the share of pairs in which a classifier gives the new image the higher score; 0.5 by
        chance. None for a model.
    accuracy, expected_accuracy : float or None
        Accuracy on left-out images of the fit, and the accuracy that is expected on the new images. None for a
        regression, and without a model.
    shares : mapping of str to (float, float), or None
        Share of each class at the fit, and among the new images. None as for ``accuracy``.
    images_changed : bool
        True if the images themselves differ, not only the answers.
    shares_moved : bool
        True if the shares differ by more than chance; False below 20 images. It assumes that the images of each
        class look as they did at the fit.
    images : tuple of ImageShift
        New images, the most changed first.
    advice : tuple of str
        Steps that would help; they are not taken.
    failures : tuple of Failure
        Images that could not be read.
    items : sequence
        The most changed images, to draw.
    kinds : mapping of str to float, or None
        For a model of several kinds of columns, the p-value of each kind. The test of the whole corrects the smallest
        of these p-values for their number.
    noun : str
        Word for an input: ``"image"``, ``"text"`` or ``"row"``.

    See Also
    --------
    featx.shift : Makes it; its example shows one.
    """

    reference: str
    n_images: int
    p_value: float
    alpha: float
    auc: float | None
    accuracy: float | None
    expected_accuracy: float | None
    shares: Mapping[str, tuple[float, float]] | None
    images_changed: bool
    shares_moved: bool
    images: tuple[ImageShift, ...]
    advice: tuple[str, ...]
    failures: tuple[Failure, ...] = ()
    items: Sequence[Any] = ()
    kinds: Mapping[str, float] | None = None
    noun: str = "image"

    @property
    def is_shifted(self) -> bool:
        """True if the p-value is below ``alpha``, or the shares of the classes have moved."""
        return self.p_value < self.alpha or self.shares_moved

    @property
    def accuracy_drop(self) -> float | None:
        """Expected loss of accuracy on the new images; None without an expectation."""
        if self.accuracy is None or self.expected_accuracy is None:
            return None
        return self.accuracy - self.expected_accuracy

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the most changed images as a contact sheet, a PNG (extra ``plot``).

        Raises
        ------
        InputError
            If the images are embeddings of a dataset.
        """
        if not len(self.items):
            what = "embeddings" if self.noun == "image" else f"{self.noun}s"
            raise InputError(f"{path}: {what} cannot be drawn; compare images instead")
        shown = zip(self.items, self.images, strict=False)
        draw_sheet(Path(path), [[Tile(item, [one.name, _describe(one)]) for item, one in shown]])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the figures, the shares of the classes, the advice and the images."""
        names = ("reference", "n_images", "p_value", "alpha", "is_shifted", "auc", "accuracy", "expected_accuracy")
        shares = None if self.shares is None else {label: list(pair) for label, pair in self.shares.items()}
        return {
            **{name: getattr(self, name) for name in (*names, "accuracy_drop")},
            "shares": shares,
            **({} if self.kinds is None else {"kinds": dict(self.kinds)}),
            "images_changed": self.images_changed,
            "shares_moved": self.shares_moved,
            "advice": list(self.advice),
            "images": [{"path": one.name, "p_value": one.p_value, "score": one.score} for one in self.images],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame of the images: ``path``, ``p_value`` and ``score``, the most changed first."""
        return make_frame(self.to_dict()["images"])

    def __repr__(self) -> str:
        return (
            f"Shift({self.n_images} {self.noun}s, p {self.p_value:.2g}, {'shifted' if self.is_shifted else 'no shift'})"
        )

    def __str__(self) -> str:
        lines = [*self._describe(), *self.advice]
        if self.is_shifted and self.images:
            lines.append(f"most changed {self.noun}s:")
            lines += [f"  {_describe(one):12}  {printable(one.name)}" for one in self.images[:_MAX_NAMED]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [{self.noun: one.name, "p-value": one.p_value, "score": one.score} for one in self.images[:_MAX_NAMED]]
        return format_html(repr(self), rows, [*self._describe(), *self.advice])

    def _describe(self) -> list[str]:
        told = f"these {self.noun}s are of another kind" if self.images_changed else "the answers have shifted"
        told = told if self.p_value < self.alpha else "no shift was found"
        noun = self.noun if self.n_images == 1 else f"{self.noun}s"
        lines = [f"{self.n_images} {noun} against {printable(self.reference)}: {told} (p {self.p_value:.2g})"]
        if self.kinds is not None and self.images_changed:
            each = ", ".join(f"{name} p {p:.2g}" for name, p in self.kinds.items())
            lines.append(f"kinds of columns, each by itself: {each}")
        if self.auc is not None:
            lines.append(f"a classifier tells a new image from an old one in {self.auc:.0%} of pairs (50 % by chance)")
        if self.accuracy is not None and self.expected_accuracy is not None:
            expected = f"expected accuracy {self.expected_accuracy:.3f}, at the fit {self.accuracy:.3f}"
            lines.append(f"{expected} (an estimate without labels)")
        if outliers := sum(one.p_value is not None and one.p_value < OUTLIER_LEVEL for one in self.images):
            lines.append(f"{outliers} of {self.n_images} {self.noun}s are outliers (p below {OUTLIER_LEVEL:g})")
            if self.expected_accuracy is not None and outliers > self.n_images / 2:
                lines.append("all this holds only if they show classes of the fit: look at them first")
        if self.shares is not None and self.shares_moved:
            moved = sorted(self.shares.items(), key=lambda pair: -abs(pair[1][1] - pair[1][0]))[:_MAX_NAMED]
            told = ", ".join(f"{printable(label)} {new:.0%} (fit {old:.0%})" for label, (old, new) in moved)
            condition = ", if each class looks as at the fit" if self.images_changed else ""
            lines.append(f"shares of the classes have moved{condition}: {told}")
        return lines


def _describe(image: ImageShift) -> str:
    return f"score {image.score:.2f}" if image.p_value is None else f"p {format_metric(image.p_value)}"


def shift(
    reference: Any,
    X: Any,
    *,
    alpha: float = SHIFT_LEVEL,
    guard: Guard | None = None,
    extractor: FeatureExtractor | None = None,
    path_column: str | None = None,
    text_column: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> Shift:
    """Compare new images, without labels, with the images that a model was fitted on, or with other images.

    With a model, the distances of its guard and the probabilities are compared with those of left-out images of the
    fit, by tests of Kolmogorov and Smirnov (Rabanser et al. 2019). A difference below 0.1
    does not count as a shift. The accuracy on the new images is predicted from the agreement of the head with the
    nearest class mean (Baek et al. 2022), and the shares of the classes by EM (Saerens et al. 2002).

    With images, a classifier learns to separate old from new images, and its success is tested (Lopez-Paz and Oquab
    2017). No labels are used.

    Parameters
    ----------
    reference : FitResult, estimator, str, path, source or Dataset
        A model with a guard, or the path of its file (``.featx``); or a source of images or a dataset of embeddings.
    X : source, sequence, ndarray or Dataset
        New images, as for `featx.predict`.
    alpha : float, default=0.05
        Level of the test: the rate of false alarms.
    guard : Guard or None, default=None
        Guard for an estimator that comes without a guard.
    extractor : FeatureExtractor or None, default=None
        Features for two sets of images. None is the default extractor, or the extractor of a dataset.
    path_column, text_column, include, exclude, events
        As for `featx.predict`, for the new images, texts or rows.

    Returns
    -------
    Shift

    Raises
    ------
    InputError
        If the model has no guard or was fitted on a source of ``X``, if a source cannot be used, or if ``alpha`` is
        not between 0 and 1.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> featx.samples.extract_fashion_mnist("clothes")
    >>> found = featx.shift("clothes/test/coat", "clothes/test/bag")
    >>> found
    Shift(30 images, p ..., shifted)
    >>> found.auc > 0.8
    True
    >>> featx.shift("clothes/train/bag", "clothes/test/bag")
    Shift(30 images, p ..., no shift)
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1:
        raise InputError(f"alpha={alpha!r}: expected a number between 0 and 1, such as 0.05")
    events = events or Events()
    options: dict[str, Any] = {"path_column": path_column, "include": include, "exclude": exclude}
    if _is_model(reference):
        if extractor is not None:
            raise InputError("extractor: belongs to two sets of images; a model has its own")
        opened = open_model(reference)
        opened = opened if guard is None else opened.use_guard(guard)
        found = opened.guard
        if found is None:
            raise InputError(
                f"{opened.name}: has no guard to compare with; fit it again (at least 50 {opened.kind}s; "
                "near-duplicates count once)"
                + (", or compare with the images of the fit: featx shift FOLDER NEW" if opened.kind == "image" else "")
            )
        found.check_pipeline(opened.name, opened.n_guarded, opened.head)
        inputs = opened.read_inputs(X, text_column=text_column, **options)
        if was_fitted_on(opened.info, X, include, exclude):
            raise InputError(
                f"{inputs.where}: {opened.name} was fitted on it, and only {opened.kind}s that it has not seen can be "
                f"compared with the fit; name the new {opened.kind}s alone"
            )
        embeddings = _embed(inputs, opened.extractor, events)
        return _compare_with_fit(opened, found, inputs, embeddings, alpha)
    if text_column is not None:
        raise InputError(f"text_column={text_column!r}: texts are compared with a model, not with other texts")
    if guard is not None:
        raise InputError("guard: belongs to a model, and the reference is a set of images")
    old, new = read_inputs(reference), read_inputs(X, **options)
    if extractor is None:
        datasets = [one.dataset for one in (old, new) if one.dataset is not None]
        extractor = datasets[0].extractor() if datasets else FeatureExtractor()
    return _compare_sets(old, new, extractor.fit(None), alpha, events)


def _is_model(reference: Any) -> bool:
    if isinstance(reference, (str, os.PathLike)):
        return os.fspath(reference).lower().endswith(".featx")
    return isinstance(reference, (FittedModel, FitResult)) or hasattr(reference, "predict")


def _embed(inputs: Inputs, extractor: FeatureExtractor, events: Events) -> Embeddings:
    for text in inputs.notes:
        events.note(text)
    embeddings = inputs.embed(np.arange(len(inputs)), extractor, events)
    if not len(embeddings.positions):
        raise (ImageError if extractor.kind == "image" else TextError)(embeddings.failures[0])
    if len(embeddings.positions) < MIN_SET_IMAGES:
        n = len(embeddings.positions)
        told = f"1 {extractor.kind} is" if n == 1 else f"{n} {extractor.kind}s are"
        events.note(f"{inputs.where}: {told} few; below {MIN_SET_IMAGES}, only large shifts show")
    return embeddings


def _compare_with_fit(model: FittedModel, guard: Guard, inputs: Inputs, embeddings: Embeddings, alpha: float) -> Shift:
    features = model.take_guarded(embeddings.take())
    predicted, probabilities = model.predict(embeddings)
    answers = probabilities if model.classes is not None else predicted
    checked = guard.check_set(features, answers)
    shares = None
    if checked.shares is not None and guard.classes is not None and guard.priors is not None:
        before = guard.priors.shares.tolist()
        shares = {label: (old, new) for label, old, new in zip(guard.classes, before, checked.shares, strict=True)}
    moved = checked.p_shares is not None and checked.p_shares < alpha / 2 and len(features) >= MIN_SET_IMAGES
    changed = checked.p_images < alpha / (1 + len(checked.p_answers))
    distances = guard.outliers.measure(guard.outliers.locate(features)).mean(axis=1)
    order = np.lexsort([-distances, checked.outlier])
    return Shift(
        reference=os.path.basename(model.name),
        n_images=len(features),
        p_value=checked.p_value,
        alpha=alpha,
        auc=None,
        accuracy=None if guard.baseline is None or checked.accuracy is None else guard.baseline.accuracy,
        expected_accuracy=checked.accuracy,
        shares=shares,
        images_changed=changed,
        shares_moved=moved,
        advice=_advise(checked.p_value < alpha, changed, moved, model.extractor.kind),
        kinds=checked.p_kinds,
        noun=model.extractor.kind,
        **_rank(inputs, embeddings, order, 1 - checked.outlier, checked.outlier, model.extractor.kind == "image"),
    )


def _compare_sets(old: Inputs, new: Inputs, extractor: FeatureExtractor, alpha: float, events: Events) -> Shift:
    parts, noun = [_embed(inputs, extractor, events) for inputs in (old, new)], extractor.kind
    if failures := parts[0].failures:
        told = f"1 {noun}" if len(failures) == 1 else f"{len(failures)} {noun}s"
        first = f"{failures[0].source}: {failures[0].reason}"
        events.note(f"{old.where}: {told} could not be read and left out; the first: {first}")
    for inputs, part in zip((old, new), parts, strict=True):
        if len(part.positions) < 2:
            raise InputError(f"{inputs.where}: one {noun}; a comparison of two sets needs at least two of each")
    rng = np.random.default_rng(0)
    sampled = []
    for inputs, part in zip((old, new), parts, strict=True):
        if (n := len(part.positions)) > _MAX_IMAGES:
            events.note(f"{inputs.where}: a sample of {_MAX_IMAGES} of {n} {noun}s is compared")
            part = part.only(np.sort(rng.choice(part.positions, _MAX_IMAGES, replace=False)))
        sampled.append(part)
    found = separate(sampled[0].take(), sampled[1].take())
    is_shifted = found.p_value < alpha
    advice = (f"Look at the most changed {noun}s; label some of them and fit again with both sets.",)
    return Shift(
        reference=old.where,
        n_images=len(sampled[1].positions),
        p_value=found.p_value,
        alpha=alpha,
        auc=found.auc,
        accuracy=None,
        expected_accuracy=None,
        shares=None,
        images_changed=is_shifted,
        shares_moved=False,
        advice=advice if is_shifted else (),
        noun=noun,
        **_rank(new, sampled[1], np.argsort(-found.scores, kind="stable"), found.scores, None, noun == "image"),
    )


def _rank(
    inputs: Inputs,
    embeddings: Embeddings,
    order: npt.NDArray[np.intp],
    scores: npt.NDArray[np.float64],
    p_values: npt.NDArray[np.float64] | None,
    has_images: bool = True,
) -> dict[str, Any]:
    """Return the images in an order, the first of them to draw, and the images that could not be read."""
    positions = embeddings.positions[order]
    names = inputs.names(positions)
    images = [
        ImageShift(name, None if p_values is None else float(p_values[i]), float(scores[i]))
        for name, i in zip(names, order.tolist(), strict=True)
    ]
    items = [] if inputs.items is None or not has_images else [inputs.items[i] for i in positions[:_MAX_DRAWN]]
    return {"images": tuple(images), "failures": tuple(embeddings.failures), "items": items}


def _advise(is_shifted: bool, images_changed: bool, shares_moved: bool, noun: str = "image") -> tuple[str, ...]:
    """Return the steps that would help."""
    if not is_shifted and not shares_moved:
        return ()
    if shares_moved and not images_changed:
        return (f"The {noun}s look as at the fit, in other shares: featx predict --adapt-prior would help.",)
    if noun != "image":
        return (f"Label some of the most changed {noun}s, and fit again with them.",)
    label = "Label some of the most changed images and fit again with them (featx fit --continue)."
    if images_changed and not shares_moved:
        return ("The images changed, the shares of the classes did not: featx predict --restandardize may help.", label)
    if images_changed:
        return (f"Images and shares changed: {label[0].lower()}{label[1:]}",)
    return (label,)
