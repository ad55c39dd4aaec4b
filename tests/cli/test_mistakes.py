"""A mistake gives one line on standard error, exit status 2, and no file."""

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.cli_tools import listing, write_csv

MISTAKES = {
    "no command": ("--debug", "required: COMMAND"),
    "no such command": ("classify photos", "featx: error: unknown command 'classify' (see featx --help)"),
    "misspelt command": ("fti photos", "unknown command 'fti'; did you mean 'fit'?"),
    "misspelt action": ("dataset inof vectors", "unknown action 'inof'; did you mean 'info'?"),
    "misspelt option": ("fit W/train --ouput m.featx", "--ouput; did you mean '--output'? (see featx fit --help)"),
    "misspelt option of an action": ("dataset info x --jsn", "'--json'? (see featx dataset info --help)"),
    "option of another command": ("evaluate m W --plot r.png", "--plot is an option of featx "),
    "no source": ("embed -o f.npy", "required: SOURCE"),
    "no output": ("fit W/train", "required: -o"),
    "two sources to fit": ("fit W/train W/test -o m.featx", "2 sources: expected one folder, table or archive"),
    "no such option": ("embed W/test -o f.npy --fast", "unrecognized arguments: --fast"),
    "batch size is a word": ("embed W/test -o f.npy --batch-size many", "invalid int value: 'many'"),
    "bad pooling": ("embed W/test -o f.npy --pooling average", "invalid choice: 'average'; did you mean 'avg'?"),
    "bad task": ("fit W/train -o m.featx --task ranking", "invalid choice: 'ranking'"),
    "embed: no such file": ("embed nowhere.png -o f.npy", "nowhere.png: no such file or folder"),
    "embed: glob without match": ("embed W/*.gif -o f.npy", "no image matches"),
    "embed: empty folder": ("embed W/empty -o f.npy", "no images in this folder"),
    "embed: only bad images": ("embed W/broken.png -o f.npy", "broken.png"),
    "embed: wrong suffix": ("embed W/test -o f.txt", "f.txt: expected a name ending in .csv, .npy, .parquet"),
    "embed: no folder": ("embed W/test -o no/f.npy", "the folder no does not exist"),
    "embed: output is a folder": ("embed W/test -o folder.csv", "folder.csv: is a folder"),
    "embed: output is the source": ("embed t.csv -o t.csv", "t.csv: is also a source"),
    "embed: paths file is the source": ("embed t.paths.csv -o t.npy", "t.paths.csv: is also a source"),
    "embed: bad layer": ("embed W/test -o f.npy --layer stage9", "stage9"),
    "embed: bad backbone": ("embed W/test -o f.npy --backbone resnet9000", "--backbone resnet9000"),
    "embed: backbone is no backbone": ("embed W/test -o f.npy --backbone W/broken.png", "broken.png"),
    "embed: bad device": ("embed W/test -o f.npy --device tpu", "--device tpu"),
    "embed: batch size 0": ("embed W/test -o f.npy --batch-size 0", "--batch-size 0"),
    "embed: threads 0": ("embed W/test -o f.npy --threads 0", "--threads 0"),
    "embed: column of a folder": ("embed W/test -o f.npy --target y", "names a column of a table"),
    "embed: no such column": ("embed W/test.csv -o f.npy --path-column p", "no column 'p', there are path, label"),
    "fit: a split": ("fit W -o m.featx", "then: featx evaluate MODEL.featx"),
    "fit: no such folder": ("fit nowhere -o m.featx", "nowhere: no such file or folder"),
    "fit: no class": ("fit W/train/bag -o m.featx", "images without classes"),
    "fit: one class": ("fit one.csv -o m.featx", "is of class ant; at least two"),
    "fit: one image of a class": ("fit t.csv -o m.featx", "2 of 2 classes have a single readable image"),
    "fit: bad head": ("fit W/train -o m.featx --head forest", "--head forest: expected one of logistic_regression"),
    "fit: head without numbers": (
        "fit W/brightness-train.csv --target brightness -o m.featx --head logistic_regression",
        "cannot predict numbers",
    ),
    "fit: log of classes": ("fit W/train -o m.featx --log-target", "only a regression"),
    "fit: log of zeros": ("fit zeros.csv -o m.featx --log-target", "down to 0, which have no logarithm"),
    "fit: regression on a folder": ("fit W/train -o m.featx --task regression", "folder names are classes"),
    "fit: regression on words": ("fit W/train.csv -o m.featx --task regression", "'bag' is not a finite number"),
    "fit: classes or numbers": ("fit W/brightness-train.csv --target n -o m.featx", "classes or quantities?"),
    "fit: which column": ("fit W/brightness-train.csv -o m.featx", "NAME, one of n, word, brightness"),
    "fit: wrong suffix": ("fit W/train -o m.csv", "m.csv: expected a name ending in .featx"),
    "fit: no folder": ("fit W/train -o no/m.featx", "the folder no does not exist"),
    "fit: ragged table": ("fit ragged.csv -o m.featx", "ragged.csv: line 3 has 1 fields, the header 2"),
    "fit: empty cells": ("fit cells.csv -o m.featx", "2 of 2 classes have a single readable image"),
    "fit: a budget and no search": ("fit W/train --max-ms 5 -o m.featx", "a budget for"),
    "fit: precision and search": (
        "fit W/train --search quick --precision int8 -o m.featx",
        "the features are chosen",
    ),
    "fit: budget of nothing": (
        "fit W/train --search quick --layer stem --max-mb 0.001 -o m.featx",
        "--max-mb 0.001",
    ),
    "predict: no such model": ("predict gone.featx W/test -o p.csv", "gone.featx: no such file"),
    "predict: misspelt model": ("predict near.feat W/test -o p.csv", "did you mean 'near.featx'?"),
    "predict: model is an image": ("predict W/broken.png W/test -o p.csv", "not a pipeline saved by featx"),
    "predict: model is a folder": ("predict W W/test -o p.csv", "not a pipeline saved by featx"),
    "predict: extractor alone": (
        "predict extractor.featx W/test -o p.csv",
        "expected a fitted pipeline of a FeatureExtractor",
    ),
    "predict: wrong suffix": ("predict CLASSES W/test -o p.npy", "p.npy: expected a name ending in .csv, .parquet"),
    "predict: output is the source": ("predict CLASSES t.csv -o t.csv", "t.csv: is also a source"),
    "predict: only bad images": ("predict CLASSES W/broken.png gone.png -o p.csv", "gone.png: no such file"),
    "predict: remembered column is gone": ("predict BRIGHTNESS W/test.csv -o p.csv", "no column 'image'"),
    "predict: another backbone": ("predict CLASSES W/test -o p.csv --backbone resnet9000", "resnet9000"),
    "evaluate: unknown class": (
        "evaluate CLASSES t.csv",
        "classes that the model does not know: ant, bee; it knows bag, coat",
    ),
    "evaluate: no labels": ("evaluate CLASSES W/test/bag", "images without classes"),
    "evaluate: numbers on a folder": ("evaluate BRIGHTNESS W/test", "folder names are classes"),
    "evaluate: numbers on words": (
        "evaluate BRIGHTNESS W/brightness-test.csv --target word",
        "'x' is not a finite number",
    ),
    "evaluate: target is gone": ("evaluate BRIGHTNESS W/test.csv --path-column path", "no column 'brightness'"),
    "demo: out is a file": ("demo --out t.csv", "--out t.csv: is a file"),
    "demo: out below a file": ("demo --out t.csv/x", "t.csv"),
}


