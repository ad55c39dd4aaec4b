"""Find problems of this installation, and the commands that fix them."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from featx._optional import installed_version as _version
from featx._text import one_line
from featx.backbones import list_backbones, open_backbone, tap
from featx.backbones.catalogue import cache_dir
from featx.backbones.file import canonical_input
from featx.errors import BackboneError, FeatxError, InputError, MissingDependencyError
from featx.inference.self_check import check_canonical
from featx.session import REINSTALL_GPU, Session, list_devices

__all__ = ["CHECKS", "Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    check : str
        Name of the check.
    level : {"ok", "note", "problem"}
        A note costs speed or a feature. A problem gives errors or wrong features.
    text : str
        Description.
    command : str
        Command that fixes it, or an empty string.
    """

    check: str
    level: str
    text: str
    command: str = ""


#: Level, text and command of a finding.
_Row = tuple[str, str] | tuple[str, str, str]


def examine() -> Iterator[Finding]:
    """Run all checks.

    Yields
    ------
    Finding

    Examples
    --------
    >>> from featx.doctor import examine
    >>> next(examine()).check
    'versions'
    """
    for name, check in CHECKS.items():
        try:
            for row in check():
                yield Finding(name, *row)
        except Exception as error:  # a check that fails becomes a finding
            text = f"{type(error).__name__}: {one_line(error)}"
            yield Finding(name, "problem", text, 'pip install --force-reinstall "featx[cpu]"')


def _versions() -> Iterable[_Row]:
    names = ("featx", "numpy", "scikit-learn", "Pillow", "onnx", "onnxruntime", "onnxruntime-gpu")
    texts = [f"{name} {version}" for name in names if (version := _version(name))]
    yield "ok", f"Python {platform.python_version()} on {platform.platform()}: {', '.join(texts)}"


def _onnxruntime_packages() -> Iterable[_Row]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) == 2:
        text = "onnxruntime and onnxruntime-gpu are both installed; they share files, and one has overwritten the other"
        yield "problem", text, f'{REINSTALL_GPU}   # without a GPU, use "featx[cpu]" instead'
        return
    if not installed:
        yield "problem", "onnxruntime is not installed", 'pip install "featx[cpu]"'
        return
    try:
        list_devices()
    except MissingDependencyError as error:
        yield "problem", str(error).partition("; run: ")[0], str(error).partition("; run: ")[2]
        return
    yield "ok", f"{installed[0]} {_version(installed[0])}, devices: {', '.join(list_devices())}"


def _gpu() -> Iterable[_Row]:
    """Check the GPU's driver and the installed CUDA libraries against this build of onnxruntime."""
    driver = _nvidia_smi()
    if driver is None:
        if "cuda" in list_devices():
            text = "this onnxruntime is built for CUDA, and nvidia-smi finds no GPU"
            yield "problem", text, _CPU_INSTEAD
        else:
            yield "ok", "no NVIDIA GPU, and this onnxruntime needs none"
        return
    name, highest = driver
    if "cuda" not in list_devices():
        text = f"{name} is present, but the installed onnxruntime does not support CUDA"
        yield "note", text, REINSTALL_GPU
        return
    if highest < _CUDA:
        limit = f"its driver supports CUDA up to {highest[0]}.{highest[1]}"
        text = f"{name}: {limit}, and onnxruntime-gpu is built for CUDA {_CUDA[0]}"
        yield "problem", text, "update the NVIDIA driver (570 or later), then restart"
        return
    yield "ok", f"{name}, the driver supports CUDA {highest[0]}.{highest[1]}"
    yield from _cuda_libraries()


def _cuda_libraries() -> Iterable[_Row]:
    wheels = {
        distribution.name.lower(): distribution.version
        for distribution in metadata.distributions()
        if (distribution.name or "").lower().startswith("nvidia-")
    }
    older = sorted(
        name for name in wheels if re.fullmatch(r"nvidia-(cublas|cuda-runtime|cufft|curand)-cu(11|12)", name)
    )
    newer = [name for name in wheels if re.fullmatch(r"nvidia-(cublas|cuda-runtime)(-cu13)?", name)]
    if older and not newer:
        text = f"CUDA 12 libraries ({', '.join(older)}) are installed, and onnxruntime-gpu needs CUDA {_CUDA[0]}"
        yield "problem", text, 'pip install "onnxruntime-gpu[cuda,cudnn]"'
    if not any(name.startswith("nvidia-cudnn") for name in wheels) and not _has_library("libcudnn.so.9"):
        text = "cuDNN 9 is not installed, and convolutions on CUDA need it"
        yield "problem", text, 'pip install "onnxruntime-gpu[cudnn]"'


