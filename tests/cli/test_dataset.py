"""``featx embed SOURCE -o DIR`` and ``featx dataset``."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

from featx.cli import embed_dataset, progress
from featx.dataset import Estimate
from featx.dataset import open as open_dataset
from tests.cli.cli_tools import CLASSES, listing, start, write_csv

STEM = ("--layer", "stem")


def shards(folder):
    return [name for name in listing(folder) if name.startswith("part")]


def test_a_folder_as_output_is_a_dataset(featx, here, world):
    ran = featx("embed", world / "test", "-o", "vectors", "--shard-size", 5, *STEM)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "vectors: 12 images, 12 embedded now, efficientnet_lite0 on cpu\n"
    assert shards("vectors") == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    os.unlink("vectors/part-00001.parquet")
    ran = featx("embed", world / "test", "-o", "vectors", *STEM)
    assert ran.err == "featx: 7 of 12 images are already done\n"
    assert ran.out.startswith("vectors: 12 images, 5 embedded now, ")
    found = open_dataset("vectors")
    assert sorted(set(found.y)) == list(CLASSES)


def test_processes_share_a_file_as_well(featx, here, world):
    assert featx("embed", world / "test", "-o", "one.npy", *STEM).code == 0
    assert featx("embed", world / "test", "-o", "two.npy", "--jobs", 2, *STEM).code == 0
    np.testing.assert_array_equal(np.load("one.npy"), np.load("two.npy"))
    for output in ("three.npy", "three"):
        ran = featx("embed", world / "test", "-o", output, "--jobs", 0, *STEM)
        assert (ran.code, ran.err.startswith("featx: error: --jobs 0: expected")) == (2, True)


@pytest.mark.parametrize("output", ["vectors", "vectors/", "v.2/", "there.before"])
def test_what_is_taken_as_a_folder(featx, here, world, output):
    os.mkdir("there.before")
    assert featx("embed", world / "test" / "bag", "-o", output, *STEM).code == 0
    assert shards(output) == ["part-00000.parquet"]


def test_what_is_neither_file_nor_folder_is_refused(featx, here, world):
    ran = featx("embed", world / "test", "-o", "vectors.txt")
    assert ran.code == 2
    assert (
        "vectors.txt: expected a name ending in .csv, .npy, .parquet, or a name without a suffix for a dataset"
        in ran.err
    )


FOLDER_OPTIONS = [
    *(("--shard-size", 5), ("--retry-failed",), ("--max-failures", 0)),
    *(("--dry-run",), ("--shard", "1/2"), ("--dtype", "float16"), ("--backend", "loky")),
]


@pytest.mark.parametrize("options", FOLDER_OPTIONS)
def test_options_of_a_folder_belong_to_it(featx, here, world, options):
    ran = featx("embed", world / "test", "-o", "f.npy", *options)
    assert ran.code == 2
    assert f"{options[0]} needs a folder as output, and f.npy is a file" in ran.err
    assert "--profile needs a file" in featx("embed", world / "test", "-o", "vectors", "--profile").err
    assert listing(here) == []


def test_bad_images_are_counted_listed_and_tried_again(featx, here, world):
    good = [str(path) for path in sorted((world / "test" / "bag").iterdir())]
    write_csv(
        "t.csv", ["path", "label"], [good[0], "a"], [world / "broken.png", "b"], ["later.png", "c"], [good[1], "a"]
    )
    ran = featx("embed", "t.csv", "-o", "vectors", *STEM)
    assert ran.code == 0
    assert "featx: 2 images could not be read; list them with: featx dataset info vectors" in ran.err
    info = featx("dataset", "info", "vectors").out.splitlines()
    assert info[0] == "vectors: 4 images, 2 ok, 2 failed"
    assert info[-2].startswith(f"  failed: {world / 'broken.png'}: ")
    assert info[-1] == "  failed: later.png: no such file; check the path, which is relative to the table"
    assert featx("dataset", "info", "vectors", "--failures", 1).out.endswith(
        "  and 1 more; list them with --failures N\n"
    )
    os.link(good[2], "later.png")
    ran = featx("embed", "t.csv", "-o", "vectors", "--retry-failed", *STEM)
    assert ran.out.startswith("vectors: 4 images, 2 embedded now (2 replacing earlier rows), ")
    about = json.loads(featx("dataset", "info", "vectors", "--json").out)
    assert (about["n_images"], about["n_ok"], about["n_failed"]) == (4, 3, 1)
    assert [failure["key"] for failure in about["failures"]] == [str(world / "broken.png")]
    ran = featx("embed", "t.csv", "-o", "strict", "--max-failures", 0, *STEM)
    assert ran.code == 2
    assert "1 image could not be read, more than" in ran.err


def test_a_dataset_of_unreadable_images_is_an_error(featx, here, world):
    for _ in range(2):  # and again when there is nothing left to do
        ran = featx("embed", world / "broken.png", "-o", "vectors", *STEM)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("featx: error: vectors: the only image could not be read: broken.png: ")
    write_csv("t.csv", ["path"], [world / "broken.png"], ["nowhere.png"])
    ran = featx("embed", "t.csv", "-o", "two", *STEM)
    assert ran.code == 2
    assert f"two: none of 2 images could be read; the first: {world / 'broken.png'}: " in ran.err


def test_other_features_and_too_few_features_are_one_line(featx, here, world):
    assert featx("embed", world / "test", "-o", "vectors", *STEM).code == 0
    for options in (("--layer", "stage1"), (*STEM, "--pooling", "max"), (*STEM, "--dtype", "float16")):
        ran = featx("embed", world / "test", "-o", "vectors", *options)
        assert ran.code == 2
        assert ran.err.startswith("featx: error: vectors: holds other features (")
        assert ran.err.count("\n") == 1


def test_a_job_array_and_workers_make_the_same(featx, here, world):
    assert featx("embed", world / "test", "-o", "one", "--shard-size", 3, *STEM).code == 0
    for i in (1, 2):
        ran = featx("embed", world / "test", "-o", "array", "--shard-size", 3, "--shard", f"{i}/2", *STEM)
        assert ran.code == 0
        assert ran.out.endswith("; shards of other parts are missing\n") == (i == 1)
        if i == 1:
            assert shards("array") == ["part-00000.parquet", "part-00002.parquet"]
    assert featx("embed", world / "test", "-o", "two", "--shard-size", 3, "--jobs", 2, *STEM).code == 0
    for name in shards("one"):
        for other in ("array", "two"):
            assert (here / other / name).read_bytes() == (here / "one" / name).read_bytes()
    for wrong in ("0/2", "3/2", "1", "a/b"):
        ran = featx("embed", world / "test", "-o", "array", "--shard", wrong)
        assert ran.code == 2
        assert "expected I/N, such as 1/8 to 8/8" in ran.err
    ran = featx("embed", world / "test", "-o", "array", "--cluster", "tcp://nowhere", *STEM)
    assert "--cluster tcp://nowhere: needs --backend dask or ray" in ran.err


def test_a_json_log_says_what_happened(featx, here, world, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    write_csv("t.csv", ["path"], *([path] for path in (world / "test" / "bag").iterdir()), [world / "broken.png"])
    assert featx("embed", "t.csv", "-o", "vectors", "--shard-size", 3, "--json-log", "log.jsonl", *STEM).code == 0
    with open("log.jsonl") as file:
        events = [json.loads(line) for line in file]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "note",
        "begin",
        "shard",
        "shard",
        "end",
    ]
    assert [(event["ok"], event["failed"]) for event in events if event["event"] == "shard"] == [(3, 0), (1, 1)]
    assert (events[-1]["images"], events[-1]["failed"]) == (5, 1)
    assert events[-1]["bytes"] > 1000
    ran = featx("embed", "t.csv", "-o", "vectors", "--json-log", "-", "--layer", "stage1")
    assert json.loads(ran.err.splitlines()[0])["event"] == "error"
    ran = featx("embed", "t.csv", "-o", "vectors", "--json-log", "no/such/folder", *STEM)
    assert "--json-log no/such/folder: cannot be written (No such file or directory)" in ran.err


def test_plain_lines_say_how_far_it_is(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress() as shown:
        shown.begin("embed", 1000, 200)
        for n in range(100):
            clock[0] += 0.5
            shown.advance(1, n_failed=n % 50 == 0, n_bytes=1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "featx: 200 of 1000 images are already done",
        "featx: 260 of 1000 images (26%), 2.0/s, 06:10 left, 2 failed, 60.0MB read",
    ]


def test_a_dry_run_writes_nothing(featx, here, world, monkeypatch):
    ran = featx("embed", world / "test", world / "broken.png", "-o", "vectors", "--dry-run", *STEM)
    assert ran.code == 0
    assert ran.out.startswith("vectors: 13 images, about ")
    assert ran.out.endswith("; 1 of 13 sampled images cannot be read; nothing was written\n")
    assert listing(here) == []
    huge = Estimate(10**9, 1e7, 10**18, 10**13, 256, 0)
    monkeypatch.setattr(embed_dataset.dataset, "estimate", lambda *_, **__: huge)
    ran = featx("embed", world / "test", "-o", "vectors", "--dry-run", *STEM)
    assert ": 1.00EB are needed, but only " in ran.err
    assert "1000000000 images, about 2777:46:40" in ran.out


def test_datasets_are_merged_verified_and_sampled(featx, here, world):
    for name in ("bag", "coat"):
        assert featx("embed", world / "test" / name, world / "train" / name, "-o", name, *STEM).code == 0
    ran = featx("dataset", "merge", "bag", "coat", "-o", "both", "--shard-size", 5)
    n = len(open_dataset("bag"))
    assert ran.out == f"both: {2 * n} images with vectors in {2 * -(-n // 5)} shards\n"
    assert featx("dataset", "verify", "both").out == f"both: {2 * n} images, no problems found\n"
    ran = featx("dataset", "verify", "bag", "--source", world / "test" / "bag", world / "train" / "bag", "-n", 3)
    assert ran.out == f"bag: {n} images, no problems found; 3 images gave the same vectors again\n"
    ran = featx("dataset", "verify", "bag", "--source", world / "test" / "bag", world / "train" / "bag")
    assert ran.out == f"bag: {n} images, no problems found; {n} images gave the same vectors again\n"
    ran = featx("dataset", "sample", "both", "-n", 4)
    assert len(ran.out.splitlines()) == 4
    assert featx("dataset", "sample", "both", "-n", 4).out == ran.out
    assert featx("dataset", "sample", "both", "-n", 4, "-o", "some.npy").code == 0
    assert np.load("some.npy").shape == (4, open_dataset("both").n_features)
    os.truncate("both/part-00001.parquet", 100)
    ran = featx("dataset", "verify", "both")
    assert ran.code == 2
    assert "both/part-00001.parquet: a damaged shard" in ran.out
    assert ran.err.startswith("featx: error: both: ")
    assert featx("dataset", "sample", "both", "-n", 0).code == 2


def test_labels_follow_the_source_and_rows_are_pruned(featx, here, world):
    shutil.copytree(world / "test", here / "photos")
    assert featx("embed", "photos", "-o", "vectors", *STEM).code == 0
    first, second = sorted((here / "photos" / "bag").iterdir())[:2]
    first.rename(here / "photos" / "coat" / "moved.png")
    n = len(open_dataset("vectors"))
    ran = featx("embed", "photos/", "-o", "vectors", *STEM)
    assert ran.out.startswith(f"vectors: {n + 1} images, 0 embedded now,")
    assert "featx: 1 image has left the source; kept in the dataset, and dropped with --prune" in ran.err
    second.unlink()
    ran = featx("embed", "photos", "-o", "vectors", "--prune", *STEM)
    assert ran.out.startswith(f"vectors: {n - 1} images, 0 embedded now,")
    assert "featx: 2 images have left the source; dropped from the dataset" in ran.err
    paths = sorted(path.relative_to(here) for path in (here / "photos").glob("*/*.png"))
    write_csv("t.csv", ["path", "kind"], *([path, path.parent.name] for path in paths))
    assert featx("embed", "t.csv", "-o", "table", *STEM).code == 0
    ran = featx("embed", "t.csv", "-o", "table", "--target", "kind", *STEM)
    assert f"featx: {n - 1} labels have changed in the source" in ran.err
    write_csv("t.csv", ["path", "kind"], *([path, "other"] for path in paths))
    ran = featx("dataset", "verify", "table", "--source", "t.csv", "-n", 1)
    assert ran.code == 2
    assert "its label is 'bag', and 'other' in the source" in ran.out


@pytest.mark.heavy
def test_an_interrupted_job_goes_on(run_process, featx, here, world):
    write_csv("big.csv", ["path"], *([next((world / "test" / "bag").iterdir())] for _ in range(400)))
    process = start("embed", "big.csv", "-o", "vectors", "--shard-size", 10, "--json-log", "-", cwd=here)
    lines = iter(process.stderr.readline, "")
    assert any('"shard"' in line for line in lines)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in err
    n_finished, n_kept = len(shards("vectors")), open_dataset("vectors").n_kept
    assert 0 < 10 * n_finished <= n_kept < 400
    assert f"featx: {n_kept} of 400 images are kept; run the same command to go on" in err
    assert featx("embed", "big.csv", "-o", "vectors").code == 0
    assert len(open_dataset("vectors")) == 400
