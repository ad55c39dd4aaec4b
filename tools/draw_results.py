"""Draw the charts of docs/benchmarks.md from the tables of benchmarks/RESULTS.md.

    python tools/draw_results.py

tools/make_images.py calls it as well. Takes seconds. A chart has no figure of its own: if a table or a column is
renamed, this stops with its name. Every chart has a white background of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks" / "RESULTS.md"
FEATX, INT8, OTHER = "#1f6f8b", "#8fbfd0", "#b9bfc4"


def main() -> None:
    """Draw all charts."""
    for draw in (draw_throughput, draw_time, draw_accuracy, draw_text, draw_tuning, draw_startup):
        name = draw.__name__.removeprefix("draw_")
        draw()
        plt.savefig(DOCS / f"{name}.png", dpi=110, facecolor="white")
        plt.close("all")
        print(f"{name}.png", (DOCS / f"{name}.png").stat().st_size)


def read_section(title: str) -> str:
    """Return the text of a section of RESULTS.md."""
    text = RESULTS.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(title)}$\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise SystemExit(f"RESULTS.md: no section {title!r}")
    return found[1]


def read_table(title: str, first: str, *columns: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with ``first``: the first cell and those of ``columns``."""
    table = rf"^(\| ?{re.escape(first)}.*)\n\|[- |]+\n((?:\|.*\n)+)"
    found = re.search(table, read_section(title), re.MULTILINE)
    if not found:
        raise SystemExit(f"RESULTS.md, {title}: no table {first!r}")
    head, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in [found[1], *found[2].splitlines()]]
    if missing := set(columns) - set(head):
        raise SystemExit(f"RESULTS.md, {title}, {first!r}: no column {sorted(missing)}, only {head}")
    return [[row[0], *(row[head.index(column)] for column in columns)] for row in rows]


def find(title: str, *patterns: str) -> list[float]:
    """Return the number that each pattern finds in a section."""
    text, values = read_section(title), []
    for pattern in patterns:
        found = re.search(pattern, text)
        if not found:
            raise SystemExit(f"RESULTS.md, {title}: nothing like {pattern!r}")
        values.append(float(found[1]))
    return values


def to_number(cell: str) -> float:
    """Return the first number of a cell."""
    return float(re.findall(r"\d*\.?\d+", cell.replace(",", ""))[0])


