"""Ctrl-C and SIGTERM end a command within two seconds, and leave no half-written files."""

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


ENDINGS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
EITHER = pytest.mark.parametrize("number", ENDINGS, ids=["SIGINT", "SIGTERM"])


def interrupt(process, folder, number=signal.SIGINT):
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    seconds = time.monotonic() - began
    code, word = ENDINGS[number]
    assert process.returncode == code
    assert seconds < SECONDS
    assert err.splitlines()[-1] == f"featx: {word}; nothing half-written was left"
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


@EITHER
@pytest.mark.heavy
def test_inside_compiled_code_that_looks_at_no_signal(big_table, number):
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
    interrupt(process, big_table, number)


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


@EITHER
def test_in_the_middle_of_writing(here, world, number):
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
    interrupt(process, here, number)


@pytest.mark.heavy
def test_a_killed_command_leaves_nothing_once_the_next_has_run(here, world):
    (here / "big.csv").touch()
    image = next((world / "test" / "bag").iterdir())
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(image)], cwd=here, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.kill()
    process.communicate()
    assert len(listing(here)) == 2
    after = start("embed", image, "-o", "f.csv", "--layer", "stem", cwd=here)
    after.communicate(timeout=60)
    assert after.returncode == 0
    assert listing(here) == ["big.csv", "f.csv"]


NOISE = """
import os, sys
from featx.cli import main
from featx.writers import FORMATS
from featx.writers.base import Writer

def write(*_):
    os.write(2, b"tempfile.tif: Using code not yet in table.\\n")
    raise OSError(28, os.strerror(28), "f.csv")

FORMATS[".csv"] = Writer(write)
sys.argv[1:] = ["embed", *sys.argv[1:], "-o", "f.csv"]
sys.exit(main())
"""


@pytest.mark.heavy
def test_lines_of_c_libraries_stay_out_of_what_it_says(here, world):
    image = next((world / "test" / "bag").iterdir())
    for options, has_noise in (((), False), (("--debug",), True)):
        command = [sys.executable, "-c", NOISE, str(image), *options]
        done = subprocess.run(command, cwd=here, text=True, capture_output=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == "featx: error: f.csv: no space left on device"
        assert ("not yet in table" in done.stderr) == has_noise


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
