"""A model card in Markdown: what a pipeline is, what it was fitted on, how good it is, how to run it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featx._files import check_writable, write_whole
from featx._text import printable
from featx.report.metrics import describe_score

__all__ = ["check_card", "make_card", "write_card"]


def make_card(name: str, about: Mapping[str, Any], run: str, notes: Sequence[str] = ()) -> str:
    """Write the card of a saved or exported pipeline.

    Parameters
    ----------
    name : str
        Of the file.
    about : mapping
        What `featx.read_info` gives.
    run : str
        Markdown: how to run the file.
    notes : sequence of str
        What else was measured of this file.

    Returns
    -------
    str

    Examples
    --------
    >>> import os, tempfile
    >>> import featx
    >>> from featx.report.card import make_card
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "max.featx")
    ...     featx.save(featx.FeatureExtractor(pooling="max").fit(None), path)
    ...     card = make_card("max.featx", featx.read_info(path), "...")
    >>> card.splitlines()[0]
    '# max.featx'
    """
    info, pipeline = about["info"], about.get("pipeline", {})
    parts = [
        f"# {_text(name)}",
        _what(info, pipeline),
        "## Features",
        _features(about),
        "## Fitted on",
        _fitted_on(info),
    ]
    parts += ["## How good it is", _score(info), *notes, "## Run it", run.strip(), "## Made with", _versions(about)]
    return "\n\n".join(parts) + "\n"


def _what(info: Mapping[str, Any], pipeline: Mapping[str, Any]) -> str:
    task, classes = pipeline.get("task") or info.get("task"), pipeline.get("classes")
    if task == "classification":
        named = f": {_some(classes)}" if classes else ""
        text = f"Tells {len(classes) if classes else 'some'} classes of images apart{named}."
        text += " It answers with one of them whatever an image shows."
    elif task == "regression":
        of = f" ({_text(info['target_column'])})" if info.get("target_column") else ""
        text = f"Gives a number{of} for an image."
    else:
        text = "Gives features of an image."
    if estimator := pipeline.get("estimator"):
        shown = "\n".join(printable(line).replace("```", "` ` `") for line in str(estimator).split("\n"))
        text += f"\n\n```\n{shown}\n```"
    return text


def _features(about: Mapping[str, Any]) -> str:
    lines = []
    for backbone in about["backbones"]:
        licence = f"licence {backbone['license']}" if backbone.get("license") else ""
        said = [f"backbone {backbone['name']} ({backbone['identity'][:12]})", licence, backbone.get("source")]
        lines.append(f"- {_text(', '.join(filter(None, said)))}")
    for values in about.get("pipeline", {}).get("features", []):
        said = [f"{name} {_join(value)}" for name, value in values.items() if value is not None]
        lines.append(f"- {_text(', '.join(said))}")
    return "\n".join(lines)


def _fitted_on(info: Mapping[str, Any]) -> str:
    if counts := info.get("counts"):
        total = f"{sum(counts.values()):,} images of {len(counts)} classes"
        rows = [f"| {_text(label)} | {n:,} |" for label, n in list(counts.items())[:50]]
        more = [f"| {len(counts) - 50} more | {sum(list(counts.values())[50:]):,} |"] if len(counts) > 50 else []
        return "\n".join([total, "", "| class | images |", "| --- | --- |", *rows, *more])
    if target := info.get("target"):
        span = ", ".join(f"{_text(name)} {value:g}" for name, value in target.items())
        return f"{info['n']:,} images with a number: {span}."
    return f"{info['n']:,} images." if info.get("n") else "Not recorded."


def _score(info: Mapping[str, Any]) -> str:
    score = info.get("score")
    if not score:
        return "Not measured. `featx evaluate` does, on images with labels that it was not fitted on."
    lines = [f"On {_text(describe_score(score))}."]
    lines += ["", "Images of another kind than those can do worse; `featx evaluate` tells."]
    return "\n".join(lines)


def _versions(about: Mapping[str, Any]) -> str:
    when = f", {about['created']}" if "created" in about else ""
    return _text(", ".join(f"{name} {version}" for name, version in about["versions"].items()) + when)


def _some(classes: list[str]) -> str:
    return ", ".join(map(_text, classes[:20])) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")


def _text(value: Any) -> str:
    """Show text as it is: on one line, and no part of it taken for Markdown."""
    return re.sub(r"([\\`*~\[\]<|]|(?<!\w)_|_(?!\w))", r"\\\1", printable(value))


def _join(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def check_card(path: str) -> None:
    """Raise InputError now if the card of a file cannot be written beside it later."""
    check_writable(_beside(path))


def write_card(path: str, card: str) -> None:
    """Write the card beside its file."""
    with write_whole(_beside(path)) as scratch:
        scratch.write_text(card, encoding="utf-8")


def _beside(path: str) -> Path:
    return Path(f"{path}.md")
