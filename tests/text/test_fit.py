import csv

import pytest

import featx
from featx.errors import InputError

TEXTS = ["a good car", "the good dog runs", "good", "a red good car", "good street", "a bad car", "the bad dog runs"]
TEXTS += ["bad", "a red bad car", "bad street", "the good car runs", "the bad car runs"]
LABELS = ["bad" if "bad" in text else "good" for text in TEXTS]


@pytest.mark.heavy
def test_a_table_of_texts_is_fitted_saved_evaluated_and_predicted(encoder, tmp_path):
    table = tmp_path / "reviews.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "review", "stars"], ["none", "", "good"], *zip("abcdefghijkl", TEXTS, LABELS, strict=True)]
        )
    result = featx.fit(
        table, text_column="review", target="stars", extractor=featx.TextExtractor(encoder), estimate=False
    )
    assert [failure.source for failure in result.failures] == ["none"]
    assert [name for name, _ in result.pipeline.steps] == ["features", "head"]
    result.save(tmp_path / "stars.featx")
    predictions = featx.predict(tmp_path / "stars.featx", table)  # the file knows the column
    assert predictions.names == ("none", *"abcdefghijkl")
    assert predictions.predicted[0] is None
    expected = result.pipeline.predict(TEXTS).tolist()
    assert predictions.predicted[1:].tolist() == expected
    n_right = sum(map(str.__eq__, expected, LABELS))
    assert n_right > len(TEXTS) / 2
    assert featx.evaluate(result, TEXTS, LABELS).metrics["accuracy"] == n_right / len(TEXTS)
    assert featx.predict(result, ["bad"]).names == ("X[0]",)


def test_texts_refuse_what_needs_images():
    with pytest.raises(InputError, match="tune"):
        featx.fit(["a", "b"], ["x", "y"], extractor=featx.TextExtractor(), tune=True)
    with pytest.raises(InputError, match="expected a TextExtractor"):
        featx.fit("a.csv", text_column="review", extractor=featx.FeatureExtractor())
