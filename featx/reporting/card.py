"""Write the model card of a pipeline in Markdown: its data, its quality and the code to run it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featx._files import check_writable, write_whole
from featx._text import printable
from featx.persistence.description import Description
from featx.reporting.metrics import describe_balance, describe_score

__all__ = ["check_card", "make_card", "name_inputs", "write_card"]

_MAX_LISTED, _MAX_ROWS = 20, 50


def make_card(name: str, description: Description, run: str, notes: Sequence[str] = ()) -> str:
    """Return the card of a saved or exported pipeline, with code that runs it and notes on further measurements."""
    info = description["info"]
    parts = [
        f"# {_escape(name)}",
        _describe_task(description),
        "## Fitted on",
        _describe_data(info),
        *_describe_contents(description),
        "## Quality",
        _describe_quality(info),
        *notes,
        "## Run it",
        run.strip(),
        "## Features",
        _describe_features(description),
        "## Made with",
        _list_versions(description),
    ]
    if estimator := description.get("pipeline", {}).get("estimator"):
        shown = "\n".join(printable(line).replace("```", "` ` `") for line in str(estimator).split("\n"))
        parts += ["## Estimator", f"```\n{shown}\n```"]
    return "\n\n".join(parts) + "\n"


def name_inputs(info: Mapping[str, Any]) -> str:
    """Return the word for an input of a model by its record: image, text, or row of several columns.

    Examples
    --------
    >>> from featx.reporting.card import name_inputs
    >>> name_inputs({}), name_inputs({"text_column": "review"}), name_inputs({"columns": {"area": "number"}})
    ('image', 'text', 'row')
    >>> name_inputs({"columns": {"review": "text"}})
    'text'
    """
    columns = info.get("columns") or {}
    if columns:  # words, and a stack of words and an encoder, read a single column
        return "text" if list(columns.values()) == ["text"] else "row"
    return "text" if info.get("text_column") else str(info.get("kind") or "image")


def _add_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _describe_task(description: Description) -> str:
    info, pipeline = description["info"], description.get("pipeline")
    noun = name_inputs(info)
    task = (pipeline and pipeline.get("task")) or info.get("task")
    task = "multilabel" if info.get("task") == "multilabel" else task
    if task == "multilabel":
        labels = list(info.get("counts") or (pipeline and pipeline.get("classes")) or ())
        listed = ", ".join(map(_escape, labels[:_MAX_LISTED]))
        more = f" and {len(labels) - _MAX_LISTED} more" if len(labels) > _MAX_LISTED else ""
        text = f"Answers {len(labels)} labels for {_add_article(noun)}, each with yes or no: {listed}{more}."
        return f"{text} It may have several of them, or none."
    if task == "classification":
        if not (classes := pipeline and pipeline.get("classes")):
            return f"Classifies {noun}s."
        listed = ", ".join(map(_escape, classes[:_MAX_LISTED]))
        more = f" and {len(classes) - _MAX_LISTED} more" if len(classes) > _MAX_LISTED else ""
        text = f"Classifies {noun}s into {len(classes)} classes: {listed}{more}."
        return f'{text} There is no class "other": every {noun} gets one of these labels.'
    if task == "regression" and info.get("targets"):
        listed = ", ".join(map(_escape, info["targets"]))
        return f"Predicts {len(info['targets'])} numbers for {_add_article(noun)}: {listed}."
    if task == "regression":
        target = f" ({_escape(info['target_column'])})" if info.get("target_column") else ""
        return f"Predicts a number{target} for {_add_article(noun)}."
    return f"Computes features of {_add_article(noun)}."


def _describe_features(description: Description) -> str:
    lines = []
    for backbone in description["backbones"]:
        license_text = f"licence {backbone['license']}" if backbone.get("license") else ""
        license_text = "licence not recorded" if backbone.get("license") == "unknown" else license_text
        facts = [f"backbone {backbone['name']} ({backbone['identity'][:12]})", license_text, backbone.get("source")]
        lines.append(f"- {_escape(', '.join(filter(None, facts)))}")
    for parameters in description.get("pipeline", {}).get("features", []):
        shown = [f"{name} {_join(value)}" for name, value in parameters.items() if value is not None]
        lines.append(f"- {_escape(', '.join(shown))}")
    recorded = description["info"].get("columns")
    columns = recorded if isinstance(recorded, Mapping) else {}
    for kind in dict.fromkeys(map(str, columns.values())):
        names = [name for name, own in columns.items() if own == kind]
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        lines.append(f"- columns of kind {kind}: {_escape(', '.join(names[:_MAX_LISTED]))}{more}")
    return "\n".join(dict.fromkeys(lines))  # members of a stack share extractors


def _describe_data(info: Mapping[str, Any]) -> str:
    parts = [_describe_images(info), *_describe_languages(info)]
    if continued := info.get("continued"):
        n_old = min(continued["n_old"], info["n"])
        n_new = f"{info['n'] - n_old:,} new ones"
        parts.append(f"Fitted again from {_escape(continued['model'])}: on its {n_old:,} images and {n_new}.")
    if private := info.get("private"):
        parts.append(_describe_private(private))
    if weights := info.get("class_weight"):
        named = isinstance(weights, str)
        shown = weights if named else ", ".join(f"{label} {weight:g}" for label, weight in weights.items())
        parts.append(f"Weights of the classes: {_escape(shown)}.")
    if views := info.get("views"):
        parts.append(f"Fitted on {views} views of each image: the plain one, its mirror image and crops.")
    if tuning := info.get("tuning"):
        parts.append(
            f"The network was tuned on these {name_inputs(info)}s after layer {_escape(tuning['depth'])}: the file "
            "holds traces of them, and is personal data if they are personal data."
        )
    return "\n\n".join(parts)


def _describe_contents(description: Description) -> list[str]:
    contents = description.get("pipeline", {}).get("contents")
    return [f"Of these {name_inputs(description['info'])}s the file holds {_escape(contents)}."] if contents else []


def _describe_private(private: Mapping[str, Any]) -> str:
    budget = f"epsilon {private['epsilon']:g}, delta {private['delta']:g}"
    return (
        f"Fitted with differential privacy: {budget}; {_escape(private['mechanism'])}; the unit is "
        f"{_escape(private['unit'])}. The number of images and the names of the classes count as public."
    )


def _describe_images(info: Mapping[str, Any]) -> str:
    noun = name_inputs(info)
    if counts := info.get("counts"):
        kind = "label" if info.get("task") == "multilabel" else "class"
        total = f"{sum(counts.values()):,} {noun}s of {len(counts)} classes"
        if kind == "label":
            total = f"{info['n']:,} {noun}s with {len(counts)} labels, of which each has several or none"
        rows = [f"| {_escape(label)} | {n:,} |" for label, n in list(counts.items())[:_MAX_ROWS]]
        if len(counts) > _MAX_ROWS:
            rows.append(f"| {len(counts) - _MAX_ROWS} more | {sum(list(counts.values())[_MAX_ROWS:]):,} |")
        return "\n".join([total, "", f"| {kind} | {noun}s |", "| --- | --- |", *rows])
    if targets := info.get("targets"):
        rows = [f"| {_escape(name)} | {t['min']:g} | {t['median']:g} | {t['max']:g} |" for name, t in targets.items()]
        head = ["| target | min | median | max |", "| --- | --- | --- | --- |"]
        return "\n".join([f"{info['n']:,} {noun}s", "", *head, *rows])
    if target := info.get("target"):
        span = ", ".join(f"{_escape(name)} {value:g}" for name, value in target.items())
        return f"{info['n']:,} {noun}s; target: {span}."
    return f"{info['n']:,} {noun}s." if info.get("n") else "Not recorded."


def _describe_languages(info: Mapping[str, Any]) -> list[str]:
    languages = info.get("languages")
    if not languages:
        return []
    listed = _escape(", ".join(map(str, languages)))
    return [
        f"The encoder was trained on texts in these languages: {listed}. Expect a lower quality in other languages."
    ]


def _describe_quality(info: Mapping[str, Any]) -> str:
    score, noun = info.get("score"), name_inputs(info)
    if not score:
        return f"Not measured. Use `featx evaluate` with labelled {noun}s that the pipeline was not fitted on."
    return (
        f"On {_escape(describe_score(score))}.\n\n{_describe_classes(score)}"
        f"Expect a lower quality on {noun}s of another kind. `featx evaluate` measures it."
    )


def _describe_classes(score: Mapping[str, Any]) -> str:
    balance = describe_balance(score)
    return f"{_escape(balance[0].upper() + balance[1:])}.\n\n" if balance else ""


def _list_versions(description: Description) -> str:
    created = f", {description['created']}" if "created" in description else ""
    return _escape(", ".join(f"{name} {version}" for name, version in description["versions"].items()) + created)


def _escape(value: Any) -> str:
    """Format text on one line, without special meaning in Markdown."""
    return re.sub(r"([\\`*~\[\]<|]|(?<!\w)_|_(?!\w))", r"\\\1", printable(value))


def _join(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def check_card(path: str) -> None:
    """Raise InputError if the card of a file cannot be written beside it."""
    check_writable(_card_path(path))


def write_card(path: str, card: str) -> None:
    """Write the card beside its file."""
    with write_whole(_card_path(path)) as scratch:
        scratch.write_text(card, encoding="utf-8")


def _card_path(path: str) -> Path:
    return Path(f"{path}.md")
