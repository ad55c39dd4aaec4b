import copy
import pickle
import threading
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from skimage import data
from sklearn.base import clone

import featx
from featx import session
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
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"n_threads": 0}, "n_threads=0"),
        ({"on_error": "ignore"}, "on_error='ignore': expected 'raise' or 'nan'"),
        ({"pooling": "mean"}, "pooling='mean': expected one of avg, max"),
        ({"l2_normalize": "yes"}, "l2_normalize='yes'"),
        ({"layer": "stage9"}, "backbone efficientnet_lite0 has the layers stem, stage1, stage2"),
        ({"device": "gpu"}, "device='gpu': expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ({"backbone": "nothing"}, "backbone='nothing': expected a file or one of"),
        ({"backbone": 7}, "backbone=7: expected a name or a path"),
    ],
)
def test_wrong_arguments_are_named_at_fit_and_at_transform(wrong, message):
    for call in (FeatureExtractor(**wrong).fit, FeatureExtractor(**wrong).transform):
        with pytest.raises(featx.FeatxError) as caught:
            call(X[:1])
        assert message in str(caught.value)


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


def test_several_layers_have_names_that_say_which():
    extractor = FeatureExtractor(layer=["stage1", "stem"])
    names = extractor.get_feature_names_out()
    assert [names[0], names[23], names[24]] == [
        "efficientnet_lite0_stage1_0",
        "efficientnet_lite0_stage1_23",
        "efficientnet_lite0_stem_0",
    ]
    rows = clone(extractor).fit(X).transform(X[:2])
    np.testing.assert_array_equal(rows[:, 24:], FeatureExtractor(layer="stem").transform(X[:2]))


def test_l2_normalize_gives_unit_rows_in_the_same_direction(features):
    rows = FeatureExtractor(l2_normalize=True).transform(X)
    np.testing.assert_allclose(rows, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-6)


def test_feature_names_say_where_they_come_from():
    names = FeatureExtractor(layer="stage1").get_feature_names_out()
    assert names[0] == "efficientnet_lite0_stage1_0"
    assert len(set(names)) == len(names) == 24


def test_set_output_gives_frames_with_names_and_index(features):
    series = pd.Series(X, index=range(100, 100 + len(X)))
    frame = FeatureExtractor().set_output(transform="pandas").fit_transform(series)
    assert list(frame.columns[:1]) == ["efficientnet_lite0_head_0"]
    assert list(frame.index) == list(series.index)
    np.testing.assert_array_equal(frame.to_numpy(), features)
    polars = FeatureExtractor().set_output(transform="polars").fit_transform(X)
    assert isinstance(polars, pl.DataFrame)
    np.testing.assert_array_equal(polars.to_numpy(), features)


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        lambda x: np.array(x, dtype=object),
        lambda x: np.array(x, dtype=object)[:, None],
        pd.Series,
        lambda x: pd.DataFrame({"image": x}),
        lambda x: pl.Series(x),
        lambda x: pl.DataFrame({"image": x}),
        lambda x: pd.DataFrame({("several", "levels"): x}),
        lambda x: pd.DataFrame({"collect": x}),
        lambda x: pd.Series(x, index=["columns", *range(1, len(x))]),
        lambda x: pa.array(x),
        lambda x: pa.chunked_array([x[:3], x[3:]]),
        lambda x: pa.table({"image": x}),
        lambda x: (item for item in x),
    ],
)
def test_every_container_gives_the_same_rows(container, features):
    np.testing.assert_array_equal(FeatureExtractor().transform(container(X)), features)


@pytest.mark.parametrize(
    "container",
    [
        np.array,
        lambda x: np.array(x, dtype=np.dtypes.StringDType()),
        lambda x: np.array(x, dtype=np.dtypes.StringDType())[:, None],
        lambda x: pd.Series(x, dtype="category"),
        lambda x: pd.Series(x, dtype="string"),
        lambda x: pd.Series(x, dtype="string[pyarrow]"),
        lambda x: pl.Series(x, dtype=pl.Categorical),
    ],
)
def test_every_kind_of_text_names_files(container, tmp_path):
    paths = []
    for i, content in enumerate(X[:2]):
        paths.append(str(tmp_path / f"{i}.png"))
        Path(paths[-1]).write_bytes(content)
    rows = FeatureExtractor(layer="stem").transform(container(paths))
    np.testing.assert_array_equal(rows, FeatureExtractor(layer="stem").transform(X[:2]))


