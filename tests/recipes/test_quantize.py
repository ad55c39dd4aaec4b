"""Copies in int8 and float16: what is bundled, what can be made, and what is refused."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import featx
from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.images.reference import real_images
from featx.inference.self_check import check_canonical
from featx.recipes.fidelity import measure_fidelity
from featx.recipes.quantize import convert_precision
from featx.samples import load_fashion_mnist


@pytest.fixture(scope="module")
def original():
    return open_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def photos(original):
    return real_images(original.preprocess)


@pytest.fixture(scope="module")
def images():
    X, y = load_fashion_mnist("test")
    return X[::5], y[::5]


@pytest.fixture(scope="module")
def copies(original, photos, tmp_path_factory):
    """An int8 and a float16 copy, made here, with what was measured."""
    folder = tmp_path_factory.mktemp("copies")
    (folder / "net.onnx").write_bytes(original.path.read_bytes())
    made = {}
    for precision in ("int8", "float16"):
        path = folder / f"net_{precision}.onnx"
        made[precision] = (
            path,
            convert_precision(
                original, path, precision=precision, calibration=photos[::2], held_out=photos[1::2], min_cosine=0.9
            ),
        )
    assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "net_float16.onnx", "net_int8.onnx"]
    return folder, made


def test_the_bundled_int8_copy_is_small_and_near(original, photos):
    copy = open_backbone("efficientnet_lite0", "int8")
    assert (copy.path.stem, copy.precision) == ("efficientnet_lite0_int8", "int8")
    assert copy.path.stat().st_size <= 5.5e6
    assert copy.recipe["float32_identity"] == original.identity != copy.identity
    assert check_canonical(copy, "cpu").passed
    fidelity = measure_fidelity(original, copy, photos)
    assert fidelity.cosine > 0.985
    assert fidelity.same_class > 0.7


@pytest.mark.heavy
def test_every_layer_of_the_int8_copy_follows_the_original(original, photos):
    for layer in original.layers:
        ours, theirs = (
            FeatureExtractor(layer=layer.name, precision=precision).transform(photos[:2].transpose(0, 2, 3, 1))
            for precision in ("int8", "float32")
        )
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 0.94, layer.name


def test_one_image_alone_gives_the_same_int8_features_as_in_a_batch(images):
    extractor = FeatureExtractor(precision="int8")
    X = images[0][:7]
    np.testing.assert_array_equal(extractor.transform(X), np.concatenate([extractor.transform([x]) for x in X]))


@pytest.mark.heavy
def test_a_head_fitted_on_float32_refuses_int8_until_it_is_fitted_again(images):
    X, y = images
    pipeline = make_pipeline(FeatureExtractor(), LogisticRegression(C=0.001, max_iter=500)).fit(X, y)
    pipeline.set_params(featureextractor__precision="int8")
    with pytest.raises(featx.FeaturesChangedError, match=r"efficientnet_lite0_int8\) now"):
        pipeline.predict(X)
    assert pipeline.fit(X, y).score(X, y) > 0.7


@pytest.mark.heavy
def test_a_saved_int8_pipeline_comes_back(tmp_path, images):
    X, y = images
    head = LogisticRegression(C=0.001, max_iter=500)
    pipeline = make_pipeline(FeatureExtractor(precision="int8"), head).fit(X, y)
    featx.save(pipeline, tmp_path / "p.featx", embed_backbone=True)
    assert featx.load(tmp_path / "p.featx").predict(X[:5]).tolist() == pipeline.predict(X[:5]).tolist()


@pytest.mark.parametrize("precision", ["int8", "float16"])
@pytest.mark.heavy
def test_a_copy_is_found_beside_its_original(copies, precision, images):
    folder, made = copies
    path, _ = made[precision]
    copy = open_backbone(folder / "net.onnx", precision)
    assert (copy.path, copy.precision) == (path, precision)
    assert open_backbone(path, precision).identity == copy.identity
    ours = FeatureExtractor(folder / "net.onnx", precision=precision).transform(images[0][:3])
    theirs = FeatureExtractor().transform(images[0][:3])
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert ours.dtype == np.float32
    assert cosines.min() > {"int8": 0.95, "float16": 0.9999}[precision]


@pytest.mark.heavy
def test_float16_halves_the_file_and_taps_every_layer_as_float32(original, copies):
    path, fidelity = copies[1]["float16"]
    assert path.stat().st_size < 0.51 * original.path.stat().st_size
    assert fidelity.cosine > 0.9999
    assert fidelity.same_class == 1
    names = [layer.name for layer in open_backbone(path).layers]
    rows = FeatureExtractor(path, layer=names).transform(load_fashion_mnist("test")[0][:2])
    assert np.isfinite(rows).all()


def test_a_copy_of_another_backbone_is_not_taken(copies, other_backbone, tmp_path):
    folder, _ = copies
    (tmp_path / "net.onnx").write_bytes(other_backbone.read_bytes())
    (tmp_path / "net_int8.onnx").write_bytes((folder / "net_int8.onnx").read_bytes())
    with pytest.raises(featx.BackboneError, match=r"has no such copy; make it with: featx backbones quantize net "):
        open_backbone(tmp_path / "net.onnx", "int8")


def test_wrong_precisions_are_named():
    with pytest.raises(featx.InputError, match="precision='int4': expected 'float32', 'int8' or 'float16'"):
        FeatureExtractor(precision="int4").transform([])
    with pytest.raises(featx.BackboneError, match="is int8 and has no such copy"):
        FeatureExtractor("efficientnet_lite0_int8", precision="float32").transform([])


def test_a_copy_that_is_too_far_off_is_not_written(original, photos, tmp_path):
    with pytest.raises(featx.BackboneError, match=r"not written, 3 held-out images: cosine 0\.9.* at least 0\.9999"):
        convert_precision(
            original,
            tmp_path / "net.onnx",
            precision="int8",
            calibration=photos[:3],
            held_out=photos[3:6],
            min_cosine=0.9999,
        )
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_copy_is_refused(copies, photos, tmp_path):
    arguments = {"precision": "int8", "calibration": photos[:1], "held_out": photos[:1]}
    with pytest.raises(featx.BackboneError, match="already computes in float16"):
        convert_precision(open_backbone(copies[1]["float16"][0]), tmp_path / "x.onnx", **arguments)


@pytest.mark.heavy
def test_labels_measure_what_a_head_loses(original, images):
    X, y = images
    pixels = np.empty((len(X), 3, 224, 224), np.uint8)
    from featx.images.decode import decode
    from featx.images.preprocess import to_canvas

    for item, out in zip(X, pixels, strict=True):
        to_canvas(decode(item), original.preprocess, out)
    fidelity = measure_fidelity(original, open_backbone("efficientnet_lite0_int8"), pixels, y)
    assert abs(fidelity.accuracy - fidelity.reference_accuracy) < 0.15
    assert "accuracy of a head" in str(fidelity)
