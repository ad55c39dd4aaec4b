import json

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer

import featx
from featx.deploy import export
from featx.guard import Guard
from featx.heads import OutOfFold
from featx.session import run_graph
from tests.text.conftest import WORDS

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(1, 6))) for _ in range(80)]


@pytest.fixture(scope="module")
def pipeline(encoder, texts):
    y = ["good" if "good" in text else "bad" for text in texts]
    head = featx.make_head("logistic_regression", cv=3)
    return make_pipeline(featx.TextExtractor(encoder), head).fit(texts, y)


def test_a_text_model_exports_with_its_tokenizer(pipeline, texts, tmp_path):
    path = tmp_path / "texts.onnx"
    (tmp_path / "texts.txt").write_text("\n".join(texts[:9]), encoding="utf-8")
    result = export(pipeline, path, texts=tmp_path / "texts.txt", features=True, card=True)
    assert "9 texts and 256 rows of features give the same predictions" in str(result.parity)
    assert "input_ids to label" in str(result)
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    rules = facts["featx.preprocess"]
    assert (rules["kind"], rules["max_tokens"], rules["n_last"]) == ("text", 8, 1)
    tokenizer = Tokenizer.from_str(json.dumps(rules["tokenizer"]))  # of its own: the file needs nothing of featx
    long = "the red car runs the street good bad a dog"
    for text in [*texts[:30], "", long]:
        ids = np.array([tokenizer.encode(text).ids])
        label, features = run_graph(path.read_bytes(), {"input_ids": ids}, ["label", "features"])
        expected = pipeline[0].embed([text]).features
        np.testing.assert_allclose(features, expected, atol=1e-5)
        assert label[0] == pipeline[-1].predict(expected)[0]
    assert "@huggingface/tokenizers" in (tmp_path / "texts.onnx.md").read_text(encoding="utf-8")


def test_a_guard_of_texts_exports(pipeline, texts, tmp_path):
    features = pipeline[0].transform(texts)
    y = np.array(["good" if "good" in text else "bad" for text in texts])
    rows = np.arange(len(texts))
    proba = pipeline[-1].predict_proba(features).astype(np.float32)
    classes, codes = pipeline.classes_, proba.argmax(1)
    losses = np.zeros((len(rows), 1), np.float32)
    out = OutOfFold(rows, rows % 5, y, classes[codes], classes, proba, codes[:, None], losses)
    guard = Guard.fit(features, out)
    result = export(pipeline, tmp_path / "texts.onnx", texts=texts[:20], guard=guard, coverage=0.8)
    assert {"outlier", "set"} <= set(result.outputs)


@pytest.mark.parametrize(
    "parameters",
    [{"images": "photos"}, {"resize": "in-graph"}, {"precision": "int8", "images": "photos"}, {"heat_map": True}],
)
def test_parameters_of_images_are_refused(pipeline, tmp_path, parameters):
    with pytest.raises(featx.InputError, match="this pipeline takes texts"):
        export(pipeline, tmp_path / "texts.onnx", **parameters)


def test_an_encoder_whose_int8_depends_on_the_batch_is_refused(encoder, texts, tmp_path):
    model = onnx.load(encoder)
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "MatMul")
    source = model.graph.node[place].input[0]
    model.graph.node[place].input[0] = "rounded"
    parts = ["levels", "scale", "zero"]
    model.graph.node.insert(place, helper.make_node("DequantizeLinear", parts, ["rounded"]))
    model.graph.node.insert(place, helper.make_node("DynamicQuantizeLinear", [source], parts))
    onnx.save(model, tmp_path / "int8.onnx")
    extractor = featx.TextExtractor(encoder)
    y = ["good" if "good" in text else "bad" for text in texts]
    pipeline = make_pipeline(extractor, LogisticRegression()).fit(texts, y)
    extractor.set_params(backbone=str(tmp_path / "int8.onnx"))
    frame = pd.DataFrame({"text": texts, "y": y})
    with pytest.raises(featx.BackboneError, match="one text or image changes the features of another"):
        export(pipeline, tmp_path / "texts.onnx", texts=texts)
    with pytest.raises(featx.BackboneError, match="one text or image changes the features of another"):
        featx.fit(frame, text_column="text", target="y", extractor=extractor)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_a_file_of_texts_that_is_not_there_is_named(pipeline, tmp_path):
    with pytest.raises(featx.InputError, match=r"nothing\.txt.*one text per line"):
        export(pipeline, tmp_path / "texts.onnx", texts=tmp_path / "nothing.txt")
    assert not (tmp_path / "texts.onnx").exists()


def test_a_model_over_columns_needs_rows_and_names_its_columns(tmp_path):
    table = pd.DataFrame({"area": [0.0, 1.0, 2.0], "rooms": [1.0, 2.0, 3.0]})
    columns = ColumnTransformer([("numbers", StandardScaler(), ["area", "rooms"])])
    model = make_pipeline(columns, Ridge()).fit(table, [0.0, 1.0, 2.0])
    with pytest.raises(featx.InputError, match="reads the columns area, rooms"):
        export(model, tmp_path / "columns.onnx")
