"""Write the code of a model card: a few lines that run the file in Python and JavaScript."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx

from featx.persistence.description import Description
from featx.reporting.card import name_inputs
from featx.reporting.column_snippets import use_columns

__all__ = ["describe_onnx", "use_onnx", "use_saved"]

_SAVED = """\
```python
import featx

pipeline = featx.load({name})
print(pipeline.{method}([{example}]))
```"""

_SAVED_ROWS = """\
```python
import featx

print(featx.predict({name}, "table.csv"))
```"""

_ONNX = """\
Input: `pixels`, uint8, {input}. Output: {outputs}.

Python, with onnxruntime, numpy and Pillow (convert 16-bit grey images to 8 bits first):

```python
import numpy as np, onnxruntime
from PIL import Image, ImageOps
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"){fit}
session = onnxruntime.InferenceSession({name})
print(session.run(["{answer}"], {{"pixels": {pixels}}})[0][0])
```

JavaScript, with onnxruntime-node and sharp:

```javascript
import ort from "onnxruntime-node";
import sharp from "sharp";
const image = sharp("image.jpg").rotate().flatten({{ background: "white" }}).toColourspace("srgb"){fit_js};
const {{ data, info }} = await image.raw().toBuffer({{ resolveWithObject: true }});
const session = await ort.InferenceSession.create({name});{before_js}
const pixels = new ort.Tensor("uint8", {data_js}, {shape_js});
console.log((await session.run({{ pixels }})).{answer}.{data_of});
```"""

_TEXT = """\
Input: `input_ids`, int64 (N, n_tokens): the tokens of one text, or of texts with the same number of tokens. It
takes no mask, so do not pad. The metadata entry `featx.preprocess` holds the content of `tokenizer.json`.
Output: {outputs}.

Python, with onnxruntime, tokenizers and numpy:

```python
import json
from pathlib import Path
import numpy as np, onnxruntime
from tokenizers import Tokenizer
session = onnxruntime.InferenceSession({name})
rules = json.loads(session.get_modelmeta().custom_metadata_map["featx.preprocess"])
tokenizer = Tokenizer.from_str(json.dumps(rules["tokenizer"]))  # {cut}
ids = tokenizer.encode("a red car").ids
print(session.run(["{answer}"], {{"input_ids": np.array([ids], np.int64)}})[0][0])
Path("tokenizer.json").write_text(json.dumps(rules["tokenizer"]), encoding="utf-8")  # for JavaScript
```

JavaScript, with onnxruntime-node and @huggingface/tokenizers{cut_js}:

