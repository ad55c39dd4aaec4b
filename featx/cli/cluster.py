"""Connect the workers of a job to local processes, or to a cluster of dask or ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib

from featx._optional import import_optional
from featx.errors import InputError, first_line

__all__ = ["BACKENDS", "open_backend"]


@contextmanager
def open_backend(name: str | None, address: str | None) -> Iterator[None]:
    """Activate a backend of joblib (None: its own choice), connected to a cluster (None: start one here)."""
    if address and name in (None, "loky"):
        raise InputError(f"--cluster {address}: needs --backend dask or ray")
    if name is None:
        yield
        return
    with BACKENDS[name](address), joblib.parallel_config(name):
        yield


@contextmanager
def _loky(address: str | None) -> Iterator[None]:
    yield


@contextmanager
def _dask(address: str | None) -> Iterator[None]:
    distributed = import_optional("distributed", "dask")
    try:
        client = (
            distributed.Client(address, set_as_default=True) if address else distributed.Client(threads_per_worker=1)
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"--cluster {address}: no dask scheduler answers there ({first_line(error)})") from None
    with client:
        yield


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    ray: Any = import_optional("ray", "ray")
    register: Any = import_optional("ray.util.joblib", "ray")
    try:
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--cluster {address}: no ray cluster answers there ({first_line(error)})") from None
    register.register_ray()
    try:
        yield
    finally:
        ray.shutdown()


#: Functions that connect, by the name of joblib's backend.
BACKENDS = {"loky": _loky, "dask": _dask, "ray": _ray}
