"""``featx report`` and ``featx shift``: what they print of inputs that could not be read."""

from types import SimpleNamespace

from featx.cli import main
from featx.cli import report as module
from featx.cli import shift as shift_module
from featx.errors import Failure


def test_inputs_that_could_not_be_read_are_listed(monkeypatch, tmp_path, capsys):
    evaluation = SimpleNamespace(failures=(Failure(0, "a.png", "empty file"),))
    page = SimpleNamespace(evaluation=evaluation, noun="image", n_images=3, html="", save=lambda path: None)
    model = SimpleNamespace(extractor=SimpleNamespace(set_params=lambda **_: None))
    monkeypatch.setattr(module, "open_model", lambda *_, **__: model)
    monkeypatch.setattr(module, "report", lambda *_, **__: page)
    assert main(["report", "m.featx", "photos", "-o", str(tmp_path / "a.html")]) == 0
    assert "a.png: empty file" in capsys.readouterr().err


def test_texts_of_a_shift_are_texts(monkeypatch, capsys):
    result = SimpleNamespace(failures=(Failure(0, "3", "no text"),), noun="text", is_shifted=False)
    monkeypatch.setattr(shift_module, "shift", lambda *_, **__: result)
    main(["shift", "old", "new"])
    assert "1 text could not be read" in capsys.readouterr().err
