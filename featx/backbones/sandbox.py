"""Inspect an ONNX file in a separate process, with limits on time and memory.

A crash or a hang of a parser in that process becomes an error here. Files that passed are recorded by their sha256.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx.backbones.download import file_digest
from featx.backbones.file import Backbone, canonical_input, is_described, load_model, read_backbone
from featx.backbones.graph import tap
from featx.backbones.guard import refuse_large
from featx.errors import BackboneError, first_line
from featx.session import Session, run_graph

__all__ = ["call_apart", "check_file", "inspect_file"]

#: Version of the checks. If it is raised, files that passed earlier versions are inspected again.
INSPECTION = 2

_EXIT_REFUSED = 3
_MAX_FILE_BYTES = 2**31 - 1  # the limit of one protobuf message
_TIMEOUT_SECONDS = 120


def inspect_file(path: str | os.PathLike[str], verdicts: str | os.PathLike[str] | None = None) -> None:
    """Check an ONNX file in a separate process, unless the same content passed before.

    The folder ``verdicts`` records the files that passed. With None, or if it cannot be written, nothing is recorded.
    Raises BackboneError if the inspection refuses the file, crashes, or takes too much time or memory.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise BackboneError(f"{path}: is not a regular file")
        size = os.path.getsize(path)
        if size > _MAX_FILE_BYTES:
            raise BackboneError(f"{path}: {size:,} bytes; a backbone is one file of at most {_MAX_FILE_BYTES:,}")
        verdict = Path(verdicts, f"{file_digest(path)}-{INSPECTION}") if verdicts else None
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror})") from None
    if verdict and verdict.exists():
        return
    call_apart(path, check_file)
    if verdict:
        with suppress(OSError):
            verdict.parent.mkdir(parents=True, exist_ok=True)
            verdict.touch()


def call_apart(path: str | os.PathLike[str], function: Callable[[str], object]) -> None:
    """Call a function of a module with a path, in a process with limits on time and memory.

    Raises BackboneError if the function raises it, or if the process crashes or takes too much time or memory.
    """
    code = "import sys; from featx.backbones import sandbox; sys.exit(sandbox._main(*sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", code, os.path.abspath(path), function.__module__, function.__name__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS)
    except OSError as error:
        raise BackboneError(f"{path}: cannot start a process to inspect it ({error})") from None
    except subprocess.TimeoutExpired:
        raise BackboneError(f"{path}: refused, since its inspection took more than {_TIMEOUT_SECONDS} s") from None
    if done.returncode == _EXIT_REFUSED and done.stdout:
        raise BackboneError(done.stdout.strip().replace(os.path.abspath(path), os.fspath(path)))
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise BackboneError(f"{path}: refused, since its inspection ended with status {done.returncode} ({why})")


def check_file(path: str | os.PathLike[str]) -> None:
    """Read a file and run it in this process; `inspect_file` calls this in another process.

    Every layer of a backbone is run on two images. A network without featx's metadata is opened, not run,
    since the size of its input is not known yet.
    """
    try:
        model = load_model(path)
        refuse_large(model, path)
        if is_described(model):
            backbone = read_backbone(path)
            canonical = canonical_input(backbone)
            Session(tap(backbone, None, "avg", False), "cpu").run(canonical)
            _check_layers(backbone, model, canonical)
        else:
            run_graph(model.SerializeToString())
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(f"{path}: cannot be run ({first_line(error)})") from error


def _check_layers(backbone: Backbone, model: onnx.ModelProto, canonical: npt.NDArray[Any]) -> None:
    """Run every layer once on two inputs; raise BackboneError unless each has the size that the file declares."""
    tensors = list(dict.fromkeys(layer.tensor for layer in backbone.layers))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    name = model.graph.input[0].name
    maps = run_graph(model.SerializeToString(), {name: np.repeat(canonical, 2, axis=0)}, tensors)
    shapes = {name: values.shape for name, values in zip(tensors, maps, strict=True)}
    for layer in backbone.layers:
        channels, height, width = layer.size
        if backbone.kind == "text" and height > 1:  # else one row for all tokens
            height = canonical.shape[1]
        if shapes[layer.tensor] != (2, channels, height, width):
            raise BackboneError(
                f"{backbone.path}: layer {layer.name} of 2 {backbone.kind}s is of shape {shapes[layer.tensor]}"
            )
    if len(backbone.canonical) != backbone.layer(None).channels:
        raise BackboneError(f"{backbone.path}: damaged metadata ({len(backbone.canonical)} canonical features)")


def _main(path: str, module: str, function: str) -> int:
    """Call a function under limits, print the reason if it refuses the file, and return the exit status."""
    _limit_resources(os.path.getsize(path))
    try:
        getattr(importlib.import_module(module), function)(path)
    except BackboneError as error:
        print(error)
        return _EXIT_REFUSED
    return 0


def _limit_resources(size: int) -> None:
    """Limit the memory and processor time of this process, for a file of ``size`` bytes."""
    with suppress(ImportError, ValueError, OSError):  # no such limits on Windows
        import resource

        memory = 6 * 2**30 + 8 * size
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (_TIMEOUT_SECONDS, _TIMEOUT_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