def draw_bars(axes: Axes, bars: list[tuple[str, float, str]], label: str, form: str = "%.3f") -> None:
    """Draw horizontal bars of (name, value, colour), the first at the top."""
    names, values, colours = zip(*bars, strict=True)
    drawn = axes.barh(range(len(bars)), values, color=colours)
    axes.set_yticks(range(len(bars)), names)
    axes.bar_label(drawn, fmt=form, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def draw_throughput() -> None:
    """Draw images per second beside other tools: float32 first, int8 below."""
    _, both = plt.subplots(1, 2, figsize=(10.4, 3.6), layout="constrained")
    for axes, title in zip(both, ("EfficientNet-Lite0", "ResNet-50"), strict=True):
        table = read_table("Speed: beside others", "| EfficientNet-Lite0 | ResNet-50", title)
        rates = [(name, to_number(rate)) for name, rate in table if rate]
        rates.sort(key=lambda rate: ("int8" in rate[0], -rate[1]))
        bars = [(n, v, INT8 if "int8" in n else FEATX if "featx" in n else OTHER) for n, v in rates]
        draw_bars(axes, bars, "images/s, JPEG files to features", "%.0f")
        axes.set_title(title, fontsize=11)


def draw_time() -> None:
    """Draw the time of the head and its estimate on top of the embedding."""
    table = read_table("Time and memory", "images x classes | embedding", "embedding", "after")
    rows = [row for row in table if row[2]]
    embedding, heads = [to_number(row[1]) for row in rows], [to_number(row[2]) for row in rows]
    shares = [[100 * head / (own + head) for own, head in zip(embedding, heads, strict=True)]]
    _, axes = plt.subplots(figsize=(8, 0.9 + 0.4 * len(rows)), layout="constrained")
    names = [row[0] for row in rows]
    axes.barh(names, [100 - share for share in shares[0]], color=OTHER, label="embedding")
    axes.barh(names, shares[0], left=[100 - share for share in shares[0]], color=FEATX, label="head and estimate")
    for i, (own, head) in enumerate(zip(embedding, heads, strict=True)):
        axes.text(1, i, f"{own:.1f} s", va="center")
        axes.text(101, i, f"{head:.1f} s", va="center", color=FEATX)
    axes.invert_yaxis()
    axes.set(xlabel="% of the processor time of featx.fit", xlim=(0, 112))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def draw_accuracy() -> None:
    """Draw the defaults beside what the lab book names beside them; all in float32, on the same test images."""
    ants, rival = find("Quality of the defaults", r"146 of 153, (0\.\d+)", r"ResNet-18 in .*: 146 of 153, (0\.\d+)")
    clothes, pixels = find("Quality of the defaults", r"accuracy (0\.\d+) \| the same head", r"on raw pixels: (0\.\d+)")
    prices, cnn = find("Quality of the defaults", r"MAPE (0\.\d+), mean", r"well-known tutorial: (0\.\d+)")
    _, all_axes = plt.subplots(1, 3, figsize=(12, 2.3), layout="constrained")
    panels = [
        ("ants and bees, 153 photos", "accuracy", [("featx.fit", ants, FEATX), ("ResNet-18 in PyTorch", rival, OTHER)]),
        ("Fashion-MNIST, 300 images", "accuracy", [("featx.fit", clothes, FEATX), ("raw pixels", pixels, OTHER)]),
        (
            "prices of 535 houses",
            "absolute error / price (lower is better)",
            [("featx.fit", prices, FEATX), ("a CNN from scratch", cnn, OTHER)],
        ),
    ]
    for axes, (title, label, bars) in zip(all_axes, panels, strict=True):
        draw_bars(axes, bars, label)
        axes.set_title(title, fontsize=11)


def draw_text() -> None:
    """Draw words, networks from scratch, the encoder and both, for 500 sentences and for all."""
    words = read_table("Text", "sentences to fit | TF-IDF", "TF-IDF of strings", "TF-IDF of tokens", "encoder")
    names = ("CNN of Kim (2014), random word vectors", "bidirectional LSTM")
    networks = read_table("Text", "sentences to fit | CNN", *names)
    title = "Several kinds of columns, and texts through featx.fit"
    stacks = find(title, r"500 to fit,.*?both stacked (0\.\d+)", r"All 10,662,.*?both stacked (0\.\d+)")
    _, both = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained", sharex=True)
    for axes, ours, scratch, stack in zip(both, words, networks, stacks, strict=True):
        strings, tokens, encoder = map(to_number, ours[1:])
        cnn, lstm = map(to_number, scratch[1:])
        bars = [("words of strings (TF-IDF)", strings, OTHER), ("CNN from scratch", cnn, OTHER)]
        bars += [("LSTM from scratch", lstm, OTHER), ("words of tokens (TF-IDF)", tokens, FEATX)]
        bars += [("MiniLM-L6, frozen, and a head", encoder, FEATX), ("both, as featx.fit stacks them", stack, FEATX)]
        draw_bars(axes, bars, "accuracy on film reviews")
        axes.set_title(
            "500 sentences to fit" if ours[0].startswith("500") else "10,662 sentences, ten-fold", fontsize=11
        )


def draw_tuning() -> None:
    """Draw the accuracy of frozen and tuned networks, draw by draw."""
    few = read_table("Tuning", "draw | `featx fit`", "`featx fit`", "`featx tune`")
    many = read_table("Tuning", "seed | `featx fit`", "`featx fit`", "`featx tune`")
    deeper = dict(read_table("Tuning", "seed | frozen", "tuned after `blocks.5.1`"))
    _, both = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharex=True)
    for axes, rows, word, title in zip(both, (few, many), ("draw", "seed"), ("1,000", "5,000"), strict=True):
        bars = []
        for number, fit, tune in rows:
            bars += [(f"{word} {number}, featx fit", to_number(fit), OTHER)]
            bars += [(f"{word} {number}, featx tune", to_number(tune), FEATX)]
            if word == "seed" and number in deeper:
                bars += [(f"{word} {number}, one layer deeper", to_number(deeper[number]), FEATX)]
        draw_bars(axes, bars, "accuracy on 2,000 others")
        axes.set_title(f"{title} CIFAR-10 images", fontsize=11)


def draw_startup() -> None:
    """Draw the seconds from the start of Python to the first feature."""
    seconds = find(
        "Start-up",
        r"`import featx` takes (\d\.\d+) s",
        r"beside (\d\.\d+) s of `import sklearn`",
        r"first feature, \d\.\d to (\d\.\d) s",
        r"opening Lite0's session takes (\d\.\d+) s",
    )
    names = ["import featx", "import sklearn", "from there to the first feature, at most", "of it, opening the session"]
    _, axes = plt.subplots(figsize=(8, 2), layout="constrained")
    colours = [FEATX, OTHER, FEATX, INT8]
    draw_bars(axes, list(zip(names, seconds, colours, strict=True)), "seconds of processor time", "%.2f")


if __name__ == "__main__":
    main()
