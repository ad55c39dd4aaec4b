"""A progress bar shows what lasts, and leaves nothing behind."""

import time

from featx import ProgressBar


def test_a_silent_task_shows_its_bar_after_a_while(capsys):
    bar = ProgressBar(min_seconds=0.05)
    bar.begin("folds", 5)
    until, shown = time.monotonic() + 30, ""
    while "0/5" not in shown and time.monotonic() < until:
        shown += capsys.readouterr().err
    assert "folds:" in shown
    bar.end()
    assert capsys.readouterr().err.endswith("\r")  # erased


def test_a_short_task_shows_nothing(capsys):
    bar = ProgressBar()
    bar.begin("folds", 5)
    bar.advance(5)
    bar.end()
    assert capsys.readouterr() == ("", "")
