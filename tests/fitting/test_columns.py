import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import featx
from featx.cli import main
from featx.errors import InputError
from featx.fitting.columns import KindColumns, _find_duplicates
from featx.guard import KindCells
from featx.heads import OutOfFold
from featx.pipelines import find_columns, find_vectorizers


def draw(rng, red):
    image = io.BytesIO()
    colour = (200, 40, 40) if red else (40, 40, 200)
    Image.new("RGB", (16, 16), tuple(int(c + rng.integers(-30, 30)) for c in colour)).save(image, "PNG")
    return image.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Write a table whose class shows in the image and, less surely, in the columns."""
    folder, rng = tmp_path_factory.mktemp("houses"), np.random.default_rng(0)
    classes = rng.integers(0, 2, 40)
    rows = []
    for i, red in enumerate(classes):
        (folder / f"{i}.png").write_bytes(draw(rng, red))
        rows.append((f"{i}.png", red + rng.normal(), rng.choice(["a", "b"]), "dear" if red else "cheap"))
    frame = pd.DataFrame(rows, columns=["front", "area", "place", "price"])
    frame.loc[3, "area"] = None
    frame.to_csv(folder / "houses.csv", index=False)
    return folder / "houses.csv"


@pytest.mark.heavy
def test_kinds_are_stacked_and_a_row_that_cannot_be_read_is_a_failure(table, tmp_path):
    extractor = featx.FeatureExtractor(layer="stem")
    asked = {"image_column": "front", "columns": ["area", "place"], "target": "price"}
    result = featx.fit(table, **asked, extractor=extractor, cv=3)
    assert find_columns(result.pipeline) == {"front": "image", "area": "number", "place": "category"}
    assert [name for name, _ in result.pipeline.estimators] == ["images", "columns"]
    assert result.score.value > 0.9
    assert any("no guard" in note for note in result.notes)
    with pytest.raises(InputError, match="estimate=False"):
        featx.fit(table, **asked, extractor=extractor, estimate=False)
    with pytest.raises(InputError, match="is the target as well"):
        featx.fit(table, **{**asked, "columns": ["area", "price"]}, extractor=extractor)
    result.save(tmp_path / "price.featx")
    new = pd.read_csv(table)
    new.loc[1, "front"] = "nowhere.png"
    new.to_csv(table.parent / "new.csv", index=False)
    predictions = featx.predict(tmp_path / "price.featx", table.parent / "new.csv")
    assert len(predictions.predicted) == len(new)
    assert [failure.index for failure in predictions.failures] == [1]
    assert predictions.predicted[1] is None
    assert np.isnan(predictions.probabilities[1]).all()
    output = tmp_path / "prices.csv"
    assert main(["predict", str(tmp_path / "price.featx"), str(table.parent / "new.csv"), "-o", str(output)]) == 0
    assert len(output.read_text().splitlines()) == len(new) + 1
    new.iloc[[1]].to_csv(table.parent / "none.csv", index=False)
    with pytest.raises(featx.ImageError, match="no such file"):
        featx.evaluate(result, table.parent / "none.csv")
    evaluation = featx.evaluate(result, table)
    assert evaluation.n_images == len(new)
    assert evaluation.metrics["accuracy"] > 0.9


@pytest.mark.heavy
def test_a_pipeline_of_the_users_own_predicts_from_a_table(table):
    frame = pd.read_csv(table).dropna()
    parts = [
        ("images", featx.FeatureExtractor(layer="stem"), "front"),
        ("area", StandardScaler(), ["area"]),
        ("place", OneHotEncoder(handle_unknown="ignore"), ["place"]),
    ]
    whole = frame.assign(front=[str(table.parent / name) for name in frame.front])
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression(max_iter=1000)).fit(whole, frame.price)
    frame.to_csv(table.parent / "own.csv", index=False)  # with paths relative to the table
    predictions = featx.predict(model, table.parent / "own.csv")
    assert predictions.predicted.tolist() == model.predict(whole).tolist()
    assert predictions.names == tuple(str(i + 1) for i in range(len(frame)))


def test_near_duplicates_of_texts_are_in_one_group():
    features = np.eye(6, dtype=np.float32)
    features[1] = features[0] + 0.05 * features[2]
    groups = _find_duplicates({"text": features}, {"text": "text"}, {"text": None})
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 5


def test_a_column_has_one_kind():
    asked = KindColumns.read("front", "text", {"area": "number", "place": None})
    assert asked.kinds == {"front": "image", "text": "text", "area": "number", "place": "any"}
    with pytest.raises(InputError, match="named twice"):
        KindColumns.read("front", None, ["front"])
    with pytest.raises(InputError, match="named twice"):
        KindColumns.read(None, None, ["area", "area"])
    with pytest.raises(InputError, match="expected"):
        KindColumns.read(None, None, {"a": "colour"})


@pytest.mark.heavy
def test_a_model_of_words_predicts_from_the_command_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(40)]
    rows = pd.DataFrame(
        {"title": [f"{'good' if i % 2 else 'bad'} {' '.join(rng.choice(names, 4))}" for i in range(90)]}
    )
    rows["stars"] = np.where(np.arange(90) % 2, "many", "few")
    words = make_pipeline(ColumnTransformer([("title", TfidfVectorizer(), "title")]), LogisticRegression())
    words.fit(rows[["title"]], rows.stars)
    known = KindCells({"title": rows.title.tolist()}, {"title": "text"}, {}, find_vectorizers(words))
    n = np.arange(90)
    left_out = OutOfFold(
        *(n, n % 5, rows.stars.to_numpy(), words.predict(rows[["title"]]), words.classes_),
        *(words.predict_proba(rows[["title"]]).astype(np.float32), np.zeros((90, 1), int), np.zeros((90, 1))),
    )
    featx.save(words, tmp_path / "m.featx", guard=featx.Guard.fit_kinds(known, left_out))
    new = rows.drop(columns="stars")
    new.loc[0, "title"] = "tutto sconosciuto qui dentro"
    new.to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(tmp_path / "m.featx"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "a.csv")]) == 0
    assert "90 of 90 texts predicted on cpu" in capsys.readouterr().out
    written = pd.read_csv(tmp_path / "a.csv")
    assert written.outlier_kind[0] == "words"
    assert written.outlier[0] < 0.02
    assert written.outlier_kind[1:].isna().mean() > 0.9
    assert main(["explain", str(tmp_path / "m.featx"), str(tmp_path / "new.csv")]) == 0
    assert "[+good]" in capsys.readouterr().out
    assert featx.shift(tmp_path / "m.featx", tmp_path / "new.csv").noun == "text"
