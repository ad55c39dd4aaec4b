"""Replace a source's labels by labels that were corrected by hand, and choose images to label next."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from featx._events import Events
from featx._validation import is_missing, suggest
from featx.errors import InputError
from featx.fitting.labelled import Inputs

__all__ = ["correct_labels"]

#: Text in the column of labels that leaves an image out.
DROP = "-"
_MAX_NAMED = 3
#: Largest number of names that a mistyped name is compared with, which takes half a second.
_MAX_COMPARED = 5000


def correct_labels(inputs: Inputs, labels: Any, events: Events) -> Inputs:
    """Return inputs with the labels of a CSV file, or of a mapping of names to labels, instead of their own.

    An empty label changes nothing, and "-" leaves the image out.
    """
    if labels is None:
        return inputs
    where, corrections = _read(labels)
    names = inputs.names(np.arange(len(inputs)))
    found = _find(where, corrections, names)
    new = [None] * len(inputs) if inputs.labels is None else list(inputs.labels)
    has_numbers = inputs.is_array and np.asarray(inputs.labels).dtype.kind == "f"
    n_new = n_changed = n_dropped = 0
    for i, (at, label) in found.items():
        if label == DROP:
            n_dropped += 1
            new[i] = None
            continue
        if has_numbers:  # a text among them would turn the numbers into classes
            label = _read_number(at, label)
        n_new += bool(inputs.missing[i])
        n_changed += not inputs.missing[i] and str(new[i]) != str(label)
        new[i] = label
    n_same = len(found) - n_new - n_changed - n_dropped
    events.note(f"{where}: {n_changed} labels changed, {n_new} new, {n_dropped} images left out, {n_same} as they were")
    if inputs.is_array:
        return replace(inputs, labels=np.array(new, dtype=object))
    if inputs.parts:
        starts = np.cumsum([0, *map(len, inputs.parts)])
        parts = [replace(part, labels=new[a : a + len(part)]) for part, a in zip(inputs.parts, starts, strict=False)]
        return replace(inputs, labels=new, parts=tuple(parts))
    return replace(inputs, labels=new)


def _read(labels: Any) -> tuple[str, dict[str, tuple[str, Any]]]:
    """Return the name of the corrections, and the position and the label of each image in them."""
    if isinstance(labels, Mapping):
        kept = {name: label for name, label in labels.items() if not is_missing(label)}
        return "labels", {str(name): (f"labels[{name!r}]", label) for name, label in kept.items()}
    if not isinstance(labels, (str, os.PathLike)):
        raise InputError(f"labels={type(labels).__name__}: expected a CSV file or a mapping of names to labels")
    path = os.fspath(labels)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            key = "path" if "path" in columns else "image"  # findings of an audit
            if key not in columns or "label" not in columns:
                raise InputError(f"{path}: columns {', '.join(columns) or 'none'}; expected path (or image) and label")
            corrections: dict[str, tuple[str, Any]] = {}
            for number, row in enumerate(rows, start=2):
                name, label = (row[key] or "").strip(), (row["label"] or "").strip()
                if not label or (not name and key == "image"):  # a finding on the whole set
                    continue
                at = f"{path}, row {number}"
                if name in corrections and corrections[name][1] != label:
                    first, other = corrections[name]
                    raise InputError(f"{at}: {name} has the label {label}, and {other} in {first}; keep one")
                corrections[name] = (at, label)
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a CSV file in UTF-8") from None
    return path, corrections


def _read_number(at: str, label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError):
        raise InputError(f"{at}: {label!r} is not a number, and the labels of y are; correct it") from None


def _find(where: str, corrections: Mapping[str, tuple[str, Any]], names: list[str]) -> dict[int, tuple[str, Any]]:
    """Return the position of each named image: by its name, by its full path, or by the end of its path."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        parts = name.replace(os.sep, "/").split("/")
        keys = {name, os.path.realpath(name), *("/".join(parts[k:]) for k in range(len(parts)))}
        for key in keys:
            places.setdefault(key, []).append(i)
    exact = {name: i for i, name in enumerate(names)}
    found: dict[int, tuple[str, Any]] = {}
    for name, (at, label) in corrections.items():
        if name in exact:
            found[exact[name]] = (at, label)
            continue
        hits = next((places[key] for key in (os.path.realpath(name), name, *_ends(name)) if key in places), [])
        if len(hits) > 1:
            shown = ", ".join(names[i] for i in hits[:_MAX_NAMED])
            raise InputError(f"{at}: {name} is the name of {len(hits)} inputs ({shown}); write the whole path")
        if not hits:
            n_parts = name.count("/") + 1
            known = ["/".join(one.replace(os.sep, "/").split("/")[-n_parts:]) for one in names[:_MAX_COMPARED]]
            raise InputError(
                f"{at}: {name} is not in the source, whose first name is {names[0]}; "
                f"{suggest(name, known)}correct the name, or remove the row"
            )
        if hits[0] in found:
            raise InputError(f"{at}: {name} is the same as {found[hits[0]][0]}; keep one row")
        found[hits[0]] = (at, label)
    return found


def _ends(name: str) -> list[str]:
    parts = name.replace(os.sep, "/").split("/")
    return ["/".join(parts[k:]) for k in range(1, len(parts) - 1)]