@pytest.fixture
def tables(here, world):
    image = next((world / "test" / "bag").iterdir())
    write_csv("t.csv", ["path", "label"], [image, "ant"], [image, "bee"])
    shutil.copy("t.csv", "t.paths.csv")
    write_csv("one.csv", ["path", "label"], [image, "ant"], [image, "ant"])
    write_csv("zeros.csv", ["path", "value"], [image, "0"], [image, "1.5"])
    write_csv("ragged.csv", ["path", "label"], [image, "ant"], [image])
    write_csv("cells.csv", ["path", "label"], [image, "ant"], [image, ""], [image, "bee"])
    (here / "folder.csv").mkdir()
    (here / "near.featx").touch()
    return here


@pytest.mark.parametrize(("line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(featx, tables, world, models, line, said):
    if "extractor.featx" in line:
        from featx import FeatureExtractor, save

        save(FeatureExtractor().fit(None), "extractor.featx")
    names = {"CLASSES": str(models["classes"]), "BRIGHTNESS": str(models["brightness"])}
    words = [names.get(word, str(world) + word[1:] if word.split("/")[0] == "W" else word) for word in line.split()]
    before = listing(tables), listing(world)
    ran = featx(*words)
    assert ran.code == 2
    assert ran.out == ""
    *notes, error = ran.err.splitlines()
    assert said in error
    assert error.startswith("featx")
    assert ": error: " in error
    assert all(note.startswith("featx: ") and " from column " in note for note in notes)
    assert (listing(tables), listing(world)) == before


@pytest.mark.parametrize("line", ["evaluate gone.featx photos", "embed nowhere.png -o f.npy", "fit"])
def test_a_real_process_says_the_same(run_process, here, line):
    ran = run_process(*line.split(), cwd=here)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert listing(here) == []


def test_an_unwritable_folder_is_found_before_the_work(featx, here, world, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = featx("embed", world / "test", "-o", "f.npy")
    assert ran.code == 2
    assert ran.err == "featx: error: f.npy: the folder . is not writable for this user\n"


def test_debug_shows_the_traceback_and_the_line(featx, here):
    ran = featx("embed", "nowhere.png", "-o", "f.npy", "--debug")
    assert ran.code == 2
    assert ran.err.startswith("Traceback (most recent call last):")
    assert ran.err.splitlines()[-1] == "featx: error: nowhere.png: no such file or folder"


def test_our_own_mistake_is_one_line_and_exit_code_3(featx, monkeypatch):
    def fail(**_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("featx.cli.backbones.list_here", fail)
    ran = featx("backbones")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "featx: unexpected RuntimeError: two lines (--debug shows where)\n"


def test_output_that_nobody_reads_is_no_finding_of_a_command(featx, monkeypatch):
    def fail(**_):
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", sys.stdout)
    monkeypatch.setattr("featx.cli.backbones.list_here", fail)
    assert featx("backbones").code == 141


def test_backbones_for_people_and_programs(featx):
    assert "efficientnet_lite0" in featx("backbones").out
    first = json.loads(featx("backbones", "--json").out)[0]
    assert first["name"] == "efficientnet_lite0"
    assert (first["input"], first["features"]) == ([224, 224], 1280)
    assert {"stem", "stage1", "stage4", "head"} <= set(first["layers"])


@pytest.mark.heavy
def test_no_progress_bar_unless_standard_error_is_a_terminal(here, world):
    at_once = "import featx, featx.cli; featx.ProgressBar.__init__.__defaults__ = (0.0,); featx.cli.main()"
    command = [sys.executable, "-c", at_once, "embed", world / "test", "-o", "f.npy"]
    ran = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=240)
    assert (ran.returncode, ran.stderr) == (0, "")
    reading, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # what Linux says when the other end is closed
        while chunk := os.read(reading, 1000):
            shown += chunk
    os.close(reading)
    process.communicate(timeout=240)
    assert process.returncode == 0
    assert b"image" in shown
    assert b"12" in shown


def test_a_name_gives_the_terminal_no_orders(featx, here, world):
    names = ("odd\x1b[2J.png", "new\nline.png", os.fsdecode(b"caf\xe9.png"))
    Path("photos").mkdir()
    shutil.copy(min((world / "test" / "bag").iterdir()), "photos/good.png")
    for name in names:
        Path("photos", name).touch()
    ran = [featx("embed", "photos", "-o", "f.csv"), featx("embed", "photos", "-o", "vectors")]
    ran += [featx("dataset", "info", "vectors"), featx("embed", f"no\x1b[2J{names[0]}", "-o", "f.csv")]
    assert [one.code for one in ran] == [0, 0, 0, 2]
    assert all(letter.isprintable() for one in ran for line in one.err.split("\n") for letter in line)
    for shown in (r"photos/odd\x1b[2J.png: ", r"photos/new\nline.png: ", r"photos/caf\udce9.png: "):
        assert shown in ran[0].err
    assert r"failed: odd\x1b[2J.png: " in ran[2].out


@pytest.mark.heavy
def test_closed_outputs_are_no_mistake(here, world):
    image = min((world / "test" / "bag").iterdir())
    command = f"{shlex.quote(sys.executable)} -m featx embed {shlex.quote(str(image))} -o f.csv >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=here, timeout=240).returncode == 0
    assert len((here / "f.csv").read_text().splitlines()) == 2


def test_a_name_that_parquet_cannot_hold_is_refused_before_anything_is_embedded(featx, here, world, monkeypatch):
    Path("photos").mkdir()
    shutil.copy(min((world / "test" / "bag").iterdir()), os.fsdecode(b"photos/caf\xe9.png"))
    monkeypatch.setattr("featx.extractor.FeatureExtractor.embed", lambda *_, **__: pytest.fail("embedded"))
    ran = featx("embed", "photos", "-o", "f.parquet")
    assert ran.code == 2
    assert not (here / "f.parquet").exists()
    assert (
        r"f.parquet: 'photos/caf\udce9.png' is not valid UTF-8, which Parquet requires; write .csv instead" in ran.err
    )


@pytest.mark.heavy
def test_demo_writes_everything_and_says_how_to_go_on(featx, here):
    ran = featx("demo", "--out", "first look")
    assert (ran.code, ran.err) == (0, "")
    assert {"model.featx", "model.featx.md", "predictions.csv", "results.png", "images"} == {
        file.name for file in (here / "first look").iterdir()
    }
    assert listing(here)[0] == "first look"
    assert len((here / "first look" / "predictions.csv").read_text().splitlines()) == 301
    assert len(list((here / "first look" / "images").rglob("*.png"))) == 900
    commands = [line.strip() for line in ran.out.splitlines() if " my.featx" in line]
    assert [line.partition("featx ")[2].split()[0] for line in commands] == ["fit", "evaluate", "predict"]
    assert "fit 'first look/images/train' -o my.featx" in commands[0]
    for command in commands:
        words = shlex.split(command.partition("featx ")[2])
        assert featx(*words, *(["--no-cross-validation", "--head", "knn"] if words[0] == "fit" else [])).code == 0
    assert len((here / "answers.csv").read_text().splitlines()) == 301
