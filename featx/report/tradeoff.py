"""An image of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featx._files import write_whole
from featx._optional import import_optional

__all__ = ["Point", "draw_tradeoff"]

_FRONT, _OTHER, _CHOSEN = "#1f5a8a", "#9aa4ad", "#a33a2c"
#: Candidates that are numbered and named at most.
_NAMED = 10


class Point(NamedTuple):
    """What is drawn of a candidate: score with its interval against milliseconds an image."""

    name: str
    ms: float
    score: float
    low: float
    high: float
    on_front: bool
    chosen: bool
    stopped: bool = False


def draw_tradeoff(path: Path, title: str, metric: str, points: Sequence[Point], max_ms: float | None = None) -> None:
    """Write a PNG: score against milliseconds an image, the Pareto front joined, numbered and named below.

    Parameters
    ----------
    path : pathlib.Path
        Where to.
    title, metric : str
        Above the image, and beside its axis.
    points : sequence of Point
        One for each candidate; the chosen one is in another colour.
    max_ms : float or None, default=None
        What an image may cost, as a line.
    """
    named = [p for p in sorted(points, key=lambda p: p.ms) if p.on_front and not p.chosen][-_NAMED + 1 :]
    named = sorted([*named, *(p for p in points if p.chosen)], key=lambda p: p.ms)
    size = (10, 5.6 + 0.22 * (len(named) + 3))
    figure = import_optional("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    handles = _draw_points(axis, points, named)
    if max_ms is not None:
        (line,) = axis.plot([max_ms, max_ms], [0, 1], "--", color="#555", transform=axis.get_xaxis_transform())
        line.set_label(f"what it may cost: {max_ms:g} ms")
        handles.append(line)
    costs = [p.ms for p in points]
    if max(costs) > 6 * min(costs):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel("milliseconds an image here, decoding and all")
    axis.set_ylabel(f"{metric} on left-out images")
    axis.set_title(title, fontsize=12, loc="left")
    axis.margins(x=0.06, y=0.08)
    axis.grid(color="#e4e7ea", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize=9, alignment="left")
    with write_whole(path) as scratch:
        figure.savefig(scratch, dpi=110, format="png")


def _draw_points(axis: Any, points: Sequence[Point], named: Sequence[Point]) -> list[Any]:
    """Draw them, the numbered ones last, and give what the legend is made of."""
    front = sorted((p for p in points if p.on_front), key=lambda p: p.ms)
    xs, ys = [p.ms for p in front], [p.score for p in front]
    (line,) = axis.plot(xs, ys, color=_FRONT, linewidth=1.4, drawstyle="steps-post", zorder=1)
    line.set_label("Pareto front: none is both better and quicker")
    handles: list[Any] = []
    for number, point in enumerate(named, 1):
        colour = _CHOSEN if point.chosen else _FRONT
        spread = [[max(0.0, point.score - point.low)], [max(0.0, point.high - point.score)]]
        axis.errorbar(point.ms, point.score, yerr=spread, color=colour, elinewidth=1.4, capsize=3, zorder=3)
        (dot,) = axis.plot(point.ms, point.score, "o", color=colour, markersize=13, markeredgecolor="white", zorder=4)
        middle = {"ha": "center", "va": "center_baseline"}
        axis.text(point.ms, point.score, number, color="white", fontsize=8.5, weight="bold", zorder=5, **middle)
        what = "recommended: " if point.chosen else ""
        dot.set_label(f"{number}  {what}{point.name} ({point.ms:.3g} ms, {point.score:.3f})")
        handles.append(dot)
    handles.append(line)
    for stopped, label in ((False, "others"), (True, "stopped early: scored on fewer images")):
        some = [p for p in points if p.stopped == stopped and p not in named]
        if some:
            face = {"markerfacecolor": "white"} if stopped else {}
            style = {"color": _OTHER, "markersize": 6, "zorder": 2, **face}
            handles += axis.plot([p.ms for p in some], [p.score for p in some], "o", label=label, **style)
    return handles
