"""Run the scripts of examples/ and write docs/gallery: a page for each, with its code, its output and a chart.

    python tools/make_gallery.py [NAME ...]

Takes some minutes. The pages are committed; a test compares their code with the scripts.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs" / "gallery"

#: script -> pattern of a bar's name and value in its output, and the title of the axis.
CHARTS = {
    "custom_backbone": (r"^(\S.*?)  +\d+ features  accuracy (\S+)$", "accuracy, mean of 5 folds"),
    "few_shot": (r"^ +(\d+  \w+) +\S+ \+- \S+  (\S+) \+- \S+ +\S+$", "expected calibration error"),
    "images_and_columns": (r"^(\w+) +mean absolute percentage error (\S+)$", "mean absolute percentage error"),
}
#: script -> where to read on, in the order of the index.
READ_ON = {
    "pipeline_in_ten_lines": "`featx.fit` also estimates the accuracy and finds near-duplicates "
    "([Heads and search](../heads.md)).",
    "search_backbones": "`featx compare` makes such a search without code "
    "([Heads and search](../heads.md#choose-the-features)). [Caching](../caching.md) says when an image is embedded "
    "again.",
    "images_and_columns": "`featx.fit` stacks images and columns without code "
    "([Several kinds of columns](../columns.md)).",
    "custom_backbone": "[Backbones](../backbones.md) lists all ways to a backbone.",
    "few_shot": "The default head of `featx.fit` calibrates its probabilities with a temperature, too "
    "([Heads and search](../heads.md)).",
}


def main(names: list[str]) -> None:
    """Run the scripts and write their pages and the index."""
    GALLERY.mkdir(exist_ok=True)
    scripts = sorted((ROOT / "examples").glob("*.py"))
    for script in scripts:
        if not names or script.stem in names:
            output = run(script)
            chart = draw_chart(script.stem, output)
            (GALLERY / f"{script.stem}.md").write_text(write_page(script, output, chart), encoding="utf-8")
            print(script.stem)
    lines = [f"- [{get_title(script)}]({script.stem}.md)" for script in sorted(scripts, key=rank)]
    intro = "The scripts of [`examples/`](../../examples/README.md), run on images that need no download."
    text = f"# Gallery\n\n{intro} `python tools/make_gallery.py` writes these pages.\n\n" + "\n".join(lines) + "\n"
    (GALLERY / "index.md").write_text(text, encoding="utf-8")


def rank(script: Path) -> int:
    """Return the place of a script in the index."""
    return list(READ_ON).index(script.stem)


def run(script: Path) -> str:
    """Return what a script prints."""
    return subprocess.run([sys.executable, script], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def get_title(script: Path) -> str:
    """Return the first line of a script's docstring, without its full stop."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").splitlines()[0].rstrip(".")


def draw_chart(name: str, output: str) -> str:
    """Draw the bars that a script's output holds; return the name of the file, or an empty string."""
    if name not in CHARTS:
        return ""
    pattern, title = CHARTS[name]
    bars = [(label, float(value)) for label, value in re.findall(pattern, output, re.MULTILINE)]
    figure, axes = plt.subplots(figsize=(6, 0.6 + 0.45 * len(bars)), layout="constrained")
    drawn = axes.barh([label for label, _ in bars], [value for _, value in bars], color="#3a6ea5")
    axes.bar_label(drawn, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel=title, xlim=(0, 1.15 * max(value for _, value in bars)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(GALLERY / f"{name}.png", dpi=110)  # white behind it: readable in the dark
    plt.close(figure)
    return f"{name}.png"


def write_page(script: Path, output: str, chart: str) -> str:
    """Return the page of a script."""
    code = script.read_text(encoding="utf-8")
    link = f"[`examples/{script.name}`](../../examples/{script.name})"
    _, call, *prose = (ast.get_docstring(ast.parse(code)) or "").split("\n\n")
    about = "\n\n".join([*(" ".join(part.split()) for part in prose), READ_ON[script.stem]])
    parts = [f"# {get_title(script)}", f"{link} prints:", f"```text\n{output}```"]
    parts += [f"![Bars: {CHARTS[script.stem][1]}]({chart})"] if chart else []
    return "\n\n".join([*parts, about, f"Run it with `{call.split('    ')[0]}`:", f"```python\n{code}```"]) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
