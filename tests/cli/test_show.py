"""``featx show`` and the model card that ``featx fit`` writes."""

import json
import zipfile

import pytest

from tests.cli.cli_tools import CLASSES, listing
from tests.tools import rewrite_about


def test_the_card_counts_images_and_measures(featx, here, world):
    assert featx("fit", world / "train", "-o", "m.featx").code == 0
    assert listing(here) == ["m.featx", "m.featx.md"]
    card = (here / "m.featx.md").read_text()
    assert card.startswith("# m.featx\n\nClassifies images into 3 classes: bag, coat, sandal.")
    for name in CLASSES:
        n = len([path for path in (world / "train" / name).iterdir() if path.suffix == ".png"])
        assert f"| {name} | {n} |" in card
    assert "(95 % interval " in card
    assert "licence Apache-2.0" in card
    assert str(world) not in card
    shown = featx("show", "m.featx")
    assert shown.code == 0
    assert shown.out.startswith(card)


def test_a_card_that_cannot_be_written_is_said_before_anything_is_done(featx, here, world, models):
    (here / "m.featx.md").mkdir()
    (here / "m.onnx.md").mkdir()
    for command in (["fit", world / "train", "-o", "m.featx"], ["export", models["classes"], "-o", "m.onnx"]):
        ran = featx(*command)
        assert ran.code == 2
        assert ".md: is a folder" in ran.err
    assert listing(here) == ["m.featx.md", "m.onnx.md"]


def test_nothing_in_a_file_reaches_the_terminal_as_an_order(featx, here, models):
    copied = here / "m.featx"
    copied.write_bytes(models["classes"].read_bytes())
    rewrite_about(copied, lambda about: about["backbones"][0].update(name="\x1b]0;title\x07", identity="\x1b[2J" * 12))
    rewrite_about(copied, lambda about: about["pipeline"].update(classes=["\x1b[31m", "\r"], estimator="\x1b[8m"))
    ran = featx("show", copied)
    assert ran.code == 0
    assert all(letter.isprintable() for line in ran.out.split("\n") for letter in line)


def test_a_regression_has_a_span_and_an_error(featx, here, world):
    assert featx("fit", world / "brightness-train.csv", "--target", "brightness", "-o", "b.featx").code == 0
    facts = json.loads(featx("show", "b.featx", "--json").out)
    assert facts["info"]["target"]["min"] < facts["info"]["target"]["median"] < facts["info"]["target"]["max"]
    low, high = facts["info"]["score"]["intervals"]["mae"]
    assert low < facts["info"]["score"]["values"]["mae"] < high
    assert facts["pipeline"]["task"] == "regression"
    assert facts["refused_types"] == []


def test_nothing_is_loaded_and_hostile_files_are_refused_in_a_line(featx, here, models):
    copied = here / "m.featx"
    copied.write_bytes(models["classes"].read_bytes())
    rewrite_about(copied, lambda about: about.update(backbones=[{"name": 3}]))
    ran = featx("show", copied)
    assert ran.code == 2
    assert "its description is damaged" in ran.err
    assert len(ran.err.splitlines()) == 1
    with zipfile.ZipFile(copied, "w") as archive:
        archive.writestr("featx.json", "[]")
    assert featx("show", copied).code == 2
    assert featx("show", "none.featx").err.startswith("featx: error: none.featx: no such file")


@pytest.mark.parametrize("where", ["here", "nowhere"])
def test_it_says_where_the_backbone_is(featx, here, models, where):
    copied = here / "m.featx"
    copied.write_bytes(models["classes"].read_bytes())
    if where == "nowhere":
        rewrite_about(copied, lambda about: about["backbones"][0].update(identity="0" * 64))
    line = next(line for line in featx("show", copied).out.splitlines() if line.startswith("Backbone: "))
    assert line.endswith("efficientnet_lite0.onnx." if where == "here" else "(000000000000): not on this machine.")
