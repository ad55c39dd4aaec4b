import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import featx
from featx.backbones import POOLINGS, find_by_identity, list_backbones, open_backbone, tap
from featx.backbones.file import canonical_pixels, read_backbone
from featx.backbones.graph import n_features
from featx.session import Session


@pytest.fixture
def bundled():
    return open_backbone("efficientnet_lite0")


@pytest.fixture
def model(bundled):
    return onnx.load(bundled.path)


LAYER_NOWHERE = json.dumps(
    [dict(name="head", aliases=[], tensor="nothing", channels=3, height=7, width=7, stride=32)]  # noqa: C408
)


def save(model, path):
    onnx.save(model, path)
    return path


def set_metadata(model, key, value):
    for prop in model.metadata_props:
        if prop.key == key:
            prop.value = value


def test_the_bundled_file_takes_pixels_and_stands_alone(model):
    (pixels,) = model.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.elem_type == TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim] == ["N", 3, 224, 224]
    assert not any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)


def test_padding_and_batch_norms_are_folded_into_the_convolutions(model):
    operators = {node.op_type for node in model.graph.node}
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


@pytest.mark.parametrize(
    ("name", "channels", "size", "stride"),
    [
        ("stem", 16, 112, 2),
        ("stage1", 24, 56, 4),
        ("stage2", 40, 28, 8),
        ("stage3", 112, 14, 16),
        ("stage4", 320, 7, 32),
        ("head", 1280, 7, 32),
        ("blocks.3.1", 80, 14, 16),
    ],
)
def test_layers_have_the_size_they_say(bundled, name, channels, size, stride):
    layer = bundled.layer(name)
    assert (layer.channels, layer.height, layer.width, layer.stride) == (channels, size, size, stride)
    rows = Session(tap(bundled, name, "flatten", False), "cpu").run(canonical_pixels(bundled.preprocess))
    assert rows.shape == (1, channels * size * size)


def test_layers_answer_to_the_authors_names_as_well(bundled):
    assert bundled.layer("blocks.4") == bundled.layer("stage3") == bundled.layer("blocks.4.2")
    assert bundled.layer(None) == bundled.layer("head") == bundled.layer("bn2")


def test_the_canonical_vector_comes_out(bundled):
    features = Session(tap(bundled, None, "avg", False), "cpu").run(canonical_pixels(bundled.preprocess))[0]
    cosine = features @ bundled.canonical / np.linalg.norm(features) / np.linalg.norm(bundled.canonical)
    assert cosine > 0.999999
    np.testing.assert_allclose(features, bundled.canonical, atol=1e-3)


def test_another_network_fails_the_canonical_check(bundled, other_backbone):
    other = open_backbone(other_backbone)
    features = Session(tap(other, None, "avg", False), "cpu").run(canonical_pixels(bundled.preprocess))[0]
    assert np.abs(features - bundled.canonical).max() > 0.1


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_computes_in_the_graph_what_it_computes_on_arrays(bundled, pooling):
    pixels = canonical_pixels(bundled.preprocess)
    maps = Session(tap(bundled, "stage4", "flatten", False), "cpu").run(pixels).reshape(1, 320, 7, 7)
    rows = Session(tap(bundled, "stage4", pooling, False), "cpu").run(pixels)
    assert rows.shape[1] == n_features(bundled, "stage4", pooling)["stage4"]
    np.testing.assert_allclose(rows, POOLINGS[pooling].array(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (3, 3), (7, 7), (13, 8)])
