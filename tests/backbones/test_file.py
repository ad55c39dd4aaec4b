"""Backbone files describe themselves, and damaged files are refused by name."""

import io
import json
import math
import zipfile
from dataclasses import replace
from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import featx
from featx.backbones import open_backbone, tap
from featx.backbones.file import canonical_pixels, read_backbone
from featx.errors import BackboneError
from featx.session import Session
from tests.backbones.backbone_tools import (
    features_of,
    flip,
    metadata,
    read_or_refuse,
    save,
    set_metadata,
)

LAYER_NOWHERE = json.dumps(
    [dict(name="head", aliases=[], tensor="nothing", channels=3, height=7, width=7, stride=32)]  # noqa: C408
)


def test_the_bundled_file_takes_pixels_and_stands_alone(bundled_model):
    (pixels,) = bundled_model.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.elem_type == TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim] == ["N", 3, 224, 224]
    assert not any(t.data_location == TensorProto.EXTERNAL for t in bundled_model.graph.initializer)
    onnx.checker.check_model(bundled_model, full_check=True)


def test_padding_and_batch_norms_are_folded_into_the_convolutions(bundled_model):
    operators = {node.op_type for node in bundled_model.graph.node}
    assert not operators & {"Pad", "BatchNormalization"}
    assert "Conv" in operators


def test_the_file_gives_no_path_of_the_machine_that_made_it(bundled):
    content = bundled.path.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_the_bundled_backbone_describes_itself(bundled):
    assert bundled.preprocess == featx.images.preprocess.Preprocess(
        224, 224, 256, "bicubic", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
    )
    assert bundled.license == "Apache-2.0"
    assert bundled.parameters == 4_652_008
    assert 0.38 < bundled.gflops < 0.41
    assert {"torch", "timm", "onnxscript", "weights_sha256"} <= set(bundled.recipe)


def test_layers_answer_to_the_authors_names_as_well(bundled):
    assert bundled.layer("blocks.4") == bundled.layer("stage3") == bundled.layer("blocks.4.2")
    assert bundled.layer(None) == bundled.layer("head") == bundled.layer("bn2")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"timm": "1"}, False),
        ({"tuned_from": "0"}, True),
        ({"float32_identity": "1", "origin": {"tuned_from": "0"}}, True),
    ],
)
def test_a_tuned_network_and_its_copies_say_so(bundled, recipe, expected):
    assert replace(bundled, recipe=recipe).is_tuned == expected


def test_the_canonical_vector_comes_out(bundled):
    features = Session(tap(bundled, None, "avg", False), "cpu").run(canonical_pixels(bundled.preprocess))[0]
    cosine = features @ bundled.canonical / np.linalg.norm(features) / np.linalg.norm(bundled.canonical)
    assert cosine > 0.999999
    np.testing.assert_allclose(features, bundled.canonical, atol=1e-3)


def test_another_network_fails_the_canonical_check(bundled, other_backbone):
    other = open_backbone(other_backbone)
    features = Session(tap(other, None, "avg", False), "cpu").run(canonical_pixels(bundled.preprocess))[0]
    assert np.abs(features - bundled.canonical).max() > 0.1


def test_layers_are_counted_from_both_ends(bundled):
    assert bundled.layer(-1) == bundled.layer("head")
    assert bundled.layer(-2) == bundled.layer("stage4")
    assert bundled.layer(0) == bundled.layers[0]


@pytest.mark.parametrize("layer", [[], ["head", "bn2"], 31, -32, True, 1.5, ["head", None, "stage9"], {"head"}])
def test_layers_that_are_not_there_are_named(bundled, layer):
    with pytest.raises(featx.BackboneError, match="layer="):
        bundled.select(layer)


