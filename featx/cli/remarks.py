"""Options of a fit and remarks on it, which ``fit`` and ``tune`` share."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from featx._text import printable
from featx.cli.options import make_events, note, note_failures, split_names, text_parameters
from featx.fitting import FitResult
from featx.fitting.texts import make_text_extractor
from featx.reporting.card import name_inputs
from featx.text import TextExtractor

__all__ = ["add_fit", "fit_parameters", "make_text_features", "print_remarks", "read_class_weight"]

#: Largest number of near-duplicates, and of images to label, that are named.
_MAX_NAMED = 5


def read_class_weight(text: str) -> str | dict[str, float]:
    """Read "balanced", a JSON object, or labels and weights such as ant=1,bee=10."""
    if text == "balanced":
        return text
    try:
        if text.lstrip().startswith("{"):
            return dict(json.loads(text))
        pairs = [pair.rpartition("=") for pair in text.split(",")]
        if all(label for label, _, _ in pairs):
            return {label: float(weight) for label, _, weight in pairs}
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: expected balanced, label=weight[,label=weight] or a JSON object")


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Add the options that `fit_parameters` reads, except patterns."""
    parser.add_argument(
        "--task", choices=["classification", "multilabel", "regression"], help="default: by the target's values"
    )
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument(
        "--target",
        action="names",
        type=split_names,
        metavar="C[,C]",
        help="column of the table to predict, or several of 0 and 1 or of numbers; of folders of folders, the level: "
        "1 or 2",
    )
    parser.add_argument("--log-target", action="store_true", help="fit the logarithm of a positive number")
    parser.add_argument(
        "--class-weight",
        type=read_class_weight,
        metavar="W",
        help="balanced, or weights such as ant=1,bee=10 or a JSON object: rare classes count more",
    )
    parser.add_argument("--cv", type=int, metavar="N", help="folds of the estimate (default: 5)")
    parser.add_argument("--groups", metavar="C", help="column of groups that no fold divides, such as a patient")


def fit_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that `featx.fit` and `featx.tune` share, except the extractor."""
    return {
        "task": options.task,
        "log_target": options.log_target,
        "class_weight": options.class_weight,
        "groups": options.groups,
        "cv": options.cv,
        "path_column": options.path_column,
        "target": options.target,
        "include": options.include,
        "exclude": options.exclude,
        "events": make_events(),
    }


def make_text_features(options: argparse.Namespace) -> TextExtractor:
    """Build the extractor of texts that the options describe; the default is the last three blocks."""
    given = text_parameters(options)
    make = TextExtractor if "layer" in given or isinstance(given.get("backbone"), list) else make_text_extractor
    return make(**given)


def print_remarks(result: FitResult) -> None:
    """Print failures, near-duplicates and images to label to standard error."""
    kind = name_inputs(result.info)
    note_failures(result.failures, "left out", kind)
    if result.tried:
        print("\n".join(map(printable, result.tried.split("\n"))), file=sys.stderr)
    if result.duplicates:
        n = sum(len(group.names) - 1 for group in result.duplicates)
        note(
            f"{n} of {result.n_images} {kind}s {'is a near-duplicate' if n == 1 else 'are near-duplicates'} of others:"
        )
        for group in result.duplicates[:_MAX_NAMED]:
            labels = sorted({str(label) for label in group.labels})
            differ = result.task == "classification" and len(labels) > 1
            odd = f"  (labelled {' and '.join(labels)}: one label is probably wrong)" if differ else ""
            print(printable(f"  {'  '.join(group.names[:3])}{odd}"), file=sys.stderr)
        if len(result.duplicates) > _MAX_NAMED:
            print(f"  and {len(result.duplicates) - _MAX_NAMED} more", file=sys.stderr)
    if n := result.n_unlabelled:
        text = f"{n} {f'{kind} has' if n == 1 else f'{kind}s have'} no label and no part in the fit"
        first = ", ".join(result.to_label[:_MAX_NAMED])
        note(f"{text}; the head is least sure of {first}: label these first" if first else text)
