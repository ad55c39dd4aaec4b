"""Compare two fitted pipelines on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from featx._events import Events
from featx._results import format_html, format_metric, make_frame
from featx._text import printable
from featx.errors import Failure, InputError
from featx.fitting.evaluation import Evaluation, evaluate_models
from featx.fitting.model import open_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PairedEvaluation", "compare_pipelines"]


@dataclass(frozen=True, repr=False, eq=False)
class PairedEvaluation:
    """Two pipelines on the same images.

    Parameters
    ----------
    first, second : Evaluation
        Evaluation of each pipeline, on the images that both could read.
    names : tuple of str
        The files of the two pipelines, or their classes.
    metric : {"accuracy", "mae"}
    difference : float
        The second pipeline's metric minus the first's.
    low, high : float
        95 % interval of the difference, from pairs of predictions.
    p_value : float
        P-value of the hypothesis of no difference: McNemar's exact test, or a paired t-test of the absolute errors.
    only_first, only_second : int
        Number of images that only the first, or only the second pipeline predicts better.

    See Also
    --------
    featx.compare_pipelines : Makes it; its example shows one.
    """

    first: Evaluation
    second: Evaluation
    names: tuple[str, str]
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int

    @property
    def n_images(self) -> int:
        """Number of images that both pipelines predicted."""
        return self.first.n_images

    @property
    def kind(self) -> str:
        """Kind of the inputs: "image", "text" or "row"."""
        return self.first.kind

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Images that one of the pipelines could not read."""
        return tuple(dict.fromkeys((*self.first.failures, *self.second.failures)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the comparison, and each evaluation under ``first`` and ``second``."""
        names = ("metric", "difference", "low", "high", "p_value", "only_first", "only_second")
        values = {name: getattr(self, name) for name in names}
        return {"n": self.n_images, **values, "first": self.first.to_dict(), "second": self.second.to_dict()}

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame: ``path``, ``true``, ``first`` and ``second`` per image."""
        columns: dict[str, Any] = {"path": self.first.names, "true": self.first.true}
        columns |= {"first": self.first.predicted, "second": self.second.predicted}
        return make_frame(columns)

    def __repr__(self) -> str:
        return f"PairedEvaluation({self.n_images} {self.kind}s, {self._describe()})"

    def __str__(self) -> str:
        lines = [f"{i:6}  {printable(name)}" for i, name in zip(("first", "second"), self.names, strict=True)]
        lines += ["", f"{'n':18} {self.n_images}", f"{'':18} {'first':>10} {'second':>10}"]
        for name, value in self.first.metrics.items():
            lines.append(f"{name:18} {format_metric(value):>10} {format_metric(self.second.metrics[name]):>10}")
        better = "that only one predicts right" if self.metric == "accuracy" else "with the smaller error"
        better = f"{self.kind}s {better}"
        lines += ["", f"{better}: first {self.only_first}, second {self.only_second}"]
        return "\n".join([*lines, self._describe(), self._conclude()])

    def _repr_html_(self) -> str:
        rows = [
            {"metric": name, "first": value, "second": self.second.metrics[name]}
            for name, value in self.first.metrics.items()
        ]
        return format_html(f"Two pipelines on {self.n_images} {self.kind}s", rows, [self._describe(), self._conclude()])

    def _describe(self) -> str:
        interval = f"95 % interval {_format_signed(self.low)} to {_format_signed(self.high)}"
        difference = _format_signed(self.difference)
        return f"{self.metric} of the second minus the first: {difference} ({interval}, p {self.p_value:.2g})"

    def _conclude(self) -> str:
        if self.p_value >= 0.05:
            return f"These {self.kind}s do not tell which is better."
        is_second = (self.difference > 0) == (self.metric == "accuracy")
        return f"The {'second' if is_second else 'first'} is better."


def compare_pipelines(
    first: Any,
    second: Any,
    X: Any,
    y: Any = None,
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> PairedEvaluation:
    """Compare two fitted pipelines on the same labelled images.

    The images are embedded once if both pipelines have the same features.

    Parameters
    ----------
    first, second : estimator, FitResult, str or path
        Fitted pipelines of one task.
    X, y, path_column, target, include, exclude, events
        As for `evaluate`.

    Returns
    -------
    PairedEvaluation
        Both evaluations, and the difference with its 95 % interval. The interval is paired: it is
        narrower than those of the two metrics if the pipelines err on the same images.

    Raises
    ------
    InputError
        If the pipelines have different tasks or classes, or as for `evaluate`.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> extractor = featx.FeatureExtractor(layer="stem")
    >>> first = featx.fit(X[::5], y[::5], head="ridge", extractor=extractor, estimate=False)
    >>> second = featx.fit(X[::5], y[::5], head="knn", extractor=extractor, estimate=False)
    >>> paired = featx.compare_pipelines(first, second, X[1::5], y[1::5])
    >>> paired.metric, paired.low < paired.difference < paired.high
    ('accuracy', True)
    """
    models = open_model(first), open_model(second)
    for each in models:
        each.require_single("two models are compared on")
    if models[0].task != models[1].task:
        raise InputError(f"{models[0].name} and {models[1].name}: a {models[0].task} and a {models[1].task}")
    options = {"path_column": path_column, "target": target, "include": include, "exclude": exclude}
    one, other = evaluate_models(models, X, y, options, events or Events())
    compare = _compare_accuracy if one.task == "classification" else _compare_errors
    return PairedEvaluation(one, other, (models[0].name, models[1].name), one.metric, *compare(one, other))


def _compare_accuracy(first: Evaluation, second: Evaluation) -> tuple[float, float, float, float, int, int]:
    """Return the difference, its interval, its p-value, and the images that only one predicts right."""
    one, other = first.true == first.predicted, second.true == second.predicted
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    n, discordant = len(one), only_first + only_second
    # Agresti and Min (2005): half an image more in each cell of the 2 x 2 table keeps the interval honest
    # for few images, and for pipelines that never disagree
    shift = (only_second - only_first) / (n + 2)
    half = 1.96 * float(np.sqrt((discordant + 1) / (n + 2) - shift**2)) / float(np.sqrt(n + 2))
    p_value = float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0
    difference = (only_second - only_first) / n
    low, high = min(shift - half, difference), max(shift + half, difference)
    return difference, low, high, p_value, only_first, only_second


def _compare_errors(first: Evaluation, second: Evaluation) -> tuple[float, float, float, float, int, int]:
    """Return the same for absolute errors."""
    one, other = np.abs(first.predicted - first.true), np.abs(second.predicted - second.true)
    differences = other - one
    mean = float(differences.mean())
    low = high = mean
    p_value = 1.0
    if len(differences) > 1 and differences.std() > 0:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(0.95)
        low, high, p_value = float(interval.low), float(interval.high), float(test.pvalue)
    return mean, low, high, p_value, int((one < other).sum()), int((other < one).sum())


def _format_signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{format_metric(abs(value))}"
