"""Measure the network alone on a GPU: batch sizes, onnxruntime's options, and ways to pass images.

python benchmarks/cuda.py BACKBONE [BACKBONE ...] [--seconds 1]

BACKBONE is a name or a file, float32 or float16. One run compares featx's own way (Session.run, two
calls at a time) with other options of the CUDA provider, other numbers of calls at a time, bound
input and page-locked memory. Needs onnxruntime-gpu and a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from featx.backbones import Backbone, open_backbone, tap
from featx.session import Session

TF32 = {"use_tf32": 1, "prefer_nhwc": 1}
OPTIONS: dict[str, dict[str, int | str]] = {
    "featx's defaults": {},
    "prefer_nhwc 1": {"prefer_nhwc": 1},
    "prefer_nhwc 0": {"prefer_nhwc": 0},
    "use_tf32": TF32,
    "exhaustive search": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
}


def main() -> None:
    """Print images per second for each of the ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measurement (default: 1)")
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}")
    for name in options.backbones:
        backbone = open_backbone(name)
        print(f"{backbone.name}, {backbone.precision}")
        session = open_session(backbone)
        for size in (1, 8, 16, 32, 64, 128, 256):
            pixels = some_pixels(backbone, size)
            start = time.perf_counter()
            session.run(pixels)
            first = time.perf_counter() - start
            rate = measure(partial(session.run, pixels), size, 4, options.seconds)
            print(f"  batch {size:3}: {rate:6.0f} images/s, the first run {first:.2f} s")
        pixels = some_pixels(backbone, 64)
        for label, way in ways(session, pixels).items():
            for calls in (1, 2, 4):
                with way() as run:
                    print(f"  batch 64, {label}, {calls} at a time: {measure(run, 64, calls, options.seconds):6.0f}")
        for label, given in OPTIONS.items():
            other = open_session(backbone, given)
            other.run(pixels)
            rate = measure(partial(other.run, pixels), 64, 4, options.seconds)
            print(f"  batch 64, {label}: {rate:6.0f}")


def open_session(backbone: Backbone, given: dict[str, Any] | None = None) -> Session:
    """Open a backbone on the first GPU."""
    return Session(
        tap(backbone, None, "avg", False),
        "auto",
        [("CUDAExecutionProvider", given or {}), "CPUExecutionProvider"],
        precision=backbone.precision,
    )


def some_pixels(backbone: Backbone, n: int) -> np.ndarray:
    """Build a batch."""
    shape = (n, 3, backbone.preprocess.height, backbone.preprocess.width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(run: Callable[[], object], n: int, calls: int, seconds: float) -> float:
    """Call from several threads for a while, and return images per second."""
    run()
    end = time.perf_counter() + seconds
    done = [0] * calls

    def work(i: int) -> None:
        while time.perf_counter() < end:
            run()
            done[i] += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) * n / (time.perf_counter() - start)


def ways(session: Session, pixels: np.ndarray) -> dict[str, Any]:
    """List the ways to run a batch."""
    inner = session._session

    @contextmanager
    def plain() -> Iterator[Callable[[], object]]:
        yield lambda: inner.run(["features"], {"pixels": pixels})

    def run_bound() -> Any:
        binding = inner.io_binding()
        binding.bind_cpu_input("pixels", pixels)
        binding.bind_output("features")
        inner.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0]

    @contextmanager
    def bound() -> Iterator[Callable[[], object]]:
        yield run_bound

    @contextmanager
    def page_locked() -> Iterator[Callable[[], object]]:
        cuda = ctypes.CDLL("libcudart.so.13")
        address, size = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_size_t(pixels.nbytes)
        if cuda.cudaHostRegister(address, size, 0):
            raise OSError("cudaHostRegister failed")
        try:
            yield run_bound
        finally:
            cuda.cudaHostUnregister(address)

    return {"plain": plain, "bound": bound, "bound and page-locked": page_locked}


if __name__ == "__main__":
    main()
