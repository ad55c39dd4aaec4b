"""How to run a file, in a few lines of each language: what stands in its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["describe_onnx", "use_onnx", "use_saved"]

_KINDS = {onnx.TensorProto.STRING: "string", onnx.TensorProto.FLOAT: "float", onnx.TensorProto.INT64: "long"}

_SAVED = """\
```python
import featx

pipeline = featx.load({name})
print(pipeline.{method}(["image.jpg"]))
```"""

_ONNX = """\
Input: `pixels`, uint8, {input}. Output: {outputs}.

Python, with onnxruntime, numpy and Pillow; grey of 16 bits has to be scaled to 8 before:

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
console.log((await session.run({{ pixels }})).{answer}.data[0]);
```

C#, with Microsoft.ML.OnnxRuntime and SixLabors.ImageSharp:

```csharp
using var image = Image.Load<Rgb24>("image.jpg");
image.Mutate(x => x.AutoOrient(){fit_cs});
var bytes = new byte[image.Width * image.Height * 3];
image.CopyPixelDataTo(bytes);
{before_cs}var pixels = new DenseTensor<byte>({data_cs}, new[] {{ {shape_cs} }});
using var session = new InferenceSession({name});
using var results = session.Run(new[] {{ NamedOnnxValue.CreateFromTensor("pixels", pixels) }});
Console.WriteLine(results.First(x => x.Name == "{answer}").AsEnumerable<{kind}>().First());
```"""

_CANVAS_PYTHON = """
size = [{resize} * side // min(image.size) for side in image.size]
image = image.resize(size, Image.Resampling.{filter})
left, upper = (round((side - kept) / 2) for side, kept in zip(image.size, ({width}, {height})))
image = image.crop((left, upper, left + {width}, upper + {height}))"""
_WHOLE_PYTHON = """
image = image.resize(({width}, {height}), Image.Resampling.{filter})"""
_PAD_PYTHON = """
scale = min({width} / image.width, {height} / image.height)
small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.{filter})
image = Image.new("RGB", ({width}, {height}), {color})
image.paste(small, (({width} - small.width) // 2, ({height} - small.height) // 2))"""

#: How an image gets onto the canvas, by ``crop``: in Python, JavaScript and C#.
_FITS = {
    "center": (
        _CANVAS_PYTHON,
        """
  .resize({resize}, {resize}, {{ fit: "cover" }})
  .extract({{ left: {left}, top: {top}, width: {width}, height: {height} }})""",
        """
    .Resize(new ResizeOptions {{ Size = new Size({resize}, {resize}), Mode = ResizeMode.Crop }})
    .Crop(new Rectangle({left}, {top}, {width}, {height}))""",
    ),
    "whole": (
        _WHOLE_PYTHON,
        """.resize({width}, {height}, {{ fit: "fill" }})""",
        """.Resize(new ResizeOptions {{ Size = new Size({width}, {height}), Mode = ResizeMode.Stretch }})""",
    ),
    "pad": (
        _PAD_PYTHON,
        """.resize({width}, {height}, {{ fit: "contain", background: "rgb{color}" }})""",
        """
    .Resize(new ResizeOptions
        {{ Size = new Size({width}, {height}), Mode = ResizeMode.Pad, PadColor = {color_cs} }})""",
    ),
}


def use_saved(name: str, about: Mapping[str, Any]) -> str:
    """Say in Markdown how to run a saved pipeline.

    Parameters
    ----------
    name : str
        Of the file.
    about : mapping
        What `featx.read_info` gives.
    """
    only_transforms = about.get("answers", {}).get("method") == "transform"
    return _SAVED.format(name=_quote(name), method="transform" if only_transforms else "predict")


def describe_onnx(model: onnx.ModelProto) -> dict[str, Any]:
    """Read what an exported file says of itself, in the form of `featx.read_info`, for its card.

    Parameters
    ----------
    model : onnx.ModelProto
        Its metadata count.

    Returns
    -------
    dict
        ``versions``, ``created``, ``backbones``, ``pipeline`` and an empty ``info``.
    """
    said = _read(model)
    features = {"precision": said["backbone"]["precision"], **said["features"]}
    classes = None if said["classes"] is None else [str(label) for label in said["classes"]]
    return {
        "versions": said["versions"],
        "created": said["date"],
        "backbones": [said["backbone"]],
        "pipeline": {"estimator": said["head"], "task": said["task"], "classes": classes, "features": [features]},
        "info": {},
    }


def use_onnx(name: str, model: onnx.ModelProto) -> str:
    """Say in Markdown how to run an exported file in Python, JavaScript and C#.

    Parameters
    ----------
    name : str
        Of the file.
    model : onnx.ModelProto
        Its metadata, input and outputs count.
    """
    said, outputs = _read(model), {output.name: output for output in model.graph.output}
    answer = "label" if "label" in outputs else "value"
    any_size = said.get("resize") == "in-graph"
    parts = {
        "name": _quote(name),
        "answer": answer,
        "outputs": ", ".join(f"`{output}`" for output in outputs),
        "kind": _KINDS[outputs[answer].type.tensor_type.elem_type],
        "input": "(N, height, width, 3), RGB, images of any size, one size in a batch",
        "fit": "",
        "pixels": "np.asarray(image)[None]",
        "fit_js": "",
        "before_js": "",
        "data_js": "new Uint8Array(data)",
        "shape_js": "[1, info.height, info.width, 3]",
        "fit_cs": "",
        "before_cs": "",
        "data_cs": "bytes",
        "shape_cs": "1, image.Height, image.Width, 3",
    }
    if not any_size:
        parts |= _on_canvas(said["preprocess"], said["features"]["crop"])
    text = _ONNX.format(**parts)
    if not any_size:
        text += "\n\nJavaScript and C# resize with other filters here, which moves answers a little; "
        text += "a file of `featx export --resize in-graph` takes images as they are."
    return text


def _on_canvas(rules: dict[str, Any], crop: str) -> dict[str, str]:
    """Fill in what a file needs that takes images on the canvas."""
    width, height, resize = rules["width"], rules["height"], rules["resize"]["size"]
    color = tuple(round(value) for value in rules["mean"])
    known = {
        **{"width": width, "height": height, "resize": resize, "color": color},
        **{"left": (resize - width) // 2, "top": (resize - height) // 2, "filter": rules["interpolation"].upper()},
        "color_cs": f"Color.FromRgb{color}",
    }
    python, javascript, csharp = (text.format(**known) for text in _FITS[crop])
    return {
        "input": f"(N, 3, {height}, {width}), RGB planes of images on the canvas of {width} x {height}",
        "fit": python,
        "pixels": "np.asarray(image).transpose(2, 0, 1)[None]",
        "fit_js": javascript,
        "before_js": "\nconst planes = [0, 1, 2].flatMap((band) => [...data.filter((_, i) => i % 3 === band)]);",
        "data_js": "Uint8Array.from(planes)",
        "shape_js": f"[1, 3, {height}, {width}]",
        "fit_cs": csharp,
        "before_cs": (
            "var planes = Enumerable.Range(0, 3).SelectMany(b => bytes.Where((_, i) => i % 3 == b)).ToArray();\n"
        ),
        "data_cs": "planes",
        "shape_cs": f"1, 3, {height}, {width}",
    }


def _quote(name: str) -> str:
    """Write a name as Python, JavaScript and C# do."""
    readable = name.encode("utf-8", "replace").decode()  # one that is no UTF-8 has surrogates
    return json.dumps(readable, ensure_ascii=False).replace("`", r"\u0060")


def _read(model: onnx.ModelProto) -> dict[str, Any]:
    return {
        entry.key.removeprefix("featx."): json.loads(entry.value)
        for entry in model.metadata_props
        if entry.key.startswith("featx.")
    }
