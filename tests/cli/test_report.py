"""``featx report``: what it prints."""

from types import SimpleNamespace

from featx.cli import main
from featx.cli import report as module
from featx.errors import Failure


def test_inputs_that_could_not_be_read_are_listed(monkeypatch, tmp_path, capsys):
    evaluation = SimpleNamespace(failures=(Failure(0, "a.png", "empty file"),))
    page = SimpleNamespace(evaluation=evaluation, noun="image", n_images=3, html="", save=lambda path: None)
    model = SimpleNamespace(extractor=SimpleNamespace(set_params=lambda **_: None))
    monkeypatch.setattr(module, "open_model", lambda *_, **__: model)
    monkeypatch.setattr(module, "report", lambda *_, **__: page)
    assert main(["report", "m.featx", "photos", "-o", str(tmp_path / "a.html")]) == 0
    assert "a.png: empty file" in capsys.readouterr().err
