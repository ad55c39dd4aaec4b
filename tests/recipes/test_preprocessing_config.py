"""Preprocessing files of the hub: the same values as transformers and timm, and errors that name what is missing."""

import pytest

from featx.errors import BackboneError
from featx.images.preprocess import Preprocess
from featx.recipes.preprocessing_config import read_preprocessing
from tests.recipes.published import TIMM, TRANSFORMERS, differences, prepare, run_timm, run_transformers, sample_photos

VIT = TRANSFORMERS["google/vit-base-patch16-224"]
TIMM_RESNET = TIMM["timm/resnet50.a1_in1k"]


@pytest.fixture(scope="module")
def photos():
    return sample_photos()


@pytest.mark.heavy
@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.filterwarnings("default")
def test_preparation_is_that_of_transformers(name, photos):
    read = read_preprocessing(TRANSFORMERS[name])
    for photo in photos:
        ours, theirs = prepare(read, photo), run_transformers(TRANSFORMERS[name], photo, "pil")
        if theirs is None:  # resizes floats instead of pixels, so no value is rounded
            theirs, most = run_transformers(TRANSFORMERS[name], photo, "torchvision"), 1
        else:
            most = 1e-4
        assert ours.shape == theirs.shape
        assert differences(ours, theirs, read)[1] < most


@pytest.mark.heavy
@pytest.mark.parametrize("name", TIMM)
def test_preparation_is_that_of_timm(name, photos):
    read = read_preprocessing({"architecture": "x", "pretrained_cfg": TIMM[name]})
    for photo in photos:
        assert differences(prepare(read, photo), run_timm(TIMM[name], photo), read)[1] < 1e-4


@pytest.mark.parametrize("name", [*TRANSFORMERS, *TIMM])
def test_rules_survive_a_file(name):
    rules = read_preprocessing({**TRANSFORMERS, **TIMM}[name]).preprocess
    assert Preprocess.from_dict(rules.to_dict()) == rules


def test_rules_of_earlier_files_are_unchanged():
    assert Preprocess(224, 224, 256, "bicubic", (1, 2, 3), (4, 5, 6)).to_dict() == {
        "height": 224,
        "width": 224,
        "resize": {"rule": "shorter_side", "size": 256, "rounding": "down"},
        "crop": {"mode": "center", "rounding": "half_even"},
        "interpolation": "bicubic",
        "antialias": True,
        "channel_order": "RGB",
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
    }


@pytest.mark.parametrize(
    ("config", "absent", "stable"),
    [
        (VIT, "size", "set size="),
        (VIT, "image_mean", "set mean="),
        (VIT, "image_std", "set std="),
        (VIT, "image_processor_type", "neither image_processor_type"),
        (TIMM_RESNET, "mean", "set mean="),
        (TIMM_RESNET, "crop_pct", "set resize="),
    ],
)
def test_a_missing_value_is_asked_for_by_name(config, absent, stable):
    with pytest.raises(BackboneError, match=stable):
        read_preprocessing({key: value for key, value in config.items() if key != absent})


@pytest.mark.parametrize(
    ("config", "stable"),
    [
        (VIT | {"do_pad": True}, "do_pad"),
        (VIT | {"do_pad": True, "pad_size": {"height": 256, "width": 256}}, "pad_size"),
        (VIT | {"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2ImageProcessor"),
        (VIT | {"resample": 4}, "set interpolation="),
        (VIT | {"image_processor_type": "FunnyImageProcessor"}, "FunnyImageProcessor"),
        (VIT | {"feature_extractor_type": "CLIPFeatureExtractor"}, "contradict"),
        (VIT | {"size": {"longest_edge": 224}}, "shortest_edge"),
        (VIT | {"size": {"shortest_edge": 224}}, "set size="),
        (VIT | {"do_resize": False}, "do_resize"),
        (VIT | {"do_center_crop": True, "crop_size": {"height": 100, "width": 224}}, "proportions"),
        (TIMM_RESNET | {"crop_mode": "other"}, "crop_mode"),
        (TIMM_RESNET | {"interpolation": "random"}, "interpolation"),
    ],
)
def test_rules_that_featx_does_not_follow_are_refused(config, stable):
    with pytest.raises(BackboneError, match=stable):
        read_preprocessing(config)


def test_margins_of_no_width_are_allowed():
    padded = VIT | {"do_pad": True, "pad_size": {"height": 224, "width": 224}}
    assert read_preprocessing(padded) == read_preprocessing(VIT)


def test_given_values_fill_gaps_and_contradict_nothing():
    without = {key: value for key, value in VIT.items() if key not in ("image_mean", "size")}
    read = read_preprocessing(without, mean=(1, 2, 3), size=64).preprocess
    assert (read.mean, read.height, read.rule) == ((1.0, 2.0, 3.0), 64, "both_sides")
    with pytest.raises(BackboneError, match="the repository states"):
        read_preprocessing(VIT, mean=(1, 2, 3))
    with pytest.raises(BackboneError, match="the repository states"):
        read_preprocessing(VIT, size=64)
