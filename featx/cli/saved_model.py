"""Share what fit, predict and evaluate have in common: saved pipelines, and events for a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from featx._events import Events, combine
from featx.cli.options import events_for_terminal, note, running_parameters
from featx.fitting import FittedModel, open_model

__all__ = ["load_pipelines", "make_events"]


class _Notes(Events):
    def note(self, text: str) -> None:
        note(text)


def make_events() -> Events:
    """Return a subscriber that prints notes, and on a terminal draws progress bars."""
    return combine(events_for_terminal(), _Notes())


def load_pipelines(paths: Iterable[str], options: argparse.Namespace) -> list[FittedModel]:
    """Load saved pipelines, to run as the options ask."""
    models = [open_model(path, backbone=options.backbone) for path in paths]
    for model in models:
        model.extractor.set_params(**{**running_parameters(options), "progress": False})  # the events draw the bar
    return models
