import copy
import pickle
import threading

import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from skimage import data
from sklearn.base import clone

import featx
from featx import extractor, session
from featx._events import Events, ProgressBar
from featx.extractor import FeatureExtractor
from featx.inference import self_check
from featx.samples import load_fashion_mnist

X, Y = featx.samples.load_fashion_mnist("test")
X, Y = X[::12], Y[::12]


@pytest.fixture(scope="module")
def features():
    return FeatureExtractor().transform(X)


def test_output_is_float32_of_the_layers_width(features):
    assert features.dtype == np.float32
    assert features.shape == (len(X), 1280)


def test_init_stores_its_arguments_untouched():
    arguments = {"backbone": object(), "layer": 3, "batch_size": "many", "device": None, "n_threads": -1}
    extractor = FeatureExtractor(**arguments)
    assert {name: getattr(extractor, name) for name in arguments} == arguments


def test_transform_without_fit_equals_transform_after_fit(features):
    np.testing.assert_array_equal(FeatureExtractor().fit(X).transform(X), features)
    np.testing.assert_array_equal(FeatureExtractor().fit_transform(X), features)


@pytest.mark.parametrize("change", [{"layer": "stage3"}, {"pooling": "max"}, {"l2_normalize": True}])
def test_changing_a_value_parameter_after_fit_raises_until_fit(change):
    extractor = FeatureExtractor().fit(X).set_params(**change)
    (name,) = change
    for call in (extractor.transform, extractor.embed, lambda x: list(extractor.iter_embed(x))):
        with pytest.raises(featx.FeaturesChangedError, match=f"{name} was .* call fit again"):
            call(X[:1])
    assert extractor.fit(X).transform(X[:1]).shape[0] == 1


def test_another_backbone_after_fit_raises_until_fit(other_backbone):
    extractor = FeatureExtractor().fit(X).set_params(backbone=other_backbone)
    with pytest.raises(featx.FeaturesChangedError, match=r"the backbone was .* at fit"):
        extractor.transform(X[:1])
    assert np.isfinite(extractor.fit(X).transform(X[:1])).all()


def test_the_same_backbone_at_another_path_is_no_change(tmp_path):
    bundled = featx.backbones.open_backbone("efficientnet_lite0").path
    copied = tmp_path / "renamed.onnx"
    copied.write_bytes(bundled.read_bytes())
    extractor = FeatureExtractor().fit(X).set_params(backbone=copied)
    np.testing.assert_array_equal(extractor.transform(X[:1]), FeatureExtractor().transform(X[:1]))


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"n_threads": 1}, {"device": "cpu"}, {"on_error": "nan"}])
def test_parameters_that_change_no_value_take_effect_at_once(change, features):
    extractor = FeatureExtractor().fit(X).set_params(**change)
    np.testing.assert_array_equal(extractor.transform(X), features)


@pytest.mark.parametrize(
    ("pooling", "width"),
    [("avg", 40), ("max", 40), ("gem", 40), ("std", 40), ("spatial_pyramid", 40 * 21), ("flatten", 40 * 28 * 28)],
)
def test_layers_and_poolings_agree_with_numpy(pooling, width):
    rows = FeatureExtractor(layer="stage2", pooling=pooling).transform(X[:3])
    maps = FeatureExtractor(layer="stage2", pooling="flatten").transform(X[:3]).reshape(3, 40, 28, 28)
    assert rows.shape == (3, width)
    expected = featx.backbones.POOLINGS[pooling].array(maps)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_l2_normalize_gives_unit_rows_in_the_same_direction(features):
    rows = FeatureExtractor(l2_normalize=True).transform(X)
    np.testing.assert_allclose(rows, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-6)


def test_set_output_gives_frames_with_names_and_index(features):
    series = pd.Series(X, index=range(100, 100 + len(X)))
    frame = FeatureExtractor().set_output(transform="pandas").fit_transform(series)
    assert list(frame.columns[:1]) == ["efficientnet_lite0_head_0"]
    assert list(frame.index) == list(series.index)
    np.testing.assert_array_equal(frame.to_numpy(), features)
    polars = FeatureExtractor().set_output(transform="polars").fit_transform(X)
    assert isinstance(polars, pl.DataFrame)
    np.testing.assert_array_equal(polars.to_numpy(), features)


