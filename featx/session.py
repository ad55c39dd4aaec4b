"""Run graphs on ONNX Runtime: devices, providers, one session per process, and readable errors."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from threading import BoundedSemaphore
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from featx.errors import DeviceError, MissingDependencyError, OutOfMemoryError

__all__ = [
    "CUDA_OPTIONS",
    "REINSTALL_GPU",
    "Providers",
    "Session",
    "asks_for_tf32",
    "check_device",
    "check_providers",
    "get_session",
    "list_devices",
    "list_providers",
    "run_batches",
    "run_graph",
    "runtime_version",
]

logger = logging.getLogger(__name__)

REINSTALL_GPU = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[gpu]"'


class Session:
    """A graph that is ready to run on one device. Thread-safe: several threads may call `run` at once.

    On the CPU each call uses one thread, and callers decide how many calls run side by side. This
    was as fast as threads inside a call, and features do not depend on how the work is split. On a
    GPU two calls run at a time: one computes while the other copies. More calls were not faster,
    and each takes its own memory.

    Parameters
    ----------
    model : bytes
        A serialised ONNX model with one input, ``pixels`` or ``input_ids``, and the output ``features``.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        ``"cuda"`` runs there or raises; ``"auto"`` prefers CUDA and logs what it chose.
    providers : sequence or None, default=None
        onnxruntime's execution providers in its own spelling: names, or pairs of a name and
        options. The first one runs, or DeviceError is raised. With None, ``device`` decides.
        Options of CUDA are added to `CUDA_OPTIONS`.
    precision : {"float32", "float16", "int8"}, default="float32"
        Precision of the graph; on CUDA, float16 uses another memory layout.

    Attributes
    ----------
    device : str
        The device that the graph runs on: ``"cpu"``, ``"cuda:N"``, or the name of another provider.
    batch_size : int
        Default number of images per run: 8 on the CPU, 64 elsewhere.
    fixed_shape : bool
        True if every run must have the same shape, since a new shape costs seconds; False on the CPU.
    n_lanes : int or None
        Number of batches in progress at a time. None on the CPU, one per thread; 6 elsewhere, of
        which two run while the others are decoded.
    """

    def __init__(self, model: bytes, device: str, providers: Providers = None, *, precision: str = "float32") -> None:
        check_device(device)
        check_providers(providers, device)
        options = {**CUDA_OPTIONS, "prefer_nhwc": 1} if precision == "float16" else CUDA_OPTIONS
        if providers is None:
            self.device, self._session = _open(model, _settle(device), options)
        else:
            self.device, self._session = _open_providers(model, list(providers), options)
        (self._input,) = (value.name for value in self._session.get_inputs())
        on_cpu = self.device == "cpu"
        self.batch_size = 8 if on_cpu else 64
        self.fixed_shape = not on_cpu
        self.n_lanes = None if on_cpu else 6
        self._turns = nullcontext() if on_cpu else BoundedSemaphore(2)

    def split(self, n_items: int, n_threads: int, batch_size: int | None = None) -> int:
        """Return the batch size for a call; on the CPU small enough that every thread gets a batch."""
        size = batch_size or self.batch_size
        return size if self.fixed_shape else max(1, min(size, -(-n_items // n_threads)))

    def run(self, inputs: npt.NDArray[Any], stop: StopSwitch | None = None) -> npt.NDArray[np.float32]:
        """Compute the features of uint8 pixels, (n, 3, height, width), or of int64 tokens, (n, n_tokens).

        With ``stop``, another thread can end the run, which then raises DeviceError.
        """
        options = stop.options if stop else None
        try:
            with self._turns:
                (features,) = self._session.run(["features"], {self._input: inputs}, options)
        except Exception as error:
            kind = OutOfMemoryError if self.device != "cpu" and _lacks_memory(error) else DeviceError
            raise kind(f"onnxruntime failed on {self.device}: {_explain(error)}") from error
        return features  # type: ignore[no-any-return]


def run_graph(
    model: bytes, inputs: Mapping[str, npt.NDArray[Any]] | None = None, outputs: Sequence[str] = ()
) -> list[npt.NDArray[Any]]:
    """Open any graph on the CPU, and run it once if there are inputs; raise DeviceError with onnxruntime's reason."""
    if inputs is not None:
        return next(run_batches(model, [inputs], outputs))
    _open_graph(model)
    return []


