"""How much memory this process may still take: the machine's, a container's and the process's own limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory"]

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Tell how many bytes this process may still take.

    Returns
    -------
    int or None
        The least of what the machine has free, what the limits of the containers around it
        leave, and what the process's own limits (``ulimit -v``, ``ulimit -d``) leave; None where
        the system tells nothing.

    Examples
    --------
    >>> from featx._memory import available_memory
    >>> available_memory() > 1_000_000
    True
    """
    found = [*_machine(), *_containers(), *_process()]
    return max(0, min(found)) if found else None


def _machine() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        fields = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines())
        yield int(fields["MemAvailable"].split()[0]) * 1024
        return
    with suppress(OSError, ValueError, AttributeError):  # no Linux: all that it has, of which half may be taken
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _containers() -> Iterator[int]:
    """Give what each control group that this process is in leaves, of either version."""
    with suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _groups(_CGROUPS, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _groups(_CGROUPS / "memory", path, *names)


def _groups(root: Path, path: str, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    """Give what is left in a group and in those around it; inside a container the path may lead nowhere."""
    inner = root / path.lstrip("/")
    for group in (inner, *inner.parents):
        if group != root and root not in group.parents:
            return
        with suppress(OSError, ValueError):  # "max" is no limit
            most, now = int((group / limit).read_text()), int((group / used).read_text())
            yield most - now + _file_cache(group, reclaimable)


def _file_cache(group: Path, name: str) -> int:
    """Give what of a group's memory are pages of files, which the kernel takes back when asked for more."""
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
