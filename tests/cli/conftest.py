"""Fixtures for the command line: images of three classes, tables, and two fitted models."""

import os

import numpy as np
import pytest
from PIL import Image

from featx.cli import main
from featx.samples import extract_fashion_mnist
from tests.cli.cli_tools import CLASSES, Ran, start, write_csv


@pytest.fixture
def run_process():
    def run(*arguments, cwd):
        process = start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=240)
        return Ran(process.returncode, out, err)

    return run


@pytest.fixture
def featx(capsys):
    """Run a command in this process."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            code = error.code
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with ``train`` and ``test`` (one sub-folder per class), tables, and files that cannot be read."""
    world = tmp_path_factory.mktemp("world")
    archive = tmp_path_factory.mktemp("all")
    extract_fashion_mnist(archive)
    brightness = {}
    for split, n in (("train", 12), ("test", 4)):
        for name in CLASSES:
            (world / split / name).mkdir(parents=True)
            for file in sorted((archive / split / name).iterdir())[:n]:
                copy = file.rename(world / split / name / file.name)
                with Image.open(copy) as image:
                    brightness[f"{split}/{name}/{file.name}"] = float(np.asarray(image).mean())
    for split in ("train", "test"):
        own = [path for path in brightness if path.startswith(split)]
        write_csv(world / f"{split}.csv", ["path", "label"], *([path, path.split("/")[1]] for path in own))
        rows = [[path, i, "x", f"{brightness[path]:.4f}"] for i, path in enumerate(own)]
        write_csv(world / f"brightness-{split}.csv", ["image", "n", "word", "brightness"], *rows)
    (world / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (world / "empty").mkdir()
    return world


@pytest.fixture(scope="session")
def models(world, tmp_path_factory):
    """A classifier fitted on the folder and a regressor fitted on the table."""
    folder = tmp_path_factory.mktemp("models")
    classifier, regressor = folder / "classes.featx", folder / "brightness.featx"
    assert main(["fit", str(world / "train"), "-o", str(classifier), "--no-cross-validation"]) == 0
    table = str(world / "brightness-train.csv")
    assert (
        main(["fit", table, "--target", "brightness", "--layer", "stem", "-o", str(regressor), "--no-cross-validation"])
        == 0
    )
    return {"classes": classifier, "brightness": regressor}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def to_world(here, world):
    """The path from the working directory to the world, relative."""
    return os.path.relpath(world, here)
