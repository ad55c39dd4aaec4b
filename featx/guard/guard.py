"""Fit a guard from features and left-out answers, and check new images with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.checked import OUTLIER_LEVEL, Checked, CheckedSet
from featx.guard.fit import fit_features, fit_rows
from featx.guard.inputs import check_share
from featx.guard.kinds import KindCells, KindOutliers
from featx.guard.parts import GuardParts
from featx.guard.priors import Adapted
from featx.guard.risk import answer
from featx.guard.shift import compare_answers, compare_outliers, compare_shares
from featx.heads import OutOfFold

__all__ = ["Guard"]

#: Images below which features are not standardised again.
MIN_NEW_IMAGES = 30


@dataclass(frozen=True, eq=False, repr=False)
class Guard(GuardParts):
    """Know when a fitted head should not answer.

    A guard holds numbers about the images of a fit, but no image and no features of an image. It has
    four parts. Distances tell images that are unlike the images of the fit. The answers for left-out
    images bound the error of the surest answers, and give sets of labels or intervals of numbers that
    cover the truth at a rate. Calibrated probabilities estimate the shares of the classes among new images.

    All promises are for images of the same kind as the images of the fit.

    Parameters
    ----------
    task : {"classification", "multilabel", "regression"}
    classes : tuple of str or None
        Labels as text, in the head's order; None for a regression.
    outliers : Outliers or KindOutliers
        Principal components, class means and left-out distances; of rows of several kinds of columns, for each kind.
    risk : Risk or None
        Left-out answers, the surest first; None for a regression, and for a head without probabilities.
    sets : Sets or None
        Scores of the true labels; None as for ``risk``.
    priors : Priors or None
        Calibration and class shares; None as for ``risk``.
    intervals : Intervals or None
        Errors by the expected error; None for classes.
    baseline : Baseline or None, default=None
        Left-out answers as a set; None for a classifier without probabilities.
    scaling : Scaling or None, default=None
        Mean and deviation of the roots of each feature.
    is_single : bool, default=True
        False if the head has several labels or numbers per image. Such a guard knows outliers only.

    Examples
    --------
    >>> import numpy as np
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("train")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", cv=3, extractor=extractor)
    >>> guard = featx.Guard.fit(result.images.features, result.out_of_fold)
    >>> guard
    Guard(120 images, 10 classes)
    >>> features = extractor.transform(X[1:9])
    >>> probabilities = result.pipeline[-1].predict_proba(features)
    >>> checked = guard.check(features, probabilities, coverage=0.9)
    >>> checked.outlier.shape, checked.sets.shape
    ((8,), (8, 10))
    >>> guard.adapt_prior(probabilities).shares.shape
    (10,)
    """

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        out_of_fold: OutOfFold,
        *,
        groups: npt.ArrayLike | None = None,
        log_target: bool = False,
    ) -> Guard:
        """Fit a guard.

        Parameters
        ----------
        features : array-like of shape (n, n_features)
            Features of the images that the head was fitted on.
        out_of_fold : OutOfFold
            Answers for these images by heads that were fitted without them, such as
            `featx.FitResult.out_of_fold`. Images of a group must lie in one fold.
        groups : array-like of shape (n,), or None, default=None
            Images that belong together, such as near-duplicates. The promises then count one image of each
            group, drawn at random (Dunn et al. 2023).
        log_target : bool, default=False
            Compute the intervals on the logarithm of the number, for a head that was fitted on it. They are then
            positive, and wider above the prediction than below. It has no effect on classes.

        Returns
        -------
        Guard

        Raises
        ------
        InputError
            If there are fewer than 50 images or groups, or if the arrays do not fit together.
        """
        return cls(**vars(fit_features(features, out_of_fold, groups, log_target)))

    @classmethod
    def fit_kinds(
        cls,
        rows: KindCells,
        out_of_fold: OutOfFold,
        *,
        groups: npt.ArrayLike | None = None,
        log_target: bool = False,
    ) -> Guard:
        """Fit a guard for rows of several kinds of columns.

        Each kind has a p-value of its own. The strangest kind of a row is ranked among those of left-out rows.

        Parameters
        ----------
        rows : KindCells
            The rows that the head was fitted on.
        out_of_fold, groups, log_target
            As for `fit`.

        Returns
        -------
        Guard

        Raises
        ------
        InputError
            As for `fit`.

        See Also
        --------
        featx.fit : Calls it for several kinds of columns.
        """
        return cls(**vars(fit_rows(rows, out_of_fold, groups, log_target)))

    def read_rows(self, rows: KindCells) -> npt.NDArray[np.float32]:
        """Return rows of several kinds of columns as features, which the other methods take.

        Parameters
        ----------
        rows : KindCells

        Returns
        -------
        ndarray of float32, shape (n, n_features)

        Raises
        ------
        InputError
            If the guard was fitted on images or texts alone, or on other columns.

        See Also
        --------
        Guard.check : Takes the features.
        """
        if not isinstance(self.outliers, KindOutliers):
            raise InputError(f"guard: {self!r} was fitted on features, and these are rows of several kinds of columns")
        return self.outliers.read(rows)

    def check(
        self,
        features: npt.ArrayLike,
        answers: npt.ArrayLike | None = None,
        *,
        risk: float | None = None,
        coverage: float | None = None,
        per_class: bool = False,
    ) -> Checked:
        """Check new images.

        Parameters
        ----------
        features : array-like of shape (n, n_features)
            Their features, of the same extractor as at the fit.
        answers : array-like of shape (n, n_classes) or (n,), or None, default=None
            Probabilities of a classifier, or predicted numbers; needed for ``risk`` and ``coverage``.
        risk : float or None, default=None
            Answer only images that keep the error of the answers below this with 90 % confidence, see
            `threshold`. Outliers are not answered either.
        coverage : float or None, default=None
            Share of images whose set of labels, or interval, holds the truth.
        per_class : bool, default=False
            Keep the coverage in each class by itself. The sets become larger.

        Returns
        -------
        Checked

        Raises
        ------
        InputError
            If the number of images cannot support the promise, with the number that could, or if the arrays
            do not fit the guard.

        Examples
        --------
        >>> import numpy as np
        >>> import featx
        >>> from featx.heads import OutOfFold
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 8)), rng.normal(size=60)
        >>> left_out = OutOfFold(np.arange(60), np.arange(60) % 5, y, np.zeros(60), None, None, y[:, None], y[:, None])
        >>> checked = featx.Guard.fit(X, left_out).check(X[:3], np.zeros(3), coverage=0.9)
        >>> checked.intervals.shape, bool((checked.outlier > 0).all())
        ((3, 2), True)
        """
        coordinates = self.outliers.locate(self._check(features))
        distances = self.outliers.measure(coordinates)
        outlier = self.outliers.p_values(distances)
        n = len(outlier)
        kinds = None
        if isinstance(self.outliers, KindOutliers):
            named = self.outliers.name_kinds(coordinates, distances)
            kinds = tuple(name if p < OUTLIER_LEVEL else None for name, p in zip(named, outlier, strict=True))
        given = None if answers is None else self._check_answers(answers, n)
        answered, sets, intervals = np.ones(n, bool), None, None
        reasons: list[str | None] = [None] * n
        if risk is not None:
            probabilities = self._need("risk", risk, given, self.risk)
            answered, reasons = answer(probabilities.max(axis=1), outlier, self.threshold(risk), kinds)
        if coverage is not None:
            check_share("coverage", coverage)
            if self.classes is None:
                numbers = self._need("coverage", coverage, given, self.intervals)
                if per_class:
                    raise InputError("per_class=True: a regression has no classes")
                assert self.intervals is not None
                intervals = self.intervals.ends(coordinates, numbers, coverage)
            else:
                probabilities = self._need("coverage", coverage, given, self.sets)
                assert self.sets is not None
                sets = 1 - probabilities <= self.sets.limits(coverage, per_class, self.classes)
        elif per_class:
            raise InputError("per_class=True: the sets need a coverage; pass coverage=0.95, for instance")
        return Checked(outlier, answered, tuple(reasons), sets, intervals, self.classes, kinds)

    def check_promises(
        self, *, risk: float | None = None, coverage: float | None = None, per_class: bool = False
    ) -> None:
        """Check that `check` can keep promises, before there are images.

        Parameters
        ----------
        risk, coverage, per_class
            As for `check`.

        Raises
        ------
        InputError
            If the number of images cannot support a promise, with the number that could.

        See Also
        --------
        Guard.check : Keeps them.
        """
        answers = np.empty(0 if self.classes is None else (0, len(self.classes)))
        features = np.empty((0, self.n_features), np.float32)
        self.check(features, answers, risk=risk, coverage=coverage, per_class=per_class)

    def check_pipeline(self, name: str, n_features: int, head: Any) -> None:
        """Check that the guard is of a pipeline.

        Parameters
        ----------
        name : str
            Name of the pipeline, for the message.
        n_features : int
            Features of its extractor.
        head : estimator
            Its fitted head.

        Raises
        ------
        InputError
            If the number of features or the classes are others.

        See Also
        --------
        featx.predict : Calls it.
        """
        classes = tuple(map(str, head.classes_)) if hasattr(head, "classes_") else None
        if (n_features, classes) != (self.n_features, self.classes):
            raise InputError(
                f"guard: {self!r} was fitted for another pipeline than {name}; fit the guard and the head on the same "
                "images, or load both from one file"
            )

    def threshold(self, risk: float) -> float:
        """Return the smallest top probability that is answered.

        The error among the answered images stays below ``risk`` with 90 % confidence over fits, by the
        bisection with Clopper-Pearson bounds of Geifman and El-Yaniv (2017).

        Parameters
        ----------
        risk : float
            Error of the answers, between 0 and 1.

        Raises
        ------
        InputError
            If the images of the fit cannot support the promise, with the number that could.
        """
        check_share("risk", risk)
        if self.risk is None:
            raise InputError(f"risk={risk:g}: {self._lack}")
        return self.risk.threshold(risk)

    def adapt_prior(self, probabilities: npt.ArrayLike) -> Adapted:
        """Estimate the shares of the classes among new images, and adapt their probabilities.

        The probabilities are calibrated by one temperature and a bias of each class (Alexandari et al. 2020). EM then
        finds the shares (Saerens et al. 2002). It assumes that the images of a class look as at the fit.

        Parameters
        ----------
        probabilities : array-like of shape (n, n_classes)
            Probabilities of all new images together.

        Returns
        -------
        Adapted
            Probabilities, and the shares before and after.

        Raises
        ------
        InputError
            If there are no images, or no probabilities.
        """
        if self.priors is None or self.classes is None:
            raise InputError(f"adapt_prior: {self._lack}")
        values = self._check_answers(probabilities, None)
        if not len(values):
            raise InputError("adapt_prior: no images, and the shares of classes need some")
        adapted, shares = self.priors.adapt(values)
        return Adapted(adapted, shares, self.priors.shares.astype(float), self.classes)

    def restandardize(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return features of new images with the mean and the deviation that each feature had at the fit.

        It works on signed square roots, as the default heads do. It helps if all images have changed alike, such as by
        blur, and hurts if the shares of the classes have moved.

        Parameters
        ----------
        features : array-like of shape (n, n_features)
            Features of at least 30 images.

        Raises
        ------
        InputError
            If there are fewer images, or if the guard holds no deviations.
        """
        matrix = self._check(features)
        if len(matrix) < MIN_NEW_IMAGES:
            raise InputError(
                f"restandardize=True: {len(matrix)} rows are too few for a mean and a deviation of each feature; at "
                f"least {MIN_NEW_IMAGES} are needed"
            )
        if isinstance(self.outliers, KindOutliers):
            raise InputError("restandardize=True: not for several kinds of columns; leave it out")
        if self.scaling is None:
            raise InputError("restandardize=True: the guard holds no deviations of features; fit it again")
        return self.scaling.align(matrix)

    def check_set(self, features: npt.ArrayLike, answers: npt.ArrayLike | None = None) -> CheckedSet:
        """Compare a set of new images with the images of the fit.

        Parameters
        ----------
        features : array-like of shape (n, n_features)
            Features of the images.
        answers : array-like of shape (n, n_classes) or (n,), or None, default=None
            Their probabilities or predicted numbers. Without answers, only the features are compared.

        Returns
        -------
        CheckedSet

        Raises
        ------
        InputError
            If there are no images, or if the arrays do not fit the guard.

        See Also
        --------
        featx.shift : Compares images; with an example.
        """
        matrix = self._check(features)
        if not len(matrix):
            raise InputError("features: no images, and a set needs some")
        coordinates = self.outliers.locate(matrix)
        measured = self.outliers.measure(coordinates)
        outlier = self.outliers.p_values(measured)
        distances = self.outliers.measure_classes(coordinates)
        values = None if answers is None else self._check_answers(answers, len(matrix))
        p_kinds = None
        if isinstance(self.outliers, KindOutliers):
            each = self.outliers.p_kinds(measured).T
            p_kinds = {
                name: compare_outliers(own, self.n_images) for name, own in zip(self.outliers.names, each, strict=True)
            }
        p_value, p_images, p_answers = self._compare(outlier, values, p_kinds)
        p_shares = accuracy = shares = None
        if values is not None and self.priors is not None:
            shares, p_shares = compare_shares(self.priors, values, self.n_images)
            if self.baseline is not None and distances is not None:
                accuracy = self.baseline.predict_accuracy(distances, values.argmax(axis=1))
        return CheckedSet(outlier, p_value, p_images, p_answers, p_shares, accuracy, shares, p_kinds)

    def detect_shift(self, outlier: npt.NDArray[np.float64], answers: npt.NDArray[Any] | None) -> float:
        """Return the p-value of a set of images of the same kind as those of the fit, from their check.

        Parameters
        ----------
        outlier : ndarray of shape (n,)
            P-values of `check`.
        answers : ndarray of shape (n, n_classes) or (n,), or None
            Probabilities or predicted numbers.
        """
        return self._compare(outlier, answers)[0]

    def _compare(
        self,
        outlier: npt.NDArray[np.float64],
        answers: npt.NDArray[Any] | None,
        p_kinds: Mapping[str, float] | None = None,
    ) -> tuple[float, float, npt.NDArray[np.float64]]:
        """Return the p-value of a set, the p-value of its outliers, and the p-values of its answers."""
        p_images, p_answers = compare_outliers(outlier, self.n_images), np.empty(0)
        if p_kinds is not None:
            p_images = min(1.0, len(p_kinds) * min(p_kinds.values()))
        if answers is not None and self.baseline is not None:
            p_answers = compare_answers(self.baseline, answers, self.n_images)
        return min(1.0, (1 + len(p_answers)) * float(min([p_images, *p_answers]))), p_images, p_answers
