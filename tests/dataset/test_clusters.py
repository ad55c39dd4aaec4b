"""Real clusters of several worker processes make what one process makes, though one of them is killed on the way."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap

import joblib
import pytest

from featx import FeatureExtractor, dataset
from tests.dataset.dataset_tools import contents, counts


class KillOnce(FeatureExtractor):
    """Kills the process that it works in, the first time that it is used by a worker."""

    def iter_embed(self, items, **options):
        mark = os.environ.get("KILLED")
        if mark and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().iter_embed(items, **options)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Set the environment of workers that start from here on."""
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return tmp_path / "killed"


@pytest.fixture
def whole(tree, extractor):
    dataset.embed("photos", "one", extractor, shard_size=2)
    return contents("one")


@pytest.mark.filterwarnings("ignore")  # of distributed, about a worker that dies
@pytest.mark.heavy
def test_dask_makes_the_same_though_a_worker_dies(whole, environment, tmp_path):
    distributed = importlib.import_module("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path / "dask")) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        done = dataset.embed("photos", "two", KillOnce(layer="stem"), shard_size=2, n_jobs=-1)
    assert environment.exists()
    assert counts(done) == (20, 20, 0)
    assert contents("two") == whole


RAY = """
    import joblib, ray
    from ray.util.joblib import register_ray
    from featx import dataset
    from tests.dataset.test_clusters import KillOnce
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    register_ray()
    with joblib.parallel_config("ray"):
        done = dataset.embed("photos", "two", KillOnce(layer="stem"), shard_size=2, n_jobs=2)
    print(done.complete, done.n_embedded, flush=True)
    ray.shutdown()
"""


@pytest.mark.heavy
def test_ray_makes_the_same_though_a_worker_dies(whole, environment):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(RAY)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "True 20" in ran.stdout, ran.stderr
    assert environment.exists()
    assert contents("two") == whole


@pytest.mark.heavy
def test_the_command_line_starts_a_dask_cluster(whole, tree):
    command = [
        "embed",
        "photos",
        "-o",
        "two",
        "--shard-size",
        "2",
        "--layer",
        "stem",
        "--backend",
        "dask",
        "--jobs",
        "2",
    ]
    ran = subprocess.run([sys.executable, "-m", "featx", *command], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("two: 20 images, 20 embedded now")
    assert contents("two") == whole


@pytest.mark.heavy
def test_a_cluster_that_does_not_answer_is_named(tree):
    command = ["embed", "photos", "-o", "two", "--backend", "dask", "--cluster", "tcp://127.0.0.1:1"]
    environment = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    ran = subprocess.run(
        [sys.executable, "-m", "featx", *command], capture_output=True, text=True, timeout=120, env=environment
    )
    assert ran.returncode == 2
    assert "featx: error: --cluster tcp://127.0.0.1:1: no dask scheduler answers there" in ran.stderr
