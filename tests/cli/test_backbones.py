"""``featx backbones``, ``show`` and ``make``."""

import functools
import hashlib
import http.server
import json
import shutil
import threading

import numpy as np
import onnx
import pytest

from featx.backbones import open_backbone
from featx.backbones.file import load_model
from featx.backbones.zoo import ZOO, find_entry
from featx.inference.self_check import check_canonical

CPU = "CPUExecutionProvider"
BUNDLED = ["efficientnet_lite0", "efficientnet_lite0_int8"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "own"))
    return tmp_path / "own"


def test_the_list_names_what_can_be_opened_and_notes_what_cannot(featx, here, own, other_backbone):
    own.mkdir()
    (own / "mine.onnx").write_bytes(other_backbone.read_bytes())
    (own / "broken.onnx").write_bytes(b"broken")
    ran = featx("backbones", "--json")
    rows = {row["name"]: row for row in json.loads(ran.out)}
    assert [name for name, row in rows.items() if row["where"] == "bundled"] == BUNDLED
    assert [name for name, row in rows.items() if row["where"] == "own"] == ["mine"]
    assert sum(row["where"] == "make" for row in rows.values()) == len(ZOO)
    assert "left out: " in ran.err
    assert "broken.onnx: cannot be read as an ONNX model" in ran.err
    assert ran.code == 0
    here = featx("backbones", "--here").out.splitlines()
    assert [line.split()[0] for line in here] == ["name", *BUNDLED, "mine"]
    everything = featx("backbones")
    assert len(everything.out.splitlines()) == len(here) + len(ZOO)
    assert "featx backbones make timm:NAME" in everything.err


def test_the_list_is_filtered_by_size_and_speed(featx, own):
    ran = featx("backbones", "--json", "--max-gflops", 1, "--max-parameters", 6, "--min-top1", 75)
    rows = json.loads(ran.out)
    assert 3 <= len(rows) < len(ZOO)
    for row in rows:
        assert (row["gflops"] <= 1, row["parameters"] <= 6e6, row["top1"] >= 75) == (True, True, True)
    assert {row["features"] for row in json.loads(featx("backbones", "--json", "--max-features", 512).out)} <= {
        384,
        512,
    }


def test_the_catalogue_holds_every_family_and_names_each_once():
    names = [entry.name for entry in ZOO]
    assert len(names) == len(set(names)) >= 25
    families = "vgg16. vgg19_bn. resnet50.a1 resnext50 wide_resnet50 densenet121 inception_v3 xception mobilenetv2"
    families += " mobilenetv3 mnasnet efficientnet_b4 tf_efficientnet_lite2 tf_efficientnetv2_s regnety convnext_small"
    for family in [*families.split(), "convnextv2", "vit_small_patch14_dinov2"]:
        assert any(family in entry.name for entry in ZOO), family
    assert all(entry.license and entry.features > 0 < entry.gflops for entry in ZOO)
    bundled = open_backbone("efficientnet_lite0")
    lite0 = find_entry("efficientnet_lite0")
    assert (lite0.features, lite0.parameters) == (1280, round(bundled.parameters / 1e6, 2))
    assert lite0.gflops == round(bundled.gflops, 2)


def test_verify_runs_every_backbone_and_fails_when_one_does(featx, own, tampered_backbone):
    ran = featx("backbones", "verify")
    assert ran.code == 0
    assert [line.split()[:3] for line in ran.out.splitlines()] == [[name, CPU, "passed"] for name in BUNDLED]
    own.mkdir()
    (own / "changed.onnx").write_bytes(tampered_backbone.read_bytes())
    (own / "broken.onnx").write_bytes(b"broken")
    ran = featx("backbones", "verify")
    assert ran.code == 2
    assert "FAILED" in next(line for line in ran.out.splitlines() if line.startswith("changed "))
    assert f"2 failed: changed on {CPU}, " in ran.err
    rows = json.loads(featx("backbones", "verify", "efficientnet_lite0", "--json").out)
    assert [(row["name"], row["provider"], row["passed"]) for row in rows] == [("efficientnet_lite0", CPU, True)]


def test_verify_names_a_provider_that_is_listed_and_does_not_load(featx, own, monkeypatch):
    names = ["FancyExecutionProvider", "AzureExecutionProvider", CPU]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    ran = featx("backbones", "verify", "efficientnet_lite0")
    assert ran.code == 2
    assert [line.split()[1:3] for line in ran.out.splitlines()] == [
        ["FancyExecutionProvider", "FAILED"],
        [CPU, "passed"],
    ]
    assert "1 failed: efficientnet_lite0 on FancyExecutionProvider" in ran.err


def test_a_pipeline_refuses_features_that_fail_the_check(featx, here, world, tampered_backbone):
    ran = featx("embed", world / "test", "--backbone", tampered_backbone, "-o", "f.npy")
    assert ran.code == 2
    assert "computes other features than its file holds" in ran.err
    assert "featx backbones verify" in ran.err
    assert not list(here.glob("*.npy"))


