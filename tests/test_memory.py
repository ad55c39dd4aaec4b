"""Memory limits of the machine, of containers and of the process."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from featx import _memory
from featx._memory import allocate, available_memory

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files of a machine with 8 GB available and no control group."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * GB // 1000} kB\n".replace("kB", "kB"))
    (proc / "self" / "statm").write_text("100 10 5 1 0 50 0\n")
    (proc / "self" / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(_memory, "_PROC", proc)
    monkeypatch.setattr(_memory, "_CGROUPS", groups)
    return tmp_path


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_what_the_machine_has_available(machine):
    assert available_memory() == 8 * GB // 1000 * 1024


def test_the_tightest_group_around_the_process_counts(machine):
    (machine / "proc" / "self" / "cgroup").write_text("0::/pod/box\n")
    outer, inner = machine / "cgroup" / "pod", machine / "cgroup" / "pod" / "box"
    group(outer, memory__max=3 * GB, memory__current=2 * GB)
    group(inner, memory__max="max", memory__current=GB)
    assert available_memory() == GB
    group(inner, memory__max=2 * GB, memory__current=int(1.8 * GB), memory__stat=f"anon 5\ninactive_file {GB // 10}")
    assert available_memory() == pytest.approx(0.3 * GB)


def test_version_one_inside_a_container_whose_path_is_of_the_host(machine):
    (machine / "proc" / "self" / "cgroup").write_text("5:cpu,memory:/docker/abc\n3:cpuset:/\n")
    names = {"memory__limit_in_bytes": 2 * GB, "memory__usage_in_bytes": GB // 2}
    group(machine / "cgroup" / "memory", **names)
    assert available_memory() == 3 * GB // 2


def test_more_used_than_allowed_leaves_nothing(machine):
    group(machine / "cgroup", memory__max=GB, memory__current=2 * GB)
    assert available_memory() == 0


def test_a_system_that_tells_nothing(machine, monkeypatch):
    (machine / "proc" / "meminfo").unlink()
    (machine / "proc" / "self" / "cgroup").unlink()
    (machine / "proc" / "self" / "statm").unlink()
    monkeypatch.setattr(_memory.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}[name])
    assert available_memory() == 1000 * 4096 // 2
    monkeypatch.setattr(_memory.os, "sysconf", lambda name: int("none"))
    assert available_memory() is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other systems are not kept by them")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_process_own_limit(kind):
    """The reported amount can be allocated, and not much more."""
    assert hasattr(resource, kind)
    code = f"""
import resource
from featx._memory import allocate, available_memory
import numpy
resource.setrlimit(resource.{kind}, (2 * 10**9, 2 * 10**9))
free = available_memory()
assert free < 2 * 10**9, free
kept = bytearray(free - 20_000_000)
assert available_memory() < 25_000_000
try:
    bytearray(60_000_000)
except MemoryError:
    print("full")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "full\n", ran.stderr


@pytest.mark.parametrize("n", [10, 500_000])
def test_arrays_of_any_size_are_zeros_that_can_be_written(n):
    array = allocate((2, n))
    assert array.dtype == np.float32
    assert not array.any()
    array[1] = 3
    assert array.sum(dtype=float) == 3 * n
