"""Share what fit, predict, evaluate and serve have in common: a saved pipeline, patterns of paths, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from featx._events import Events, ProgressBar, combine
from featx.cli.options import note, running_parameters
from featx.fitting import FittedModel, open_model

__all__ = ["add_patterns", "load_pipeline", "load_pipelines", "make_events"]


class _Notes(Events):
    def note(self, text: str) -> None:
        note(text)


def make_events() -> Events:
    """Return a subscriber that prints notes, and on a terminal draws progress bars."""
    return combine(ProgressBar() if sys.stderr.isatty() else None, _Notes())


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose among the images of a source."""
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    for name, verb in (("include", "take"), ("exclude", "leave out")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"{verb} the images whose path in the source matches, such as '*.jpg'; repeatable",
        )


def load_pipelines(paths: Iterable[str], options: argparse.Namespace) -> list[FittedModel]:
    """Load saved pipelines, to run as the options ask."""
    models = [open_model(path, backbone=options.backbone) for path in paths]
    for model in models:
        model.extractor.set_params(**{**running_parameters(options), "progress": False})  # the events draw the bar
    return models


def load_pipeline(options: argparse.Namespace) -> FittedModel:
    """Load the saved pipeline ``MODEL``."""
    return load_pipelines([options.model], options)[0]
