"""Each image embedded once: across clones, folds, processes and restarts; and never a wrong vector."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import featx
from featx.backbones import open_backbone
from featx.cache import keys
from featx.cache.decoded import DecodedImageCache
from featx.cache.store import FeatureCache, file_state
from featx.extractor import FeatureExtractor
from featx.inference import engine
from featx.samples import extract_fashion_mnist, load_fashion_mnist

X, Y = load_fashion_mnist("test")
X, Y = X[::15], Y[::15]
ARRAY = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)


@pytest.fixture
def decoded(monkeypatch):
    """Count what is decoded, with no memory of what was decoded a moment ago."""
    monkeypatch.setattr(keys, "recent_images", DecodedImageCache(max_bytes=0))
    seen = []
    real = engine.decode

    def decode(content, shortest=None):
        seen.append(content)
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    extract_fashion_mnist(folder)
    return folder / "test" / "bag"


@pytest.fixture
def paths(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    return [shutil.copy(path, tmp_path / "mine") for path in sorted(folder.iterdir())[:6]]


def make(tmp_path, **parameters):
    return FeatureExtractor(layer="stage1", cache=tmp_path / "cache", **parameters)


@pytest.mark.parametrize("kind", ["paths", "bytes", "arrays"])
def test_a_hit_needs_no_decoding_and_is_the_same_to_the_bit(tmp_path, paths, decoded, kind):
    images = {"paths": paths, "bytes": X, "arrays": [ARRAY, ARRAY[::-1], ARRAY[:, :30]]}[kind]
    plain = FeatureExtractor(layer="stage1").transform(images)
    decoded.clear()
    np.testing.assert_array_equal(make(tmp_path).transform(images), plain)
    assert len(decoded) == len(images)
    np.testing.assert_array_equal(make(tmp_path).transform(images[::-1]), plain[::-1])
    assert len(decoded) == len(images)
    assert FeatureCache(tmp_path / "cache").info().n_vectors == len(images)


def test_a_known_file_is_not_even_opened(tmp_path, paths, monkeypatch):
    rows = make(tmp_path).transform(paths)
    monkeypatch.setattr("featx.images.decode._read", lambda path: pytest.fail("was read"))
    np.testing.assert_array_equal(make(tmp_path).transform(paths), rows)
    with pytest.raises(pytest.fail.Exception, match="was read"):
        make(tmp_path).transform([shutil.copy(paths[0], tmp_path / "fresh.png")])


def test_the_same_content_elsewhere_is_the_same_image(tmp_path, paths, decoded):
    row = make(tmp_path).transform(paths[:1])
    copy = shutil.copy(paths[0], tmp_path / "copy.png")
    with open(copy, "rb") as file:
        np.testing.assert_array_equal(make(tmp_path).transform([copy, file.read()]), np.repeat(row, 2, axis=0))
    assert len(decoded) == 1


def test_a_file_that_changed_is_embedded_again(tmp_path, paths):
    first = make(tmp_path).transform(paths[:2])
    os.replace(shutil.copy(paths[1], tmp_path / "other.png"), paths[0])
    np.testing.assert_array_equal(make(tmp_path).transform(paths[:1]), first[1:])


def test_a_file_replaced_by_one_of_its_size_and_time_is_seen(tmp_path, paths):
    path, smaller = max(paths, key=os.path.getsize), min(paths, key=os.path.getsize)
    first, state = make(tmp_path).transform([path]), os.stat(path)
    with open(smaller, "rb") as file:
        content = file.read().ljust(state.st_size, b"\0")
    with open(path, "r+b") as file:  # another image, the same size, inode and time of change
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for verify in ("stat", "content"):
        seen = make(tmp_path, cache_verify=verify).transform([path])
        np.testing.assert_array_equal(seen, FeatureExtractor(layer="stage1").transform([path]))
        assert not np.array_equal(seen, first)


def test_content_is_read_and_believed_alone(tmp_path, paths, monkeypatch):
    first = make(tmp_path).transform(paths[:1])
    monkeypatch.setattr("featx.cache.keys.file_state", lambda path: file_state(paths[0]))  # a file system that lies
    np.testing.assert_array_equal(make(tmp_path).transform(paths[1:2]), first)
    seen = make(tmp_path, cache_verify="content").transform(paths[1:2])
    np.testing.assert_array_equal(seen, FeatureExtractor(layer="stage1").transform(paths[1:2]))


def test_names_in_any_encoding(tmp_path, paths, decoded):
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    os.replace(paths[0], odd)
    for _ in range(2):
        make(tmp_path).transform([os.fsdecode(odd)])
    assert len(decoded) == 1


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
        with pytest.warns(UserWarning, match="going on without"):
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
    with pytest.warns(UserWarning, match="disk is full.*going on without keeping"):
        rows = make(tmp_path).transform(X[:3])
    np.testing.assert_array_equal(rows, FeatureExtractor(layer="stage1").transform(X[:3]))


def test_providers_with_other_options_are_other_features(tmp_path, decoded):
    for arena in ("0", "1"):
        make(tmp_path, providers=[("CPUExecutionProvider", {"use_arena": arena})]).transform(X[:1])
    assert len(decoded) == 2


@pytest.mark.parametrize("text", ["abc", "4GB", "-5"])
def test_a_wrong_limit_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv("FEATX_CACHE_BYTES", text)
    with pytest.raises(featx.InputError, match=f"FEATX_CACHE_BYTES='{text}': expected a whole number"):
        make(tmp_path).transform(X[:1])


#: Every parameter, a value other than its default, and whether features are the same whatever it is.
FLIPS = {
    "backbone": ("other", False),
    "layer": ("stage2", False),
    "pooling": ("max", False),
    "crop": ("whole", False),
    "l2_normalize": (True, False),
    "precision": ("int8", False),
    "decode": ("fast", False),
    "device": ("cpu", True),
    "providers": (["CPUExecutionProvider"], False),  # their options may change the precision
    "batch_size": (3, True),
    "cache": (None, True),
    "cache_verify": ("content", True),
    "n_threads": (1, True),
    "n_jobs": (2, True),
    "on_error": ("nan", True),
    "progress": (True, True),
}


def test_every_parameter_is_known_to_this_test():
    assert set(FLIPS) == set(FeatureExtractor().get_params())


@pytest.mark.parametrize("name", FLIPS)
def test_a_parameter_that_changes_values_misses_and_no_other(tmp_path, decoded, other_backbone, name):
    make(tmp_path).transform(X[:2])
    decoded.clear()
    value, same = FLIPS[name]
    value = {"backbone": other_backbone, "cache": str(tmp_path / "cache")}.get(name, value)
    make(tmp_path).set_params(**{name: value}).transform(X[:2])
    assert len(decoded) == (0 if same else 2)


def test_versions_and_the_device_are_part_of_the_key(tmp_path, decoded, monkeypatch):
    make(tmp_path).transform(X[:1])
    decoded.clear()
    for change in ("PREPROCESSING", "_version"):
        with monkeypatch.context() as patch:
            patch.setattr(f"featx.cache.keys.{change}", 99 if change == "PREPROCESSING" else lambda name: "99")
            make(tmp_path).transform(X[:1])
    assert len(decoded) == 2


def test_a_search_over_heads_embeds_each_image_once(tmp_path, decoded):
    pipeline = make_pipeline(make(tmp_path), LogisticRegression(max_iter=300))
    grid = {"logisticregression__C": [0.01, 0.1, 1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert len(decoded) == len(X)
    search.predict(X)
    assert len(decoded) == len(X)


def test_a_search_in_worker_processes_shares_it(tmp_path):
    pipeline = make_pipeline(make(tmp_path), LogisticRegression(max_iter=300))
    grid = {"logisticregression__C": [0.01, 1]}
    scores = [
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n).fit(X, Y).cv_results_["mean_test_score"].tolist() for n in (2, 1)
    ]
    assert scores[0] == scores[1]
    assert FeatureCache(tmp_path / "cache").info().n_vectors == len(X)


def test_an_image_that_cannot_be_read_is_not_kept(tmp_path):
    extractor = make(tmp_path, on_error="nan")
    for _ in range(2):
        with pytest.warns(featx.FailedImagesWarning, match="item 1 "):
            rows = extractor.transform([X[0], b"broken", X[1]])
        assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(featx.ImageError, match=r"item 2 \(<bytes>\)"):
        make(tmp_path).transform([X[0], X[1], b"broken"])
    assert FeatureCache(tmp_path / "cache").info().n_vectors == 2


def test_streams_use_it_as_well(tmp_path, decoded):
    rows = list(make(tmp_path).iter_embed(iter(X[:5])))
    np.testing.assert_array_equal(list(make(tmp_path).iter_embed(iter(X[:5]))), rows)
    assert len(decoded) == 5


def test_a_damaged_vector_is_computed_again(tmp_path, decoded):
    rows = make(tmp_path).transform(X[:3])
    with sqlite3.connect(tmp_path / "cache" / "features.sqlite") as database:
        database.execute("UPDATE vectors SET value = zeroblob(length(value)) WHERE rowid = 1")
    database.close()
    decoded.clear()
    np.testing.assert_array_equal(make(tmp_path).transform(X[:3]), rows)
    assert len(decoded) == 1
    np.testing.assert_array_equal(make(tmp_path).transform(X[:3]), rows)
    assert len(decoded) == 1


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
        assert "was damaged and is begun anew" in done.stdout
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


def test_true_is_a_folder_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "own"))
    FeatureExtractor(layer="stage1", cache=True).transform(X[:2])
    assert FeatureCache(tmp_path / "own").info().n_vectors == 2


def test_a_vector_of_another_length_is_not_taken(tmp_path):
    first = make(tmp_path).transform(X[:1])
    with sqlite3.connect(tmp_path / "cache" / "features.sqlite") as database:
        short = np.ones(3, np.float32).tobytes()
        database.execute("UPDATE vectors SET value = ?, crc = ?", (short, zlib.crc32(short)))
    database.close()
    np.testing.assert_array_equal(make(tmp_path).transform(X[:1]), first)


def test_states_tell_size_time_and_inode(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    before = file_state(path)
    assert file_state(path) == before
    os.utime(path, ns=(0, 0))
    assert file_state(path) != before
    assert file_state(tmp_path / "nothing") is None
    assert file_state("nul\0") is None


def test_the_identity_of_the_backbone_counts_and_not_its_name(tmp_path, decoded):
    copy = shutil.copy(open_backbone("efficientnet_lite0").path, tmp_path / "copy.onnx")
    make(tmp_path).transform(X[:2])
    make(tmp_path).set_params(backbone=copy).transform(X[:2])
    assert len(decoded) == 2
