"""A batch of encoded images gets the answers of the pipeline, whatever else is in the batch."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import featx
from featx.errors import InputError
from featx.heads import HEADS, MultiLabelPath
from featx.serve.limits import Limits, _RefusedError
from featx.serve.openapi import describe
from featx.serve.predictor import Predictor


@pytest.fixture(scope="module")
def extractor(tiny_backbone):
    return featx.FeatureExtractor(tiny_backbone, device="cpu").fit(None)


@pytest.fixture(scope="module")
def rows(extractor, clothes):
    return extractor.transform(clothes[0])


def ask(predictor, contents, size):
    return [answer for i in range(0, len(contents), size) for answer in predictor(contents[i : i + size])]


HEAD_CASES = [
    (name, task)
    for name, head in HEADS.items()
    for task in ("classification", "regression")
    if getattr(head, "classifier" if task == "classification" else "regressor")
]


@pytest.mark.parametrize(("name", "task"), HEAD_CASES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.heavy
def test_every_head_answers_as_the_pipeline_and_alike_in_every_batch(extractor, rows, clothes, name, task):
    X, y = clothes
    target = y if task == "classification" else rows[:, 0] * 3 + 1
    head = featx.make_head(name, task=task, cv=2).fit(rows[::2], target[::2])
    predictor = Predictor(extractor, head, Limits())
    some, expected = X[:24], head.predict(rows[:24])
    whole = ask(predictor, some, 8)
    for size in (1, 3, 5):
        again = ask(predictor, some, size)
        assert [answer.fields for answer in again] == [answer.fields for answer in whole]  # to the bit
        assert all(np.array_equal(a.features, row) for a, row in zip(again, rows, strict=False))
    if task == "regression":
        np.testing.assert_allclose([answer.fields["value"] for answer in whole], expected, rtol=1e-5)
        return
    assert [answer.fields["label"] for answer in whole] == expected.tolist()
    assert [head.classes_[answer.fields["class_index"]] for answer in whole] == expected.tolist()
    probabilities = [[answer.fields["probabilities"][label] for label in head.classes_] for answer in whole]
    np.testing.assert_allclose(probabilities, head.predict_proba(rows[:24]), atol=1e-6)


def test_a_head_without_probabilities_gives_scores_and_says_so(extractor, rows, clothes):
    X, y = clothes
    head = RidgeClassifier().fit(rows, y)
    predictor = Predictor(extractor, head, Limits())
    assert predictor.output_names == ("label", "class_index", "scores")
    scores = [list(answer.fields["scores"].values()) for answer in predictor(X[:8])]
    np.testing.assert_allclose(scores, head.decision_function(rows[:8]), rtol=1e-5)
    binary = LinearSVC().fit(rows, y == "bag")
    (answer,) = Predictor(extractor, binary, Limits())(X[:1])
    (score,) = binary.decision_function(rows[:1])
    assert answer.fields["label"] is bool(score > 0)
    assert answer.fields["scores"] == pytest.approx({"False": -score, "True": score}, rel=1e-5)


def test_a_vote_gives_the_label_alone(extractor, rows, clothes):
    X, y = clothes
    head = VotingClassifier([("a", DecisionTreeClassifier()), ("b", LogisticRegression(max_iter=1000))]).fit(rows, y)
    predictor = Predictor(extractor, head, Limits())
    assert predictor.output_names == ("label", "class_index")
    assert [sorted(answer.fields) for answer in predictor(X[:2])] == [["class_index", "label"]] * 2


def test_labels_may_be_numbers(extractor, rows, clothes):
    X, y = clothes
    head = DecisionTreeClassifier().fit(rows, np.unique(y, return_inverse=True)[1] * 10)
    (answer,) = Predictor(extractor, head, Limits())(X[:1])
    assert answer.fields["label"] == head.predict(rows[:1])[0]
    assert type(answer.fields["label"]) is int
    assert list(answer.fields["probabilities"]) == ["0", "10", "20"]


def test_a_value_of_several_numbers_is_a_list_and_several_labels_are_refused(extractor, rows, clothes):
    X, y = clothes
    head = LinearRegression().fit(rows, rows[:, :2])
    (answer,) = Predictor(extractor, head, Limits())(X[:1])
    np.testing.assert_allclose(answer.fields["value"], rows[0, :2], atol=1e-4)
    several = MultiOutputClassifier(DecisionTreeClassifier()).fit(rows, np.stack([y, y], axis=1))
    with pytest.raises(InputError, match="MultiOutputClassifier predicts 2 classes per image"):
        Predictor(extractor, several, Limits())


def test_several_labels_are_a_list_and_numbers_have_names(extractor, rows, clothes):
    X, y = clothes
    Y = np.c_[y == "bag", y != "bag", np.zeros(len(y))].astype(int)
    head = MultiLabelPath("squared", labels=["bag", "other", "none"], cv=3).fit(rows, Y)
    predictor = Predictor(extractor, head, Limits())
    assert predictor.output_names == ("labels", "probabilities")
    for answer, row in zip(predictor(X[:4]), head.predict_proba(rows[:4]), strict=True):
        assert answer.fields["labels"] == [name for name, p in zip(head.classes_, row, strict=True) if p > 0.5]
        np.testing.assert_allclose(list(answer.fields["probabilities"].values()), row, atol=1e-5)
    fields = describe(predictor, Limits(), {"model": "m", "backbone": "b"})["components"]["schemas"]["Prediction"]
    assert fields["properties"]["labels"]["items"]["enum"] == ["bag", "other", "none"]
    assert "label" not in fields["properties"]
    numbers = LinearRegression().fit(rows, rows[:, :2])
    predictor = Predictor(extractor, numbers, Limits(), targets=["price", "rooms"])
    assert predictor.output_names == ("values",)
    (answer,) = predictor(X[:1])
    assert list(answer.fields["values"]) == ["price", "rooms"]
    fields = describe(predictor, Limits(), {"model": "m", "backbone": "b"})["components"]["schemas"]["Prediction"]
    assert list(fields["properties"]["values"]["properties"]) == ["price", "rooms"]


def test_infinity_is_no_answer(extractor, rows, clothes):
    head = LinearRegression().fit(rows, rows[:, 0])
    head.intercept_ = np.inf
    (answer,) = Predictor(extractor, head, Limits())(clothes[0][:1])
    assert isinstance(answer, _RefusedError)
    assert "inf, which is not finite" in answer.reason


def encode(kind, size=(20, 20)):
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, kind)
    return stream.getvalue()


def claim(width, height):
    """Return a PNG with a header that claims a size, and no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_bad_images_keep_their_places(extractor, rows, clothes):
    X, y = clothes
    head = LogisticRegression(max_iter=1000).fit(rows, y)
    predictor = Predictor(extractor, head, Limits(max_megapixels=1, image_timeout=600))
    cases = [
        (X[0], None, ""),
        (b"", 422, "no bytes at all"),
        (b"%PDF-1.7 and so on", 415, "got 18 bytes that begin with b'%PDF-1.7'; expected one of JPEG"),
        (encode("EPS"), 415, "not an image"),  # Pillow would run Ghostscript
        (X[1], None, ""),
        (claim(1001, 1000), 413, "1001 x 1000 pixels, and the limit is 1 megapixels; send"),
        (claim(60_000, 60_000), 413, "the limit is 1 megapixels"),
        (encode("JPEG", (300, 300))[:700], 422, "damaged or truncated image"),
    ]
    answers = predictor([content for content, _, _ in cases])
    for answer, (_, status, reason) in zip(answers, cases, strict=True):
        assert getattr(answer, "status", None) == status
        assert reason in getattr(answer, "reason", "")
    (alone,) = predictor([X[1]])
    assert answers[4].fields == alone.fields
    assert [answer.status for answer in predictor([b"", b"x"])] == [422, 415]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_every_format_that_is_named_is_served(extractor, rows, clothes, kind):
    predictor = Predictor(extractor, LogisticRegression(max_iter=1000).fit(rows, clothes[1]), Limits())
    content = encode(kind)
    (answer,) = predictor([content])
    assert np.array_equal(answer.features, extractor.transform([content])[0])


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"max_body": 0}, "max_body=0: expected a number above 0"),
        ({"max_megapixels": 500}, "max_megapixels=500: expected a number above 0 and at most 178"),
        ({"timeout": float("nan")}, "timeout=nan: "),
        ({"queue": 31}, "queue=31: expected at least max_images=32"),
    ],
)
def test_limits_that_make_no_sense(limits, why):
    with pytest.raises(InputError, match=why):
        Limits(**limits)
