"""Several labels and several numbers per image, from the table to the answers."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import featx
from featx.errors import InputError
from featx.selection import compare

pytestmark = pytest.mark.heavy
LABELS = ("bag", "shoe", "top")
KINDS = {
    "bag": {"bag"},
    "sneaker": {"shoe"},
    "sandal": {"shoe"},
    "coat": {"top"},
    "dress": {"bag", "top"},
    "trouser": set(),
}


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    return featx.FeatureExtractor(layer="stem", pooling="avg", cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images in a folder, and their sets of labels."""
    X, y = featx.samples.load_fashion_mnist("train")
    kept = [i for i, name in enumerate(y) if name in KINDS][::3]
    folder = tmp_path_factory.mktemp("several")
    for i in kept:
        (folder / f"{i}.png").write_bytes(bytes(X[i]))
    return folder, [f"{i}.png" for i in kept], [KINDS[y[i]] for i in kept]


@pytest.fixture(scope="module")
def tags(world):
    """A table of a column with a separator; the first cell is empty."""
    folder, names, sets = world
    cells = ["", *("|".join(sorted(each)) or "|" for each in sets[1:])]
    pd.DataFrame({"path": names, "tags": cells}).to_csv(folder / "tags.csv", index=False)
    return str(folder / "tags.csv")


@pytest.fixture(scope="module")
def fitted(tags, extractor):
    return featx.fit(tags, target="tags", separator="|", head="ridge", extractor=extractor)


def test_a_column_with_a_separator(fitted, world):
    _, names, sets = world
    assert (fitted.task, fitted.classes, fitted.n_unlabelled) == ("multilabel", LABELS, 1)
    assert fitted.n_images == len(names) - 1
    assert fitted.info["counts"] == {label: sum(label in each for each in sets[1:]) for label in LABELS}
    assert fitted.score.low < fitted.score.value < fitted.score.high
    assert fitted.score.metric == "macro_average_precision"
    assert "3 labels" in str(fitted)
    assert fitted.guard is not None


def test_other_ways_to_write_the_same_labels_give_the_same_fit(fitted, world, tags, extractor):
    folder, names, sets = world
    known, own = names[1:], sets[1:]
    columns = {f"{label}": [int(label in each) for each in own] for label in LABELS}
    pd.DataFrame({"path": known, **columns}).to_csv(folder / "columns.csv", index=False)
    pd.DataFrame({"path": known, "tags": [sorted(each) for each in own]}).to_parquet(folder / "lists.parquet")
    paths = [str(folder / name) for name in known]
    options = {"head": "ridge", "extractor": extractor, "estimate": False}
    for result in (
        featx.fit(str(folder / "columns.csv"), target=LABELS, **options),
        featx.fit(str(folder / "lists.parquet"), target="tags", **options),
        featx.fit(paths, own, **options),
        featx.fit(paths, pd.DataFrame(columns), **options),
    ):
        assert result.classes == LABELS
        np.testing.assert_allclose(
            result.pipeline.predict_proba(paths[:9]), fitted.pipeline.predict_proba(paths[:9]), atol=0.05
        )


def test_a_set_without_a_separator_is_a_class_and_a_note_says_how_to_name_it(world, extractor):
    folder, names, sets = world
    several = ["|".join(sorted(each)) or "none" for each in sets]
    pd.DataFrame({"path": names, "label": several}).to_csv(folder / "plain.csv", index=False)
    result = featx.fit(str(folder / "plain.csv"), head="knn", extractor=extractor, estimate=False)
    assert result.task == "classification"
    assert any('separator="|"' in note for note in result.notes)


def test_saved_evaluated_and_predicted(fitted, tags, world, tmp_path):
    folder, names, sets = world
    path = str(tmp_path / "m.featx")
    fitted.save(path, keep_answers=True)
    evaluation = featx.evaluate(path, tags)  # column and separator are those of the fit
    assert evaluation.n_images == len(names) - 1
    assert list(evaluation.per_class) == list(LABELS)
    assert set(evaluation.to_dict()) >= {"macro_average_precision", "micro_f1", "subset_accuracy", "per_label"}
    json.dumps(evaluation.to_dict())
    assert "average precision" in str(evaluation)
    rows = evaluation.to_columns()
    assert rows["true"][:3] == ["|".join(sorted(each)) or "|" for each in sets[1:4]]
    predictions = featx.predict(path, [str(folder / name) for name in names])
    assert predictions.predicted[0] == tuple(
        label for label, p in zip(LABELS, predictions.probabilities[0], strict=True) if p > 0.5
    )
    assert set(predictions.to_columns()) == {
        "path",
        "predicted",
        *(f"proba_{each}" for each in LABELS),
        "outlier",
        "error",
    }
    assert ((predictions.outlier > 0) & (predictions.outlier <= 1)).all()
    with open(f"{path}.answers.csv", newline="") as file:
        assert next(csv.reader(file))[:5] == ["path", "fold", "true", "predicted", "proba_bag"]
    card = (tmp_path / "m.featx.md").read_text()
    assert "Answers 3 labels for an image" in card
    for promise in ({"risk": 0.1}, {"coverage": 0.9}, {"adapt_prior": True}):
        with pytest.raises(InputError, match=r"the guard of several targets|no probabilities"):
            featx.predict(path, [str(folder / names[0])], **promise)
    with pytest.raises(InputError, match="two models are compared on one class"):
        featx.compare_pipelines(path, path, tags)
    with pytest.raises(InputError, match="continue_from takes a model of one class"):
        featx.fit(tags, target="tags", separator="|", continue_from=path)


