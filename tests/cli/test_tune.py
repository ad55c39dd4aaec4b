"""``featx tune`` as a process that is stopped with Ctrl-C."""

import argparse
import os
import signal

import pytest

from featx.cli import _list_endings
from featx.cli.parser import CommandParser, translate
from featx.cli.tune import _remove_values, add
from featx.fitting.tuned import _ADVICE
from tests.cli.cli_tools import listing, start


def test_ctrl_c_does_not_end_a_command_that_keeps_what_it_has():
    assert signal.SIGINT in _list_endings(argparse.Namespace(keep_on_interrupt=False))
    assert signal.SIGINT in _list_endings(argparse.Namespace())
    assert _list_endings(argparse.Namespace(keep_on_interrupt=True)) == [signal.SIGTERM]


def test_the_values_of_the_frozen_layers_are_removed_and_nothing_else(tmp_path):
    for folder in ("a.tuning", "b.tuning"):
        (tmp_path / folder / "activations-1").mkdir(parents=True)
    (tmp_path / "b.tuning" / "notes.txt").write_text("mine")
    _remove_values(tmp_path / "a.tuning")
    _remove_values(tmp_path / "b.tuning")
    _remove_values(tmp_path / "missing")
    assert os.listdir(tmp_path) == ["b.tuning"]
    assert os.listdir(tmp_path / "b.tuning") == ["notes.txt"]


def test_the_advice_of_a_tuning_names_no_option_of_the_tuning_itself():
    parser = CommandParser()
    add(parser)
    assert translate(_ADVICE, parser) == _ADVICE


def stop_in_training(here, world, *options):
    """Send Ctrl-C after the first epoch, and return the status and the rest of standard error."""
    settings = ("--depth", "stage4", "--epochs", "500", "--views", "1", "--cv", "2")
    process = start("tune", world / "test", "-o", "m.featx", *settings, *options, cwd=here)
    for line in process.stderr:
        if "epoch 1 of 500" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.heavy
def test_ctrl_c_keeps_the_values_of_the_frozen_layers(here, world):
    code, err = stop_in_training(here, world)
    assert code == 128 + signal.SIGINT
    assert "kept in m.featx.tuning; run the same command to go on" in err
    assert os.listdir(here) == ["m.featx.tuning"]


@pytest.mark.heavy
def test_ctrl_c_writes_the_best_so_far_on_request(here, world):
    code, err = stop_in_training(here, world, "--keep-on-interrupt")
    assert code == 0, err
    assert "interrupted: the choice is made" in err
    assert listing(here) == ["m.featx", "m.featx.md"]
