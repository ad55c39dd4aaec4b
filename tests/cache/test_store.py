"""The store on disk: several processes, killed writers, damaged files, limits."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.cache import store
from featx.cache.store import FeatureCache, file_state
from featx.extractor import FeatureExtractor
from featx.samples import load_fashion_mnist

X = load_fashion_mnist("test")[0][::15]


def make(tmp_path, **parameters):
    return FeatureExtractor(layer="stage1", cache=tmp_path / "cache", **parameters)


def test_many_caches_in_many_threads_lose_nothing(tmp_path):
    folders = [tmp_path / str(i) for i in range(12)]
    for i, folder in enumerate(folders):
        FeatureCache(folder).put({b"k": np.full(3, i, np.float32)})

    def read(i):
        return [FeatureCache(folders[(i * 5 + j) % 12]).get([b"k"])[b"k"][0] == (i * 5 + j) % 12 for j in range(60)]

    with ThreadPoolExecutor(6) as pool:
        assert all(all(answers) for answers in pool.map(read, range(12)))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_warns(tmp_path):
    rows = make(tmp_path).transform(X[:3])
    os.chmod(tmp_path / "cache", 0o500)
    try:
        with pytest.warns(UserWarning, match="continuing without"):
            np.testing.assert_array_equal(make(tmp_path).transform(X[:5])[:3], rows)
    finally:
        os.chmod(tmp_path / "cache", 0o700)


def test_a_full_disk_warns_and_loses_no_features(tmp_path, monkeypatch):
    real = FeatureCache._do

    def full(self, work, *, write=False):
        if write:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            work = lambda database: (_ for _ in ()).throw(error)  # noqa: E731
        return real(self, work, write=write)

    monkeypatch.setattr(FeatureCache, "_do", full)
    with pytest.warns(UserWarning, match="disk is full.*continuing without storing"):
        rows = make(tmp_path).transform(X[:3])
    np.testing.assert_array_equal(rows, FeatureExtractor(layer="stage1").transform(X[:3]))


@pytest.mark.parametrize("text", ["abc", "4GB", "-5"])
def test_a_wrong_limit_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv("FEATX_CACHE_BYTES", text)
    with pytest.raises(featx.InputError, match=f"FEATX_CACHE_BYTES='{text}': expected a whole number"):
        make(tmp_path).transform(X[:1])


@pytest.mark.parametrize("where", [0, 5000])
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path, where):
    rows = make(tmp_path).transform(X[:20])
    FeatureCache(tmp_path / "cache").prune(max_bytes=2**30)
    file = tmp_path / "cache" / "features.sqlite"
    code = f"""
        import warnings, numpy as np, featx
        X = featx.samples.load_fashion_mnist("test")[0][::15][:20]
        extractor = featx.FeatureExtractor(layer="stage1", cache={str(tmp_path / "cache")!r})
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            np.save({str(tmp_path / "rows.npy")!r}, extractor.transform(X))
        print([str(w.message) for w in warned])
    """
    content = bytearray(file.read_bytes())
    content[where : where + 4000] = b"\x55" * 4000
    for name in ("features.sqlite-wal", "features.sqlite-shm"):
        (tmp_path / "cache" / name).unlink(missing_ok=True)
    file.unlink()
    file.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows)
    if where == 0:
        assert "was damaged; started a new one" in done.stdout
        assert (tmp_path / "cache" / "features.sqlite.damaged").exists()


def test_what_was_unused_longest_goes_when_there_is_too_much(tmp_path, monkeypatch):
    clock = [1_000_000]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    cache = FeatureCache(tmp_path, max_bytes=10 * 400)
    for i in range(10):
        clock[0] += 10
        cache.put({b"%d" % i: np.full(100, i, np.float32)})
    clock[0] += 10_000
    cache.get([b"0"])  # used again
    cache.put({b"10": np.zeros(100, np.float32), b"11": np.zeros(100, np.float32)})
    assert sorted(cache.get([b"%d" % i for i in range(12)]), key=int) == [b"%d" % i for i in (0, *range(3, 12))]
    assert cache.info().n_bytes == 4000
    assert cache.prune(max_bytes=1200) == 7
    clock[0] += 86_400
    assert cache.prune(unused_days=0.5) == 3
    assert cache.info()[1:4] == (0, 0, 0)


def test_the_limit_is_set_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE_BYTES", "1000")
    make(tmp_path).transform(X[:30])
    assert FeatureCache(tmp_path / "cache").info().n_bytes <= 1000


WRITER = """
    import sys, numpy as np
    from featx.cache.store import FeatureCache
    cache = FeatureCache(sys.argv[1])
    for i in range(int(sys.argv[2]), int(sys.argv[3])):
        cache.put({b"%d" % (10 * i + j): np.full(50, 10 * i + j, np.float32) for j in range(10)})
        print(i, flush=True)
