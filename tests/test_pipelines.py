"""An extractor inside meta-estimators: taken in front, the answers stay, for export and the command line as well."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, VotingClassifier, VotingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.deploy import export
from featx.errors import ExportError, InputError
from featx.images.decode import decode
from featx.pipelines import find_columns, find_several, split_pipeline

X, Y = featx.samples.load_fashion_mnist("test")
KINDS = ("bag", "coat", "sandal")
CHOSEN = [i for kind in KINDS for i in np.flatnonzero(kind == Y)[:8]]
X, Y = [X[i] for i in CHOSEN], Y[CHOSEN]
PIXELS = np.stack([np.asarray(decode(x)) for x in X])
NUMBERS = 1000.0 + PIXELS.mean((1, 2, 3))


@pytest.fixture
def make(tiny_backbone):
    """Make a pipeline that ends in a head, with an extractor of its own."""
    return lambda *steps, **options: make_pipeline(FeatureExtractor(str(tiny_backbone), **options), *steps)


def logistic():
    return LogisticRegression(C=0.1)


CLASSIFIERS = {
    "pipeline": lambda make: make(StandardScaler(), logistic()),
    "pipeline in a pipeline": lambda make: make_pipeline(make(StandardScaler()), logistic()),
    "search": lambda make: GridSearchCV(make(logistic()), {"logisticregression__C": [0.1, 1]}, cv=2),
    "calibrated": lambda make: CalibratedClassifierCV(make(LinearSVC(dual=False)), cv=2),
    "calibrated, one": lambda make: CalibratedClassifierCV(make(LinearSVC(dual=False)), cv=2, ensemble=False),
    "calibrated afterwards": lambda make: CalibratedClassifierCV(FrozenEstimator(make(logistic()).fit(X, Y))),
    "search of calibrated": lambda make: GridSearchCV(
        CalibratedClassifierCV(make(LinearSVC(dual=False)), cv=2), {"method": ["sigmoid"]}, cv=2
    ),
    "vote": lambda make: VotingClassifier(
        [("a", make(logistic())), ("b", make(StandardScaler(), logistic()))], voting="soft"
    ),
    "stack": lambda make: StackingClassifier(
        [("a", make(logistic())), ("b", make(LinearSVC(dual=False)))], logistic(), cv=2
    ),
    "one against the rest": lambda make: OneVsRestClassifier(make(logistic())),
}
REGRESSORS = {
    "target transformed": lambda make: TransformedTargetRegressor(make(Ridge()), func=np.log, inverse_func=np.exp),
    "vote": lambda make: VotingRegressor([("a", make(Ridge())), ("b", make(Ridge(10)))]),
}


def run(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_as_before_and_exports(name, make, tmp_path):
    estimator = CLASSIFIERS[name](make).fit(X, Y)
    expected = estimator.predict_proba(X)
    extractor, head = split_pipeline(estimator)
    np.testing.assert_array_equal(head.predict_proba(extractor.transform(X)), expected)
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)  # it is as it was
    path = tmp_path / "model.onnx"
    done = export(estimator, path, resize="in-graph")
    assert done.task == "classification"
    given = run(path, PIXELS)
    np.testing.assert_allclose(given["probabilities"], expected, atol=1e-3)
    assert given["label"].tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_as_before_and_exports(name, make, tmp_path):
    estimator = REGRESSORS[name](make).fit(X, NUMBERS)
    extractor, head = split_pipeline(estimator)
    np.testing.assert_array_equal(head.predict(extractor.transform(X)), estimator.predict(X))
    assert export(estimator, tmp_path / "model.onnx").task == "regression"


def test_images_are_embedded_once_for_a_whole_vote(make, monkeypatch):
    extractor, head = split_pipeline(CLASSIFIERS["vote"](make).fit(X, Y))
    features = extractor.transform(X)
    monkeypatch.setattr(FeatureExtractor, "transform", lambda *_: pytest.fail("embedded again"))
    assert head.predict(features).shape == (len(X),)


def test_different_features_are_refused(make, tmp_path):
    vote = VotingClassifier([("a", make(logistic())), ("b", make(logistic(), layer="stage1"))]).fit(X, Y)
    with pytest.raises(
        InputError, match=r"layer='stage1'.* give different features; all extractors must give the same"
    ):
        split_pipeline(vote)
    with pytest.raises(ExportError, match=r"^VotingClassifier: FeatureExtractor\(.* give different features"):
        export(vote, tmp_path / "model.onnx")


def test_an_extractor_elsewhere_is_refused(tiny_backbone):
    extractor = FeatureExtractor(str(tiny_backbone))
    union = make_pipeline(FeatureUnion([("a", extractor)]), logistic()).fit(X, Y)
    with pytest.raises(
        InputError, match="expected a fitted pipeline of a FeatureExtractor or TextExtractor and a head"
    ):
        split_pipeline(union)
    with pytest.raises(
        InputError, match="expected a fitted pipeline of a FeatureExtractor or TextExtractor and a head"
    ):
        split_pipeline(ColumnTransformer([("a", extractor, [0])]))
    with pytest.raises(InputError, match=r"FeatureExtractor\(.* is not the first step of a pipeline"):
        split_pipeline(VotingClassifier([("a", union), ("b", make_pipeline(extractor, logistic()))]).fit(X, Y))
    with pytest.raises(InputError, match="not fitted; call fit first"):
        split_pipeline(CalibratedClassifierCV(make_pipeline(FeatureExtractor(), logistic())))


@pytest.mark.parametrize("name", ["search", "calibrated"])
def test_the_command_line_takes_them(name, make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    estimator = CLASSIFIERS[name](make).fit(X, Y)
    featx.save(estimator, "model.featx")
    for kind in KINDS:
        (tmp_path / "photos" / kind).mkdir(parents=True)
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        (tmp_path / "photos" / y / f"{i:02}.png").write_bytes(x)
    assert main(["predict", "model.featx", "photos", "-o", "answers.csv"]) == 0
    rows = (tmp_path / "answers.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == estimator.predict(X).tolist()  # the column predicted
    capsys.readouterr()
    assert main(["evaluate", "model.featx", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == np.mean(estimator.predict(X) == Y)


def test_estimators_of_rows_tell_how_many_numbers_they_predict():
    X, Y = [[0.0], [1.0], [2.0]], [[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]]
    for estimator in (LinearRegression(), MultiOutputRegressor(LinearRegression()), DecisionTreeRegressor()):
        assert find_several(estimator.fit(X, Y)) == ("regression", ("0", "1"))
        assert find_several(estimator.fit(X, [row[:1] for row in Y])) is None
    labels = MultiOutputClassifier(LogisticRegression()).fit(X, [[0, 1], [1, 1], [1, 0]])
    assert find_several(labels) == ("multilabel", ("0", "1"))
    with pytest.raises(InputError, match="2 classes per row"):
        find_several(MultiOutputClassifier(LogisticRegression()).fit(X, [["a", "b"], ["c", "b"], ["c", "d"]]))


@pytest.mark.parametrize(
    ("numbers", "places"),
    [
        (["rooms", "size"], ["place"]),
        ([0, 2], [1]),
        ([True, False, True], np.array([False, True, False])),
        (lambda X: ["rooms", "size"], slice(1, 2)),
    ],
)
def test_columns_are_named_however_a_transformer_was_told_them(numbers, places):
    table = pd.DataFrame({"rooms": [2.0, 3.0, 4.0], "place": ["a", "b", "a"], "size": [1.0, 2.0, 5.0]})
    parts = [("numbers", StandardScaler(), numbers), ("places", OneHotEncoder(), places)]
    pipeline = make_pipeline(ColumnTransformer(parts), Ridge()).fit(table, NUMBERS[:3])
    assert find_columns(pipeline) == {"rooms": "number", "size": "number", "place": "category"}
    assert [detail.column for detail in featx.explain(pipeline, table).details[0]] == ["rooms", "size", "place"]