def _devices() -> Iterable[_Row]:
    """Open a session on each device, and run a backbone."""
    backbone = open_backbone("efficientnet_lite0")
    for device in list_devices():
        start = time.perf_counter()
        try:
            check = check_canonical(backbone, device)
        except FeatxError as error:
            reason, _, command = str(error).partition("; run: ")
            yield "problem", f"{device} is listed but cannot be used: {reason}", command or REINSTALL_GPU
            continue
        seconds = time.perf_counter() - start
        text = f"{check.device}: cosine {check.cosine:.8f} on the canonical image, {seconds:.1f} s to open and run"
        if check.passed:
            yield "ok", text
        else:
            text += ": features differ from those of the machine that made the backbone"
            yield "problem", text, 'use device="cpu" or another release of onnxruntime'


def _threads() -> Iterable[_Row]:
    cores, allowed = os.cpu_count() or 1, int(joblib.cpu_count())
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, os.sched_getaffinity(0))
        except OSError as error:
            refused = f"this container refuses thread affinity ({error.strerror})"
            text = f"{refused}; other programs may need it, featx does not"
            yield "note", text, "docker run --security-opt seccomp=unconfined ..."
    if allowed < cores:
        yield "ok", f"this process may use {allowed} of {cores} cores (affinity, or the limit of the container)"
    else:
        yield "ok", f"{cores} cores"


def _int8() -> Iterable[_Row]:
    """Compare the speed of the bundled backbone in both precisions."""
    seconds = dict.fromkeys(("float32", "int8"), float("inf"))
    sessions = {}
    for precision in seconds:
        backbone = open_backbone("efficientnet_lite0", precision)
        sessions[precision] = Session(tap(backbone, None, "avg", False), "cpu")
    pixels = np.repeat(canonical_input(backbone), 4, axis=0)
    for _ in range(4):
        for precision, session in sessions.items():
            start = time.perf_counter()
            session.run(pixels)
            seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    ratio = seconds["float32"] / seconds["int8"]
    if ratio < 1:
        text = f"int8 is slower than float32 on this processor ({ratio:.1f} times as fast)"
        yield "note", text, 'use precision="float32" or the default'
    else:
        yield "ok", f"int8 runs {ratio:.1f} times as fast as float32 here"


def _backbones() -> Iterable[_Row]:
    broken: list[BackboneError] = []
    n = len(list_backbones(on_error=broken.append))
    files: list[Path] = []
    with suppress(InputError):
        files = sorted(cache_dir().glob("*.onnx"), key=lambda path: -len(str(path)))
    for error in broken:
        path = next((path for path in files if str(error).startswith(f"{path}: ")), None)
        command = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.broken')}" if path else "featx backbones verify"
        yield "problem", str(error), command
    yield "ok", f"{n} backbones are available"


def _folders() -> Iterable[_Row]:
    try:
        folder = cache_dir()
    except InputError as error:
        yield "note", f"{error}; the bundled backbones need none", "export HOME=/a/folder/of/yours"
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}); each process inspects the backbones again"
        yield "note", text, "export FEATX_BACKBONES=/a/folder/of/yours"
        return
    free = shutil.disk_usage(folder).free
    level = "ok" if free > 2**30 else "note"
    yield level, f"{folder}: writable, {free / 2**30:.0f} GB free"


def _extras() -> Iterable[_Row]:
    needed = {
        **{"text": "tokenizers", "plot": "matplotlib", "pandas": "pandas", "parquet": "pyarrow", "heif": "pillow-heif"},
        **{"remote": "aiohttp", "hub": "huggingface_hub", "deploy": "skl2onnx", "serve": "uvicorn"},
        **{"tune": "torch", "export": "timm", "dask": "distributed", "ray": "ray"},
    }
    missing = [extra for extra, package in needed.items() if not _version(package)]
    present = [extra for extra in needed if extra not in missing]
    yield "ok", f"extras: {', '.join(present) or 'none'}; not installed: {', '.join(missing) or 'none'}"


#: Maps names of checks to functions that yield findings, in the order of the report.
CHECKS: dict[str, Callable[[], Iterable[_Row]]] = {
    "versions": _versions,
    "onnxruntime": _onnxruntime_packages,
    "gpu": _gpu,
    "devices": _devices,
    "threads": _threads,
    "int8": _int8,
    "backbones": _backbones,
    "folders": _folders,
    "extras": _extras,
}

_CUDA = (13, 0)
_CPU_INSTEAD = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[cpu]"'


def _nvidia_smi() -> tuple[str, tuple[int, int]] | None:
    """Return the GPU's name and the highest CUDA version of its driver, or None without a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        text = subprocess.run([program], capture_output=True, text=True, timeout=30, check=True).stdout
        query = [program, "--query-gpu=name", "--format=csv,noheader"]
        name = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", text)
    return (name.splitlines() or ["a GPU"])[0].strip(), (int(version[1]), int(version[2])) if version else (0, 0)


def _has_library(name: str) -> bool:
    places: list[Any] = [
        *os.environ.get("LD_LIBRARY_PATH", "").split(":"),
        "/usr/lib/x86_64-linux-gnu",
        "/usr/local/cuda/lib64",
    ]
    return sys.platform != "linux" or any(place and Path(place, name).exists() for place in places)
