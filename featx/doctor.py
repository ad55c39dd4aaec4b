"""Find what is wrong with this installation, and the command that mends it."""

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
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from featx._optional import installed_version as _version
from featx.backbones import list_backbones, open_backbone, tap
from featx.backbones.catalogue import cache_dir
from featx.backbones.file import canonical_pixels
from featx.errors import BackboneError, FeatxError, MissingDependencyError
from featx.inference.self_check import check_canonical
from featx.session import REINSTALL_GPU, Session, list_devices

__all__ = ["CHECKS", "Finding", "examine"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Parameters
    ----------
    check : str
        What was looked at.
    level : {"ok", "note", "problem"}
        A note costs speed or a feature; a problem gives errors or wrong features.
    text : str
        What was found.
    command : str
        What mends it; empty when there is nothing to mend.
    """

    check: str
    level: str
    text: str
    command: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other.

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
            for finding in check():
                yield finding._replace(check=name)
        except Exception as error:  # a check that fails says something as well
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Finding(name, "problem", text, 'pip install --force-reinstall "featx[cpu]"')


def _versions() -> Iterable[Finding]:
    names = ("featx", "numpy", "scikit-learn", "Pillow", "onnx", "onnxruntime", "onnxruntime-gpu")
    texts = [f"{name} {version}" for name in names if (version := _version(name))]
    yield Finding("", "ok", f"Python {platform.python_version()} on {platform.platform()}: {', '.join(texts)}")


def _onnxruntime_packages() -> Iterable[Finding]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) == 2:
        yield Finding(
            "",
            "problem",
            "onnxruntime and onnxruntime-gpu are both installed; they share files, and one overwrote the other",
            f'{REINSTALL_GPU}   # or, without a card, the same with "featx[cpu]"',
        )
        return
    if not installed:
        yield Finding("", "problem", "no onnxruntime is installed", 'pip install "featx[cpu]"')
        return
    try:
        list_devices()
    except MissingDependencyError as error:
        yield Finding("", "problem", str(error).partition("; run: ")[0], str(error).partition("; run: ")[2])
        return
    yield Finding("", "ok", f"{installed[0]} {_version(installed[0])}, devices: {', '.join(list_devices())}")


def _card() -> Iterable[Finding]:
    """Compare the card's driver, and the libraries that pip installed, with what the build needs."""
    driver = _nvidia_smi()
    if driver is None:
        if "cuda" in list_devices():
            yield Finding(
                "", "problem", "this onnxruntime is built for CUDA and nvidia-smi finds no card", _CPU_INSTEAD
            )
        else:
            yield Finding("", "ok", "no NVIDIA card, and none is needed")
        return
    name, highest = driver
    if "cuda" not in list_devices():
        text = f"{name} is here, and the installed onnxruntime has no CUDA"
        yield Finding("", "note", text, REINSTALL_GPU)
        return
    if highest < _CUDA:
        most = f"its driver runs CUDA {highest[0]}.{highest[1]} at most"
        text = f"{name}: {most}, and onnxruntime-gpu is built for CUDA {_CUDA[0]}"
        yield Finding("", "problem", text, "update the NVIDIA driver (570 or later), then restart")
        return
    yield Finding("", "ok", f"{name}, driver good for CUDA {highest[0]}.{highest[1]}")
    yield from _cuda_libraries()


def _cuda_libraries() -> Iterable[Finding]:
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
        text = f"libraries of CUDA 12 ({', '.join(older)}) under an onnxruntime-gpu that wants CUDA {_CUDA[0]}"
        yield Finding("", "problem", text, 'pip install "onnxruntime-gpu[cuda,cudnn]"')
    if not any(name.startswith("nvidia-cudnn") for name in wheels) and not _has_library("libcudnn.so.9"):
        text = "cuDNN 9 is not installed; convolutions on CUDA need it"
        yield Finding("", "problem", text, 'pip install "onnxruntime-gpu[cudnn]"')


def _devices() -> Iterable[Finding]:
    """Open a real session on each device and run a real backbone there."""
    backbone = open_backbone("efficientnet_lite0")
    for device in list_devices():
        start = time.perf_counter()
        try:
            check = check_canonical(backbone, device)
        except FeatxError as error:
            reason, _, command = str(error).partition("; run: ")
            yield Finding("", "problem", f"{device} is listed and cannot be used: {reason}", command or REINSTALL_GPU)
            continue
        seconds = time.perf_counter() - start
        text = f"{check.device}: cosine {check.cosine:.8f} on the canonical image, {seconds:.1f} s to open and run"
        if check.passed:
            yield Finding("", "ok", text)
        else:
            text += ": other features than where the backbone was made"
            yield Finding("", "problem", text, 'device="cpu", or another release of onnxruntime')


def _threads() -> Iterable[Finding]:
    cores, allowed = os.cpu_count() or 1, int(joblib.cpu_count())
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, os.sched_getaffinity(0))
        except OSError as error:
            text = (
                f"this container refuses thread affinity ({error.strerror}); featx does without, other programs may not"
            )
            yield Finding("", "note", text, "docker run --security-opt seccomp=unconfined ...")
    if allowed < cores:
        yield Finding("", "ok", f"{allowed} of {cores} cores are this process's (affinity or the container's limit)")
    else:
        yield Finding("", "ok", f"{cores} cores")