def test_targets_that_do_not_fit_are_refused(tags, world, extractor):
    folder, names, _ = world
    pd.DataFrame({"path": names, "a": 1, "b": "red"}).to_csv(folder / "odd.csv", index=False)
    odd = str(folder / "odd.csv")
    for options, error in (
        ({"target": ["a", "b"]}, "'red' is neither a finite number"),
        ({"target": ["a", "nope"]}, "no column 'nope'"),
        ({"target": ["a", "a"]}, "each of them once"),
        ({"target": ["a", "b"], "separator": "|"}, "for one column of labels"),
        ({"target": "a", "separator": " "}, "expected a sign"),
        ({"target": ["a", "b"], "order": ["x"]}, "have no order"),
        ({"target": ["a", "b"], "tune": True}, "a network is tuned on a single class"),
    ):
        with pytest.raises(InputError, match=error):
            featx.fit(odd, extractor=extractor, **options)
    with pytest.raises(InputError, match="not with private"):
        featx.fit(tags, target="tags", separator="|", private=1.0)


def test_the_report_has_a_row_for_each_label(fitted, tags):
    page = featx.report(fitted, tags, separator="|", target="tags", images=False)
    assert '<table id="several">' in page.html
    assert "(none)" in page.html
    assert '<table id="several">' in featx.report(fitted, images=False).html


def test_an_explanation_of_a_label(fitted, world):
    folder, names, _ = world
    explanation = featx.explain(fitted, [str(folder / name) for name in names[1:4]])
    assert explanation.classes == LABELS
    assert explanation.error < 1e-4
    assert explanation.select(0, "shoe").shape == explanation.maps.shape[2:]
    assert explanation.predicted.tolist() == np.array(LABELS)[explanation.scores.argmax(axis=1)].tolist()


def test_several_numbers(world, extractor, tmp_path):
    folder, names, sets = world
    rng = np.random.default_rng(0)
    rooms = [float(len(each)) for each in sets]
    table = pd.DataFrame({"path": names, "price": [100.5 * len(e) + rng.normal() for e in sets], "rooms": rooms})
    table["rooms"] += rng.normal(size=len(table))
    table.to_csv(folder / "numbers.csv", index=False)
    result = featx.fit(str(folder / "numbers.csv"), target=["price", "rooms"], extractor=extractor)
    assert (result.task, result.classes, list(result.info["targets"])) == ("regression", None, ["price", "rooms"])
    result.save(tmp_path / "n.featx")
    evaluation = featx.evaluate(tmp_path / "n.featx", str(folder / "numbers.csv"))
    assert set(evaluation.per_target["price"]) == {"mae", "rmse", "r2", "mape"}
    predictions = featx.predict(tmp_path / "n.featx", [str(folder / names[0])])
    assert {"predicted_price", "predicted_rooms"} <= set(predictions.to_columns())
    assert '<table id="several">' in featx.report(result, images=False).html
    assert result.answers()["predicted_price"]


def test_a_dataset_of_features_keeps_sets_as_text(world, extractor, tmp_path):
    folder, names, sets = world
    pd.DataFrame({"path": names[::2], "tags": [sorted(each) for each in sets[::2]]}).to_parquet(folder / "d.parquet")
    featx.dataset.embed(str(folder / "d.parquet"), str(tmp_path / "d"), target="tags", extractor=extractor)
    result = featx.fit(str(tmp_path / "d"), separator="|", head="ridge", estimate=False)
    assert (result.n_images, result.classes) == (len(names[::2]), LABELS)


def test_an_order_of_the_classes(world, extractor, tmp_path):
    folder, names, sets = world
    grades = pd.Categorical(["some" if each else "none" for each in sets], ["none", "some"], ordered=True)
    paths = [str(folder / name) for name in names]
    result = featx.fit(paths, pd.Series(grades), head="ridge", extractor=extractor, estimate=False)
    assert result.info["order"] == ["none", "some"]
    result.save(tmp_path / "o.featx")
    evaluation = featx.evaluate(tmp_path / "o.featx", paths, [str(each) for each in grades])
    assert evaluation.metrics["mae_steps"] == pytest.approx(1 - evaluation.metrics["accuracy"])
    assert list(evaluation.per_class) == ["none", "some"]


def test_a_pipeline_of_scikit_learn_without_names(world, tmp_path):
    folder, names, sets = world
    Y = np.array([[int(label in each) for label in LABELS] for each in sets[::3]])
    paths = [str(folder / name) for name in names[::3]]
    pipeline = make_pipeline(featx.FeatureExtractor(layer="stem"), KNeighborsClassifier(3)).fit(paths, Y)
    featx.save(pipeline, tmp_path / "k.featx")
    columns = featx.predict(tmp_path / "k.featx", paths[:4]).to_columns()
    assert {"proba_0", "proba_1", "proba_2"} <= set(columns)
    assert featx.evaluate(tmp_path / "k.featx", paths, Y).metrics["micro_f1"] > 0.5


def test_search_and_compare(world, tags, extractor):
    options = {"backbones": "efficientnet_lite0", "layers": "stem", "poolings": "avg", "crops": "whole"}
    found = compare(tags, target="tags", separator="|", heads=["ridge", "knn"], **options)
    assert found.task == "multilabel"
    assert {score.head for score in found.heads.scores} == {"ridge", "knn"}
    result = featx.fit(tags, target="tags", separator="|", search=options, estimate=False)
    assert result.classes == LABELS
    assert "ranking average precision" in result.tried
