"""One reading and decoding for several backbones, in one extractor or in several."""

import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline

import featx
from featx.cache import keys
from featx.cache.decoded import DecodedImage, DecodedImageCache
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


@pytest.fixture
def decoded(monkeypatch):
    """Count decodings and readings; nothing is at hand from other tests."""
    counts = {"decode": 0, "read": 0}
    for module, name in ((engine, "decode"), (keys, "read"), (engine, "read")):
        real = getattr(module, name)

        def counting(item, *rest, real=real, name=name):
            counts[name] += 1
            return real(item, *rest)

        monkeypatch.setattr(module, name, counting)
    monkeypatch.setattr(keys, "recent_images", DecodedImageCache())
    return counts


def test_several_backbones_stand_side_by_side_and_decode_once(photos, other_backbone, decoded):
    backbones = ["efficientnet_lite0", other_backbone]
    both = FeatureExtractor(backbones, layer=["stage2", "head"], l2_normalize=True).fit(photos)
    rows = both.transform(photos)
    assert decoded == {"decode": 4, "read": 4}
    apart = [FeatureExtractor(one, layer=["stage2", "head"], l2_normalize=True).transform(photos) for one in backbones]
    np.testing.assert_array_equal(rows, np.hstack(apart))
    assert not np.array_equal(*apart)
    names = list(both.get_feature_names_out())
    assert len(names) == rows.shape[1]
    assert names[0] == "efficientnet_lite0_stage2_0"


def test_other_canvases_share_the_decoding_too(photos, decoded, monkeypatch):
    """A canvas of another size for the second view."""
    extractor = FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"])
    np.testing.assert_array_equal(
        extractor.transform(photos),
        np.hstack([FeatureExtractor(name).transform(photos) for name in extractor.backbone]),
    )
    assert decoded["decode"] == 3 * 4


def test_extractors_of_any_kind_embed_together(photos, decoded, tmp_path):
    extractors = [
        FeatureExtractor(layer=["stage2", "head"], pooling="avgmax"),
        FeatureExtractor("efficientnet_lite0_int8", crop="whole"),
        FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"], layer="stem", crop="pad"),
    ]
    together = embed_together(extractors, [*photos, tmp_path / "none.jpg"])
    assert decoded["decode"] == 4
    for extractor, (features, failures) in zip(extractors, together, strict=True):
        assert [failure.index for failure in failures] == [4]
        np.testing.assert_array_equal(features[:4], extractor.transform(photos))
    with pytest.raises(featx.InputError, match="decode: the same for extractors"):
        embed_together([FeatureExtractor(), FeatureExtractor(decode="fast")], photos)
    with pytest.raises(featx.InputError, match="no extractor"):
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


def test_what_is_cached_of_one_is_not_computed_for_the_list(tmp_path, photos, decoded, monkeypatch):
    FeatureExtractor("efficientnet_lite0", cache=tmp_path / "cache").transform(photos)
    runs = []
    real = engine._Job._infer
    monkeypatch.setattr(engine._Job, "_infer", lambda self, view, pixels: runs.append(view) or real(self, view, pixels))
    both = FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"], cache=tmp_path / "cache")
    first = both.transform(photos)
    assert set(runs) == {1}
    runs.clear()
    np.testing.assert_array_equal(both.transform(photos), first)
    assert runs == []
    np.testing.assert_array_equal(FeatureExtractor(both.backbone).transform(photos), first)


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_a_feature_union_decodes_once(tmp_path, photos, decoded, kind):
    images = photos if kind == "path" else [Path(path).read_bytes() for path in photos]
    cache = tmp_path / "cache"
    union = FeatureUnion(
        [
            ("exact", FeatureExtractor(cache=cache)),
            ("int8", FeatureExtractor("efficientnet_lite0_int8", crop="whole", cache=cache)),
            ("early", FeatureExtractor(layer="stage2", cache=cache)),
        ]
    )
    rows = union.fit_transform(images)
    assert decoded["decode"] == 4
    assert decoded["read"] == (4 if kind == "path" else 12)
    apart = [clone(extractor).set_params(cache=False).transform(images) for _, extractor in union.transformer_list]
    np.testing.assert_array_equal(rows, np.hstack(apart))


def test_an_image_at_hand_that_stands_on_its_side_is_turned_once(tmp_path, decoded):
    sideways, exif = tmp_path / "sideways.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(data.astronaut()).save(sideways, exif=exif)
    first = FeatureExtractor(layer="stage2", cache=tmp_path / "cache").transform([sideways])
    second = FeatureExtractor(layer=["stage2", "stage1"], cache=tmp_path / "cache").transform([sideways])
    assert decoded["decode"] == 1
    np.testing.assert_array_equal(first[0], second[0, : first.shape[1]])


def test_a_file_that_changed_is_decoded_again(tmp_path, photos, decoded):
    cache = tmp_path / "cache"
    FeatureExtractor(layer="stem", cache=cache).transform(photos[:1])
    Image.fromarray(data.coffee()).save(photos[0])
    changed = FeatureExtractor(layer="stage1", cache=cache).transform(photos[:1])
    np.testing.assert_array_equal(changed, FeatureExtractor(layer="stage1").transform(photos[:1]))


def test_fast_decoding_is_kept_apart(photos, decoded, tmp_path):
    cache = tmp_path / "cache"
    FeatureExtractor(layer="stem", decode="fast", cache=cache).transform(photos)
    exact = FeatureExtractor(layer="stage1", cache=cache).transform(photos)
    np.testing.assert_array_equal(exact, FeatureExtractor(layer="stage1").transform(photos))


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


def image(side):
    return DecodedImage(Image.new("RGB", (side, side)), b"digest")


def test_recent_images_stay_within_their_room():
    images = DecodedImageCache(room=10 * 4 * 100)
    for i in range(1000):
        images.put(i, image(10))
        assert images._used == 4 * 100 * len(images._images) <= images.room
    assert sum(images.get(i) is not None for i in range(1000)) == 10
    images.put("large", image(30))
    assert images.get("large") is None
    images.forget()
    assert images._used == 0


def test_recent_images_give_a_part_of_what_is_more_than_their_room():
    images = DecodedImageCache(room=100 * 4 * 100)
    hits = 0
    for _ in range(5):
        for i in range(200):
            hits += images.get(i) is not None
            images.put(i, image(10))
    assert hits > 100  # the one used longest ago would give none


def test_recent_images_from_many_threads():
    images = DecodedImageCache(room=50 * 4 * 100)

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 200, 3000):
            if (known := images.get(i)) is None:
                images.put(i, DecodedImage(Image.new("RGB", (10, 10)), str(i).encode()))
            else:
                assert known.digest == str(i).encode()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert images._used == 4 * 100 * len(images._images) == 4 * 100 * len(images._keys)


def test_arrays_are_not_kept_since_they_cost_no_decoding(tmp_path, decoded):
    FeatureExtractor(layer="stem", cache=tmp_path / "cache").transform([data.coffee()])
    assert keys.recent_images._used == 0
    buffer = io.BytesIO()
    Image.fromarray(data.coffee()).save(buffer, "png")
    FeatureExtractor(layer="stem", cache=tmp_path / "cache").transform([buffer.getvalue()])
    assert keys.recent_images._used == 400 * 600 * 4