@pytest.mark.heavy
def test_quantize_measures_on_images_that_did_not_calibrate(featx, here, own, world):
    ran = featx("backbones", "quantize", "efficientnet_lite0", "--images", world / "train", "--labelled")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{own}/efficientnet_lite0_int8.onnx: int8 of efficientnet_lite0")
    assert "18 held-out images: cosine 0.9" in ran.out
    assert "accuracy of a head" in ran.out
    ran = featx("embed", world / "test", "--precision", "int8", "-o", "f.npy")
    assert ran.code == 0
    ran = featx("backbones", "quantize", "efficientnet_lite0", "--images", world / "train", "--min-cosine", 0.99999)
    assert ran.code == 2
    assert "not written, " in ran.err
    ran = featx("backbones", "quantize", "efficientnet_lite0", "--images", world / "broken.png")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


@pytest.fixture
def classifier(here):
    """The bundled network as somebody would find it: float images in, nothing said about them."""
    model = load_model(open_backbone("efficientnet_lite0").path)
    nodes = list(model.graph.node)[3:]
    del model.graph.node[:], model.metadata_props[:]
    model.graph.node.extend(nodes)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name.startswith("pixel_")]:
        model.graph.initializer.remove(tensor)
    value = onnx.helper.make_tensor_value_info("normalized", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])
    model.graph.input[0].CopyFrom(value)
    onnx.save(model, "found.onnx")
    return here / "found.onnx"


WRAP = ("--size", 224, "--interpolation", "bicubic")


def test_wrap_makes_the_same_backbone_of_a_plain_classifier(featx, own, world, classifier):
    ran = featx("backbones", "wrap", classifier, "--mean", 127, "--std", 128, *WRAP, "--license", "Apache-2.0")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{own}/found.onnx: features and class scores are those of {classifier}")
    for name in ("found", "efficientnet_lite0"):
        assert featx("embed", world / "test", "--backbone", name, "-o", f"{name}.npy").code == 0
    np.testing.assert_array_equal(np.load("found.npy"), np.load("efficientnet_lite0.npy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", 0, "--std", 1, *WRAP), "choose with --range 1 or --range 255"),
        (("--mean", 127, "--std", 128, "--range", 1, *WRAP), "did you mean --range 255?"),
        (("--mean", 127, "--std", 0, "--range", 255, *WRAP), "expected three numbers above 0"),
        (("--mean", 127, "--std", 128, "--size", 299, "--interpolation", "bicubic"), "takes images of 224x224"),
        (("--mean", 127, "--std", 128, *WRAP, "--features", "nowhere"), "no tensor of this name"),
        (
            ("--mean", "1,2", "--std", 128, *WRAP),
            "argument --mean: '1,2': expected a number, or three separated",
        ),
    ],
)
def test_wrap_names_what_is_wrong(featx, own, classifier, options, message):
    ran = featx("backbones", "wrap", classifier, *options)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err
    assert not list(own.glob("*"))


def test_pull_brings_a_backbone_that_can_be_named_and_stays_what_it_was(featx, here, own, world):
    served = here / "served"
    served.mkdir()
    shutil.copy(open_backbone("efficientnet_lite0").path, served / "b.onnx")
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/b.onnx"
        ran = featx("backbones", "pull", f"{address}#sha256={'0' * 64}")
        assert ran.code == 2
        assert "expected 0000" in ran.err
        assert not list(own.rglob("*.onnx"))
        (served / "page.onnx").write_text("<html>please sign in</html>")
        ran = featx("backbones", "pull", f"http://127.0.0.1:{server.server_port}/page.onnx")
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "/page.onnx: cannot be read as an ONNX model" in ran.err
        assert not [path for path in own.rglob("*") if path.is_file()]
        ran = featx("backbones", "pull", address)
        assert ran.code == 0
        assert open_backbone("efficientnet_lite0").identity in ran.out
        server.shutdown()
    assert featx("embed", world / "test", "--backbone", address, "-o", "f.npy").code == 0
    (row,) = [row for row in json.loads(featx("backbones", "--json").out) if row["where"] == "pulled"]
    assert row["name"] == address
    with open(row["path"], "ab") as file:
        file.write(b"x")
    ran = featx("embed", world / "test", "--backbone", address, "-o", "g.npy")
    assert ran.code == 2
    assert "changed since it was downloaded" in ran.err


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


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
def test_make_names_the_expected_form(featx, here, network):
    ran = featx("backbones", "make", network)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "expected timm:NAME" in ran.err


@pytest.mark.heavy
def test_make_writes_a_backbone_that_can_be_named_and_used(featx, here, own, world):
    import timm
    import torch

    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), "w.pth")
    ran = featx("backbones", "make", "timm:test_resnet", "--weights", "w.pth")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{own}/test_resnet.onnx: ")
    assert "layers agree with PyTorch" in ran.out
    about = json.loads(featx("backbones", "show", "test_resnet", "--json").out)
    assert about["source"] == "timm:test_resnet with w.pth"
    assert about["recipe"]["weights_sha256"] == hashlib.sha256((here / "w.pth").read_bytes()).hexdigest()
    ran = featx("embed", world / "test", "--backbone", "test_resnet", "-o", "f.npy")
    assert f"12 images, {about['features']} features each, test_resnet on" in ran.out


@pytest.mark.heavy
def test_make_without_network_access_asks_for_weights(run_process, here, own, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = run_process("backbones", "make", "timm:resnet18.a1_in1k", cwd=here)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "weights" in ran.err
    assert not list(own.glob("*"))
