"""``featx show``: what a saved pipeline is, without loading it."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from featx._text import printable
from featx.cli.options import add_command
from featx.errors import BackboneError, PipelineFileError
from featx.persistence.archive import list_types, read_info
from featx.report.card import make_card
from featx.report.snippets import use_saved

EXAMPLE = """\
  featx show ants.featx
  featx show ants.featx --json
Reads the file and loads nothing from it."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "show", "print what a saved pipeline is, without loading it", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="what featx fit or featx.save wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(options: argparse.Namespace) -> None:
    """Print the card, and what else the file says."""
    about = read_info(options.model)
    trusted, refused = list_types(options.model)
    size = os.path.getsize(options.model)
    if options.json:
        facts = {"path": options.model, "bytes": size, **about, "trusted_types": trusted, "refused_types": refused}
        print(json.dumps(facts, indent=1))
        return
    name = os.path.basename(options.model)
    try:
        card = make_card(name, about, use_saved(name, about))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # anyone may have written it
        reason = f"what it says of itself is damaged ({type(error).__name__}: {error})"
        raise PipelineFileError(f"{options.model}: {reason}") from error
    print(card)
    lines = [
        f"File: format {about['format']}, {size:,} bytes.",
        f"Backbone: {'; '.join(_whereabouts(one) for one in about['backbones']) or 'none'}.",
        f"Trusts: {', '.join(trusted) or 'nothing beyond skops, scikit-learn and NumPy'}.",
    ]
    if refused:
        lines.append(f"Refused, so that it does not load: {', '.join(refused)}.")
    print(*map(printable, lines), sep="\n")


def _whereabouts(one: dict[str, Any]) -> str:
    from featx.backbones import find_by_identity

    try:
        found = find_by_identity(one["identity"])
    except BackboneError:
        found = None
    return (
        f"{one['name']} is {found.path}" if found else f"{one['name']} ({one['identity'][:12]}) is not on this machine"
    )
