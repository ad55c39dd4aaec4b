"""Write the code of a model card for a file with an input per column, in Python and JavaScript."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["use_columns"]

#: Maps the kind of a column to the description of its input in the card.
_INPUTS = {
    "image": "uint8 (N, 3, {height}, {width}), RGB planes of an image on the canvas of {width} x {height}",
    "text": "int64 (N, n_tokens), the tokens of a text. Do not pad or cut them: run one row at a time, or rows whose "
    "texts have the same number of tokens. `featx.columns` in the metadata has the content of `tokenizer.json`",
    "number": "float32 (N, 1), NaN if missing",
    "category": "string (N, 1), empty if missing",
}

#: Fields whose code is inside of functions, and therefore indented.
_INSIDE = ("fit", "fit_js", "before_js")

_PYTHON_IMAGE = """\
def {reader}(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"){fit}
    return {pixels}"""

_PYTHON_TEXT = """\
{tokenizer} = json.dumps(columns[{column}]["preprocess"]["tokenizer"])
Path({file}).write_text({tokenizer}, encoding="utf-8")  # for JavaScript
inputs[{input}] = np.array([Tokenizer.from_str({tokenizer}).encode("a red car").ids], np.int64)"""

_JAVASCRIPT_IMAGE = """\
async function {reader}(path) {{
  const image = sharp(path).rotate().flatten({{ background: "white" }}).toColourspace("srgb"){fit_js};
  const data = await image.raw().toBuffer();{before_js}
  return new ort.Tensor("uint8", {data_js}, {shape_js});
}}"""

_JAVASCRIPT_TEXT = """\
const {ids} = new Tokenizer(JSON.parse(fs.readFileSync({file}, "utf-8")), {{}}).encode("a red car").ids;
inputs[{input}] = new ort.Tensor("int64", BigInt64Array.from({ids}, BigInt), [1, {ids}.length]);"""


def use_columns(
    name: str,
    columns: Mapping[str, Mapping[str, Any]],
    answer: str,
    outputs: Sequence[str],
    canvases: Mapping[str, Mapping[str, str]],
) -> str:
    """Format code that runs a file with an input per column, as Markdown.

    Parameters
    ----------
    name : str
        Name of the file, quoted.
    columns : dict
        The metadata entry ``featx.columns``.
    answer : str
        Name of the output to print.
    outputs : sequence of str
        Names of all outputs.
    canvases : dict
        Maps a column of images to code that fits an image to its canvas.
    """
    kinds = {fact["kind"] for fact in columns.values()}
    readers: dict[str, str] = {}  # columns with the same rules share a function
    python: list[str] = []
    javascript: list[str] = []
    listed: list[str] = []
    for column, fact in columns.items():
        kind, key = fact["kind"], _quote(fact["input"])
        size = {side: fact.get("preprocess", {}).get(side) for side in ("height", "width")}
        listed.append(f"- `{fact['input']}`: {_INPUTS[kind].format(**size)}.")
        if kind == "image":
            code = canvases[column]
            rules = json.dumps(code)
            if rules not in readers:
                readers[rules] = f"readImage{len(readers) or ''}"
                inside = {name: code[name].replace("\n", f"\n{'    ' if name == 'fit' else '  '}") for name in _INSIDE}
                python.append(_PYTHON_IMAGE.format(reader=readers[rules], **{**code, **inside}))
                javascript.append(_JAVASCRIPT_IMAGE.format(reader=readers[rules], **{**code, **inside}))
            python.append(f'inputs[{key}] = {readers[rules]}("image.jpg")')
            javascript.append(f'inputs[{key}] = await {readers[rules]}("image.jpg");')
        elif kind == "text":
            i = sum(each.startswith("const ids") for each in javascript)
            names = {"tokenizer": f"tokenizer{i or ''}", "ids": f"ids{i or ''}", "column": _quote(column), "input": key}
            names["file"] = _quote(f"tokenizer{i or ''}.json")
            python.append(_PYTHON_TEXT.format(**names))
            javascript.append(_JAVASCRIPT_TEXT.format(**names))
        elif kind == "number":
            python.append(f"inputs[{key}] = np.array([[3.5]], np.float32)")
            javascript.append(f'inputs[{key}] = new ort.Tensor("float32", [3.5], [1, 1]);')
        else:
            known = _quote(next(iter(filter(None, fact["categories"])), ""))
            python.append(f"inputs[{key}] = np.array([[{known}]], object)")
            javascript.append(f'inputs[{key}] = new ort.Tensor("string", [{known}], [1, 1]);')
    has_images, has_texts = "image" in kinds, "text" in kinds
    head = ["import json\nfrom pathlib import Path" if has_texts else "", "import numpy as np, onnxruntime"]
    head += ["from PIL import Image, ImageOps" if has_images else "", "from tokenizers import Tokenizer" * has_texts]
    head += [f"session = onnxruntime.InferenceSession({name})"]
    if has_texts:
        head += ['columns = json.loads(session.get_modelmeta().custom_metadata_map["featx.columns"])']
    head += ["inputs = {}"]
    head_js = ['import fs from "node:fs";' if has_texts else "", 'import ort from "onnxruntime-node";']
    head_js += ['import sharp from "sharp";' if has_images else ""]
    head_js += ['import { Tokenizer } from "@huggingface/tokenizers";' if has_texts else ""]
    head_js += [f"const session = await ort.InferenceSession.create({name});", "const inputs = {};"]
    packages = ["onnxruntime", "numpy", *(["Pillow"] if has_images else []), *(["tokenizers"] if has_texts else [])]
    packages_js = ["onnxruntime-node", *(["sharp"] if has_images else [])]
    packages_js += ["@huggingface/tokenizers"] if has_texts else []
    run = [*filter(None, head), *python, f'print(session.run(["{answer}"], inputs)[0][0])']
    run_js = [*filter(None, head_js), *javascript, f"console.log((await session.run(inputs)).{answer}.data[0]);"]
    parts = [
        "Inputs, one per column:",
        "\n".join(listed),
        f"Output: {', '.join(f'`{output}`' for output in outputs)}.",
        f"Python, with {', '.join(packages)}:",
        "```python\n" + "\n".join(run) + "\n```",
        f"JavaScript, with {', '.join(packages_js)}:",
        "```javascript\n" + "\n".join(run_js) + "\n```",
    ]
    if has_images:
        parts.append("The JavaScript code resizes with another filter than Pillow, which changes predictions slightly.")
    return "\n\n".join(parts)


def _quote(name: str) -> str:
    """Quote a name as a string of Python and JavaScript."""
    return json.dumps(name).replace("`", r"\u0060")
