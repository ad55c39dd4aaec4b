"""Draw charts as SVG text: no library, no script, and readable in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx._text import show_html

__all__ = [
    "Reliability",
    "draw_coverage",
    "draw_reliability",
    "draw_scatter",
    "measure_coverage",
    "measure_reliability",
]

Doubles = npt.NDArray[np.float64]

_WIDTH, _HEIGHT, _MARGIN = 440, 300, 64
#: Width of the name of the vertical axis with its gaps, and of a digit, in the units of the chart.
_TITLE_WIDTH, _DIGIT_WIDTH = 30, 7
#: Largest number of letters of five numbers that fit below a chart; of longer numbers there are three.
_MAX_TICK = 8
_N_BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """Stated against observed accuracy, in bins with the same number of images.

    ``stated`` and ``observed`` have one value per bin, and ``error`` is the expected calibration error: the mean
    distance between them, weighted by ``counts``.
    """

    stated: Doubles
    observed: Doubles
    counts: npt.NDArray[np.int64]
    error: float


def measure_reliability(confidence: Doubles, right: npt.NDArray[np.bool_]) -> Reliability:
    """Compare the probability of each answer with the share of right answers, in ten bins of equal mass.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.page.charts import measure_reliability
    >>> round(measure_reliability(np.full(100, 0.9), np.arange(100) < 80).error, 3)
    0.1
    """
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(_N_BINS, len(order)))
    stated = np.array([confidence[part].mean() for part in parts])
    observed = np.array([right[part].mean() for part in parts])
    counts = np.array([len(part) for part in parts])
    # images of equal confidence may lie in several bins, so their observations are joined
    for value in np.unique(stated[np.flatnonzero(np.diff(stated) == 0)]):
        same = stated == value
        observed[same] = np.average(observed[same], weights=counts[same])
    return Reliability(stated, observed, counts, float(np.average(np.abs(stated - observed), weights=counts)))


def measure_coverage(confidence: Doubles, right: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles, Doubles]:
    """Return the share of answered images and their accuracy at each threshold of the probability, and the thresholds.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.page.charts import measure_coverage
    >>> share, accuracy, threshold = measure_coverage(np.array([0.9, 0.6]), np.array([True, False]))
    >>> share.tolist(), accuracy.tolist(), threshold.tolist()
    ([0.5, 1.0], [1.0, 0.5], [0.9, 0.6])
    """
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    sorted_confidence = confidence[order]
    is_last = np.append(np.diff(sorted_confidence) != 0, True)  # images of equal confidence are answered together
    return (n / len(order))[is_last], (np.cumsum(right[order]) / n)[is_last], sorted_confidence[is_last]


class _Axes:
    """A chart with two axes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], names: tuple[str, str], title: str) -> None:
        self._x, self._y = x, y
        shares = (0, 0.25, 0.5, 0.75, 1)
        ticks = [_tick(y[0] + share * (y[1] - y[0])) for share in shares]
        self._left = max(_MARGIN, _TITLE_WIDTH + _DIGIT_WIDTH * max(map(len, ticks)))
        self.parts = [
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{show_html(title)}">',
            f'<rect x="{self._left}" y="10" width="{_WIDTH - self._left - 10}" height="{_HEIGHT - _MARGIN - 10}" '
            'class="frame"/>',
        ]
        is_crowded = max(len(_tick(x[0] + share * (x[1] - x[0]))) for share in shares) > _MAX_TICK
        for share, tick in zip(shares, ticks, strict=True):
            at_x, at_y = x[0] + share * (x[1] - x[0]), y[0] + share * (y[1] - y[0])
            left, top = self.place(at_x, at_y)
            below = _tick(at_x)
            left = min(left, _WIDTH - _DIGIT_WIDTH * len(below) / 2)  # a long number would pass the edge
            if not is_crowded or share in (0, 0.5, 1):
                self.parts.append(f'<text x="{left:.1f}" y="{_HEIGHT - _MARGIN + 16}" class="tick">{below}</text>')
            self.parts.append(f'<text x="{self._left - 6}" y="{top + 4:.1f}" class="tick end">{tick}</text>')
        middle = (self._left + _WIDTH - 10) / 2
        self.parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" class="axis">{show_html(names[0])}</text>')
        self.parts.append(
            f'<text transform="translate(12 {(_HEIGHT - _MARGIN) / 2 + 5}) rotate(-90)" class="axis">'
            f"{show_html(names[1])}</text>"
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        wide, high = _WIDTH - self._left - 10, _HEIGHT - _MARGIN - 10
        left = self._left + wide * (x - self._x[0]) / (self._x[1] - self._x[0])
        return left, 10 + high * (1 - (y - self._y[0]) / (self._y[1] - self._y[0]))

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Add a line through points."""
        text = " ".join(f"{left:.1f},{top:.1f}" for left, top in (self.place(*point) for point in points))
        self.parts.append(f'<polyline points="{text}" class="{kind}"/>')

    def dot(self, x: float, y: float, title: str, kind: str = "dot") -> None:
        """Add a point with a title that appears under the pointer."""
        left, top = self.place(x, y)
        tooltip = show_html(title)
        self.parts.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.5" class="{kind}"><title>{tooltip}</title></circle>'
        )

    def __str__(self) -> str:
        return "".join([*self.parts, "</svg>"])


def draw_reliability(measured: Reliability, noun: str = "image") -> str:
    """Draw stated against observed accuracy; ``noun`` is the word for an input."""
    low = float(np.floor(min(measured.stated.min(), measured.observed.min(), 0.9) * 10) / 10)
    title = f"Reliability: expected calibration error {measured.error:.3f}"
    axes = _Axes((low, 1), (low, 1), ("stated probability", "share of right answers"), title)
    axes.line([(low, low), (1, 1)], "guide")
    points = list(zip(measured.stated, measured.observed, measured.counts, strict=True))
    axes.line([(x, y) for x, y, _ in points], "curve")
    for x, y, n in points:
        axes.dot(x, y, f"{n} {noun}s: stated {x:.3f}, right {y:.3f}")
    return str(axes)


def draw_coverage(
    share: Doubles, accuracy: Doubles, marks: Sequence[tuple[float, float, str]] = (), noun: str = "image"
) -> str:
    """Draw the accuracy of the given answers against their share; ``marks`` are points with a title."""
    low = float(np.floor(min(accuracy.min(), 0.9) * 10) / 10)
    axes = _Axes(
        (0, 1), (low, 1), (f"share of {noun}s answered", "accuracy of the answers"), "Accuracy by share answered"
    )
    chosen = np.unique(np.linspace(0, len(share) - 1, 300).astype(int))
    axes.line([(share[i], accuracy[i]) for i in chosen], "curve")
    for x, y, title in marks:
        axes.dot(x, y, title)
    return str(axes)


def draw_scatter(true: Doubles, predicted: Doubles, names: Sequence[str]) -> str:
    """Draw predicted against true values."""
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    if low == high:
        low, high = low - 1, high + 1
    axes = _Axes((low, high), (low, high), ("true", "predicted"), "Predicted against true values")
    axes.line([(low, low), (high, high)], "guide")
    for x, y, name in zip(true, predicted, names, strict=True):
        axes.dot(x, y, f"{name}: {y:.4g}, true {x:.4g}", "dot faint")
    return str(axes)


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
