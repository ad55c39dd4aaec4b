"""The code of a card for a file with an input per column; tests/deploy runs it."""

import re

from featx.reporting.column_snippets import use_columns


def test_columns_with_the_same_rules_share_code_and_each_kind_has_its_own():
    columns = {
        name: {"kind": kind, "input": name}
        for name, kind in {"front": "image", "back": "image", "area": "number"}.items()
    }
    for name in ("front", "back"):
        columns[name]["preprocess"] = {"height": 224, "width": 224}
    columns["note"] = {"kind": "text", "input": "note_input_ids"}
    columns["place"] = {"kind": "category", "input": "place", "categories": ["", 'a "b"']}
    canvas = dict.fromkeys(("fit", "fit_js", "before_js"), "\n<fit>") | dict.fromkeys(
        ("pixels", "data_js", "shape_js"), "<x>"
    )
    text = use_columns('"m.onnx"', columns, "label", ["label", "probabilities"], {"front": canvas, "back": canvas})
    assert text.count("def readImage(path):") == text.count("async function readImage(path)") == 1
    assert 'inputs["back"] = readImage("image.jpg")' in text
    python = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert "\n    <fit>\n    return <x>" in python
    assert 'inputs["place"] = np.array([["a \\"b\\""]], object)' in python
    assert 'columns["note"]["preprocess"]["tokenizer"]' in python
    assert "float32 (N, 1), NaN if missing" in text
    assert "import sharp" not in use_columns('"m"', {"area": columns["area"]}, "value", ["value"], {})