def run_batches(
    model: bytes, batches: Iterable[Mapping[str, npt.NDArray[Any]]], outputs: Sequence[str]
) -> Iterator[list[npt.NDArray[Any]]]:
    """Open any graph on the CPU once, and run it on one mapping of inputs after another; see `run_graph`."""
    session = _open_graph(model)
    for inputs in batches:
        try:
            values = list(session.run(list(outputs), dict(inputs)))
        except Exception as error:
            raise DeviceError(f"onnxruntime failed on cpu: {_explain(error)}") from error
        yield values


def _open_graph(model: bytes) -> Any:
    try:
        return _new_session(model, ["CPUExecutionProvider"])
    except Exception as error:
        raise DeviceError(f"onnxruntime failed on cpu: {_explain(error)}") from error


class StopSwitch:
    """Ends all runs that were started with it, at once and from any thread."""

    def __init__(self) -> None:
        self.options = _onnxruntime().RunOptions()
        self.thrown = False

    def throw(self) -> None:
        """End the runs in progress, and let later runs fail."""
        self.thrown = True
        self.options.terminate = True


def get_session(
    key: Hashable,
    build: Callable[[], bytes],
    device: str,
    providers: Providers = None,
    *,
    precision: str = "float32",
) -> Session:
    """Return this process's session for ``key`` and ``device``; open it on first use.

    The last four sessions stay open, so that a new estimator (a clone, a task in a worker) costs
    nothing. A forked child starts without sessions. ``build`` returns the serialised graph; graphs of
    different precision must have different keys.
    """
    check_providers(providers, device)
    device = _settle(device) if providers is None else device
    full_key = (key, device, repr(providers))
    with _lock:
        if full_key not in _sessions:
            _sessions[full_key] = Session(build(), device, providers, precision=precision)
            while len(_sessions) > _KEEP:
                _sessions.popitem(last=False)
        _sessions.move_to_end(full_key)
        return _sessions[full_key]


#: Providers in onnxruntime's own spelling.
Providers: TypeAlias = "Sequence[str | tuple[str, dict[str, Any]]] | None"

#: Options of ``device="cuda"``; ``providers=[("CUDAExecutionProvider", {"use_tf32": 1})]`` changes one of them.
#: float16 adds ``prefer_nhwc``. benchmarks/RESULTS.md has the effect of each option on the speed.
CUDA_OPTIONS = {
    "use_tf32": 0,  # otherwise convolutions round float32 inputs to 10 bits
    "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search costs seconds for each shape
    "arena_extend_strategy": "kSameAsRequested",  # memory for a batch, not the next power of two
}

