"""Compare tuned networks with the frozen network on left-out images, and choose one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from featx._results import format_metric
from featx.heads import OutOfFold
from featx.heads.calibration import fit_sharpness
from featx.inference.transformer import BackboneTransformer

__all__ = ["SMALLEST", "Candidate", "Problem", "Race", "Strategy", "Trial"]

Floats = npt.NDArray[np.float32]
Folds = Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

#: Smallest probability of a class before the logarithm.
SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class Problem:
    """Images or texts, their targets, the folds of the comparison, and the frozen pipeline's predictions on them.

    ``groups`` numbers images that belong together, such as near-duplicates. Their losses are not independent.
    """

    items: Sequence[Any]
    y: npt.NDArray[Any]
    task: str
    extractor: BackboneTransformer
    folds: Folds
    frozen: OutOfFold
    groups: npt.NDArray[Any] | None = None

    @property
    def is_text(self) -> bool:
        """True for texts."""
        return getattr(self.extractor, "kind", "image") == "text"

    @property
    def classes(self) -> npt.NDArray[Any] | None:
        """The classes, sorted; None for a regression."""
        return np.unique(self.y) if self.task == "classification" else None


@dataclass(frozen=True)
class Trial:
    """A tuned network, measured on left-out images and compared with the frozen network on the same images.

    Parameters
    ----------
    depth : str
        Layer after which the network was tuned.
    epochs : int
        Passes over the images.
    alpha : float
        The weights are ``(1 - alpha) * frozen + alpha * trained``.
    n_folds : int
        Number of folds that it was measured on.
    loss : float
        Mean log loss of calibrated probabilities, or mean squared error.
    score : float
        Accuracy, or R2.
    difference, error : float
        Mean loss of the frozen network minus that of this network, and its standard error.
    """

    depth: str
    epochs: int
    alpha: float
    n_folds: int
    loss: float
    score: float
    difference: float
    error: float


@dataclass(frozen=True, eq=False)
class Strategy:
    """The choice between the frozen network and tuned ones.

    Parameters
    ----------
    chosen : Trial or None
        None keeps the frozen network.
    trials : tuple of Trial
        All trials.
    frozen_loss, frozen_score : float
        Loss and score of the frozen network on the same images.
    score_difference, score_error : float
        Score of the chosen trial minus that of the frozen network, and its standard error. If the network stays
        frozen, the best trial is compared.
    out_of_fold : OutOfFold
        Predictions of the choice and of all candidates for left-out images.
    sharpness : float
        Factor of the scores that calibrates the probabilities of the chosen trial.
    seconds : float
        Time that the trials took.
    """

    chosen: Trial | None
    trials: tuple[Trial, ...]
    frozen_loss: float
    frozen_score: float
    score_difference: float
    score_error: float
    out_of_fold: OutOfFold = field(repr=False)
    sharpness: float = 1.0
    seconds: float = 0.0

    @property
    def best(self) -> Trial | None:
        """The chosen trial, or else the trial with the smallest loss on most folds; None without trials."""
        # losses on fewer folds are of other images than the loss of the frozen network
        n_folds = max((trial.n_folds for trial in self.trials), default=0)
        measured = [trial for trial in self.trials if trial.n_folds == n_folds]
        return self.chosen or min(measured, key=lambda trial: trial.loss, default=None)

    def __str__(self) -> str:
        best = self.best
        if best is None:
            return "no trial was finished: the frozen network is kept"
        name = "R2" if self.out_of_fold.classes is None else "accuracy"
        tuned = self.frozen_score + self.score_difference
        outcome = "tuned" if self.chosen else "frozen: tuning does not pay; tried"
        return (
            f"{outcome} after {best.depth}, {best.epochs} epochs, alpha {best.alpha:g} "
            f"({len(self.trials)} networks compared in {self.seconds:.0f} s)\n"
            f"{name} frozen {format_metric(self.frozen_score)}, tuned {format_metric(tuned)} "
            f"({self.score_difference:+.3f} +- {self.score_error:.3f}); "
            f"loss frozen {self.frozen_loss:.3f}, tuned {best.loss:.3f} ({-best.difference:+.3f} +- {best.error:.3f})"
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with its predictions and losses for left-out images; an empty depth is the frozen network."""

    depth: str
    epochs: int
    alpha: float
    sharpness: float
    predicted: npt.NDArray[Any]
    probabilities: Floats | None
    losses: npt.NDArray[np.float64]


