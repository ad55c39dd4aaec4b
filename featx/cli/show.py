"""``featx show``: describe a saved pipeline without loading it."""

from __future__ import annotations

import argparse
import json
import os

from featx._text import printable
from featx.backbones import find_by_identity
from featx.errors import BackboneError, PipelineFileError
from featx.persistence import list_types, read_info
from featx.persistence.description import BackboneFacts
from featx.report.card import make_card
from featx.report.snippets import use_saved

EXAMPLE = """\
  featx show ants.featx
  featx show ants.featx --json
Reads the description in the file and loads nothing else."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="a pipeline saved by featx fit or featx.save")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Print the model card and facts about the file."""
    description = read_info(options.model)
    trusted, refused = list_types(options.model)
    size = os.path.getsize(options.model)
    if options.json:
        facts = {"path": options.model, "bytes": size, **description}
        print(json.dumps({**facts, "trusted_types": trusted, "refused_types": refused}, indent=1))
        return
    name = os.path.basename(options.model)
    try:
        card = make_card(name, description, use_saved(name, description))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the file may come from anyone
        reason = f"its description is damaged ({type(error).__name__}: {error})"
        raise PipelineFileError(f"{options.model}: {reason}") from error
    print(card)
    lines = [
        f"File: format {description['format']}, {size:,} bytes.",
        f"Backbone: {'; '.join(map(_locate, description['backbones'])) or 'none'}.",
        f"Types in the file beyond skops's own list: {', '.join(trusted) or 'none'}.",
    ]
    if refused:
        lines.append(f"Untrusted types, because of which the file cannot be loaded: {', '.join(refused)}.")
    print(*map(printable, lines), sep="\n")


def _locate(facts: BackboneFacts) -> str:
    """Describe the location of a backbone on this machine."""
    try:
        backbone = find_by_identity(facts["identity"])
    except BackboneError:
        backbone = None
    where = str(backbone.path) if backbone else "not on this machine"
    return f"{facts['name']} ({facts['identity'][:12]}): {where}"