def test_identity_depends_on_what_computes_and_on_nothing_else(bundled, bundled_model, tmp_path, other_backbone):
    set_metadata(bundled_model, "featx.license", '"MIT"')
    set_metadata(bundled_model, "featx.name", '"renamed"')
    bundled_model.doc_string = "words"
    assert read_backbone(save(bundled_model, tmp_path / "words.onnx")).identity == bundled.identity
    assert read_backbone(other_backbone).identity != bundled.identity

    rules = bundled.preprocess.to_dict()
    rules["resize"]["size"] = 250
    set_metadata(bundled_model, "featx.preprocess", json.dumps(rules))
    assert read_backbone(save(bundled_model, tmp_path / "resized.onnx")).identity != bundled.identity

    bundled_model = onnx.load(bundled.path)
    changed = [
        a for a in next(n for n in bundled_model.graph.node if n.op_type == "Conv").attribute if a.name == "strides"
    ]
    changed[0].ints[0] = 1
    assert read_backbone(save(bundled_model, tmp_path / "strides.onnx")).identity != bundled.identity


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12\x04text"])
def test_what_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(featx.BackboneError, match=r"x\.onnx: "):
        read_backbone(path)


def test_a_model_without_metadata_is_refused(tmp_path):
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    path = save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "plain.onnx")
    with pytest.raises(featx.BackboneError, match="without featx's metadata"):
        open_backbone(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("featx.format", "3", "backbone format 3, this featx reads 1 and 2; upgrade featx"),
        ("featx.format", "one", "damaged metadata"),
        ("featx.layers", "[]", "layers"),
        ("featx.layers", "3", "damaged metadata"),
        ("featx.default_layer", '"nowhere"', "nowhere"),
        ("featx.preprocess", "{}", "damaged metadata"),
        ("featx.preprocess", '{"height": 224}', "preprocessing is incomplete"),
        ("featx.canonical", '"abc"', "damaged metadata"),
        ("featx.layers", LAYER_NOWHERE, "layer head is at nothing, which is not in the graph"),
    ],
)
def test_damaged_metadata_is_named(tmp_path, bundled_model, key, value, message):
    set_metadata(bundled_model, key, value)
    with pytest.raises(featx.BackboneError) as caught:
        read_backbone(save(bundled_model, tmp_path / "damaged.onnx"))
    assert message in str(caught.value)


def test_unknown_preprocessing_rules_are_refused_not_ignored(tmp_path, bundled_model, bundled):
    rules = bundled.preprocess.to_dict() | {"interpolation": "bicubic", "antialias": False}
    set_metadata(bundled_model, "featx.preprocess", json.dumps(rules))
    with pytest.raises(featx.BackboneError, match="rules unknown to this version: antialias"):
        read_backbone(save(bundled_model, tmp_path / "rules.onnx"))


@pytest.mark.parametrize("change", ["swap two layers", "another default layer"])
def test_identity_depends_on_what_the_layers_are_called(bundled, bundled_model, tmp_path, change):
    layers = json.loads(next(prop.value for prop in bundled_model.metadata_props if prop.key == "featx.layers"))
    if change == "swap two layers":
        layers[0]["tensor"], layers[1]["tensor"] = layers[1]["tensor"], layers[0]["tensor"]
        set_metadata(bundled_model, "featx.layers", json.dumps(layers))
    else:
        set_metadata(bundled_model, "featx.default_layer", '"stage4"')
    assert read_backbone(save(bundled_model, tmp_path / "changed.onnx")).identity != bundled.identity


def test_the_small_backbone_of_these_tests_is_sound(small):
    backbone = open_backbone(small)
    assert [layer.name for layer in backbone.layers] == ["stem", "stage1", "head"]
    np.testing.assert_allclose(features_of(backbone)[0], backbone.canonical, rtol=1e-5)
    assert backbone.canonical.any()


def cut_out(content, rng):
    start, length = rng.integers(len(content)), rng.integers(1, 500)
    return content[:start] + content[start + length :]


def repeat(content, rng):
    start, length = rng.integers(len(content)), rng.integers(1, 500)
    return content[: start + length] + content[start:]


def splice(content, rng):
    start, source = rng.integers(len(content), size=2)
    block = content[source : source + rng.integers(1, 500)]
    return content[:start] + block + content[start + len(block) :]


