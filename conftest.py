"""Configure all tests: doctests run in a folder of their own, and Ctrl-C works in programs that tests start."""

import signal

import pytest
from _pytest.doctest import DoctestItem


def pytest_configure():
    """Catch Ctrl-C: a shell makes background programs ignore it, and programs that tests start inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _examples_run_elsewhere(request, tmp_path, monkeypatch):
    if isinstance(request.node, DoctestItem):
        monkeypatch.chdir(tmp_path)
