"""Commands run for users without a home, on narrow terminals, in threads and in notebooks."""

import asyncio
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import featx
from featx.cli import main
from featx.doctor import CHECKS
from featx.serve.server import _Running


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of two classes whose names few terminals show, as the working directory's ``images``."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, scale in (("蟻", 1), ("蜂 é", 3)):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) // scale).save(folder / f"{i}.png")
    return "images"


def run(monkeypatch, encoding, *arguments):
    """Run a command with a standard output of an encoding; return its status and its output as text."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    code = main(arguments)
    stream.flush()
    return code, stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_a_terminal_cannot_show_are_escaped(encoding, images, monkeypatch):
    cheap = ("--layer", "stem", "--no-cross-validation")
    code, out = run(monkeypatch, encoding, "fit", images, "-o", "m.featx", *cheap)
    assert code == 0
    shown = "蟻" if encoding == "utf-8" else "\\u87fb"
    assert shown in out
    for command in (("evaluate", "m.featx", images), ("predict", "m.featx", f"{images}/蟻/0.png"), ("show", "m.featx")):
        code, out = run(monkeypatch, encoding, *command)
        assert code == 0
        assert shown in out


@pytest.fixture
def no_home(monkeypatch):
    """A user without HOME and without an entry in the passwd file."""
    pwd = pytest.importorskip("pwd")

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "FEATX_CACHE", "FEATX_BACKBONES"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_a_home_has_the_bundled_backbones(no_home, images, capsys):
    assert main(["fit", images, "-o", "m.featx", "--layer", "stem", "--no-cross-validation"]) == 0
    assert main(["predict", "m.featx", f"{images}/蟻/0.png"]) == 0
    assert main(["backbones"]) == 0
    assert "efficientnet_lite0" in capsys.readouterr().out
    assert len(featx.FeatureExtractor(precision="int8").transform([np.zeros((9, 9, 3), np.uint8)])) == 1


def test_a_user_without_a_home_is_told_where_one_is_needed(no_home, images, capsys):
    with pytest.raises(featx.InputError, match="no home folder; set HOME, or FEATX_CACHE=FOLDER"):
        featx.FeatureExtractor(cache=True).transform([np.zeros((9, 9, 3), np.uint8)])
    ((level, text, _),) = CHECKS["folders"]()
    assert level == "note"
    assert "no home folder; set HOME, or FEATX_BACKBONES=FOLDER" in text
    assert main(["cache", "info"]) == 2
    assert "set HOME" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_is_no_error(images, monkeypatch):
    monkeypatch.setenv("HOME", os.devnull)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert main(["fit", images, "-o", "m.featx", "--layer", "stem", "--no-cross-validation"]) == 0


def test_without_standard_streams_and_working_directory(images, tmp_path):
    target = tmp_path / "features.npy"
    code = (
        "import os, sys, tempfile; folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder); "
        "[os.close(i) for i in range(3)]; sys.stdin = sys.stdout = sys.stderr = None; from featx.cli import main; "
        f"sys.exit(main(['embed', {str(tmp_path / images)!r}, '-o', {str(target)!r}, '--layer', 'stem']))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=120).returncode == 0
    assert target.exists()


@pytest.fixture(scope="module")
def pipeline():
    X, y = featx.samples.load_fashion_mnist("test")
    return make_pipeline(featx.FeatureExtractor(layer="stem"), KNeighborsClassifier()).fit(X[::20], y[::20])


def ask(address):
    with urlopen(f"{address}/ready", timeout=30) as reply:
        return reply.status


def test_a_server_runs_in_a_thread(pipeline):
    started = Future()

    def serve():
        try:
            featx.serve.serve(pipeline, port=0, ready=lambda address, _: started.set_result(address))
        except BaseException as error:
            started.set_exception(error)

    threading.Thread(target=serve, daemon=True).start()  # it runs until the tests end
    assert ask(started.result(timeout=60)) == 200


def test_a_server_starts_from_a_running_event_loop_and_stops_when_the_cell_is_interrupted(pipeline, monkeypatch):
    statuses, running = [], []
    init = _Running.__init__
    monkeypatch.setattr(_Running, "__init__", lambda self, *rest: running.append(self) or init(self, *rest))

    def ready(address, _):
        def visit():
            statuses.append(ask(address))
            running[0].stop_soon()

        threading.Thread(target=visit).start()

    async def cell():
        return featx.serve.serve(pipeline, port=0, ready=ready)

    assert asyncio.run(cell()) == 0
    assert statuses == [200]
