from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import featx
from featx.cli import main
from featx.errors import InputError
from featx.selection import Candidate, compare, search
from featx.selection.candidates import list_candidates
from featx.selection.search import EFFORTS

WORDS = ["car", "dog", "street", "runs"]
TEXTS = [f"{a} {'good' if i % 2 else 'bad'} {b}" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)] * 3
LABELS = ["good" if "good" in text else "bad" for text in TEXTS]


def test_a_candidate_for_texts_has_no_crop():
    candidate = Candidate("minilm_l6", ["block4", "block5"], "avg", "", 768)
    assert candidate.describe() == "minilm_l6 block4+5, avg"
    assert candidate.parameters() == {"backbone": "minilm_l6", "layer": ["block4", "block5"], "pooling": "avg"}
    with pytest.raises(InputError, match=r"crops=.*leave it out"):
        list_candidates(featx.TextExtractor(), None, None, "avg", "pad")


def test_only_backbones_of_the_kind_are_candidates(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path))
    with pytest.raises(InputError, match="featx backbones make text:minilm_l6"):
        list_candidates(featx.TextExtractor(), None, None, "avg", ("center", "whole"))


@pytest.mark.heavy
def test_texts_are_compared_and_searched(encoder):
    extractor = featx.TextExtractor(n_threads=1)
    result = compare(TEXTS, LABELS, backbones=encoder, extractor=extractor, heads="ridge")
    assert {tuple(c.layers) for c in result.candidates} == {("block1",), ("block2",), ("block1", "block2")}
    assert {c.pooling for c in result.candidates} == {"avg", "catavgmax"}
    assert "image" not in f"{result} {result.reason} {result.heads}"
    chosen = result.extractor()
    assert isinstance(chosen, featx.TextExtractor)
    assert chosen.layer == result.recommended.layer
    found = search(TEXTS, LABELS, backbones=encoder, head="ridge", extractor=extractor)
    assert "image" not in str(found)
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(TEXTS))


@pytest.mark.heavy
def test_a_search_measures_words_and_both_beside_the_best_features(encoder, tmp_path, capsys):
    pd.DataFrame({"review": TEXTS, "stars": LABELS}).to_csv(tmp_path / "reviews.csv", index=False)
    result = featx.fit(
        tmp_path / "reviews.csv",
        text_column="review",
        target="stars",
        search={"effort": "quick", "backbones": encoder},
        extractor=featx.TextExtractor(),
    )
    assert [line.split()[0] for line in result.tried.split("\n")[-3:]] == ["words", "encoder", "both"]
    assert "search: embedded" in result.tried
    given = ["compare", str(tmp_path / "reviews.csv"), "--text-column", "review", "--target", "stars"]
    assert main([*given, "--backbone", encoder, "--layer", "block2", "--pooling", "avg"]) == 0
    assert "--layer block2 --pooling avg\n" in capsys.readouterr().out
    assert main([*given[:-1], "review", "--backbone", encoder]) == 2
    assert "column of texts as well" in capsys.readouterr().err


@pytest.mark.heavy
def test_a_head_that_scales_its_target_is_not_taken_for_one_of_logarithms(encoder, monkeypatch):
    quick = EFFORTS["quick"]
    monkeypatch.setitem(EFFORTS, "quick", replace(quick, regressors=("rbf_svm",)))
    numbers = [len(text) - 15.5 for text in TEXTS]
    result = featx.fit(
        pd.DataFrame({"review": TEXTS, "depth": numbers}),
        text_column="review",
        target="depth",
        task="regression",
        search={"effort": "quick", "backbones": encoder},
        extractor=featx.TextExtractor(n_threads=1),
    )
    losses = [float(line.split()[-1 - line.endswith("chosen")]) for line in result.tried.split("\n")[-3:]]
    assert np.isfinite(losses).all()
    assert np.corrcoef(result.pipeline.predict(pd.DataFrame({"review": TEXTS})), numbers)[0, 1] > 0.9
