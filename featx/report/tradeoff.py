"""A picture of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from featx._optional import import_optional
from featx.files import write_whole

__all__ = ["Point", "draw_tradeoff"]

_FRONT, _OTHER, _CHOSEN = "#1f5a8a", "#9aa4ad", "#a33a2c"
#: Names on the front that fit beside each other.
_NAMED = 6


class Point(NamedTuple):
    """What is drawn of a candidate: score with its interval against milliseconds a picture."""

    name: str
    ms: float
    score: float
    low: float
    high: float
    on_front: bool
    chosen: bool


def draw_tradeoff(path: Path, title: str, metric: str, points: Sequence[Point]) -> None:
    """Write a PNG: score against milliseconds a picture, the Pareto front joined and named.

    Parameters
    ----------
    path : pathlib.Path
        Where to.
    title, metric : str
        Above the picture, and beside its axis.
    points : sequence of Point
        One for each candidate; the chosen one is in another colour.
    """
    figure = import_optional("matplotlib.figure", "plot").Figure(figsize=(10, 6.2), layout="constrained")
    axis = figure.subplots()
    front = sorted((point for point in points if point.on_front), key=lambda point: point.ms)
    for point in sorted(points, key=lambda point: (point.chosen, point.on_front)):
        colour = _CHOSEN if point.chosen else _FRONT if point.on_front else _OTHER
        axis.errorbar(
            point.ms,
            point.score,
            yerr=[[max(0.0, point.score - point.low)], [max(0.0, point.high - point.score)]],
            **{"fmt": "o", "color": colour, "markersize": 8 if point.on_front or point.chosen else 5},
            **{"elinewidth": 1.6 if point.chosen else 0.7, "alpha": 1.0 if point.on_front or point.chosen else 0.45},
            zorder=3 if point.on_front or point.chosen else 2,
        )
    axis.plot([p.ms for p in front], [p.score for p in front], color=_FRONT, linewidth=1.4, zorder=1)
    named = [point for point in front if not point.chosen][-_NAMED:] + [point for point in points if point.chosen]
    for place, point in enumerate(sorted(named, key=lambda point: point.ms)):
        axis.annotate(
            point.name,
            (point.ms, point.score),
            xytext=(10, -16 - 13 * (place % 2) if not point.chosen else 14),
            **{"textcoords": "offset points", "fontsize": 8.5, "color": _CHOSEN if point.chosen else _FRONT},
            **{"ha": "right" if point.ms > _middle(points) else "left"},
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
            zorder=4,
        )
    axis.set_xlabel("milliseconds a picture here (decoding and all; lower is quicker)")
    axis.set_ylabel(f"{metric} on left-out pictures, 95 % interval")
    axis.set_title(title, fontsize=12, loc="left")
    axis.margins(x=0.15, y=0.12)
    axis.grid(color="#e4e7ea", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    handles = [
        *axis.plot([], [], "o", color=_CHOSEN, label="recommended"),
        *axis.plot([], [], "o-", color=_FRONT, label="Pareto front: none is both better and quicker"),
        *axis.plot([], [], "o", color=_OTHER, label="others"),
    ]
    axis.legend(handles=handles, loc="lower right", frameon=False, fontsize=9)
    with write_whole(path) as scratch:
        figure.savefig(scratch, dpi=110, format="png")


def _middle(points: Sequence[Point]) -> float:
    costs = [point.ms for point in points]
    return (min(costs) + max(costs)) / 2