DAMAGE = {
    "cut off": lambda content, rng: content[: rng.integers(len(content))],
    "bits flipped": flip,
    "few bits flipped": lambda content, rng: flip(content, rng, 2),
    "a block cut out": cut_out,
    "a block twice": repeat,
    "a block over another": splice,
    "random bytes": lambda content, rng: rng.bytes(rng.integers(1, 5000)),
    "random bytes as a graph": lambda content, rng: content + b"\x3a\x40" + rng.bytes(64),
    "its own bytes in another order": lambda content, rng: rng.permutation(np.frombuffer(content, np.uint8)).tobytes(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name_or_reads_well(small, tmp_path, what):
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for i in range(40):
        path.write_bytes(DAMAGE[what](small.read_bytes(), rng))
        read_or_refuse(path, f"{what}, file {i}")


KEYS = ("format", "name", "preprocess", "layers", "default_layer", "cost", "license", "source", "recipe", "canonical")


VALUES = {
    "number": "3",
    "huge number": "9" * 4000,
    "number too huge to read": "9" * 100_000,
    "fraction": "1.5",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "null": "null",
    "true": "true",
    "text": '"x"',
    "half a character": '"\\ud800"',
    "empty list": "[]",
    "list": '[[], null, {"name": 3}]',
    "deep list": "[" * 100_000,
    "deep list with an end": "[" * 100_000 + "]" * 100_000,
    "object": "{}",
    "object with NaN": '{"parameters": 1, "gflops": NaN}',
    "nothing": "",
    "not JSON": "{'a'}",
}


SOUND = {("name", "text"), ("license", "text"), ("source", "text"), ("recipe", "object")}


@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_another_type_is_refused(model, tmp_path, key):
    for what, value in VALUES.items():
        metadata(model, key).value = value
        backbone = read_or_refuse(save(model, tmp_path / "typed.onnx"), f"{key} as {what}")
        assert bool(backbone) == ((key, what) in SOUND), f"{key} as {what}"


@pytest.mark.parametrize("key", KEYS)
def test_metadata_without_one_of_its_keys_is_refused(model, tmp_path, key):
    model.metadata_props.remove(metadata(model, key))
    assert read_or_refuse(save(model, tmp_path / "without.onnx"), key) is None


@pytest.mark.parametrize("key", ["layers", "preprocess", "cost"])
def test_a_part_of_metadata_of_another_type_is_refused_or_reads_well(model, tmp_path, key):
    prop = metadata(model, key)
    sound = prop.value
    fields = json.loads(sound)[0] if key == "layers" else json.loads(sound)
    for field in fields:
        for wrong in (None, True, [], {}, "x", [None], 0, -1, 1.5, 10**30, 10**400, math.nan, {"size": "x"}):
            value = json.loads(sound)
            (value[0] if key == "layers" else value)[field] = wrong
            prop.value = json.dumps(value)
            read_or_refuse(save(model, tmp_path / "part.onnx"), f"{key}.{field} as {wrong!r}")


def test_swapped_metadata_is_refused_or_reads_well(small, tmp_path):
    for one, other in combinations(KEYS, 2):
        model = onnx.load(small)
        a, b = metadata(model, one), metadata(model, other)
        a.value, b.value = b.value, a.value
        read_or_refuse(save(model, tmp_path / "swapped.onnx"), f"{one} and {other} swapped")


@pytest.mark.parametrize("key", [b"featx.nam\xff", b"\xffeatx.name", b"featx.\xc3\x28me"])
def test_a_metadata_key_that_is_no_text_is_refused(small, tmp_path, key):
    path = tmp_path / "key.onnx"
    path.write_bytes(small.read_bytes().replace(b"featx.name", key))
    assert read_or_refuse(path, key) is None


def test_metadata_under_keys_of_another_program_does_not_count(model, tmp_path):
    for prop in model.metadata_props:
        prop.key = prop.key.removeprefix("featx.")
    with pytest.raises(BackboneError, match=r"bare\.onnx: an ONNX model without featx's metadata"):
        read_backbone(save(model, tmp_path / "bare.onnx"))


def make_png():
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()


def make_zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("small.onnx", b"model")
    return out.getvalue()


OTHER = {
    "empty": b"",
    "a zero": b"\x00",
    "ones": b"\xff" * 100,
    "text": b"pixels",
    "PNG": make_png(),
    "zip": make_zip(),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_file_of_another_kind_is_refused(tmp_path, what):
    path = tmp_path / "other.onnx"
    path.write_bytes(OTHER[what])
    assert read_or_refuse(path, what) is None
