"""Find the memory that is available to this process, and allocate large arrays whose memory is freed at once."""

from __future__ import annotations

import math
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["allocate", "available_memory"]

#: Number of bytes from which on an array is allocated separately.
_LARGE = 1_000_000
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the number of bytes that this process can still allocate, or None if the system reports no limit.

    It is the smallest of three numbers: the free memory of the machine, the rest of the limits of the
    containers around the process, and the rest of its own limits (``ulimit -v``, ``ulimit -d``).

    Examples
    --------
    >>> from featx._memory import available_memory
    >>> available_memory() > 1_000_000
    True
    """
    limits = [*_machine(), *_containers(), *_process()]
    return max(0, min(limits)) if limits else None


def _machine() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        fields = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines())
        yield int(fields["MemAvailable"].split()[0]) * 1024
        return
    with suppress(OSError, ValueError, AttributeError):  # not Linux: half of the installed memory
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _containers() -> Iterator[int]:
    """Yield the rest of the limit of each control group around this process (cgroup versions 1 and 2)."""
    with suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _groups(_CGROUPS, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _groups(_CGROUPS / "memory", path, *names)


def _groups(root: Path, path: str, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    """Yield the rest of the limit of a group and of each of its parents.

    Inside a container the path may not exist, since it is the host's.
    """
    inner = root / path.lstrip("/")
    for group in (inner, *inner.parents):
        if group != root and root not in group.parents:
            return
        with suppress(OSError, ValueError):  # "max" means no limit
            allowed, taken = int((group / limit).read_text()), int((group / used).read_text())
            yield allowed - taken + _file_cache(group, reclaimable)


def _file_cache(group: Path, name: str) -> int:
    """Return the bytes of a group's cached file pages, which the kernel frees on demand."""
    with suppress(OSError, ValueError, KeyError):
        return int(dict(line.split() for line in (group / "memory.stat").read_text().splitlines())[name])
    return 0


def _process() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    with suppress(OSError, ValueError, IndexError):
        pages = [int(text) for text in (_PROC / "self" / "statm").read_text().split()]
        for kind, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                yield limit - taken * os.sysconf("SC_PAGE_SIZE")


def allocate(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return an array of zeros. A large array returns its memory to the system as soon as it is freed.

    The usual allocator keeps freed memory in holes, which arrays of other sizes do not fit into. These holes were a
    sixth of the memory of a fit of 1,000 classes.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE:
        return np.zeros(shape, dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return np.ndarray(shape, dtype, buffer=mmap.mmap(-1, size, **private))
