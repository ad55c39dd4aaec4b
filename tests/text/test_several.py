"""Several labels, several numbers and ordered classes of texts."""

import numpy as np
import pandas as pd
import pytest

import featx
from featx.deploy import export
from featx.errors import InputError
from featx.selection import compare
from tests.text.conftest import WORDS

pytestmark = pytest.mark.heavy
NAMES = WORDS[5:8]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Each label is a word of the text, and so is each number."""
    rng = np.random.default_rng(0)
    sets = rng.integers(0, 2, (60, 3))
    texts = [" ".join([*np.array(NAMES)[row == 1], *rng.choice(WORDS[8:], 2)]) for row in sets]
    columns = {"text": texts, "tags": ["|".join(np.array(NAMES)[row == 1]) or "|" for row in sets]}
    columns |= {name: sets[:, i] for i, name in enumerate("abc")} | {"p": sets[:, 0] + 0.5, "q": 2.0 * sets[:, 1] + 1}
    columns["grade"] = np.array(["low", "mid", "high", "top"])[sets.sum(axis=1)]
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_several_labels_of_texts(table, encoder, tmp_path):
    asked = {"text_column": "text", "extractor": featx.TextExtractor(encoder), "cv": 3}
    result = featx.fit(table, **asked, target="tags", separator="|")
    assert (result.task, result.classes) == ("multilabel", tuple(sorted(NAMES)))
    assert result.tried.count("log loss") == 3  # words, the encoder, and both
    assert result.score.value > 0.9
    result.save(tmp_path / "tags.featx")
    evaluation = featx.evaluate(tmp_path / "tags.featx", table)
    assert {"micro_f1", "subset_accuracy"} <= set(evaluation.metrics)
    frame = pd.read_csv(table)
    sets = [set(cell.split("|")) - {""} for cell in frame.tags]
    for y in (sets, pd.Series(sets), frame[list("abc")]):
        found = featx.fit(frame, y, **asked, head="ridge")
        assert (found.task, found.n_images) == ("multilabel", 60)
    by_columns = featx.fit(table, **asked, target=["a", "b", "c"], head="ridge")
    exported = export(by_columns.pipeline, tmp_path / "tags.onnx", texts=frame.text.tolist())
    assert exported.outputs == ("labels", "probabilities")
    assert featx.predict(by_columns, table).classes == ("a", "b", "c")
    with pytest.raises(InputError, match="no column 'd'"):
        featx.fit(table, **asked, target=["a", "d"])


def test_several_targets_of_texts_are_compared(table, encoder):
    asked = {"text_column": "text", "backbones": encoder, "layers": "block1", "poolings": "avg", "cv": 3}
    by_separator = compare(table, **asked, target="tags", separator="|")
    by_columns = compare(table, **asked, target=["a", "b", "c"])
    assert by_separator.task == by_columns.task == "multilabel"
    assert by_separator.recommended.score == by_columns.recommended.score
    assert compare(table, **asked, target=["p", "q"]).task == "regression"
    with pytest.raises(InputError, match="no column 'd'"):
        compare(table, **asked, target=["a", "d"])
    with pytest.raises(InputError, match="column of texts as well"):
        compare(table, **asked, target=["a", "text"])


def test_several_numbers_and_an_order_of_texts(table, encoder, tmp_path):
    asked = {"text_column": "text", "extractor": featx.TextExtractor(encoder), "cv": 3}
    result = featx.fit(table, **asked, target=["p", "q"])
    assert result.tried.count("squared error") == 3
    result.save(tmp_path / "numbers.featx")
    assert {"predicted_p", "predicted_q"} <= set(featx.predict(tmp_path / "numbers.featx", table).to_columns())
    assert set(featx.evaluate(tmp_path / "numbers.featx", table).per_target) == {"p", "q"}
    ordered = featx.fit(table, **asked, target="grade", order=["low", "mid", "high", "top"])
    assert ordered.info["order"][0] == "low"
    assert "mae_steps" in featx.evaluate(ordered, table).metrics
