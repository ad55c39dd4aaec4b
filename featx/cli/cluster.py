"""Where the workers of a job are: processes here, or a cluster of dask or ray."""

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
    """Make joblib's backend of this name the active one, connected to a cluster.

    Parameters
    ----------
    name : {"loky", "dask", "ray"} or None
        None is joblib's own choice.
    address : str or None
        Of the cluster; None makes one of processes on this machine.
    """
    if address and name in (None, "loky"):
        raise InputError(f"--cluster {address}: belongs to --backend dask or ray")
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


#: What joblib runs workers with.
BACKENDS = {"loky": _loky, "dask": _dask, "ray": _ray}
