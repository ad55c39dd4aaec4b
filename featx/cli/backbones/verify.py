"""``featx backbones verify``: check that backbones compute the same features as on the machine that made them."""

from __future__ import annotations

import argparse
import json

from featx.backbones.catalogue import list_here, open_backbone
from featx.backbones.file import Backbone
from featx.cli.options import note
from featx.errors import BackboneError, InputError

EXAMPLE = """\
  featx backbones verify
  featx backbones verify resnet50.a1_in1k mine.onnx --json
Runs the canonical image of every backbone on every execution provider of the installed onnxruntime.
A pipeline refuses features from a provider that fails."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("backbones", nargs="*", metavar="NAME|FILE", help="default: every backbone on this machine")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(options: argparse.Namespace) -> None:
    """Check every backbone on every provider; fail if a check fails."""
    from featx.recipes.verify import verify_backbone

    broken: list[str] = []
    rows = []
    for name, backbone in _backbones(options.backbones, broken):
        for result in verify_backbone(backbone):
            row = {"name": name, "identity": backbone.identity, "provider": result.provider, "passed": result.passed}
            rows.append({**row, **(result.check._asdict() if result.check else {"error": result.error})})
    if options.json:
        print(json.dumps(rows, indent=1))
    for row in rows if not options.json else ():
        verdict = "passed" if row["passed"] else "FAILED"
        how = row.get("error") or f"cosine {row['cosine']:.8f}, largest difference {row['absolute']:.1e}"
        print(f"{row['name']:32} {row['provider']:24} {verdict}  {how}")
    failed = [f"{row['name']} on {row['provider']}" for row in rows if not row["passed"]] + broken
    if failed:
        raise InputError(f"{len(failed)} failed: {', '.join(failed)}")


def _backbones(names: list[str], broken: list[str]) -> list[tuple[str, Backbone]]:
    if names:
        return [(name, open_backbone(name, download=False)) for name in names]

    def leave_out(error: BackboneError) -> None:
        note(str(error))
        broken.append(str(error).partition(":")[0])

    return list_here(on_error=leave_out)
