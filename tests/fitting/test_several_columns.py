"""Several labels and numbers of several kinds of columns, and means of images, from the fit to the answers."""

import base64
import io

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

import featx
from featx.deploy import export
from featx.errors import InputError
from featx.pipelines import find_columns, find_optional
from featx.serve.limits import Limits
from featx.serve.tables import TablePredictor

pytestmark = pytest.mark.heavy
N = 48


def draw(rng, red, green):
    colour = np.array([210 * red + 20, 210 * green + 20, 90])
    colour = np.clip(colour + rng.integers(-15, 15, 3), 0, 255)
    image = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(colour.tolist())).save(image, "PNG")
    return image.getvalue()


@pytest.fixture(scope="module")
def frame():
    """Two labels show in the images, and one in a number."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (N, 3))
    columns = {name: [draw(rng, red, green) for red, green, _ in labels.tolist()] for name in ("front", "kitchen")}
    columns |= {"area": labels[:, 2] + rng.normal(0, 0.3, N), "place": rng.choice(["x", "y"], N)}
    columns["tags"] = ["|".join(np.array(["a", "b", "c"])[row == 1]) or "|" for row in labels]
    columns |= {name: labels[:, i] for i, name in enumerate("abc")}
    columns |= {"price": 3.0 * labels[:, 0] + labels[:, 2] + 5, "rooms": 2.0 * labels[:, 1] + 1}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def extractor():
    return featx.FeatureExtractor(layer="stem")


@pytest.fixture
def embedded(monkeypatch):
    """Return a list that gets the number of images of each call."""
    counts, embed = [], featx.FeatureExtractor.embed

    def count(self, X, **options):
        counts.append(len(X))
        return embed(self, X, **options)

    monkeypatch.setattr(featx.FeatureExtractor, "embed", count)
    monkeypatch.setattr(featx.FeatureExtractor, "transform", lambda self, X: count(self, list(X)).features)
    return counts


KINDS = {"image_column": ["front", "kitchen"], "columns": ["area", "place"], "cv": 3}


@pytest.fixture(scope="module")
def labelled(frame, extractor):
    return featx.fit(frame, **KINDS, target="tags", separator="|", extractor=extractor)


def test_every_image_is_embedded_once_however_many_labels_there_are(frame, extractor, embedded):
    result = featx.fit(frame, **KINDS, target=["a", "b", "c"], extractor=extractor)
    assert sum(embedded) == 2 * N
    embedded.clear()
    assert featx.predict(result, frame).probabilities.shape == (N, 3)
    assert sum(embedded) == 2 * N
    embedded.clear()
    row = {name: frame[name][0] for name in ("front", "kitchen", "area", "place")}
    answers = TablePredictor(result.pipeline, find_columns(result.pipeline), Limits())([row])
    assert sum(embedded) == 2
    assert set(answers[0].fields["probabilities"]) == {"a", "b", "c"}


def test_several_labels_of_a_stack_from_the_fit_to_an_exported_file(labelled, frame, tmp_path):
    assert (labelled.task, labelled.classes, labelled.head) == ("multilabel", ("a", "b", "c"), "stack")
    assert labelled.score.value > 0.9
    labelled.save(tmp_path / "tags.featx")
    evaluation = featx.evaluate(tmp_path / "tags.featx", frame)
    assert {"macro_f1", "micro_f1", "subset_accuracy"} <= set(evaluation.metrics)
    assert set(evaluation.per_class) == {"a", "b", "c"}
    predictions = featx.predict(tmp_path / "tags.featx", frame)
    assert predictions.to_columns()["predicted"][:2] == ["|".join(row) or "|" for row in predictions.predicted[:2]]
    exported = export(labelled.pipeline, tmp_path / "tags.onnx", rows=frame)
    assert (exported.task, exported.outputs) == ("multilabel", ("labels", "probabilities"))
    with pytest.raises(InputError, match="no order"):
        featx.fit(frame, **KINDS, target=["a", "b"], order=["a", "b"])


def test_several_numbers_of_a_stack(frame, extractor, tmp_path):
    lacking = frame.assign(price=[None, *frame.price[1:]])
    result = featx.fit(lacking, **KINDS, target=["price", "rooms"], log_target=True, extractor=extractor)
    assert result.n_images == N - 1
    assert any("1 row lacks one of price, rooms" in note for note in result.notes)
    assert list(result.info["targets"]) == ["price", "rooms"]
    result.save(tmp_path / "numbers.featx")
    columns = featx.predict(tmp_path / "numbers.featx", frame).to_columns()
    assert np.corrcoef(columns["predicted_price"], frame.price)[0, 1] > 0.9
    evaluation = featx.evaluate(tmp_path / "numbers.featx", lacking)
    assert set(evaluation.per_target) == {"price", "rooms"}
    exported = export(result.pipeline, tmp_path / "numbers.onnx", rows=frame, info=result.info)
    facts = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert facts["featx.targets"] == '["price", "rooms"]'
    row = {name: frame[name][0] for name in find_columns(result.pipeline)}
    predictor = TablePredictor(result.pipeline, find_columns(result.pipeline), Limits(), targets=result.info["targets"])
    (answer,) = predictor([row])
    assert answer.fields["values"]["price"] == pytest.approx(columns["predicted_price"][0], rel=1e-4)


def test_ordered_classes_of_a_stack(frame, extractor):
    grades = frame.assign(grade=np.array(["poor", "fair", "good"])[frame.a + frame.b])
    result = featx.fit(grades, **KINDS, target="grade", order=["poor", "fair", "good"], extractor=extractor)
    evaluation = featx.evaluate(result, grades)
    assert list(evaluation.per_class) == ["poor", "fair", "good"]
    assert "quadratic_kappa" in evaluation.metrics


def test_the_mean_of_the_images_that_a_row_has(frame, extractor, tmp_path, embedded):
    holes = frame.assign(
        kitchen=[None if i % 3 == 0 else image for i, image in enumerate(frame.kitchen)],
        front=[None if i == 3 else image for i, image in enumerate(frame.front)],
    )
    asked = {"image_column": ["front", "kitchen"], "combine_images": "mean", "cv": 3}
    result = featx.fit(holes, **asked, target="a", task="classification", extractor=extractor)
    assert sum(embedded) == 2 * N - N // 3 - 1
    assert [failure.index for failure in result.failures] == [3]
    assert "no image in any of the columns front, kitchen" in result.failures[0].reason
    assert find_optional(result.pipeline) == ["front", "kitchen"]
    result.save(tmp_path / "mean.featx")
    holes["front"] = [b"damaged" if i == 4 else image for i, image in enumerate(holes.front)]
    predictions = featx.predict(tmp_path / "mean.featx", holes)
    assert [failure.index for failure in predictions.failures] == [3, 4]
    assert predictions.failures[1].reason.startswith("column front: ")
    assert predictions.predicted[3] is None
    whole = holes.drop(index=[3, 4])
    exported = export(result.pipeline, tmp_path / "mean.onnx", rows=whole)
    inputs = [entry.name for entry in onnx.load(exported.path).graph.input]
    assert inputs == ["front", "front_present", "kitchen", "kitchen_present"]
    predictor = TablePredictor(result.pipeline, find_columns(result.pipeline), Limits())
    front = base64.b64encode(frame.front[0]).decode()
    answer, refusal = predictor([{"front": front}, {"front": None, "kitchen": ""}])
    assert answer.fields["label"] == predictions.predicted[0]
    assert refusal.status == 422
    with pytest.raises(InputError, match="mean is that of several"):
        featx.fit(frame, image_column="front", combine_images="mean", target="a", task="classification")


def test_the_mean_equals_that_of_the_features(frame, extractor):
    mean = featx.MeanOfColumns(extractor).fit(frame[["front", "kitchen"]])
    first, second = (extractor.fit(None).transform(frame[name]) for name in ("front", "kitchen"))
    np.testing.assert_allclose(mean.transform(frame[["front", "kitchen"]]), (first + second) / 2, atol=1e-5)
    alone = mean.transform(frame[["front", "kitchen"]].assign(kitchen=None))
    np.testing.assert_allclose(alone, first, atol=1e-6)
