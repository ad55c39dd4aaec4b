"""Tests of the pages of texts and of rows."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import featx
from featx.cli import main
from tests.text.conftest import encoder, source  # noqa: F401
from tests.text.test_fit import LABELS, TEXTS

HOSTILE = ["<script>alert(1)</script> good", "\u05d6\u05d4 \u202e good", "x" * 10_000, "good\x00 bad", ""]


def check_hostile(html):
    assert "<script>alert" not in html
    assert not {"\u202e", "\x00"} & set(html)
    assert "x" * 1000 not in html
    text = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", html, flags=re.S)
    assert "image" not in text


@pytest.mark.heavy
def test_texts_have_a_page(encoder, tmp_path):  # noqa: F811
    model = make_pipeline(featx.TextExtractor(encoder), LogisticRegression()).fit(TEXTS, LABELS)
    page = featx.report(model, [*TEXTS, *HOSTILE], [*LABELS, *["good"] * len(HOSTILE)], train=TEXTS)
    page.save(tmp_path / "page.html")
    check_hostile(page.html)
    assert f"{len(TEXTS) + len(HOSTILE)} texts" in repr(page)
    assert "<mark" in page.html
    assert "like a text that the model was fitted on" in page.html
    assert page.html.split('id="gallery"')[1].count("<li") == page.n_images
    hidden = featx.report(model, TEXTS, LABELS, images=False).html
    assert "good car" not in hidden
    assert "No text is in this file" in hidden
    result = featx.fit(TEXTS * 2, LABELS * 2, extractor=featx.TextExtractor(encoder), cv=2)
    fitted = featx.report(result)
    assert "Left-out texts" in fitted.html
    check_hostile(fitted.html)


@pytest.mark.heavy
def test_several_labels_have_cards_without_colours(encoder):  # noqa: F811
    y = [("good",) if "good" in text else ("bad", "dull") for text in TEXTS] * 2
    result = featx.fit(TEXTS * 2, y, extractor=featx.TextExtractor(encoder), cv=2)
    html = featx.report(result, TEXTS, y[: len(TEXTS)]).html
    assert 'id="several"' in html
    assert "<mark" not in html
    assert "a good car" in html


@pytest.mark.heavy
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_have_a_page(encoder, tmp_path, task):  # noqa: F811
    rows = pd.DataFrame({"review": [*TEXTS, *HOSTILE[:4]] * 2})
    rows["<b>"] = np.arange(len(rows), dtype=float)
    rows["stars"] = ["good" if "good" in text else "bad" for text in rows.review]
    if task == "regression":
        rows["stars"] = np.linspace(1, 5, len(rows))
    extractor = featx.TextExtractor(encoder)
    options = {"text_column": "review", "columns": ["<b>"], "target": "stars", "task": task, "cv": 2}
    result = featx.fit(rows, extractor=extractor, **options)
    fitted = featx.report(result)
    check_hostile(fitted.html)
    assert len(result.answers()["path"]) == len(rows)
    result.save(tmp_path / "m.featx")
    rows.drop(index=[3, 15, 19]).to_csv(tmp_path / "rows.csv", index=False)  # NUL is no CSV
    given = ["report", str(tmp_path / "m.featx"), str(tmp_path / "rows.csv"), "--train", str(tmp_path / "rows.csv")]
    assert main([*given, "-o", str(tmp_path / "p.html")]) == 0
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<b>" not in html
    assert "class='track'" in html
    assert "these rows are like a row that the model was fitted on, so the score is too good" in html
    assert ("Largest residuals" in html) == (task == "regression")
    own = featx.report(result, rows[:6], train=rows[10:]).html
    assert f"{sum(text in set(rows.review[10:]) for text in rows.review[:6])} of these rows are like a row" in own
