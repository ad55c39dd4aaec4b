"""``featx backbones``, ``show`` and ``export``."""

import hashlib
import json

import pytest

from featx.backbones import open_backbone
from featx.canonical import check_canonical


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "own"))
    return tmp_path / "own"


def test_the_list_names_what_can_be_opened_and_notes_what_cannot(featx, here, own, other_backbone):
    own.mkdir()
    (own / "mine.onnx").write_bytes(other_backbone.read_bytes())
    (own / "broken.onnx").write_bytes(b"broken")
    ran = featx("backbones", "--json")
    assert [backbone["name"] for backbone in json.loads(ran.out)] == ["efficientnet_lite0", "mine"]
    assert "left out: " in ran.err
    assert "broken.onnx: cannot be read as an ONNX model" in ran.err
    assert ran.code == 0
    assert [line.split()[0] for line in featx("backbones").out.splitlines()] == ["name", "efficientnet_lite0", "mine"]


def test_show_prints_all_that_the_file_says(featx):
    bundled = open_backbone("efficientnet_lite0")
    out = featx("backbones", "show", "efficientnet_lite0").out
    assert hashlib.sha256(bundled.path.read_bytes()).hexdigest() in out
    assert bundled.identity in out
    assert "(x - 127) / 128" in out
    assert "canonical check  passed on cpu" in out
    for layer in bundled.layers:
        assert any(line.split()[0] == layer.name for line in out.splitlines() if line)
    facts = json.loads(featx("backbones", "show", bundled.path, "--json").out)
    assert len(facts["layers"]) == 31
    assert facts["layers"][-1] == {
        **{"name": "head", "aliases": ["bn2", "bn2.act"], "channels": 1280, "map": [7, 7], "stride": 32}
    }
    assert facts["canonical_check"]["passed"] is True


def test_a_file_whose_weights_were_changed_fails_its_check(featx, tampered_backbone):
    ran = featx("backbones", "show", tampered_backbone)
    assert ran.code == 2
    assert "canonical check  FAILED on cpu" in ran.out
    assert "fails its canonical check on cpu" in ran.err
    assert not check_canonical(open_backbone(tampered_backbone), "cpu").passed


@pytest.mark.parametrize("network", ["resnet18", "hf:owner/name", "timm:"])
def test_export_says_what_it_takes(featx, here, network):
    ran = featx("backbones", "export", network)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "expected timm:NAME" in ran.err


@pytest.mark.heavy
def test_export_makes_a_backbone_that_can_be_named_and_used(featx, here, own, world):
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), "w.pth")
    ran = featx("backbones", "export", "timm:test_resnet", "--weights", "w.pth")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{own}/test_resnet.onnx: ")
    assert "layers agree with PyTorch" in ran.out
    about = json.loads(featx("backbones", "show", "test_resnet", "--json").out)
    assert about["source"] == "timm:test_resnet with w.pth"
    assert about["recipe"]["weights_sha256"] == hashlib.sha256((here / "w.pth").read_bytes()).hexdigest()
    ran = featx("embed", world / "test", "--backbone", "test_resnet", "-o", "f.npy")
    assert f"12 pictures, {about['features']} features each, test_resnet on" in ran.out


@pytest.mark.heavy
def test_export_without_network_asks_for_weights(run_process, here, own, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = run_process("backbones", "export", "timm:resnet18.a1_in1k", cwd=here)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "give --weights FILE" in ran.err
    assert not list(own.glob("*"))