@pytest.mark.parametrize(
    "nothing",
    [[], np.array([]), np.empty((0, 1)), pd.Series([]), pd.DataFrame({"image": []}), pl.Series([])],
    ids=["list", "array", "column", "Series", "DataFrame", "polars Series"],
)
def test_no_images_give_no_rows(nothing):
    assert FeatureExtractor().transform(nothing).shape == (0, 1280)


def test_tables_that_hold_no_images_yet_or_too_many_are_named():
    for table, message in (
        (pl.LazyFrame({"image": X}), r"X is a LazyFrame, which holds no rows yet; give X.collect\(\)"),
        (pa.table({"a": X, "b": X}), "X has the columns a, b; expected the one that holds images"),
        (np.empty((0, 5)), r"X has shape \(0, 5\)"),
        (np.array(5.0), r"X is an array of float64 with shape \(\)"),
    ):
        with pytest.raises(featx.InputError, match=message):
            FeatureExtractor().transform(table)


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


def test_threads_take_their_share_inside_a_worker():
    def threads():
        return FeatureExtractor()._threads()

    cores = joblib.cpu_count()
    assert threads() == cores
    with joblib.parallel_config("threading"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(threads)() for _ in range(2)) == [1, 1]
    with joblib.parallel_config("loky"):
        inside = joblib.Parallel(n_jobs=2)(joblib.delayed(_threads_in_worker)() for _ in range(2))
    assert inside == [max(1, cores // 2)] * 2


def _threads_in_worker():
    return FeatureExtractor()._threads()


def test_the_repr_and_the_html_display_show_parameters():
    extractor = FeatureExtractor(pooling="max")
    assert repr(extractor) == "FeatureExtractor(pooling='max')"
    assert "pooling" in extractor._repr_html_()


def test_progress_goes_to_standard_error_and_only_on_request(capsys):
    FeatureExtractor().transform(X[:2])
    assert capsys.readouterr() == ("", "")
    FeatureExtractor(progress=True).transform(X[:2])
    out, err = capsys.readouterr()
    assert not out
    assert "0/2" in err


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
    with pytest.raises(featx.DeviceError, match="give the one or the other"):
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
    with pytest.raises(featx.DeviceError, match="gives other features than where it was made"):
        FeatureExtractor().transform(load_fashion_mnist("test")[0][:1])


def test_processes_share_the_images_and_nothing_else_changes(tmp_path):
    X, _ = featx.samples.load_fashion_mnist("test")
    items = [*X[:300], b"", *X[:299], b"x", *X[300:]]
    here = FeatureExtractor(layer="stem", on_error="nan")
    shared = FeatureExtractor(layer="stem", on_error="nan", n_jobs=2, n_threads=2)
    profile = featx.inference.timing.Profile()
    want, got = here.embed(items), shared.embed(items, profile=profile)
    np.testing.assert_array_equal(got.features, want.features)
    assert got.failures == want.failures
    assert [failure.index for failure in got.failures] == [300, 600]
    assert profile.n_images == len(items)
    with pytest.raises(featx.ImageError, match="item 300"):
        shared.set_params(on_error="raise").transform(items)


def test_n_jobs_follows_joblib_and_spares_few_images_a_process(monkeypatch):
    X, _ = featx.samples.load_fashion_mnist("test")
    asked = []
    real = joblib.Parallel
    monkeypatch.setattr(joblib, "Parallel", lambda n, **rest: asked.append(n) or real(n, **rest))
    few = FeatureExtractor(layer="stem", n_jobs=4).transform(X[:300])
    assert asked == []
    with joblib.parallel_config("threading", n_jobs=3):
        np.testing.assert_array_equal(FeatureExtractor(layer="stem").transform([*X[:300], *X[:300]])[300:], few)
    assert asked == [2]
    for wrong in (0, 1.5, True, "2"):
        with pytest.raises(featx.InputError, match="n_jobs"):
            FeatureExtractor(n_jobs=wrong).transform(X[:1])
