"""Whatever ends a run, and whenever: shards are whole or absent, and the next run makes what is missing."""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

import featx
from featx import dataset
from featx.dataset.manifest import MANIFEST
from tests.dataset.dataset_tools import contents

#: Forks a run for every line that it reads, so that nothing is imported twice, and kills it after so many seconds.
STARTER = """
    import contextlib, json, os, signal, sys
    import pyarrow.parquet, sklearn.base, featx.dataset, featx.dataset.job
    from featx.dataset import worker

    def kill(*_):
        with contextlib.suppress(ProcessLookupError):  # the run has just ended by itself
            os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    for line in sys.stdin:
        seconds, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            worker._SECONDS_BETWEEN_KEEPING = arguments.pop("keep_after", 30)
            featx.dataset.embed(extractor=featx.FeatureExtractor(layer="stem", n_threads=2), **arguments)
            os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        status = os.waitpid(pid, 0)[1]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def starter():
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(STARTER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def run(starter, kill_after=0.0, **arguments):
    """Run a job in a process of its own, and kill it after some seconds; give its exit status and its seconds."""
    start = time.perf_counter()
    print(json.dumps([kill_after, arguments]), file=starter.stdin, flush=True)
    return int(starter.stdout.readline()), time.perf_counter() - start


def check_whole(folder, expected):
    """Every file that has a name is what an undisturbed run made, or a manifest of less."""
    found = {name: content for name, content in contents(folder).items() if not name.startswith(".")}
    manifest = found.pop(MANIFEST, None)
    assert found.items() <= expected.items()
    assert manifest is None or json.loads(manifest)["generations"]
    return len(found)


def kill_until_done(starter, archive, tmp_path, n_kills, seed):
    """Grow a source three times, and kill the runs over each stage so and so often."""
    generator = random.Random(seed)
    labels = ("bag", "coat", "sandal")
    photos, kills, partial = tmp_path / "photos", 0, 0
    for stage, label in enumerate(labels):
        shutil.copytree(archive / label, photos / label)
        if stage == 2:  # and an image that changed
            shutil.copy2(
                archive / "shirt" / os.listdir(archive / "shirt")[0], photos / "bag" / os.listdir(photos / "bag")[0]
            )
        arguments = {"source": str(photos), "check": "stat"} | ({"shard_size": 2} if stage == 0 else {})
        status, seconds = run(starter, directory=str(tmp_path / "undisturbed"), **arguments)
        assert status == 0
        expected = contents(tmp_path / "undisturbed")
        stage_kills = 0
        while stage_kills < n_kills // len(labels):
            before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("part-*")}
            after = generator.uniform(0.001, seconds)
            status, _ = run(starter, after, directory=str(tmp_path / "killed"), **arguments)
            assert status in (0, -9)
            partial += 0 < check_whole(tmp_path / "killed", expected) < len(expected) - 1
            assert all(path.stat().st_mtime_ns == time for path, time in before.items())
            if status == 0:  # it was quicker: once more from what was there before this stage
                for path in (tmp_path / "killed").glob("part-*"):
                    if path not in before:
                        path.unlink()
            stage_kills += status == -9
        assert run(starter, directory=str(tmp_path / "killed"), **arguments)[0] == 0
        assert contents(tmp_path / "killed") == expected
        kills += stage_kills
    return kills, partial


@pytest.mark.heavy
def test_killed_runs_lose_nothing(starter, archive, tmp_path):
    kills, _ = kill_until_done(starter, archive, tmp_path, 6, seed=time.time_ns())
    assert kills == 6


def test_a_killed_run_keeps_the_rows_of_its_unfinished_shard(starter, archive, tmp_path):
    shutil.copytree(archive, tmp_path / "photos")
    arguments = {"source": str(tmp_path / "photos"), "keep_after": 0.05}
    _, seconds = run(starter, directory=str(tmp_path / "undisturbed"), **arguments)
    generator, kept = random.Random(time.time_ns()), [0]
    for _ in range(3):
        run(starter, generator.uniform(seconds / 3, seconds), directory=str(tmp_path / "killed"), **arguments)
        kept.append(dataset.open(tmp_path / "killed").n_kept if (tmp_path / "killed" / MANIFEST).exists() else 0)
    assert kept == sorted(kept)
    assert kept[-1] > 0
    assert run(starter, directory=str(tmp_path / "killed"), **arguments)[0] == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.heavy
def test_killed_runs_that_prune_and_change_labels_lose_nothing(starter, archive, tmp_path):
    photos, killed = tmp_path / "photos", tmp_path / "killed"
    shutil.copytree(archive, photos)
    arguments = {"source": str(photos), "shard_size": 20}
    assert run(starter, directory=str(killed), **arguments)[0] == 0
    shutil.move(photos / "bag", photos / "purse")
    for path in list(photos.glob("*/*5*.png")):
        path.unlink()
    shutil.copytree(killed, tmp_path / "copy")
    status, seconds = run(starter, directory=str(tmp_path / "copy"), prune=True, **arguments)
    assert status == 0
    generator = random.Random(time.time_ns())
    for _ in range(8):
        assert run(starter, generator.uniform(0.01, seconds), directory=str(killed), prune=True, **arguments)[0] in (
            0,
            -9,
        )
    assert run(starter, directory=str(killed), prune=True, **arguments)[0] == 0
    keys = {str(path.relative_to(photos)) for path in photos.glob("*/*.png")}
    opened = dataset.open(killed)
    assert set(opened.keys) == keys
    assert [key.split("/")[0] for key in opened.keys] == opened.y.tolist()
    assert dataset.verify(killed, photos) == []
    names = {path.name for path in killed.glob("part-*")}
    assert names == {f"part-{number:05}.parquet" for number in opened.current_rows.shards}


@pytest.mark.full
def test_fifty_killed_runs_lose_nothing(starter, archive, tmp_path):
    kills, partial = kill_until_done(starter, archive, tmp_path, 60, seed=time.time_ns())
    assert kills == 60
    assert partial > 5  # most were in the middle of something


def test_a_run_that_is_killed_lets_go_of_the_folder(starter, tree):
    run(starter, 0.2, source="photos", directory="vectors", shard_size=1)
    assert run(starter, source=str(tree), directory=str(tree.parent / "vectors2"), shard_size=1)[0] == 0
    assert run(starter, source=str(tree), directory=str(tree.parent / "vectors2"))[0] == 0


FULL = """
    import resource, sys
    import featx
    if sys.argv[1] != "0":
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    sys.argv[1:] = []
    try:
        extractor = featx.FeatureExtractor(layer="stem", pooling="flatten")
        featx.dataset.embed("photos", "disk/vectors", extractor, shard_size=4)
    except featx.DatasetError as error:
        sys.exit(f"one line: {error}")
