"""Draw the error of candidates against their cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featx._files import write_whole
from featx._optional import import_optional

__all__ = ["Point", "draw_tradeoff"]

_FRONT, _OTHER, _CHOSEN = "#1f5a8a", "#9aa4ad", "#a33a2c"
#: Largest number of candidates that are numbered and named.
_MAX_NAMED = 10
_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


class Point(NamedTuple):
    """Hold a candidate's name, milliseconds per image, excess error over the choice, and half of its 95 % interval."""

    name: str
    ms: float
    behind: float
    half_interval: float
    on_front: bool
    chosen: bool
    stopped: bool = False


def draw_tradeoff(
    path: Path, title: str, points: Sequence[Point], max_ms: float | None = None, measure: str = "squared error"
) -> None:
    """Write a PNG of error against milliseconds per image; the Pareto front is joined, numbered, and named below.

    ``max_ms`` is the budget per image, drawn as a line, and ``measure`` is the name of the error.
    """
    named = [p for p in sorted(points, key=lambda p: p.ms) if p.on_front and not p.chosen][-_MAX_NAMED + 1 :]
    named = sorted([*named, *(p for p in points if p.chosen)], key=lambda p: p.ms)
    size = (10, 5.6 + 0.22 * (len(named) + 3))
    figure = import_optional("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    handles = _draw_points(axis, points, named)
    if max_ms is not None:
        (line,) = axis.plot([max_ms, max_ms], [0, 1], "--", color="#555", transform=axis.get_xaxis_transform())
        line.set_label(f"budget: {max_ms:g} ms")
        handles.append(line)
    costs = [p.ms for p in points]
    if max(costs) > 6 * min(costs):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
    highest = max(p.behind for p in points)
    if highest > 5:  # candidates with a large error would squeeze all others into a line
        axis.set_yscale("symlog", linthresh=1)
        axis.set_yticks([tick for tick in _TICKS if tick <= 2 * highest])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(import_optional("matplotlib.ticker", "plot").NullLocator())
    axis.set_xlabel("milliseconds per image on this machine, decoding included (lower is faster)")
    axis.set_ylabel(f"{measure} beyond the recommended\ncandidate's, % of the target's variance (lower is better)")
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
    """Draw the points, the numbered points last, and return the handles of the legend."""
    front = sorted((p for p in points if p.on_front), key=lambda p: p.ms)
    xs, ys = [p.ms for p in front], [p.behind for p in front]
    (line,) = axis.plot(xs, ys, color=_FRONT, linewidth=1.4, drawstyle="steps-post", zorder=1)
    line.set_label("Pareto front: no other candidate is both better and faster")
    handles: list[Any] = []
    for number, point in enumerate(named, 1):
        colour = _CHOSEN if point.chosen else _FRONT
        if not point.chosen:
            bars = {"color": colour, "elinewidth": 1.4, "capsize": 3, "zorder": 3}
            axis.errorbar(point.ms, point.behind, yerr=point.half_interval, **bars)
        (dot,) = axis.plot(point.ms, point.behind, "o", color=colour, markersize=13, markeredgecolor="white", zorder=4)
        middle = {"ha": "center", "va": "center_baseline"}
        axis.text(point.ms, point.behind, number, color="white", fontsize=8.5, weight="bold", zorder=5, **middle)
        dot.set_label(f"{number}  {'recommended: ' if point.chosen else ''}{point.name}")
        handles.append(dot)
    handles.append(line)
    for stopped, label in ((False, "other candidates"), (True, "other candidates, stopped early")):
        others = [p for p in points if p.stopped == stopped and p not in named]
        if others:
            face = {"markerfacecolor": "white"} if stopped else {}
            style = {"color": _OTHER, "markersize": 6, "zorder": 2, **face}
            handles += axis.plot([p.ms for p in others], [p.behind for p in others], "o", label=label, **style)
    return handles