def test_the_pyramid_is_adaptive_pooling_on_maps_of_any_size(height, width):
    maps = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    rows = POOLINGS["spatial_pyramid"].array(maps)
    np.testing.assert_allclose(rows[:, :3], maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert rows.shape == (2, POOLINGS["spatial_pyramid"].n_features((3, height, width)))
    if min(height, width) >= 2:
        top, left = -(-height // 2), -(-width // 2)
        np.testing.assert_allclose(rows[:, 3:6], maps[:, :, :top, :left].mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_several_layers_come_side_by_side_from_one_graph(bundled):
    pixels = canonical_pixels(bundled.preprocess)
    rows = Session(tap(bundled, ["stage4", "stage2", -1], "avg", False), "cpu").run(pixels)
    alone = [Session(tap(bundled, name, "avg", False), "cpu").run(pixels) for name in ("stage4", "stage2", "head")]
    np.testing.assert_array_equal(rows, np.concatenate(alone, axis=1))


def test_layers_are_counted_from_both_ends(bundled):
    assert bundled.layer(-1) == bundled.layer("head")
    assert bundled.layer(-2) == bundled.layer("stage4")
    assert bundled.layer(0) == bundled.layers[0]


@pytest.mark.parametrize("layer", [[], ["head", "bn2"], 31, -32, True, 1.5, ["head", None, "stage9"], {"head"}])
def test_layers_that_are_not_there_are_named(bundled, layer):
    with pytest.raises(featx.BackboneError, match="layer="):
        bundled.select(layer)


def test_cutting_removes_the_work_behind_the_cut(bundled, model):
    cut = onnx.load_from_string(tap(bundled, "stage1", "avg", False))
    assert len(cut.graph.node) < len(model.graph.node) / 3
    assert len(cut.graph.initializer) < len(model.graph.initializer) / 3


def test_a_row_of_zeros_stays_zero_when_normalised(bundled, model, tmp_path):
    for tensor in model.graph.initializer:
        if tensor.name.startswith("conv_head"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    zero = open_backbone(save(model, tmp_path / "zero.onnx"))
    rows = Session(tap(zero, None, "avg", True), "cpu").run(canonical_pixels(bundled.preprocess))
    np.testing.assert_array_equal(rows, 0)


def test_identity_depends_on_what_computes_and_on_nothing_else(bundled, model, tmp_path, other_backbone):
    set_metadata(model, "featx.license", '"MIT"')
    set_metadata(model, "featx.name", '"renamed"')
    model.doc_string = "words"
    assert read_backbone(save(model, tmp_path / "words.onnx")).identity == bundled.identity
    assert read_backbone(other_backbone).identity != bundled.identity

    rules = bundled.preprocess.to_dict()
    rules["resize"]["size"] = 250
    set_metadata(model, "featx.preprocess", json.dumps(rules))
    assert read_backbone(save(model, tmp_path / "resized.onnx")).identity != bundled.identity

    model = onnx.load(bundled.path)
    next(n for n in model.graph.node if n.op_type == "Conv").attribute[0].i = 1
    changed = [a for a in next(n for n in model.graph.node if n.op_type == "Conv").attribute if a.name == "strides"]
    changed[0].ints[0] = 1
    assert read_backbone(save(model, tmp_path / "strides.onnx")).identity != bundled.identity


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12\x04text"])
def test_what_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(featx.BackboneError, match=r"x\.onnx: "):
        open_backbone(path)


def test_a_truncated_file_is_named(tmp_path, bundled):
    path = tmp_path / "cut.onnx"
    path.write_bytes(bundled.path.read_bytes()[:1_000_000])
    with pytest.raises(featx.BackboneError, match=r"cut\.onnx: cannot be read as an ONNX model"):
        open_backbone(path)


def test_a_model_without_metadata_is_refused(tmp_path):
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    path = save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "plain.onnx")
    with pytest.raises(featx.BackboneError, match="without featx's metadata"):
        open_backbone(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("featx.format", "2", "backbone format 2, this featx reads 1; upgrade featx"),
        ("featx.format", "one", "damaged metadata"),
        ("featx.layers", "[]", "layers"),
        ("featx.layers", "3", "damaged metadata"),
        ("featx.default_layer", '"nowhere"', "nowhere"),
        ("featx.preprocess", "{}", "damaged metadata"),
        ("featx.preprocess", '{"height": 224}', "preprocessing is incomplete"),
        ("featx.canonical", '"abc"', "damaged metadata"),
        ("featx.layers", LAYER_NOWHERE, "layer head is at nothing, which is not there"),
    ],
)
def test_damaged_metadata_is_named(tmp_path, model, key, value, message):
    set_metadata(model, key, value)
    with pytest.raises(featx.BackboneError) as caught:
        open_backbone(save(model, tmp_path / "damaged.onnx"))
    assert message in str(caught.value)


def test_unknown_preprocessing_rules_are_refused_not_ignored(tmp_path, model, bundled):
    rules = bundled.preprocess.to_dict() | {"interpolation": "bicubic", "antialias": False}
    set_metadata(model, "featx.preprocess", json.dumps(rules))
    with pytest.raises(featx.BackboneError, match="rules unknown to this version: antialias"):
        open_backbone(save(model, tmp_path / "rules.onnx"))


def test_weights_in_other_files_are_refused(tmp_path, model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../outside.bin")
    (tmp_path / "external.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(featx.BackboneError, match="one file"):
        open_backbone(tmp_path / "external.onnx")


def test_backbones_are_found_by_name_path_and_identity(tmp_path, monkeypatch, other_backbone):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    (tmp_path / "mine.onnx").write_bytes(other_backbone.read_bytes())
    other = open_backbone(other_backbone)
    assert [backbone.path.stem for backbone in list_backbones()] == [
        "efficientnet_lite0",
        "efficientnet_lite0_int8",
        "mine",
    ]
    assert open_backbone("mine").identity == other.identity
    assert find_by_identity(other.identity).path == tmp_path / "mine.onnx"
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    assert find_by_identity(other.identity).path == tmp_path / "mine.onnx"
    assert find_by_identity("0" * 64) is None
    (tmp_path / "broken.onnx").unlink()
    with pytest.raises(
        featx.BackboneError, match="neither a file nor one of: efficientnet_lite0, efficientnet_lite0_int8, mine"
    ):
        open_backbone("yours")
    with pytest.raises(featx.BackboneError, match=r"yours\.onnx': no such file"):
        open_backbone("yours.onnx")


def test_a_file_that_changed_is_read_again(tmp_path, bundled, other_backbone):
    path = tmp_path / "changing.onnx"
    path.write_bytes(bundled.path.read_bytes())
    assert open_backbone(path).identity == bundled.identity
    path.write_bytes(other_backbone.read_bytes())
    assert open_backbone(path).identity != bundled.identity


def test_a_broken_file_among_the_users_own_is_named_when_listing(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    assert open_backbone("efficientnet_lite0").name == "efficientnet_lite0"
    with pytest.raises(featx.BackboneError, match=r"broken\.onnx"):
        list_backbones()


@pytest.mark.parametrize("change", ["swap two layers", "another default layer"])
def test_identity_depends_on_what_the_layers_are_called(bundled, model, tmp_path, change):
    layers = json.loads(next(prop.value for prop in model.metadata_props if prop.key == "featx.layers"))
    if change == "swap two layers":
        layers[0]["tensor"], layers[1]["tensor"] = layers[1]["tensor"], layers[0]["tensor"]
        set_metadata(model, "featx.layers", json.dumps(layers))
    else:
        set_metadata(model, "featx.default_layer", '"stage4"')
    assert read_backbone(save(model, tmp_path / "changed.onnx")).identity != bundled.identity


def test_a_file_that_was_replaced_without_a_trace_in_its_time_is_read_again(tmp_path, bundled, other_backbone):
    path = tmp_path / "same-time.onnx"
    for source in (bundled.path, other_backbone):
        path.write_bytes(source.read_bytes())
        os.utime(path, (0, 0))
        assert open_backbone(path).identity == read_backbone(source).identity


def test_files_that_another_process_is_still_writing_are_not_listed(tmp_path, monkeypatch, bundled):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    (tmp_path / ".featx-0.part.onnx").write_bytes(bundled.path.read_bytes()[:1000])
    assert {backbone.path.parent for backbone in list_backbones()} == {bundled.path.parent}


def test_a_broken_file_can_be_left_out_when_listing(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    errors = []
    assert all(backbone.path.parent != tmp_path for backbone in list_backbones(on_error=errors.append))
    assert "broken.onnx" in str(errors[0])
