"""Fit, evaluate and predict in Python, and the same on the command line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tqdm.auto
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import featx
from featx import FeatureExtractor
from featx._events import Events
from featx.cli import main
from featx.deploy import export
from featx.errors import ExportError, FeaturesChangedError, InputError, SourceError
from featx.fitting import estimate, inputs
from featx.fitting import head as head_module
from featx.fitting.estimate import estimate_head
from featx.heads import OutOfFold, make_head
from featx.reporting.metrics import score
from featx.samples import extract_fashion_mnist, load_fashion_mnist
from featx.selection.folds import join_groups
from featx.sources import Listing
from tests.dataset.dataset_tools import write_dataset

ALL, LABELS = load_fashion_mnist("test")
CLASSES = ("bag", "coat", "sandal")
CHOSEN = [i for name in CLASSES for i in np.flatnonzero(name == LABELS)[:9]]
X, Y = [ALL[i] for i in CHOSEN], LABELS[CHOSEN]
NUMBERS = np.array([float(len(x)) for x in X])


class Heard(Events):
    """Keep the events."""

    def __init__(self):
        self.notes, self.tasks, self.count = [], {}, 0

    def note(self, text):
        self.notes.append(text)

    def begin(self, task, total, done=0, *, unit="image"):
        self.tasks[task] = [total, 0]
        self.task = task

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.tasks[self.task][1] += n


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor(device="cpu", crop="whole")


@pytest.fixture(scope="module")
def shallow():
    return FeatureExtractor(layer="stem", device="cpu")


@pytest.fixture(scope="module")
def result(extractor):
    return featx.fit(X, Y, head="ridge", extractor=extractor)


@pytest.fixture(scope="module")
def features(extractor):
    return extractor.fit(None).transform(X)


@pytest.fixture(scope="module")
def evaluation(result):
    return featx.evaluate(result, X, Y)


@pytest.fixture(scope="module")
def weak(shallow):
    return featx.fit(X, Y, head="knn", extractor=FeatureExtractor(layer="stem", device="cpu"), estimate=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here):
    """A folder with a sub-folder per class, with the images of X."""
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        folder = here / "photos" / y
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(x)
    return here / "photos"


def test_images_and_labels_give_a_pipeline_that_scikit_learn_would_give(result, extractor):
    features = extractor.fit(None).transform(X)
    expected = make_head("ridge").fit(features, Y)
    np.testing.assert_allclose(result.pipeline.predict_proba(X), expected.predict_proba(features), rtol=1e-6)
    assert (result.task, result.classes, result.head, result.n_images) == ("classification", CLASSES, "ridge", 27)
    assert result.score.metric == "accuracy"
    assert 0 < result.score.low < result.score.value <= result.score.high <= 1
    assert result.score.how.startswith("left-out images, 5 folds")
    assert result.info["counts"] == dict.fromkeys(CLASSES, 9)


def test_the_callers_extractor_is_left_as_it_is():
    extractor = FeatureExtractor(layer="stem", device="cpu", cache=False)
    result = featx.fit(X, Y, head="knn", extractor=extractor, estimate=False)
    assert not hasattr(extractor, "backbone_identity_")
    assert result.pipeline[0] is not extractor
    assert result.score is None


def test_a_folder_gives_what_its_images_and_labels_give(result, extractor, photos):
    from_folder = featx.fit(photos, head="ridge", extractor=extractor)
    assert from_folder.score.value == result.score.value
    np.testing.assert_array_equal(from_folder.pipeline.predict(X), result.pipeline.predict(X))
    assert featx.fit([str(photos)], head="ridge", extractor=extractor, estimate=False).n_images == 27


def test_the_command_prints_and_saves_what_the_call_returns(extractor, photos, capsys):
    result = featx.fit("photos", extractor=extractor)
    assert main(["fit", "photos", "--crop", "whole", "--device", "cpu", "-o", "a.featx"]) == 0
    assert capsys.readouterr().out == f"a.featx: {result}\n"
    result.save("b.featx")
    records = [featx.read_info(f"{name}.featx") for name in "ab"]
    assert records[0]["info"] == records[1]["info"]
    pipelines = [featx.load(f"{name}.featx") for name in "ab"]
    assert pipelines[0][0].get_params() == pipelines[1][0].get_params()
    np.testing.assert_array_equal(pipelines[0].predict_proba(X), pipelines[1].predict_proba(X))
    cards = [(photos.parent / f"{name}.featx.md").read_text().replace(f"{name}.featx", "") for name in "ab"]
    assert cards[0].split("## Made with")[0] == cards[1].split("## Made with")[0]

    evaluation = featx.evaluate("a.featx", "photos")
    assert main(["evaluate", "a.featx", "photos"]) == 0
    assert capsys.readouterr().out == f"{evaluation}\n"
    assert main(["evaluate", "a.featx", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == evaluation.to_dict()

    predictions = featx.predict("a.featx", "photos")
    assert main(["predict", "a.featx", "photos"]) == 0
    assert capsys.readouterr().out == f"{predictions.format_table()}\n"
    assert main(["predict", "a.featx", "photos", "-o", "p.parquet"]) == 0
    written, expected = pd.read_parquet("p.parquet"), predictions.to_frame()
    assert written.pop("error").isna().all()
    assert expected.pop("error").isna().all()
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)


def test_classes_keep_their_type(shallow):
    codes = np.unique(Y, return_inverse=True)[1]
    result = featx.fit(X, codes, head="knn", extractor=shallow, estimate=False)
    assert result.classes == (0, 1, 2)
    assert result.pipeline.predict(X[:1]).dtype.kind == "i"
    assert featx.evaluate(result, X, codes).metrics["accuracy"] > 0.5


def test_numbers_are_a_regression(shallow):
    result = featx.fit(X, NUMBERS + 0.5, extractor=shallow)
    assert (result.task, result.head, result.classes, result.score.metric) == ("regression", "ridge", None, "mae")
    assert result.score.low < result.score.value < result.score.high
    assert {"mae", "r2", "mape"} == set(result.score.values)
    evaluation = featx.evaluate(result, X, NUMBERS + 0.5)
    assert list(evaluation.metrics) == ["mae", "rmse", "r2", "mape"]
    assert evaluation.low < evaluation.metrics["mae"] < evaluation.high
    predictions = featx.predict(result, X[:2])
    np.testing.assert_allclose(predictions.predicted.astype(float), result.pipeline.predict(X[:2]))
    shown = str(predictions).splitlines()[1].split()[-1]
    assert len(shown) <= 7


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_images_without_a_label_are_a_pool(extractor, missing):
    labels = [None if name == "sandal" else name for name in Y]
    labels = [missing if label is None else label for label in labels]
    result = featx.fit(X, labels, head="ridge", extractor=extractor, estimate=False)
    assert (result.n_images, result.n_unlabelled, result.classes) == (18, 9, ("bag", "coat"))
    pool = [f"X[{i}]" for i in np.flatnonzero(Y == "sandal")]
    assert sorted(result.to_label) == sorted(pool)
    certainty = result.pipeline.predict_proba([X[int(name[2:-1])] for name in result.to_label]).max(axis=1)
    assert (np.diff(certainty) >= 0).all()


def test_unreadable_images_are_left_out_with_their_position(extractor):
    images = [b"", *X[:4], b"broken", *X[4:]]
    labels = ["bag", *Y[:4], "coat", *Y[4:]]
    result = featx.fit(images, labels, head="ridge", extractor=extractor, estimate=False)
    assert [(failure.index, failure.source) for failure in result.failures] == [(0, "X[0]"), (5, "X[5]")]
    assert result.n_images == 27
    evaluation = featx.evaluate(result, images, labels)
    assert [failure.index for failure in evaluation.failures] == [0, 5]
    assert evaluation.n_images == len(evaluation.true) == len(evaluation.names) == 27
    predictions = featx.predict(result, images)
    assert predictions.predicted[[0, 5]].tolist() == [None, None]
    np.testing.assert_array_equal(predictions.predicted[[1, 6]].astype(str), result.pipeline.predict([X[0], X[4]]))
    columns = predictions.to_columns()
    assert [bool(error) for error in columns["error"][:6]] == [True, False, False, False, False, True]
    assert columns["proba_bag"][0] is None
    with pytest.raises(InputError, match=r"1 of 2 classes have a single readable image.*could not be read, the first"):
        featx.fit([*X[:9], X[9], b"broken"], [*Y[:9], "coat", "coat"], extractor=extractor)


def test_near_duplicates_are_listed_those_with_different_labels_first(extractor):
    images, labels = [*X, X[0], X[0], X[12]], [*Y, "bag", "bag", "sandal"]
    result = featx.fit(images, labels, head="ridge", extractor=extractor)
    first, second = result.duplicates
    assert (first.names, set(first.labels)) == (("X[12]", "X[29]"), {"coat", "sandal"})
    assert second.names == ("X[0]", "X[27]", "X[28]")
    assert "near-duplicates on one side" in result.score.how
    assert result.to_frame()["group"].tolist() == [0, 0, 1, 1, 1]
    assert "X[12] = X[29]" in result._repr_html_()


def test_thirty_copies_of_one_image_in_two_classes_are_named(extractor, here):
    for i in range(30):
        name = here / "copies" / ("coat" if i % 2 else "bag") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(X[0])
    result = featx.fit(here / "copies", head="knn", extractor=extractor)
    (group,) = result.duplicates
    assert (len(group.names), set(group.labels)) == (30, {"bag", "coat"})
    assert any("all images have the same features" in note for note in result.notes)


class TestFolds:
    """Folds of the estimate: groups, near-duplicates, cv."""

    def test_groups_are_never_divided(self, features, monkeypatch):
        groups = np.arange(27) // 3
        seen = []
        original = estimate.divide
        monkeypatch.setattr(estimate, "divide", lambda *a: seen.append(original(*a)) or seen[-1])
        found = estimate_head(
            lambda cv: make_head("knn"), features, Y, "classification", groups=groups, cv=3, events=Events()
        )
        assert "3 folds, groups on one side" in found.score.how
        for fitted_on, out in seen[0][0]:
            assert not set(groups[fitted_on]) & set(groups[out])

    def test_groups_join_near_duplicates(self):
        joined = join_groups(np.array([0, 1, 1, 2, 3]), np.array(["a", "a", "b", "c", "c"]))
        assert joined.tolist() == [0, 0, 0, 1, 1]

    def test_groups_that_are_classes_are_refused(self, extractor):
        with pytest.raises(InputError, match="groups: 3 groups cannot be divided into 5 folds"):
            featx.fit(X, Y, head="knn", groups=Y, extractor=extractor)
        assert featx.fit(X, Y, head="knn", groups=Y, extractor=extractor, estimate=False).score is None

    def test_the_folds_that_choose_a_penalty_keep_groups_together_without_an_estimate(self):
        rng = np.random.default_rng(0)
        groups = np.arange(120) // 2
        y = np.where(groups % 2, "ant", "bee")
        vectors = rng.normal(size=(60, 40)).astype(np.float32)[groups]  # a group is an image and its copy
        apart, together = (
            estimate.fit_head(make_head(), vectors, y, "classification", groups=each, events=Events())[-1]
            for each in (None, groups)
        )
        assert together.C_ < apart.C_
        found = together.out_of_fold_
        assert all(len(set(found.folds[groups[found.rows] == group])) == 1 for group in range(60))
        assert together.cv == 5

    def test_the_folds_that_calibrate_keep_groups_together(self):
        groups = np.arange(120) // 2
        y = np.where(groups % 2, "ant", "bee")
        vectors = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)[groups]
        apart, together = (
            estimate.fit_head(make_head("knn"), vectors, y, "classification", groups=each, events=Events())[-1]
            for each in (None, groups)
        )
        assert together.temperature_ > 2 * apart.temperature_  # copies foresee each other
        assert together.cv == 5
        found = [
            estimate_head(
                lambda cv: make_head("knn", cv=cv), vectors, y, "classification", groups=each, cv=4, events=Events()
            ).out_of_fold.probabilities.max(axis=1)
            for each in (None, groups)
        ]
        assert found[1].mean() < found[0].mean() - 0.1

    def test_groups_that_are_classes_still_choose_a_penalty_without_an_estimate(self):
        vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
        y = np.arange(60) % 2
        head = estimate.fit_head(make_head(), vectors, y, "classification", groups=y, events=Events())
        assert len(head[-1].out_of_fold_.rows) == 60

    @pytest.mark.parametrize(
        ("cv", "how"), [(3, "3 folds"), (ShuffleSplit(2, test_size=0.3, random_state=0), "2 folds"), ([], None)]
    )
    def test_cv_is_a_number_or_a_splitter(self, features, cv, how):
        if how is None:
            cv, how = [(np.arange(0, 27, 2), np.arange(1, 27, 2))], "1 folds"
        found = estimate_head(lambda cv: make_head("knn"), features, Y, "classification", cv=cv, events=Events())
        assert found.score.how == f"left-out images, {how}"

    def test_a_splitter_gets_the_groups(self, shallow):
        result = featx.fit(X, Y, head="knn", groups=np.arange(27) // 3, cv=GroupKFold(3), extractor=shallow)
        assert "3 folds, groups on one side" in result.score.how
        with pytest.raises(InputError, match="cannot divide 27 images"):
            featx.fit(X, Y, head="knn", cv=GroupKFold(3), extractor=shallow)

    @pytest.mark.parametrize(("cv", "said"), [(1, "cv=1"), (object(), "cv="), (True, "cv=True")])
    def test_a_wrong_cv_is_named(self, shallow, cv, said):
        with pytest.raises(InputError, match=said):
            featx.fit(X, Y, cv=cv, extractor=shallow)

    def test_groups_of_another_length_are_refused(self, shallow):
        with pytest.raises(InputError, match="groups: of shape"):
            featx.fit(X, Y, groups=[1, 2], extractor=shallow)

    def test_a_column_of_a_table_groups(self, photos, monkeypatch, shallow):
        paths = sorted(map(str, photos.rglob("*.png")))
        groups = [str(i // 3) for i in range(27)]
        listing = Listing(
            paths, paths, [path.split("/")[-2] for path in paths], "path", "label", (), {"patient": groups}
        )
        monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
        result = featx.fit("t.csv", head="knn", cv=3, groups="patient", extractor=shallow)
        assert "groups on one side" in result.score.how
        with pytest.raises(InputError, match=r"groups='doctor'.* patient"):
            featx.fit("t.csv", head="knn", groups="doctor", extractor=shallow)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_metric_is_corrected_for_the_choice_of_a_penalty(task):
    rng = np.random.default_rng(0)
    is_class = task == "classification"
    y = rng.integers(0, 2, 60) if is_class else rng.uniform(1, 2, 60)
    guesses = rng.integers(0, 2, (60, 20)) if is_class else rng.uniform(1, 2, (60, 20))
    losses = np.abs(guesses - y[:, None])
    best = guesses[:, losses.mean(axis=0).argmin()]
    classes = np.arange(2) if is_class else None
    found = OutOfFold(np.arange(60), np.zeros(60, int), y, best, classes, None, guesses, losses)
    plain = score("guesses", y, best, task)
    corrected = estimate._correct(plain, found, None)
    assert corrected.value == corrected.values[plain.metric]
    assert corrected.high - corrected.low == pytest.approx(plain.high - plain.low)
    for name, value in plain.values.items():
        assert (corrected.values[name] > value) == (name in ("mae", "mape"))
        assert corrected.values[name] != value


def test_the_memory_of_a_fit_counts_classes(monkeypatch):
    head = head_module.ChosenHead("logistic_regression", "classification", False, is_named=False)
    monkeypatch.setattr(head_module, "available_memory", lambda: 150_000_000)
    few, many = (head_module.check_memory(head, np.arange(5000) % n, 1280, {}, Events()) for n in (10, 1000))
    assert few == (head, False)
    assert (many[0].name, many[1]) == ("sgd", True)


def test_events_hear_notes_and_progress(shallow, photos):
    (photos / "bag" / "notes.txt").write_text("no image")
    heard = Heard()
    result = featx.fit(photos, head="knn", cv=3, extractor=shallow, events=heard)
    assert heard.tasks == {"embed": [27, 27], "folds": [3, 3], "head": [1, 1]}
    assert heard.notes == list(result.notes)
    assert len(heard.notes) == 3  # a file of another kind, features that cannot tell duplicates, no guard


def test_an_extractor_with_a_bar_draws_no_second_one(monkeypatch):
    drawn = []
    original = tqdm.auto.tqdm
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: drawn.append(options["desc"]) or original(**options))
    extractor = FeatureExtractor(layer="stem", device="cpu", progress=True)
    featx.fit(X, Y, head="knn", extractor=extractor, estimate=False, events=featx.ProgressBar())
    assert drawn == ["embed", "head"]


def test_a_search_chooses_features_and_head():
    search = {"effort": "quick", "backbones": ["efficientnet_lite0_int8"], "layers": ["head"], "crops": ["whole"]}
    result = featx.fit(X, Y, search=search, head="ridge", extractor=FeatureExtractor(device="cpu"), cv=3)
    assert result.pipeline[0].backbone == "efficientnet_lite0_int8"
    assert (result.head, result.pipeline[0].crop) == ("ridge", "whole")
    assert result.reason
    assert result.reason in str(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"X": np.zeros((4, 8))}, "make_head"),
        ({"y": Y[:3]}, "y: 3 targets for 27 images"),
        ({"y": np.zeros((27, 2))}, "each label is on all images or on none"),
        ({"y": np.zeros((27, 2, 2))}, "y: of shape"),
        ({"y": None}, "y: missing"),
        ({"y": [None] * 27}, "y: every value is missing"),
        ({"task": "regression"}, "needs numbers"),
        ({"head": "forest"}, "head='forest'"),
        ({"log_target": True}, "log_target=True"),
        ({"max_ms": 5}, "max_ms=5: a budget for"),
        ({"path_column": "file"}, "path_column='file'"),
        ({"target": "price"}, "target='price'"),
        ({"include": ["*.jpg"]}, "include="),
        ({"y": ["bag"] * 27}, "every readable image is of class bag"),
    ],
)
def test_a_mistake_names_the_parameter(shallow, arguments, said):
    with pytest.raises(InputError, match=said):
        featx.fit(**{"X": X, "y": Y, "extractor": shallow, **arguments})


class TestStoredEmbeddings:
    """A dataset of embeddings is a source like any other."""

    @pytest.fixture
    def vectors(self, photos):
        featx.dataset.embed(photos, "vectors", extractor=FeatureExtractor(device="cpu", crop="whole"))
        return "vectors"

    def test_all_calls_take_it(self, vectors, extractor, photos):
        result = featx.fit(vectors, head="ridge")
        expected = featx.fit(photos, head="ridge", extractor=extractor)
        assert str(result.score) == str(expected.score)
        assert (result.device, result.n_images) == (None, 27)
        np.testing.assert_allclose(result.pipeline.predict_proba(X), expected.pipeline.predict_proba(X), atol=1e-5)
        evaluation, from_photos = featx.evaluate(expected, vectors), featx.evaluate(expected, photos)
        assert evaluation.confusion == from_photos.confusion
        assert evaluation.names[0] == "bag/00.png"
        predictions = featx.predict(expected, featx.dataset.open(vectors))
        np.testing.assert_array_equal(predictions.predicted, featx.predict(expected, photos).predicted)
        assert predictions.true == featx.dataset.open(vectors).y.tolist()

    def test_labels_may_be_given_with_it(self, vectors):
        result = featx.fit(featx.dataset.open(vectors), np.array(["x", "y", "z"]).repeat(9), head="knn")
        assert result.classes == ("x", "y", "z")

    def test_other_features_are_refused(self, vectors, extractor, shallow):
        result = featx.fit(X, Y, head="knn", extractor=shallow, estimate=False)
        for call in (featx.evaluate, featx.predict):
            with pytest.raises(FeaturesChangedError, match="layer"):
                call(result, vectors)
        with pytest.raises(FeaturesChangedError, match="layer"):
            featx.fit(vectors, extractor=shallow)

    @pytest.mark.parametrize("name", ["path_column", "target", "include", "exclude"])
    def test_what_it_has_settled_is_refused(self, vectors, name):
        with pytest.raises(InputError, match=name):
            featx.fit(vectors, **{name: "x"})
        with pytest.raises(InputError, match="search="):
            featx.fit(vectors, search="quick")

    def test_images_that_failed_are_failures_of_a_prediction(self, tmp_path):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(40, 1280)).astype(np.float32)
        features[1::2, :20] += 3
        features[4] = np.nan
        folder = write_dataset(tmp_path / "d", features, ["ant", "bee"] * 20, failed=(4,))
        result = featx.fit(folder, head="ridge", estimate=False)
        predictions = featx.predict(result, folder)
        assert len(predictions.names) == 40
        assert [failure.source for failure in predictions.failures] == ["4.jpg"]
        assert predictions.names[39] == "4.jpg"
        assert predictions.predicted[39] is None
        assert featx.evaluate(result, folder).n_images == 39


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """Noise: 40 ants and 4 bees, which no head can tell apart."""
    folder = tmp_path_factory.mktemp("skewed")
    for name, n in (("ants", 40), ("bees", 4)):
        (folder / name).mkdir()
        for i in range(n):
            noise = np.random.default_rng(i + 99 * (name == "bees")).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")
    return folder


class TestRareClasses:
    """Accuracy with what it hides: the recall of the worst class, and the accuracy of the largest class alone."""

    def test_fit_and_evaluate_say_it(self, skewed, extractor, here):
        result = featx.fit(skewed, head="logistic_regression", extractor=extractor)
        balance = result.score.balance
        assert (balance.largest, balance.baseline, balance.ratio) == ("ants", 40 / 44, 10)
        assert (balance.worst, balance.worst_count) == ("bees", 4)
        assert result.score.values["balanced_accuracy"] < 0.8 < result.score.value
        assert "of bees (4 images); always answering ants: accuracy 0.909" in str(result)
        assert "balanced accuracy" in str(result)
        assert "bees (4 images)" in result._repr_html_()
        assert result.to_dict()["score"]["balance"]["worst"] == "bees"
        result.save("m.featx")
        assert "always answering ants: accuracy 0.909" in (here / "m.featx.md").read_text()
        evaluation = featx.evaluate("m.featx", skewed)
        assert "always answering ants: accuracy 0.909" in str(evaluation)
        assert json.loads(json.dumps(evaluation.to_dict()))["balance"]["baseline"] == 40 / 44

    def test_classes_of_like_size_need_no_line(self, result, evaluation):
        assert "always answering" not in str(result) + str(evaluation)
        assert result.score.balance.is_even


class TestEvaluation:
    """The results of evaluate."""

    def test_it_is_what_scikit_learn_counts(self, evaluation, result):
        right = result.pipeline.predict(X) == Y
        assert evaluation.metrics["accuracy"] == right.mean()
        assert evaluation.low < right.mean() <= evaluation.high
        assert np.trace(evaluation.confusion) == right.sum()
        assert (evaluation.task, evaluation.classes, evaluation.n_images) == ("classification", CLASSES, 27)

    def test_it_shows_itself(self, evaluation):
        assert repr(evaluation).startswith("Evaluation(27 images, accuracy ")
        text = str(evaluation)
        assert "95 % interval" in text
        header = text.partition("confusion")[2].splitlines()[1]
        assert header.split() == list(CLASSES)
        assert "<td>sandal</td>" in evaluation._repr_html_()
        json.dumps(evaluation.to_dict(), allow_nan=False)
        frame = evaluation.to_frame()
        assert list(frame.columns) == ["path", "true", "predicted", *(f"proba_{name}" for name in CLASSES)]
        assert len(frame) == 27

    def test_models_of_every_kind(self, evaluation, result, here):
        result.save("m.featx")
        for model in ("m.featx", here / "m.featx", result.pipeline):
            assert featx.evaluate(model, X, Y).metrics == pytest.approx(evaluation.metrics)
        with pytest.raises(InputError, match="expected a fitted pipeline"):
            featx.evaluate(LinearSVC(), X, Y)
        with pytest.raises(InputError, match="without a classifier or regressor"):
            featx.predict(make_pipeline(FeatureExtractor(device="cpu").fit(None), "passthrough"), X)

    def test_images_without_a_label_are_left_out(self, result):
        heard = Heard()
        assert featx.evaluate(result, X, [None, *Y[1:]], events=heard).n_images == 26
        assert heard.notes == ["1 image has no label and no part in this"]

    def test_predictions_are_not_taken_for_labels(self, result, photos, capsys):
        result.save("m.featx")
        assert main(["predict", "m.featx", "photos", "-o", "p.csv"]) == 0
        with pytest.raises(InputError):
            featx.evaluate(result, "p.csv")
        with pytest.raises(InputError, match="holds predictions"):
            featx.evaluate(result, "p.csv", target="predicted")

    @pytest.mark.parametrize(
        ("classes", "given"), [([0.0, 1.0], ["0", "1.0"]), ([False, True], ["false", 1]), (["caf\u00e9", "b"], None)]
    )
    def test_labels_equal_in_value_are_one_class(self, shallow, classes, given):
        given = given or ["cafe\u0301", "b"]
        y = [classes[i % 2] for i in range(12)]
        model = featx.fit(X[:12], np.array(y), head="knn", task="classification", extractor=shallow, estimate=False)
        evaluation = featx.evaluate(model, X[:12], np.array([given[i % 2] for i in range(12)], object))
        assert evaluation.classes == tuple(map(str, model.classes))
        assert set(evaluation.true) == set(evaluation.classes)

    def test_several_labels_are_predicted_and_not_exported_from_any_head(self, shallow, here):
        matrix = np.stack([Y == "bag", Y == "coat"], axis=1).astype(int)
        pipeline = make_pipeline(FeatureExtractor(layer="stem", device="cpu"), KNeighborsClassifier(3)).fit(X, matrix)
        featx.save(pipeline, "m.featx")
        for model in (pipeline, "m.featx"):
            expected = [tuple(str(i) for i in np.flatnonzero(row)) for row in pipeline.predict(X)]
            assert featx.predict(model, X).predicted.tolist() == expected
            assert {(), ("0",), ("1",)} <= set(expected)
        with pytest.raises(ExportError, match="several outputs"):
            export(pipeline, "m.onnx")

    def test_unknown_classes_are_named(self, result):
        with pytest.raises(InputError, match="does not know: zebra; it knows bag, coat"):
            featx.evaluate(result, X, ["zebra", *Y[1:]])


class TestTwoPipelines:
    """compare_pipelines."""

    def test_the_difference_is_paired(self, result, weak):
        images, labels = ALL[:200], LABELS[:200]
        some = np.isin(labels, CLASSES)
        images, labels = [images[i] for i in np.flatnonzero(some)], labels[some]
        paired = featx.compare_pipelines(weak, result, images, labels)
        one, other = (featx.evaluate(model, images, labels).metrics["accuracy"] for model in (weak, result))
        assert paired.difference == pytest.approx(other - one)
        assert paired.low <= paired.difference <= paired.high
        assert paired.only_second - paired.only_first == round(paired.difference * len(labels))
        swapped = featx.compare_pipelines(result, weak, images, labels)
        assert (swapped.difference, swapped.low) == (-paired.difference, pytest.approx(-paired.high))
        assert swapped.p_value == pytest.approx(paired.p_value)
        for text in (str(paired), repr(paired), paired._repr_html_()):
            assert "accuracy" in text
        assert len(paired.to_frame()) == len(labels)
        json.dumps(paired.to_dict(), allow_nan=False)

    def test_the_same_pipeline_does_not_differ_and_embeds_once(self, result, extractor, monkeypatch):
        other = featx.fit(X, Y, head="knn", extractor=extractor, estimate=False)
        calls = []
        original = FeatureExtractor.embed
        monkeypatch.setattr(FeatureExtractor, "embed", lambda *a, **k: calls.append(1) or original(*a, **k))
        featx.compare_pipelines(result, other, X, Y)
        assert calls == [1]
        same = featx.compare_pipelines(result, result, X, Y)
        assert (same.difference, same.p_value) == (0, 1)
        assert same.low < 0 < same.high
        assert "do not tell which is better" in str(same)

    def test_numbers(self, shallow):
        first, second = (
            featx.fit(X, NUMBERS + 0.5, head=head, extractor=shallow, estimate=False) for head in ("ridge", "knn")
        )
        paired = featx.compare_pipelines(first, second, X, NUMBERS + 0.5)
        assert paired.metric == "mae"
        one, other = (featx.evaluate(model, X, NUMBERS + 0.5).metrics["mae"] for model in (first, second))
        assert paired.difference == pytest.approx(other - one)
        assert paired.low < paired.difference < paired.high

    def test_different_tasks_are_refused(self, result, shallow):
        number = featx.fit(X, NUMBERS + 0.5, head="ridge", extractor=shallow, estimate=False)
        with pytest.raises(InputError, match="a classification and a regression"):
            featx.compare_pipelines(result, number, X, Y)

    def test_the_command_takes_two_models(self, result, weak, photos, capsys):
        result.save("a.featx")
        weak.save("b.featx")
        expected = featx.compare_pipelines("a.featx", "b.featx", "photos")
        assert main(["evaluate", "a.featx", "b.featx", "photos"]) == 0
        assert capsys.readouterr().out == f"{expected}\n"
        assert main(["evaluate", "a.featx", "b.featx", "photos", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == expected.to_dict()
        assert main(["evaluate", "a.featx", "b.featx", "a.featx", "photos"]) == 2


class TestPredictions:
    """The results of predict."""

    def test_the_command_prints_a_label_and_its_probability(self, result, photos, capsys):
        result.save("m.featx")
        assert main(["predict", "m.featx", "photos/bag/00.png"]) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["image", "predicted", "probability"]
        name, label, probability = row.split()
        expected = result.pipeline.predict_proba(["photos/bag/00.png"]).max()
        assert (name, label) == ("photos/bag/00.png", result.pipeline.predict(["photos/bag/00.png"])[0])
        assert float(probability) == pytest.approx(expected, abs=5e-4)

    def test_the_other_columns_of_a_table_are_kept(self, result, photos, monkeypatch):
        paths = sorted(map(str, photos.rglob("*.png")))[:3]
        columns = {"price": ["1", "2", "3"], "path": ["x"] * 3, "label": ["bag"] * 3}
        listing = Listing(paths, paths, ["bag"] * 3, "file", "label", (), columns)
        monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
        written = featx.predict(result, "t.csv").to_columns()
        probabilities = [f"proba_{name}" for name in CLASSES]
        assert list(written) == ["path", "price", "label", "predicted", "true", *probabilities, "error"]
        assert (written["path"], written["price"], written["true"]) == (paths, ["1", "2", "3"], ["bag"] * 3)

    def test_columns_that_the_output_replaces_are_named(self, result, photos, monkeypatch):
        paths = sorted(map(str, photos.rglob("*.png")))[:2]
        listing = Listing(paths, paths, None, "path", None, (), {"predicted": ["a", "b"], "note": ["c", "d"]})
        monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
        heard = Heard()
        columns = featx.predict(result, "t.csv", events=heard).to_columns()
        assert columns["note"] == ["c", "d"]
        assert any("the table's predicted is replaced" in note for note in heard.notes)

    def test_scores_are_no_probabilities(self, shallow):
        pipeline = make_pipeline(shallow, LinearSVC()).fit(X, Y)
        predictions = featx.predict(pipeline, X)
        assert predictions.probabilities is None
        assert list(predictions.to_columns()) == ["path", "predicted", "error"]
        np.testing.assert_array_equal(predictions.predicted.astype(str), pipeline.predict(X))

    def test_long_predictions_show_their_beginning(self, result):
        predictions = featx.predict(result, X)
        assert repr(predictions) == "Predictions(27 images, 3 classes)"
        assert str(predictions).splitlines()[-1] == "and 7 more"
        assert len(predictions.format_table().splitlines()) == 28
        assert "and 7 more" in predictions._repr_html_()
        json.dumps(predictions.to_dict(), allow_nan=False)


def test_a_result_shows_itself(result):
    assert repr(result).startswith("FitResult(ridge on efficientnet_lite0, 27 images, 3 classes, accuracy ")
    assert (
        str(result).splitlines()[0]
        == "ridge on efficientnet_lite0 (cpu), 27 images, 3 classes (bag 9, coat 9, sandal 9)"
    )
    assert "accuracy" in result._repr_html_()
    facts = result.to_dict()
    json.dumps(facts, allow_nan=False)
    assert (facts["n_images"], facts["classes"]) == (27, list(CLASSES))


def test_pipelines_of_scikit_learn_are_models(shallow):
    numbers = make_pipeline(shallow, Ridge()).fit(X, NUMBERS)
    assert featx.evaluate(numbers, X, NUMBERS).metrics["r2"] > 0
    classes = make_pipeline(shallow, LogisticRegression(max_iter=1000)).fit(X, Y)
    assert featx.evaluate(classes, X, Y).classes == CLASSES


def test_the_commands_choose_images_by_patterns(photos, capsys):
    shutil.copytree(photos / "bag", photos / "coat" / "drafts")
    options = ["--layer", "stem", "--no-cross-validation", "--device", "cpu"]
    assert main(["fit", "photos", "--exclude", "*drafts*", "-o", "m.featx", *options]) == 0
    assert "27 images" in capsys.readouterr().out
    assert main(["predict", "m.featx", "photos", "--include", "bag/*", "-o", "p.csv"]) == 0
    assert len(pd.read_csv("p.csv")) == 9


@pytest.mark.parametrize("kind", ["zip", "glob", "table"])
def test_every_source_gives_the_same(extractor, photos, kind):
    expected = featx.fit("photos", head="ridge", extractor=extractor)
    if kind == "zip":
        source = shutil.make_archive("photos", "zip", "photos")
    elif kind == "glob":
        source = "photos/*/*.png"
    else:
        source = "t.csv"
        paths = sorted(map(str, photos.rglob("*.png")))
        pd.DataFrame({"path": paths, "label": [path.split("/")[-2] for path in paths]}).to_csv(source, index=False)
    result = featx.fit(source, head="ridge", extractor=extractor)
    assert str(result) == str(expected)
    assert featx.evaluate(result, source).confusion == featx.evaluate(expected, "photos").confusion
    predicted = [
        sorted(zip(one.true, one.predicted, strict=True))
        for one in (featx.predict(result, source), featx.predict(expected, "photos"))
    ]
    assert predicted[0] == predicted[1]


def test_the_sample_of_the_demo_fits(here):
    extract_fashion_mnist(here / "clothes")
    result = featx.fit("clothes/test", head="sgd", extractor=FeatureExtractor(layer="stem", device="cpu"), cv=3)
    assert result.n_images == 300


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """A folder of two classes whose names look like numbers."""
    monkeypatch.chdir(tmp_path)
    for name, images in (("0.5", X[:6]), ("1.5", X[9:15])):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            (tmp_path / "p" / name / f"{i}.png").write_bytes(image)
    return "p"


def test_folder_names_that_look_like_numbers_are_classes_in_a_dataset_as_well(numbered, shallow):
    featx.dataset.embed(numbered, "vectors", shallow)
    featx.dataset.merge(["vectors"], "merged")
    for source in (numbered, "vectors", "merged"):
        result = featx.fit(source, extractor=shallow, head="ridge", estimate=False)
        assert list(result.pipeline.classes_) == ["0.5", "1.5"]
        with pytest.raises(SourceError, match="classes; use a table with a column of numbers"):
            featx.fit(source, extractor=shallow, task="regression", estimate=False)


def test_numbers_of_a_table_are_numbers_in_a_dataset_as_well(numbered, shallow, tmp_path):
    paths = sorted(tmp_path.glob("p/*/*.png"))
    prices = [i + 0.5 for i in range(len(paths))]
    pd.DataFrame({"path": paths, "label": prices}).to_csv("t.csv", index=False)
    featx.dataset.embed("t.csv", "vectors", shallow)
    assert featx.fit("vectors", extractor=shallow, head="ridge", estimate=False).task == "regression"
    pd.DataFrame({"path": paths, "label": [str(price).replace(".", ",") for price in prices]}).to_csv("c.csv", sep=";")
    featx.dataset.embed("c.csv", "commas", shallow)
    for source in ("c.csv", "commas"):
        with pytest.raises(SourceError, match=r"column 'label': '0,5' has a comma"):
            featx.fit(source, extractor=shallow, estimate=False)


def test_folders_of_folders_are_asked_about(numbered, shallow, tmp_path):
    shutil.move(tmp_path / "p", tmp_path / "q" / "photo")
    shutil.copytree(tmp_path / "q" / "photo", tmp_path / "q" / "sketch")
    for ask in (
        lambda: featx.fit("q", extractor=shallow),
        lambda: featx.dataset.embed("q", "vectors", shallow),
        lambda: featx.dataset.embed_file("q", "features.csv", shallow),
    ):
        with pytest.raises(SourceError, match=r'q: .* photo, sketch or 0\.5, 1\.5\? Set target="1"'):
            ask()
    featx.dataset.embed("q", "vectors", shallow, target="2")
    for source, target in (("vectors", None), ("q", "2")):
        result = featx.fit(source, target=target, extractor=shallow, head="ridge", estimate=False)
        assert list(result.pipeline.classes_) == ["0.5", "1.5"]
    assert featx.evaluate(result, "q", target="2").n_images == 24
    assert len(featx.predict(result, "q").names) == 24