_KEEP = 4
_sessions: OrderedDict[Hashable, Session] = OrderedDict()
_lock = threading.Lock()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def check_device(device: object) -> None:
    """Raise DeviceError unless ``device`` is a known name."""
    if not (isinstance(device, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", device)):
        raise DeviceError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:N'")


def check_providers(providers: object, device: str) -> None:
    """Raise DeviceError unless ``providers`` is valid for onnxruntime and does not contradict ``device``."""
    if providers is None:
        return
    pairs = list(providers) if isinstance(providers, (list, tuple)) else []
    names = [pair[0] if isinstance(pair, (list, tuple)) and len(pair) == 2 else pair for pair in pairs]
    if not names or not all(isinstance(name, str) for name in names):
        raise DeviceError(f"providers={providers!r}: expected a list of names, or of pairs of a name and its options")
    if device != "auto":
        raise DeviceError(f"device={device!r} and providers={providers!r}: expected only one of them")


def asks_for_tf32(providers: Providers) -> bool:
    """Return True if CUDA may round the inputs of convolutions to ten bits."""
    pairs = [pair for pair in providers or () if not isinstance(pair, str)]
    return any(name == "CUDAExecutionProvider" and str(options.get("use_tf32", 0)) == "1" for name, options in pairs)


def list_devices() -> list[str]:
    """List the devices that the installed onnxruntime was built for: ``"cpu"``, and ``"cuda"`` with the extra gpu."""
    return ["cpu"] if _why_no_cuda() else ["cpu", "cuda"]


def runtime_version() -> str:
    """Return the version of onnxruntime, for any of its packages."""
    return str(_onnxruntime().__version__)


def list_providers() -> list[str]:
    """List onnxruntime's execution providers that run on this machine."""
    return [name for name in _onnxruntime().get_available_providers() if name != "AzureExecutionProvider"]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingDependencyError(
            'onnxruntime is not installed; run: pip install "featx[cpu]", '
            'or on an NVIDIA GPU with CUDA 13: pip install "featx[gpu]"'
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "onnxruntime is damaged (two of its packages overwrote each other); run: "
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "featx[cpu]"'
        )
    return onnxruntime


def _settle(device: str) -> str:
    """Replace ``"auto"`` by ``"cpu"`` if CUDA cannot be tried."""
    if device != "auto" or "CUDAExecutionProvider" in _onnxruntime().get_available_providers():
        return device
    if logger.isEnabledFor(logging.INFO):
        logger.info("device='auto': running on the CPU (%s)", _why_no_cuda())
    return "cpu"


def _open(model: bytes, device: str, options: dict[str, Any]) -> tuple[str, Any]:
    if device != "cpu":
        why_not = _why_no_cuda()
        if not why_not:
            number = int(device.partition(":")[2] or 0)
            session, why_not = _try_cuda(model, {"device_id": number, **options})
            if session:
                logger.info("device=%r: running on cuda:%d", device, number)
                return f"cuda:{number}", session
        if device != "auto":
            raise DeviceError(f"device={device!r}: {why_not}")
        logger.info("device='auto': running on the CPU (%s)", why_not)
    return "cpu", _new_session(model, ["CPUExecutionProvider"])


def _open_providers(model: bytes, providers: list[Any], options: dict[str, Any]) -> tuple[str, Any]:
    """Open a session on given providers, and raise where onnxruntime would silently fall back."""
    names = [pair if isinstance(pair, str) else pair[0] for pair in providers]
    onnxruntime = _onnxruntime()
    available = onnxruntime.get_available_providers()
    if hasattr(onnxruntime, "preload_dlls") and {"CUDAExecutionProvider", "TensorrtExecutionProvider"} & set(names):
        onnxruntime.preload_dlls()
    if missing := [name for name in names if name not in available]:
        raise DeviceError(f"providers: {', '.join(missing)} not in this onnxruntime, which has {', '.join(available)}")
    try:
        defaults = {"CUDAExecutionProvider": options}
        pairs = [(pair, {}) if isinstance(pair, str) else pair for pair in providers]
        session = _new_session(model, [(name, {**defaults.get(name, {}), **own}) for name, own in pairs])
    except Exception as error:  # onnxruntime's own types
        raise DeviceError(f"providers: {names[0]} cannot open the backbone: {_explain(error)}") from error
    if session.get_providers()[0] != names[0]:
        raise DeviceError(f"providers: {names[0]} did not load, onnxruntime would run on {session.get_providers()[0]}")
    return ("cpu" if names[0] == "CPUExecutionProvider" else names[0]), session


def _why_no_cuda() -> str:
    """Return the reason why this onnxruntime cannot use CUDA; empty if it should be able to."""
    if "CUDAExecutionProvider" in _onnxruntime().get_available_providers():
        return ""
    installed = {name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)}
    if installed >= {"onnxruntime", "onnxruntime-gpu"}:
        return f"onnxruntime and onnxruntime-gpu are both installed and the CPU one won; run: {REINSTALL_GPU}"
    return f"the installed onnxruntime has no CUDA; on an NVIDIA GPU with CUDA 13 run: {REINSTALL_GPU}"


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _try_cuda(model: bytes, options: dict[str, Any]) -> tuple[Any, str]:
    onnxruntime = _onnxruntime()
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # the CUDA and cuDNN libraries that pip installed
    try:
        session = _new_session(model, [("CUDAExecutionProvider", options), "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types
        return None, _explain(error)
    if session.get_providers()[0] != "CUDAExecutionProvider":  # it falls back without raising
        return None, (
            "onnxruntime's CUDA provider did not load; usually CUDA 13, cuDNN or a GPU is missing. "
            f"Run nvidia-smi, then: {REINSTALL_GPU}"
        )
    return session, ""


def _new_session(model: bytes, providers: list[Any]) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and need not be printed
    if providers == ["CPUExecutionProvider"]:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    onnxruntime.set_default_logger_severity(3)  # only the printed log names a missing library
    # without enable_fallback=0, onnxruntime prints a failure and runs later calls on the CPU
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    onnxruntime.set_default_logger_severity(4)  # cuDNN prints a line for every plan that it cannot use
    return session


def _lacks_memory(error: Exception) -> bool:
    signs = (
        r"out of memory|failed to allocate|cudaErrorMemoryAllocation|bad allocation|Available memory of \d+ is smaller"
    )
    return bool(re.search(signs, str(error), re.I))


def _explain(error: Exception) -> str:
    """Return onnxruntime's message without positions in its source."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", str(error))
    text = re.sub(r"\S+\.(?:cc|cu|h):\d+ (?:(?:[\w:*&<>]+ )*[\w:~]+\([^()]*\)(?: const)? |(?=\w+ \w)Parse )?", "", text)
    return " ".join(text.split())[:300]