def _int8() -> Iterable[Finding]:
    """Time the bundled network in both precisions, side by side."""
    seconds = {"float32": _INFINITY, "int8": _INFINITY}
    sessions = {}
    for precision in seconds:
        backbone = open_backbone("efficientnet_lite0", precision)
        sessions[precision] = Session(tap(backbone, None, "avg", False), "cpu")
    pixels = np.repeat(canonical_pixels(backbone.preprocess), 4, axis=0)
    for _ in range(4):
        for precision, session in sessions.items():
            start = time.perf_counter()
            session.run(pixels)
            seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    ratio = seconds["float32"] / seconds["int8"]
    if ratio < 1:
        text = f"int8 is slower than float32 on this processor ({ratio:.1f} times as fast)"
        yield Finding("", "note", text, 'leave precision at its default, or precision="float32"')
    else:
        yield Finding("", "ok", f"int8 runs {ratio:.1f} times as fast as float32 here")


def _backbones() -> Iterable[Finding]:
    broken: list[BackboneError] = []
    n = len(list_backbones(on_error=broken.append))
    files = sorted(cache_dir().glob("*.onnx"), key=lambda path: -len(str(path)))
    for error in broken:
        path = next((path for path in files if str(error).startswith(f"{path}: ")), None)
        command = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.broken')}" if path else "featx backbones verify"
        yield Finding("", "problem", str(error), command)
    yield Finding("", "ok", f"{n} backbones can be named")


def _folders() -> Iterable[Finding]:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}); backbones are looked at anew in every process"
        yield Finding("", "note", text, "export FEATX_BACKBONES=/a/folder/of/yours")
        return
    free = shutil.disk_usage(folder).free
    level = "ok" if free > 2**30 else "note"
    yield Finding("", level, f"{folder}: writable, {free / 2**30:.0f} GB free")


def _extras() -> Iterable[Finding]:
    needed = {
        **{"plot": "matplotlib", "parquet": "pyarrow", "hub": "huggingface_hub"},
        **{"deploy": "skl2onnx", "serve": "uvicorn", "export": "timm"},
    }
    missing = [extra for extra, package in needed.items() if not _version(package)]
    present = [extra for extra in needed if extra not in missing]
    yield Finding("", "ok", f"extras: {', '.join(present) or 'none'}; not installed: {', '.join(missing) or 'none'}")


#: name -> what looks at it, in the order of reading.
CHECKS: dict[str, Callable[[], Iterable[Finding]]] = {
    "versions": _versions,
    "onnxruntime": _onnxruntime_packages,
    "card": _card,
    "devices": _devices,
    "threads": _threads,
    "int8": _int8,
    "backbones": _backbones,
    "folders": _folders,
    "extras": _extras,
}

_CUDA = (13, 0)
_CPU_INSTEAD = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[cpu]"'
_INFINITY = float("inf")


def _nvidia_smi() -> tuple[str, tuple[int, int]] | None:
    """Ask the driver for the card's name and the highest CUDA that it runs; None without a card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        text = subprocess.run([program], capture_output=True, text=True, timeout=30, check=True).stdout
        query = [program, "--query-gpu=name", "--format=csv,noheader"]
        name = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", text)
    return (name.splitlines() or ["a card"])[0].strip(), (int(found[1]), int(found[2])) if found else (0, 0)


def _has_library(name: str) -> bool:
    places: list[Any] = [
        *os.environ.get("LD_LIBRARY_PATH", "").split(":"),
        "/usr/lib/x86_64-linux-gnu",
        "/usr/local/cuda/lib64",
    ]
    return sys.platform != "linux" or any(place and Path(place, name).exists() for place in places)
