"""Datasets whose vectors are a Lance table."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import featx
from featx import dataset
from featx.dataset import lance as module
from tests.dataset.dataset_tools import contents, rows

pytestmark = pytest.mark.heavy
EMBED = [sys.executable, "-m", "featx", "embed", "photos", "--format", "lance", "--layer", "stem", "--shard-size", "3"]


@pytest.fixture
def vectors(tree, extractor):
    """Three shards with a bad image."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    dataset.embed("photos", "vectors", extractor, shard_size=8, format="lance")
    return dataset.open("vectors")


def steady(folder):
    """All files but what Lance writes of the table's versions, which has times and random names in it."""
    return {name: content for name, content in contents(folder).items() if "lance/_" not in name}


def open_table(folder):
    return pytest.importorskip("lance").dataset(f"{folder}/{module.TABLE}")


def test_lance_opens_the_table_as_it_is(vectors, tree, extractor):
    table = open_table("vectors").to_table()
    assert table.drop_columns(["vector"]).to_pylist() == rows("vectors")
    X = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, vectors.n_features)
    ok = np.array(table["status"].to_pylist()) == "ok"
    np.testing.assert_array_equal(X[ok], vectors.X)
    assert np.isnan(X[~ok]).all()
    nearest = {"column": "vector", "q": vectors.X[3], "k": 2, "metric": "cosine"}
    found = open_table("vectors").to_table(nearest=nearest, columns=["key"], filter="status = 'ok'", prefilter=True)
    (expected,) = dataset.find_neighbors(vectors, vectors.X[3:4], 2)
    assert found["key"].to_pylist() == [one.key for one in expected]
    assert dataset.verify("vectors", "photos") == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_vectors_are_those_of_parquet(tree, extractor, dtype):
    dataset.embed("photos", "a", extractor, shard_size=8, format="lance", dtype=dtype)
    dataset.embed("photos", "b", extractor, shard_size=8, dtype=dtype)
    a, b = dataset.open("a"), dataset.open("b")
    np.testing.assert_array_equal(a.X, b.X)
    np.testing.assert_array_equal(a.take([19, 0, 7, 7]), b.X[[19, 0, 7, 7]])
    for mapped, other in zip(a.maps(), b.maps(), strict=True):
        assert mapped.dtype == other.dtype == dtype
        np.testing.assert_array_equal(mapped, other)
    assert rows("a") == rows("b")


def test_what_is_there_is_gone_on_with_and_left_alone(vectors, tree, extractor):
    before = contents("vectors")
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0
    assert contents("vectors") == before  # no new version of the same table
    os.unlink("vectors/part-00001.parquet")
    os.unlink("vectors/part-00002.parquet")
    os.unlink(f"vectors/{module.TABLE}/data/part-00002.lance")
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 13
    assert steady("vectors") == {name: content for name, content in before.items() if "lance/_" not in name}
    shutil.copy(tree / "bag" / os.listdir(tree / "bag")[0], tree / "coat" / "new.png")
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 1
    assert open_table("vectors").count_rows() == 22
    assert len(dataset.open("vectors")) == 21


def test_killed_runs_lose_nothing(tree):
    assert subprocess.run([*EMBED, "-o", "undisturbed"], capture_output=True, timeout=120).returncode == 0
    expected = steady("undisturbed")
    generator = random.Random(time.time_ns())
    start = time.perf_counter()
    subprocess.run([*EMBED, "-o", "other"], capture_output=True, timeout=120)
    seconds, kills = time.perf_counter() - start, 0
    while kills < 8:
        process = subprocess.Popen([*EMBED, "-o", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.4, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if kills == 5:
            shutil.rmtree("killed", ignore_errors=True)
        there = steady("killed") if os.path.isdir("killed") else {}
        shards = {name: content for name, content in there.items() if "part-" in name and ".featx-" not in name}
        assert shards.items() <= expected.items()
    assert subprocess.run([*EMBED, "-o", "killed"], capture_output=True, timeout=120).returncode == 0
    assert steady("killed") == expected
    assert open_table("killed").to_table() == open_table("undisturbed").to_table()


def test_a_file_that_cannot_grow_is_an_error_of_one_line(tree):
    code = """if True:
        import resource, signal, sys, featx
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        extractor = featx.FeatureExtractor(layer="stem", pooling="flatten")
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            featx.dataset.embed("photos", "vectors", extractor, shard_size=4, format="lance")
        except featx.DatasetError as error:
            sys.exit(f"one line: {error}")
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "one line: " in ran.stderr, ran.stderr
    assert "vectors/part-00000.parquet: cannot be written (" in ran.stderr
    assert [name for name in contents("vectors") if "part-" in name] == []


def test_parts_make_one_table(tree, extractor):
    for i in (2, 1):
        dataset.embed("photos", "parts", extractor, shard_size=3, format="lance", part=(i, 2))
    dataset.embed("photos", "whole", extractor, shard_size=3, format="lance")
    assert steady("parts") == steady("whole")
    assert open_table("parts").to_table() == open_table("whole").to_table()


def test_merged_to_and_fro(vectors):
    merged = dataset.merge(["vectors"], "merged", format="parquet", shard_size=8)
    np.testing.assert_array_equal(merged.X, vectors.X)
    back = dataset.merge(["merged"], "back", format="lance", shard_size=8)
    np.testing.assert_array_equal(back.X, vectors.X)
    assert steady("back")[f"{module.TABLE}/data/part-00001.lance"]
    tables = [open_table(folder).to_table().drop_columns(["vector"]) for folder in ("back", "vectors")]
    assert tables[0] == tables[1]
    assert dataset.verify("back", "photos") == []


def test_damaged_and_missing_files_are_named(vectors):
    path = vectors.folder / module.TABLE / "data" / "part-00001.lance"
    content = path.read_bytes()
    place = content.index(np.asarray(vectors.take([8])[0], np.float32).tobytes()[:16])
    path.write_bytes(content[:place] + b"\0\0\0\0" + content[place + 4 :])
    (problem,) = dataset.verify("vectors")
    assert "part-00001.lance: damaged vectors (their checksum is another); delete it with the .parquet" in problem
    for broken in (b"", b"junk", content[:-20]):
        path.write_bytes(broken)
        with pytest.raises(featx.DatasetError, match=r"part-00001\.lance: damaged or missing vectors"):
            dataset.open("vectors").X  # noqa: B018
    path.unlink()
    with pytest.raises(featx.DatasetError, match=r"part-00001\.lance: damaged or missing vectors"):
        dataset.open("vectors").take([9])
    path.write_bytes((path.parent / "part-00000.lance").read_bytes())
    assert "part-00001.lance: " in dataset.verify("vectors")[0]


def test_another_format_into_the_same_folder_is_refused(vectors, extractor):
    with pytest.raises(featx.InputError, match="format='npy': vectors has 'lance'; leave it out"):
        dataset.embed("photos", "vectors", extractor, format="npy")
