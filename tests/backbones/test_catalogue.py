"""Backbones are found by name, path and identity."""

import os
import subprocess
import sys

import pytest

import featx
import featx.recipes
from featx.backbones import find_by_identity, list_backbones, n_features, open_backbone
from featx.backbones.file import read_backbone


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
        featx.BackboneError, match="expected a file or one of: efficientnet_lite0, efficientnet_lite0_int8, mine"
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


def test_a_truncated_file_is_named(tmp_path, bundled):
    path = tmp_path / "cut.onnx"
    path.write_bytes(bundled.path.read_bytes()[:1_000_000])
    with pytest.raises(featx.BackboneError, match=r"cut\.onnx: cannot be read as an ONNX model"):
        open_backbone(path)


@pytest.mark.parametrize("name", ["resnet50", "timm:resnet50", "resnet50.a1_in1k"])
def test_a_backbone_that_is_not_made_yet_comes_with_the_command_that_makes_it(name):
    with pytest.raises(featx.BackboneError, match=r"featx backbones make timm:resnet50\.a1_in1k ") as caught:
        open_backbone(name)
    assert 'featx.recipes.make_backbone("timm:resnet50.a1_in1k")' in str(caught.value)


@pytest.mark.parametrize(("name", "close"), [("efficentnet_lite0", "efficientnet_lite0"), ("resnet52", "resnet50")])
def test_a_mistyped_backbone_gets_suggestions(name, close):
    with pytest.raises(featx.BackboneError, match=f"backbone='{name}': did you mean '{close}'"):
        open_backbone(name)


def test_a_mistyped_layer_or_pooling_gets_suggestions(bundled):
    with pytest.raises(featx.BackboneError, match=r"layer='stgae3': did you mean 'stage3'\? backbone"):
        bundled.layer("stgae3")
    with pytest.raises(featx.InputError, match=r"pooling='maxx': did you mean 'max'.* expected one of avg, max"):
        n_features(bundled, "head", "maxx")


def test_the_package_is_complete_and_imports_no_onnx():
    code = "import sys, featx.backbones as b; b.POOLINGS, b.ZOO; print({'onnx', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
    assert all(getattr(featx.backbones, name) is not None for name in featx.backbones.__all__)
    assert all(getattr(featx.recipes, name) is not None for name in featx.recipes.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        featx.backbones.nothing  # noqa: B018