def test_a_fitted_extractor_pickles_in_kilobytes_and_still_works(features):
    extractor = FeatureExtractor().fit(X)
    extractor.transform(X)
    content = pickle.dumps(extractor)
    assert len(content) < 4096
    np.testing.assert_array_equal(pickle.loads(content).transform(X), features)
    np.testing.assert_array_equal(copy.deepcopy(extractor).transform(X), features)


def test_clone_is_unfitted_and_shares_the_open_session():
    extractor = FeatureExtractor().fit(X)
    copied = clone(extractor)
    assert not hasattr(copied, "backbone_identity_")
    assert copied.open_session() is extractor.open_session()


def test_transform_is_thread_safe(features):
    extractor = FeatureExtractor(batch_size=2)
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: extractor.transform(X[i:])})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, rows in results.items():
        np.testing.assert_array_equal(rows, features[i:])


def test_the_repr_and_the_html_display_show_parameters():
    extractor = FeatureExtractor(pooling="max")
    assert repr(extractor) == "FeatureExtractor(pooling='max')"
    assert "pooling" in extractor._repr_html_()


def test_the_session_opens_once_a_process(monkeypatch):
    opened = []
    original = session.Session.__init__
    monkeypatch.setattr(session.Session, "__init__", lambda *a, **k: (opened.append(1), original(*a, **k))[1])
    session._sessions.clear()
    for _ in range(3):
        FeatureExtractor().transform(X[:1])
    FeatureExtractor(layer="stage1").transform(X[:1])
    assert len(opened) == 2


def test_fast_decoding_is_near_and_other_features(tmp_path):
    photo = Image.fromarray(data.astronaut()).resize((1600, 1200))
    photo.save(tmp_path / "a.jpg", quality=95)
    exact, fast = FeatureExtractor().fit(None), FeatureExtractor(decode="fast")
    ours, theirs = fast.transform([tmp_path / "a.jpg"])[0], exact.transform([tmp_path / "a.jpg"])[0]
    cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert 0.99 < cosine < 1
    with pytest.raises(featx.FeaturesChangedError, match="decode was 'exact' at fit and is 'fast' now"):
        exact.set_params(decode="fast").transform([tmp_path / "a.jpg"])
    with pytest.raises(featx.InputError, match="decode='draft': expected 'exact' or 'fast'"):
        FeatureExtractor(decode="draft").transform([])


def test_fast_decoding_sets_upright_and_takes_every_kind(tmp_path):
    photo = Image.fromarray(data.astronaut()).resize((1300, 900))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    photo.convert("CMYK").save(tmp_path / "cmyk.jpg")
    photo.convert("L").save(tmp_path / "grey.jpg")
    photo.save(tmp_path / "a.png")
    paths = sorted(tmp_path.iterdir())
    ours, theirs = (FeatureExtractor(decode=decode).transform(paths) for decode in ("fast", "exact"))
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.98
    alone = np.concatenate([FeatureExtractor(decode="fast").transform([path]) for path in paths])
    np.testing.assert_array_equal(ours, alone)


def test_providers_in_onnxruntimes_own_words():
    X = load_fashion_mnist("test")[0][:2]
    theirs = FeatureExtractor().transform(X)
    for providers in (["CPUExecutionProvider"], [("CPUExecutionProvider", {"use_arena": "0"})]):
        extractor = FeatureExtractor(providers=providers)
        np.testing.assert_array_equal(extractor.transform(X), theirs)
        assert extractor.open_session().device == "cpu"
    for providers, message in (
        (["MarsExecutionProvider"], "MarsExecutionProvider not in this onnxruntime, which has "),
        ([], "expected a list of names"),
        ("CPUExecutionProvider", "expected a list of names"),
        ([("CPUExecutionProvider",)], "expected a list of names"),
    ):
        with pytest.raises(featx.DeviceError, match=message):
            FeatureExtractor(providers=providers).transform(X)
    with pytest.raises(featx.DeviceError, match="expected only one of them"):
        FeatureExtractor(device="cpu", providers=["CPUExecutionProvider"]).transform(X)


