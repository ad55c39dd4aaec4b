"""``featx serve``: what it hands to the server."""

import pytest

pytest.importorskip("uvicorn")

from featx.cli import main
from featx.persistence import archive
from featx.serve import server


def test_the_names_of_several_numbers_reach_the_server(monkeypatch):
    told = {}
    monkeypatch.setattr(archive, "load", lambda path, backbone: None)
    monkeypatch.setattr(archive, "load_guard", lambda path: None)
    monkeypatch.setattr(archive, "read_info", lambda path: {"info": {"targets": {"price": {}, "rooms": {}}}})
    monkeypatch.setattr(server, "serve", lambda pipeline, **options: told.update(options) or 0)
    assert main(["serve", "m.featx"]) == 0
    assert list(told["targets"]) == ["price", "rooms"]