class Race:
    """Hold candidates in the order of their complexity, the simplest first, and choose one of them."""

    def __init__(self, problem: Problem, n_folds: int) -> None:
        self.folds, self.classes = problem.folds[:n_folds], problem.classes
        self.rows = np.concatenate([out for _, out in self.folds])
        self.true = problem.y[self.rows]
        groups = self.rows if problem.groups is None else problem.groups[self.rows]
        self.units = np.unique(groups, return_inverse=True)[1]
        frozen = problem.frozen
        predicted, probabilities = frozen.predicted[: len(self.rows)], frozen.probabilities
        if self.classes is None:
            losses = (predicted - self.true) ** 2.0
        else:
            assert probabilities is not None
            codes, probabilities = np.searchsorted(self.classes, self.true), probabilities[: len(self.rows)]
            losses = -np.log(np.maximum(probabilities[np.arange(len(codes)), codes], SMALLEST).astype(float))
        self.candidates = [Candidate("", 0, 0.0, 1.0, predicted, probabilities, losses)]

    @property
    def best(self) -> Candidate:
        """The candidate with the smallest loss."""
        return min(self.candidates, key=lambda candidate: float(candidate.losses.mean()))

    def add(self, trial: tuple[str, int], alphas: Sequence[float], scores: Floats) -> bool:
        """Add the networks of a trial; return True if one of them beats all earlier networks by a standard error."""
        previous = self.best
        self.candidates += [
            self._judge(*trial, alpha, alpha_scores) for alpha, alpha_scores in zip(alphas, scores, strict=True)
        ]
        difference, error = self._compare(previous.losses, self.best.losses)
        return difference > error

    def list_trials(self) -> list[Trial]:
        """List all networks except the frozen one."""
        return [self._to_trial(each) for each in self.candidates[1:]]

    def decide(self, further_trials: Sequence[Trial], seconds: float) -> Strategy:
        """Choose the best candidate, or the simplest training within a standard error of it.

        ``further_trials`` were measured on fewer folds.
        """
        best, frozen = self.best, self.candidates[0]
        simplest = next(each for each in self.candidates if self._is_as_good(each, best))
        training = [each for each in self.candidates if (each.depth, each.epochs) == (simplest.depth, simplest.epochs)]
        chosen = min(training, key=_mean_loss)
        shown = chosen if chosen is not frozen else min(self.candidates[1:] or [frozen], key=_mean_loss)
        shown_scores, frozen_scores = self._score_rows(shown), self._score_rows(frozen)
        difference, error = self._compare(shown_scores, frozen_scores)
        trials = self.list_trials()
        return Strategy(
            chosen=None if chosen is frozen else self._to_trial(chosen),
            trials=(*trials, *further_trials),
            frozen_loss=_mean_loss(frozen),
            frozen_score=float(frozen_scores.mean()),
            score_difference=difference,
            score_error=error,
            out_of_fold=self._predictions(chosen),
            sharpness=chosen.sharpness,
            seconds=seconds,
        )

    def _judge(self, depth: str, epochs: int, alpha: float, scores: Floats) -> Candidate:
        if self.classes is None:
            predicted = scores[:, 0]
            return Candidate(depth, epochs, alpha, 1.0, predicted, None, (predicted - self.true) ** 2.0)
        codes = np.searchsorted(self.classes, self.true)
        sharpness = fit_sharpness(scores, codes, np.ones(len(codes)))
        sharp = scores * np.float32(sharpness)
        losses = logsumexp(sharp, axis=1) - sharp[np.arange(len(codes)), codes]
        predicted = self.classes[scores.argmax(axis=1)]
        return Candidate(depth, epochs, alpha, sharpness, predicted, _softmax(sharp), losses.astype(float))

    def _is_as_good(self, candidate: Candidate, best: Candidate) -> bool:
        difference, error = self._compare(candidate.losses, best.losses)
        return difference <= error

    def _compare(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[float, float]:
        """Return the mean of a - b and its standard error; each group of images counts as one draw."""
        change = np.asarray(a, float) - np.asarray(b, float)
        mean = float(change.mean())
        sums = np.bincount(self.units, weights=change - mean)
        n = len(sums)
        return mean, float(np.sqrt((sums**2).sum() * n / max(1, n - 1))) / len(change)

    def _score_rows(self, candidate: Candidate) -> npt.NDArray[np.float64]:
        """Return one number per image; their mean is the accuracy, or R2."""
        if self.classes is not None:
            return np.asarray(candidate.predicted == self.true, float)
        return np.asarray(1 - candidate.losses / (float(self.true.var()) or 1.0))

    def _to_trial(self, candidate: Candidate) -> Trial:
        difference, error = self._compare(self.candidates[0].losses, candidate.losses)
        score = float(self._score_rows(candidate).mean())
        settings = candidate.depth, candidate.epochs, candidate.alpha
        return Trial(*settings, len(self.folds), _mean_loss(candidate), score, difference, error)

    def _predictions(self, chosen: Candidate) -> OutOfFold:
        predicted = np.stack([each.predicted for each in self.candidates], axis=1)
        return OutOfFold(
            rows=self.rows,
            folds=np.repeat(np.arange(len(self.folds)), [len(out) for _, out in self.folds]),
            y=self.true,
            predicted=chosen.predicted,
            classes=self.classes,
            probabilities=chosen.probabilities,
            candidates=predicted if self.classes is None else np.searchsorted(self.classes, predicted),
            losses=np.stack([each.losses for each in self.candidates], axis=1).astype(np.float32),
        )


def _mean_loss(candidate: Candidate) -> float:
    return float(candidate.losses.mean())


def _softmax(scores: Floats) -> Floats:
    return np.asarray(softmax(scores, axis=1), np.float32)