def test_a_provider_that_does_not_load_is_no_silent_fallback(monkeypatch):
    names = ["FancyExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers, **_: real(model, options, providers=names[1:]),
    )
    with pytest.raises(featx.DeviceError, match="FancyExecutionProvider did not load, onnxruntime would run on CPU"):
        FeatureExtractor(providers=names).transform([])


def test_a_provider_that_gives_other_features_is_refused(monkeypatch):
    real = self_check.check_canonical
    monkeypatch.setattr(self_check, "check_canonical", lambda *a: real(*a)._replace(cosine=0.99))
    monkeypatch.setattr(self_check, "_passed", set())
    with pytest.raises(featx.DeviceError, match="computes other features than its file holds"):
        FeatureExtractor().transform(load_fashion_mnist("test")[0][:1])


def test_the_number_of_features_is_the_width_of_a_row():
    for each in (FeatureExtractor(), FeatureExtractor(["efficientnet_lite0"] * 2, layer=["stem", "stage1"])):
        assert each.n_features == len(each.get_feature_names_out())
    assert FeatureExtractor(layer="stem").transform(X[:1]).shape == (1, FeatureExtractor(layer="stem").n_features)


class Recorded(Events):
    def __init__(self):
        self.calls, self.steps = [], set()

    def begin(self, task, total, done=0, *, unit="image"):
        self.calls.append((task, total))

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.calls.append((n, n_failed))

    def spend(self, step, seconds, n_images=0):
        self.steps.add(step)

    def end(self):
        self.calls.append("end")


def test_events_hear_of_progress_and_of_each_step():
    events = Recorded()
    FeatureExtractor(layer="stem", batch_size=2, n_threads=1).embed([X[0], b"", X[1]], events=events)
    assert events.calls == [("embed", 3), (2, 1), (1, 0), "end"]
    assert {"read", "decode", "resize", "inference", "wait"} <= events.steps
    events = Recorded()
    with pytest.raises(featx.ImageError):
        FeatureExtractor(layer="stem").embed([b""], events=events)
    assert events.calls[-1] == "end"


def test_progress_goes_to_standard_error_and_only_on_request(capsys, monkeypatch):
    monkeypatch.setattr(extractor, "ProgressBar", lambda: ProgressBar(min_seconds=0))
    FeatureExtractor(layer="stem").transform(X[:2])
    assert capsys.readouterr() == ("", "")
    FeatureExtractor(layer="stem", progress=True).transform(X[:2])
    out, err = capsys.readouterr()
    assert not out
    assert "0/2" in err


def test_embedded_unpacks_and_shows_itself_briefly():
    embedded = FeatureExtractor(layer="stem").embed([X[0], b"<b>", X[1]])
    features, failures = embedded
    assert repr(embedded) == str(embedded) == "Embedded(3 rows, 16 features, 1 failed)"
    assert embedded.kept == [0, 2]
    assert failures[0].reason in embedded._repr_html_()
    assert "<b>" not in embedded._repr_html_().replace("<b>Embedded", "")
    frame = embedded.to_frame(FeatureExtractor(layer="stem").get_feature_names_out())
    assert list(frame.columns[:2]) == ["error", "efficientnet_lite0_stem_0"]
    assert frame["error"].isna().tolist() == [True, False, True]
    np.testing.assert_array_equal(frame.iloc[:, 1:], features)
    assert embedded.to_frame().shape == (3, 17)


@pytest.mark.parametrize("n", [0, 5, 50])
def test_an_exception_of_the_items_comes_after_the_results_before_it(n):
    def items():
        yield from (X[i % len(X)] for i in range(n))
        raise LookupError("no more")

    stream = FeatureExtractor(layer="stem", batch_size=8).iter_embed(items())
    assert [next(stream).shape for _ in range(n)] == [(16,)] * n
    with pytest.raises(LookupError, match="no more"):
        next(stream)


def test_a_stream_that_is_closed_leaves_the_users_generator_open():
    items = (X[i % len(X)] for i in range(1000))
    stream = FeatureExtractor(layer="stem", batch_size=4, n_threads=1).iter_embed(items)
    next(stream)
    stream.close()
    assert next(items) is not None
