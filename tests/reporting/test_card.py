"""The contents of a model card."""

import onnx
from skimage import data
from sklearn.pipeline import make_pipeline

import featx
from featx.deploy import export
from featx.reporting.card import make_card
from featx.reporting.snippets import describe_onnx, use_onnx

X = [data.astronaut(), data.coffee(), data.rocket()]


def test_the_card_of_an_exported_file_says_what_it_is(tmp_path):
    pipeline = make_pipeline(featx.FeatureExtractor(), featx.make_head("knn")).fit(X * 4, ["a", "b", "c|\nd"] * 4)
    export(pipeline, tmp_path / "m.onnx", images=X)
    model = onnx.load(tmp_path / "m.onnx")
    card = make_card("m.onnx", describe_onnx(model), use_onnx("m.onnx", model), ["This file is fine."])
    assert "Classifies images into 3 classes: a, b, c" in card
    assert "licence Apache-2.0" in card
    assert "This file is fine." in card
    assert "(N, 3, 224, 224)" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        *("## Fitted on", "## Quality", "## Run it", "## Features", "## Made with", "## Estimator")
    ]


ODD = ["a|b", "new\nline", "**bold**", "<b>", "[here](https://x)", "_so_", "`tick`", "\x1b[31mred", "snake_case-1"]


def test_labels_stay_in_their_cells_whatever_they_are():
    about = {
        "backbones": [{"name": "n|et", "identity": "0" * 64, "license": "<i>", "source": "a\nb"}],
        "versions": {"featx": "1\n2"},
        "info": {"counts": dict.fromkeys(ODD, 3), "score": {"how": "a\nb", "values": {}, "intervals": {}}},
        "pipeline": {"task": "classification", "classes": ODD, "estimator": "Odd(\n```\n# not a heading\x1b[0m)"},
    }
    card = make_card("odd_|_*name*.featx", about, "...")
    lines = card.splitlines()
    assert lines[0] == r"# odd\_\|\_\*name\*.featx"
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert rows[:4] == [r"| a\|b | 3 |", r"| new\\nline | 3 |", r"| \*\*bold\*\* | 3 |", r"| \<b> | 3 |"]
    assert rows[4:7] == [r"| \[here\](https://x) | 3 |", r"| \_so\_ | 3 |", r"| \`tick\` | 3 |"]
    assert rows[8] == "| snake_case-1 | 3 |"
    assert sum(line.startswith("```") for line in lines) == 2
    assert all(letter.isprintable() for line in lines for letter in line)


def test_a_card_names_columns_by_kind():
    info = {"columns": {"area": "number", "place": "category", "rooms": "number"}}
    card = make_card("m.featx", {"backbones": [], "versions": {}, "info": info}, "...")
    assert "- columns of kind number: area, rooms\n- columns of kind category: place\n" in card
