"""Several backbones read and decode each image once, in one extractor or in several."""

import shutil

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import featx
from featx.extractor import FeatureExtractor, embed_together
from featx.inference import engine

X, Y = featx.samples.load_fashion_mnist("test")
X, Y = X[::25], Y[::25]


@pytest.fixture
def photos(tmp_path):
    paths = [str(tmp_path / f"{name}.jpg") for name in ("astronaut", "coffee", "chelsea", "rocket")]
    for path, name in zip(paths, ("astronaut", "coffee", "chelsea", "rocket"), strict=True):
        Image.fromarray(getattr(data, name)()).save(path)
    return paths


def test_several_backbones_stand_side_by_side_and_decode_once(photos, other_backbone, counts):
    backbones = ["efficientnet_lite0", other_backbone]
    both = FeatureExtractor(backbones, layer=["stage2", "head"], l2_normalize=True).fit(photos)
    rows = both.transform(photos)
    assert counts == {"decode": 4, "read": 4}
    apart = [FeatureExtractor(one, layer=["stage2", "head"], l2_normalize=True).transform(photos) for one in backbones]
    np.testing.assert_array_equal(rows, np.hstack(apart))
    assert not np.array_equal(*apart)
    names = list(both.get_feature_names_out())
    assert len(names) == rows.shape[1]
    assert names[0] == "efficientnet_lite0_stage2_0"


def test_other_canvases_share_the_decoding_too(photos, counts, monkeypatch):
    """A canvas of another size for the second view."""
    extractor = FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"])
    np.testing.assert_array_equal(
        extractor.transform(photos),
        np.hstack([FeatureExtractor(name).transform(photos) for name in extractor.backbone]),
    )
    assert counts["decode"] == 3 * 4


def test_extractors_of_any_kind_embed_together(photos, counts, tmp_path):
    extractors = [
        FeatureExtractor(layer=["stage2", "head"], pooling="avgmax"),
        FeatureExtractor("efficientnet_lite0_int8", crop="whole"),
        FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"], layer="stem", crop="pad"),
    ]
    together = embed_together(extractors, [*photos, tmp_path / "none.jpg"])
    assert counts["decode"] == 4
    for extractor, (features, failures) in zip(extractors, together, strict=True):
        assert [failure.index for failure in failures] == [4]
        np.testing.assert_array_equal(features[:4], extractor.transform(photos))
    with pytest.raises(featx.InputError, match="decode: expected the same value for all extractors, got exact, fast"):
        embed_together([FeatureExtractor(), FeatureExtractor(decode="fast")], photos)
    with pytest.raises(featx.InputError, match="extractors is empty"):
        embed_together([], photos)


def test_an_image_that_fails_is_nan_for_all(tmp_path, photos):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    both = FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"], layer="stem", on_error="nan")
    features, failures = both.embed([photos[0], broken])
    assert [failure.index for failure in failures] == [1]
    assert np.isnan(features[1]).all()
    assert np.isfinite(features[0]).all()


def test_several_backbones_clone_pickle_search_and_save(tmp_path, photos, other_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path / "own"))
    mine = tmp_path / "mine.onnx"
    shutil.copy(other_backbone, mine)
    both = FeatureExtractor(["efficientnet_lite0", mine], layer="stage1")
    pipeline = make_pipeline(both, LogisticRegression()).fit(photos, [0, 1, 0, 1])
    assert clone(both).get_params()["backbone"] == both.backbone
    featx.save(pipeline, tmp_path / "two.featx", embed_backbone=True)
    loaded = featx.load(tmp_path / "two.featx")
    np.testing.assert_array_equal(loaded.predict_proba(photos), pipeline.predict_proba(photos))
    expected = pipeline.predict_proba(photos)
    mine.unlink()
    loaded = featx.load(tmp_path / "two.featx")
    np.testing.assert_array_equal(loaded.predict_proba(photos), expected)
    assert len(featx.read_info(tmp_path / "two.featx")["backbones"]) == 2
    again = featx.load(tmp_path / "two.featx", backbone=loaded[0].backbone)
    assert again[0].backbone == loaded[0].backbone
    with pytest.raises(featx.BackboneError, match="fitted with 2 backbones, got 1"):
        featx.load(tmp_path / "two.featx", backbone="efficientnet_lite0")
    with pytest.raises(featx.BackboneError, match="is not the backbone"):
        featx.load(tmp_path / "two.featx", backbone=loaded[0].backbone[::-1])
    with pytest.raises(featx.FeaturesChangedError, match=r"backbone was \w{12}\+\w{12} at fit"):
        loaded[0].set_params(backbone=loaded[0].backbone[::-1]).transform(photos)


@pytest.mark.parametrize("wrong", [[], (), 7, ["efficientnet_lite0", 7], ["efficientnet_lite0", "nothing"], {"a": 1}])
def test_wrong_lists_are_named(wrong):
    with pytest.raises(featx.FeatxError, match="backbone"):
        FeatureExtractor(wrong).transform(X[:1])


def test_what_is_cached_of_one_is_not_computed_for_the_list(tmp_path, photos, counts, monkeypatch):
    FeatureExtractor("efficientnet_lite0", cache=tmp_path / "cache").transform(photos)
    runs = []
    real = engine.Engine._infer
    monkeypatch.setattr(engine.Engine, "_infer", lambda self, view, x: runs.append(view) or real(self, view, x))
    both = FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"], cache=tmp_path / "cache")
    first = both.transform(photos)
    assert set(runs) == {1}
    runs.clear()
    np.testing.assert_array_equal(both.transform(photos), first)
    assert runs == []
    np.testing.assert_array_equal(FeatureExtractor(both.backbone).transform(photos), first)


def test_crops_are_other_features_and_fixed_at_fit(photos):
    rows = {crop: FeatureExtractor(layer="stage2", crop=crop).transform(photos) for crop in ("center", "whole", "pad")}
    assert not np.array_equal(rows["center"], rows["whole"])
    assert not np.array_equal(rows["pad"], rows["whole"])
    fitted = FeatureExtractor(layer="stage2").fit(photos)
    with pytest.raises(featx.FeaturesChangedError, match="crop was 'center' at fit and is 'pad' now"):
        fitted.set_params(crop="pad").transform(photos)
    with pytest.raises(featx.InputError, match="crop='middle': expected 'center', 'whole' or 'pad'"):
        FeatureExtractor(crop="middle").transform(photos)


def test_a_state_from_before_a_parameter_gets_its_default():
    state = FeatureExtractor(pooling="max").__getstate__()
    del state["crop"]
    old = FeatureExtractor.__new__(FeatureExtractor)
    old.__setstate__(state)
    assert old.get_params() == FeatureExtractor(pooling="max").get_params()