"""


def embed_apart(limit=0):
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.heavy
def test_a_file_that_cannot_grow_loses_nothing(tree):
    os.mkdir("disk")
    assert embed_apart().returncode == 0
    expected = contents("disk")
    os.rename("disk", "undisturbed")
    os.mkdir("disk")
    ran = embed_apart(limit=300_000)  # beyond the plan, and less than a shard
    assert "vectors/part-00000.parquet: cannot be written (File too large); fix that and run again" in ran.stderr
    assert not [name for name in contents("disk") if name.startswith("vectors/part")]
    assert embed_apart().returncode == 0
    assert contents("disk") == expected


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.heavy
def test_a_full_disk_loses_nothing(tree):
    os.mkdir("disk")
    assert embed_apart().returncode == 0
    expected = contents("disk")
    size = len(expected["vectors/part-00000.parquet"])
    shutil.rmtree("disk")
    os.mkdir("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={3 * size}", "tmpfs", "disk"]
    if subprocess.run(mount, capture_output=True, timeout=60).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        ran = embed_apart()
        assert "cannot be written (No space left on device); fix that and run again" in ran.stderr
        there = contents("disk")
        shards = {name: content for name, content in there.items() if "part-" in name}
        assert 0 < len(shards) < 5
        assert shards.items() <= expected.items()
        assert not [name for name in there if name.startswith("vectors/.")]
        subprocess.run(["mount", "-o", f"remount,size={9 * size}", "disk"], check=True, timeout=60)
        assert embed_apart().returncode == 0
        assert contents("disk") == expected
    finally:
        subprocess.run(["umount", "disk"], check=True, timeout=60)


def test_a_scratch_file_of_a_killed_run_goes(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    before = contents("vectors")
    for name in (".featx-0123456789abcdef.part.parquet", ".featx-0123456789abcdef.part.json"):
        with open(f"vectors/{name}", "wb") as file:
            file.write(b"half")
    dataset.embed("photos", "vectors", extractor)
    assert contents("vectors") == before


@pytest.mark.heavy
def test_parts_that_start_at_once_make_one_dataset(tree, extractor):
    dataset.embed("photos", "whole", extractor, shard_size=2)
    command = [sys.executable, "-m", "featx", "embed", "photos", "-o", "parts", "--shard-size", "2", "--layer", "stem"]
    parts = [subprocess.Popen([*command, "--shard", f"{i}/3"], stdout=subprocess.DEVNULL) for i in (1, 2, 3)]
    assert [part.wait(120) for part in parts] == [0, 0, 0]
    assert contents("parts") == contents("whole")


@pytest.mark.heavy
def test_the_second_of_two_runs_is_sent_away(tree, extractor):
    code = """if True:
        import sys, featx
        class Wait(featx.dataset.Events):
            def begin(self, task, total, done=0, *, unit="image"):
                print("begun", flush=True)
                sys.stdin.readline()
        extractor = featx.FeatureExtractor(layer="stem")
        featx.dataset.embed("photos", "vectors", extractor, shard_size=4, events=Wait())
    """
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "begun\n"
        for part in (None, (1, 2)):
            with pytest.raises(featx.DatasetError, match="vectors: another run is at work here"):
                dataset.embed("photos", "vectors", extractor, part=part)
        first.communicate("go\n", timeout=120)
    assert first.returncode == 0
    assert dataset.embed("photos", "vectors", extractor).n_embedded == 0