```javascript
import fs from "node:fs";
import ort from "onnxruntime-node";
import {{ Tokenizer }} from "@huggingface/tokenizers";
const tokenizer = new Tokenizer(JSON.parse(fs.readFileSync("tokenizer.json", "utf-8")), {{}});
{ids_js}
const session = await ort.InferenceSession.create({name});
const input_ids = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
console.log((await session.run({{ input_ids }})).{answer}.data[0]);
```"""

_CENTER_PYTHON = """
size = [{resize} * side // min(image.size) for side in image.size]
image = image.resize(size, Image.Resampling.{filter})
left, upper = ({margin} for side, kept in zip(image.size, ({width}, {height})))
image = image.crop((left, upper, left + {width}, upper + {height}))"""
_BOTH_SIDES_PYTHON = """
image = image.resize(({full_width}, {full_height}), Image.Resampling.{filter})
image = image.crop(({left}, {top}, {left} + {width}, {top} + {height}))"""
_LONGER_SIDE_PYTHON = """
ratio = max(image.width / {full_width}, image.height / {full_height})
small = image.resize([max(1, round(side / ratio)) for side in image.size], Image.Resampling.{filter})
image = Image.new("RGB", ({width}, {height}), {color})
image.paste(small, [int(({width} - small.width) / 2), int(({height} - small.height) / 2)])"""
_WHOLE_PYTHON = """
image = image.resize(({width}, {height}), Image.Resampling.{filter})"""
_PAD_PYTHON = """
scale = min({width} / image.width, {height} / image.height)
small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.{filter})
image = Image.new("RGB", ({width}, {height}), {color})
image.paste(small, (({width} - small.width) // 2, ({height} - small.height) // 2))"""

_CUT_JS = """\
let {{ ids }} = tokenizer.encode("a red car");
if (ids.length > {most}) ids = [...ids.slice(0, {kept}), ...ids.slice(ids.length - {n_last})];"""

#: Maps ``crop``, or the rule of a "center" crop, to code in Python and JavaScript that fits an image to the canvas.
_FITS = {
    "center": (
        _CENTER_PYTHON,
        """
  .resize({resize}, {resize}, {{ fit: "cover" }})
  .extract({{ left: {left}, top: {top}, width: {width}, height: {height} }})""",
    ),
    "both_sides": (
        _BOTH_SIDES_PYTHON,
        """
  .resize({full_width}, {full_height}, {{ fit: "fill" }})
  .extract({{ left: {left}, top: {top}, width: {width}, height: {height} }})""",
    ),
    "longer_side": (
        _LONGER_SIDE_PYTHON,
        """
  .resize({full_width}, {full_height}, {{ fit: "inside" }})
  .resize({width}, {height}, {{ fit: "contain", withoutEnlargement: true, background: "rgb{color}" }})""",
    ),
    "whole": (_WHOLE_PYTHON, """.resize({width}, {height}, {{ fit: "fill" }})"""),
    "pad": (_PAD_PYTHON, """.resize({width}, {height}, {{ fit: "contain", background: "rgb{color}" }})"""),
}


def use_saved(name: str, description: Description) -> str:
    """Return code that runs a saved pipeline, as Markdown, from its name and the result of `featx.read_info`."""
    info = description.get("info") or {}
    noun = name_inputs(info)
    if noun == "row" or info.get("columns") or info.get("text_column"):
        return _SAVED_ROWS.format(name=_quote(name))
    recorded = description.get("answers")
    only_transforms = recorded is not None and recorded.get("method") == "transform"
    example = '"a text"' if noun == "text" else '"image.jpg"'
    return _SAVED.format(name=_quote(name), method="transform" if only_transforms else "predict", example=example)


def describe_onnx(model: onnx.ModelProto, info: Mapping[str, Any] | None = None) -> Description:
    """Read the metadata of an exported file as the description of a pipeline; ``info`` adds facts about the fit."""
    facts = _read_metadata(model)
    # a model of several columns has several backbones, or none
    each = [fact for fact in facts.get("columns", {"": facts}).values() if "backbone" in fact]
    features = [{"precision": fact["backbone"]["precision"], **fact["features"]} for fact in each]
    words = [fact["words"] for fact in facts.get("columns", {}).values() if "words" in fact]
    features += [{"words": f"{each['n']:,}", "tokens per word": each["ngram_range"]} for each in words]
    inputs = {column: fact["kind"] for column, fact in facts.get("columns", {}).items()}
    named = {"text_column": next(iter(inputs))} if list(inputs.values()) == ["text"] else {"columns": inputs}
    backbones = {fact["backbone"]["identity"]: fact["backbone"] for fact in each}
    classes = None if facts["classes"] is None else [str(label) for label in facts["classes"]]
    return {
        "versions": facts["versions"],
        "created": facts["date"],
        "backbones": list(backbones.values()),
        "pipeline": {"estimator": facts["head"], "task": facts["task"], "classes": classes, "features": features},
        "info": (named if inputs else {}) | dict(info or {}),
    }


def use_onnx(name: str, model: onnx.ModelProto) -> str:
    """Return code that runs an exported file in Python and JavaScript, as Markdown, from its name and content."""
    facts, outputs = _read_metadata(model), [output.name for output in model.graph.output]
    fields = {
        "name": _quote(name),
        "data_of": "data" if "labels" in outputs or facts.get("targets") else "data[0]",
        "answer": next(name for name in ("label", "labels", "value") if name in outputs),
        "outputs": ", ".join(f"`{output}`" for output in outputs),
        "input": "(N, height, width, 3), RGB, images of any size, one size per batch",
        "fit": "",
        "pixels": "np.asarray(image)[None]",
        "fit_js": "",
        "before_js": "",
        "data_js": "new Uint8Array(data)",
        "shape_js": "[1, info.height, info.width, 3]",
    }
    if (rules := facts.get("preprocess")) is None:
        columns = facts["columns"]
        canvases = {
            column: _fit_canvas(fact["preprocess"], fact["features"]["crop"])
            for column, fact in columns.items()
            if fact["kind"] == "image"
        }
        return use_columns(fields["name"], columns, fields["answer"], outputs, canvases)
    if rules.get("kind") == "text":
        return _TEXT.format(**fields, **_cut_texts(rules["max_tokens"], rules["n_last"]))
    if facts.get("resize") == "in-graph":
        return _ONNX.format(**fields)
    fields |= _fit_canvas(facts["preprocess"], facts["features"]["crop"])
    return (
        _ONNX.format(**fields) + "\n\nThe JavaScript code resizes with another filter than Pillow, which changes "
        "predictions slightly; a file of `featx export --resize in-graph` takes images as they are."
    )


def _cut_texts(max_tokens: int | None, n_last: int) -> dict[str, str]:
    """Return the fields for a file that reads texts up to ``max_tokens`` tokens, or to their end if it is None."""
    if max_tokens is None:  # the graph cuts texts for the encoder, and words are counted to the end
        ids_js = 'const { ids } = tokenizer.encode("a red car");'
        return {"cut": "it pads nothing and cuts nothing", "cut_js": "", "ids_js": ids_js}
    ids_js = _CUT_JS.format(most=max_tokens, n_last=n_last, kept=max_tokens - n_last)
    cut_js = ", which does not cut by itself"
    return {"cut": "it cuts at max_tokens, and pads nothing", "cut_js": cut_js, "ids_js": ids_js}


def _fit_canvas(rules: dict[str, Any], crop: str) -> dict[str, str]:
    """Return the fields for a file that takes images on the canvas."""
    width, height, resize = rules["width"], rules["height"], rules["resize"]["size"]
    full_width, full_height = (resize * side // min(width, height) for side in (width, height))
    rounds_down = rules["crop"]["rounding"] == "down"
    if crop == "center" and rules["resize"]["rule"] != "shorter_side":
        crop = rules["resize"]["rule"]
    else:
        full_width = full_height = resize
    values = {
        "full_width": full_width,
        "full_height": full_height,
        "margin": "(side - kept) // 2" if rounds_down else "round((side - kept) / 2)",
        "width": width,
        "height": height,
        "resize": resize,
        "color": tuple(round(value) for value in rules["mean"]),
        "left": (full_width - width) // 2,
        "top": (full_height - height) // 2,
        "filter": rules["interpolation"].upper(),
    }
    python, javascript = (text.format(**values) for text in _FITS[crop])
    return {
        "input": f"(N, 3, {height}, {width}), RGB planes of images on the canvas of {width} x {height}",
        "fit": python,
        "pixels": "np.asarray(image).transpose(2, 0, 1)[None]",
        "fit_js": javascript,
        "before_js": "\nconst planes = [0, 1, 2].flatMap((band) => [...data.filter((_, i) => i % 3 === band)]);",
        "data_js": "Uint8Array.from(planes)",
        "shape_js": f"[1, 3, {height}, {width}]",
    }


def _quote(name: str) -> str:
    """Quote a name as a string of Python and JavaScript."""
    readable = name.encode("utf-8", "replace").decode()  # a name that is not UTF-8 holds surrogates
    return json.dumps(readable, ensure_ascii=False).replace("`", r"\u0060")


def _read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    return {
        entry.key.removeprefix("featx."): json.loads(entry.value)
        for entry in model.metadata_props
        if entry.key.startswith("featx.")
    }
