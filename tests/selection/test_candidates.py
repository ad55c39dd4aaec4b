"""Combinations of backbones, layers, poolings and crops, and the features cut out of a shared embedding."""

from types import SimpleNamespace

import pytest

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.backbones.file import Layer
from featx.errors import BackboneError
from featx.selection import Candidate, candidates
from featx.selection.candidates import _default_layers, list_candidates


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "catavgmax"])
@pytest.mark.parametrize("layer", ["head", ["stem", "head"]])
def test_shared_features_are_those_of_the_extractor(tiny_backbone, colours, pooling, layer):
    X = colours[0][:6]
    poolings = ["avg", "max", "avgmax", "catavgmax", "std"]
    shared = list_candidates(FeatureExtractor(), [tiny_backbone], ["stage1", layer], poolings, ["pad"])
    assert [embedding.extractor.pooling for embedding in shared] == ["catavgmax", "std"]
    [candidate] = [c for c in shared[0].candidates if (c.pooling, c.layer) == (pooling, layer)]
    features = shared[0].features(candidate, shared[0].extractor.transform(X))
    expected = FeatureExtractor(**candidate.parameters()).transform(X)
    assert candidate.n_features == features.shape[1]
    assert features == pytest.approx(expected, rel=1e-6, abs=1e-6)


def stub(*names, default="head"):
    layers = tuple(Layer(name, (), name, 8, 4, 4, 8) for name in names)
    backbone = open_backbone("efficientnet_lite0")
    return type(backbone)(**{**backbone.__dict__, "layers": layers, "default_layer": default})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
            [
                *("head", "stage4", "stage3"),
                *(("stage4", "head"), ("stage3", "stage4", "head"), ("stage2", "stage3", "stage4", "head")),
                ("stage2", "stage3", "stage4"),
            ],
        ),
        (  # a ResNet, whose last stage is its head
            ["stem", "stage1", "layer2.0", "stage2", "layer3.0", "stage3", "layer4.0", "head"],
            ["head", "stage3", "stage2", ("stage3", "head"), ("stage2", "stage3", "head"), ("stage2", "stage3")],
        ),
        (  # a transformer
            [f"block{i}" for i in range(1, 13)] + ["head"],
            ["head", "block9", "block12", ("block9", "block12", "head")],
        ),
        (["stem", "stage1", "head"], ["head", "stage1", ("stage1", "head")]),
        (["stem", "head"], ["head"]),
        (["head"], ["head"]),
    ],
)
def test_the_default_layers(names, expected):
    assert _default_layers(stub(*names)) == expected


def test_what_is_given_once_need_not_be_a_list_and_twice_counts_once(tiny_backbone):
    one = list_candidates(FeatureExtractor(), tiny_backbone, "head", "avg", "whole")
    other = list_candidates(
        FeatureExtractor(), [tiny_backbone] * 2, ["head", None, ["head"], -1], ["avg", "avg"], ["whole"] * 2
    )
    assert [s.candidates for s in one] == [s.candidates for s in other]
    assert len(one[0].candidates) == 1


def test_without_names_every_backbone_on_this_machine_takes_part(tiny_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tiny_backbone.parent))
    shared = list_candidates(FeatureExtractor(), None, ["head"], ["avg"], ["center"])
    names = [embedding.candidates[0].backbone for embedding in shared]
    assert names == ["efficientnet_lite0", "efficientnet_lite0_int8", "tiny", "tiny_int8"]


def test_a_backbone_on_this_machine_that_lacks_a_layer_takes_no_part(tiny_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tiny_backbone.parent))
    shared = list_candidates(FeatureExtractor(), None, ["stage2"], ["avg"], ["center"])
    assert [one.candidates[0].backbone for one in shared] == ["efficientnet_lite0", "efficientnet_lite0_int8"]
    with pytest.raises(BackboneError, match="tiny has the layers"):
        list_candidates(FeatureExtractor(), ["tiny"], ["stage2"], ["avg"], ["center"])
    with pytest.raises(BackboneError, match="has the layers"):
        list_candidates(FeatureExtractor(), None, ["stage99"], ["avg"], ["center"])


def test_a_text_encoder_on_this_machine_is_no_candidate_for_images(monkeypatch):
    pair = [SimpleNamespace(identity=str(i), kind=kind, is_tuned=False) for i, kind in enumerate(("image", "text"))]
    monkeypatch.setattr(candidates, "list_here", lambda on_error: list(zip(("net", "encoder"), pair, strict=True)))
    assert candidates._list_backbones("image") == ["net"]


def test_a_tuned_network_may_have_seen_the_images_and_takes_no_part_unless_named(monkeypatch):
    tuned = {"net": False, "own": True}
    found = [(name, SimpleNamespace(identity=name, kind="image", is_tuned=each)) for name, each in tuned.items()]
    monkeypatch.setattr(candidates, "list_here", lambda on_error: found)
    assert candidates._list_backbones("image") == ["net"]


def test_names_are_short():
    def describe(backbone, layer):
        return Candidate(backbone, layer, "avg", "whole", 8).describe()

    assert describe("/somewhere/far/resnet18.onnx", "head") == "resnet18 head, avg, whole"
    assert describe("a", ["stage2", "stage3", "stage4", "head"]) == "a stage2+3+4+head, avg, whole"
    assert describe("a", ["stem", "stage1", "block3"]) == "a stem+stage1+block3, avg, whole"
