"""Remarks on a fit, and the option of weights, which ``fit`` and ``tune`` share."""

from __future__ import annotations

import argparse
import json
import sys

from featx._text import printable
from featx.cli.options import note, note_failures
from featx.fitting import FitResult

__all__ = ["print_remarks", "read_class_weight"]

#: Near-duplicates and images to label that are named.
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


def print_remarks(result: FitResult) -> None:
    """Print failures, near-duplicates and images to label to standard error."""
    note_failures(result.failures, "left out")
    if result.tried:
        print("\n".join(map(printable, result.tried.split("\n"))), file=sys.stderr)
    if result.duplicates:
        n = sum(len(group.names) - 1 for group in result.duplicates)
        note(f"{n} of {result.n_images} images {'is a near-duplicate' if n == 1 else 'are near-duplicates'} of others:")
        for group in result.duplicates[:_MAX_NAMED]:
            labels = sorted({str(label) for label in group.labels})
            differ = result.task == "classification" and len(labels) > 1
            odd = f"  (labelled {' and '.join(labels)}: one label is probably wrong)" if differ else ""
            print(printable(f"  {'  '.join(group.names[:3])}{odd}"), file=sys.stderr)
        if len(result.duplicates) > _MAX_NAMED:
            print(f"  and {len(result.duplicates) - _MAX_NAMED} more", file=sys.stderr)
    if n := result.n_unlabelled:
        text = f"{n} {'image has' if n == 1 else 'images have'} no label and no part in the fit"
        first = ", ".join(result.to_label[:_MAX_NAMED])
        note(f"{text}; the head is least sure of {first}: label these first" if first else text)