"""


def write_apart(folder, first, last):
    code = textwrap.dedent(WRITER)
    command = [sys.executable, "-c", code, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(tmp_path):
    writers = [write_apart(tmp_path, 100 * i, 100 * i + 60) for i in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.stdout.close()
    keys = [b"%d" % (10 * i + j) for k in range(3) for i in range(100 * k, 100 * k + 60) for j in range(10)]
    found = FeatureCache(tmp_path).get(keys)
    assert len(found) == len(keys) == FeatureCache(tmp_path).info().n_vectors
    assert all((found[key] == int(key)).all() for key in keys)


def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path):
    for round_ in range(3):
        writer = write_apart(tmp_path, 10_000 * round_, 10_000 * (round_ + 1))
        done = [int(writer.stdout.readline()) for _ in range(10 + 7 * round_)]
        writer.send_signal(signal.SIGKILL)
        writer.wait(60)
        writer.stdout.close()
        keys = [b"%d" % (10 * i + j) for i in done for j in range(10)]
        found = FeatureCache(tmp_path).get(keys)
        assert len(found) == len(keys)
        assert all((row == int(key)).all() for key, row in found.items())


def test_a_forked_child_and_its_parent_both_write(tmp_path):
    code = f"""
        import os, numpy as np
        from featx.cache.store import FeatureCache
        cache = FeatureCache({str(tmp_path)!r})
        cache.put({{b"before": np.ones(3, np.float32)}})
        pid = os.fork()
        name = b"parent" if pid else b"child"
        for i in range(50):
            cache.put({{name + b"%d" % i: np.ones(3, np.float32)}})
        if pid == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(cache.info().n_vectors)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "101", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_place_that_cannot_be_a_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(featx.InputError, match=r"cache .*file/x/features\.sqlite: cannot be used"):
        FeatureExtractor(cache=tmp_path / "file" / "x").transform(X[:1])
    for wrong, message in (
        ({"cache": 3}, "cache=3: expected True, False or a folder"),
        ({"cache": ""}, "cache='': expected True, False or a folder"),
    ):
        with pytest.raises(featx.InputError, match=message):
            FeatureExtractor(**wrong).transform(X[:1])
    with pytest.raises(featx.InputError, match="cache_verify='time': expected 'stat' or 'content'"):
        FeatureExtractor(cache_verify="time").transform(X[:1])


def test_states_tell_size_time_and_inode(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    before = file_state(path)
    assert file_state(path) == before
    os.utime(path, ns=(0, 0))
    assert file_state(path) != before
    assert file_state(tmp_path / "nothing") is None
    assert file_state("nul\0") is None


def test_a_new_cache_that_another_process_is_making_is_waited_for(tmp_path):
    path = tmp_path / "features.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    cache = FeatureCache(tmp_path)
    cache.put({b"key": np.ones(3, np.float32)}, {})
    timer.join()
    assert cache.info().n_vectors == 1


@pytest.fixture
def read_only(monkeypatch):
    """A file system that cannot be written, for a user that may be root."""

    def refuse(path):
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    def start():
        store._forget_all()
        monkeypatch.setattr(store, "_open_writable", refuse)

    return start


def test_a_cache_on_a_read_only_file_system_is_read(tmp_path, read_only):
    cache = FeatureCache(tmp_path / "odd name?#")
    cache.put({b"a": np.ones(3, np.float32)})
    read_only()
    np.testing.assert_array_equal(cache.get([b"a", b"b"])[b"a"], np.ones(3))
    assert cache.info().n_vectors == 1
    with pytest.warns(UserWarning, match="readonly database.*continuing without storing"):
        cache.put({b"b": np.ones(3, np.float32)})


def test_a_cache_that_a_read_only_file_system_does_not_hold_is_a_warning(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    cache = FeatureCache(tmp_path / "none")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(UserWarning, match="Read-only file system.*continuing without it"):
        assert cache.get([b"a"]) == {}


def test_a_row_of_nan_is_a_miss(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put({b"a": np.array([1, np.nan], np.float32), b"b": np.ones(2, np.float32)})
    assert list(cache.get([b"a", b"b"])) == [b"b"]
    assert cache.info().n_vectors == 1
