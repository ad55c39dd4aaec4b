"""``featx backbones verify``: whether every backbone computes here what it computed where it was made."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.backbones import Backbone, open_backbone
from featx.backbones.catalogue import list_here
from featx.cli.options import add_command, note
from featx.errors import BackboneError, DeviceError, InputError
from featx.inference.self_check import check_canonical
from featx.session import list_providers

EXAMPLE = """\
  featx backbones verify
  featx backbones verify resnet50.a1_in1k mine.onnx --json
Runs the canonical image of every backbone on every execution provider that this onnxruntime has.
A pipeline refuses features from one that fails."""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "verify", "run the canonical check of every backbone on every provider", EXAMPLE)
    parser.add_argument("backbones", nargs="*", metavar="NAME|FILE", help="default: all on this machine")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def run(options: argparse.Namespace) -> None:
    """Check each on each; fail when one does."""
    broken: list[str] = []
    rows = []
    for name, backbone in _backbones(options.backbones, broken):
        for provider in list_providers():
            row: dict[str, Any] = {"name": name, "identity": backbone.identity, "provider": provider, "passed": False}
            try:
                check = check_canonical(backbone, providers=[provider])
            except DeviceError as error:
                row["error"] = str(error)
            else:
                row |= {**check._asdict(), "passed": check.passed}
            rows.append(row)
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
