"""Ctrl-C ends a command within two seconds, with exit status 130 and without half-written files."""

import select
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.cli_tools import listing, start, write_csv

SECONDS = 2.5  # two, and slack for a machine under load


@pytest.fixture
def big_table(here, world):
    """A table that names one image thousands of times."""
    image = next((world / "test" / "bag").iterdir())
    write_csv(here / "big.csv", ["path", "label"], *([image, "ab"[i % 2]] for i in range(6000)))
    return here


def interrupt(process, folder):
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    seconds = time.monotonic() - began
    assert process.returncode == 130
    assert seconds < SECONDS
    assert err.splitlines()[-1] == "featx: interrupted; nothing half-written was left"
    assert "Traceback" not in err
    assert listing(folder) == ["big.csv"]


@pytest.mark.parametrize("arguments", [("embed", "-o", "f.npy"), ("fit", "-o", "m.featx")], ids=["embed", "fit"])
def test_while_embedding(big_table, arguments):
    command, *options = arguments
    process = start(command, "big.csv", *options, cwd=big_table)
    assert "paths from column 'path'" in process.stderr.readline()  # the images are listed, embedding begins
    time.sleep(1.5)
    assert process.poll() is None
    interrupt(process, big_table)


HEAD = """
import sys
import numpy as np
from featx.cli import main
from featx.extractor import Embedded, FeatureExtractor

def embed(self, X, **_):
    print("embedded", flush=True)
    return Embedded(np.random.default_rng(0).normal(size=(len(X), 1280)).astype(np.float32), [])

FeatureExtractor.embed = embed
sys.argv[1:] = ["fit", "big.csv", "--head", "rbf_svm", "--no-cross-validation", "-o", "m.featx"]
sys.exit(main())
"""


def test_inside_compiled_code_that_looks_at_no_signal(big_table):
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        cwd=big_table,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "embedded\n"
    time.sleep(1.5)
    assert process.poll() is None
    interrupt(process, big_table)


WRITING = """
import sys
import time
from featx.cli import main
from featx.writers import FORMATS
from featx.writers.base import Writer
from featx._files import write_whole

def write(path, columns, features, names):
    with write_whole(path) as scratch:
        scratch.write_text("half")
        print("writing", flush=True)
        time.sleep(30)

FORMATS[".csv"] = Writer(write)
sys.argv[1:] = ["embed", sys.argv[1], "-o", "f.csv"]
sys.exit(main())
"""


def test_in_the_middle_of_writing(here, world):
    (here / "big.csv").touch()
    image = next((world / "test" / "bag").iterdir())
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(image)],
        cwd=here,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert select.select([process.stdout], [], [], 30)[0]
    assert process.stdout.readline() == "writing\n"
    assert len(listing(here)) == 2
    interrupt(process, here)


IMPORTING = """
import runpy
import signal
import sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == module:
            signal.raise_signal(signal.SIGINT)

module, sys.argv = sys.argv[1], ["featx", "embed", "photos", "-o", "f.npy"]
sys.meta_path.insert(0, Interrupting())
runpy.run_module("featx", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["featx.cli", "featx.cli.embed", "numpy"])
def test_while_its_imports_run(module):
    done = subprocess.run([sys.executable, "-c", IMPORTING, module], text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "featx: interrupted before anything was done\n"
