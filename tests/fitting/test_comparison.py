"""Two pipelines on the same images."""

import json

import numpy as np
import pytest

import featx
from featx import FeatureExtractor
from featx.cli import main
from featx.errors import InputError
from tests.fitting.fitting_tools import ALL, CLASSES, LABELS, NUMBERS, X, Y


def test_the_difference_is_paired(result, weak):
    images, labels = ALL[:200], LABELS[:200]
    some = np.isin(labels, CLASSES)
    images, labels = [images[i] for i in np.flatnonzero(some)], labels[some]
    paired = featx.compare_pipelines(weak, result, images, labels)
    one, other = (featx.evaluate(model, images, labels).metrics["accuracy"] for model in (weak, result))
    assert paired.difference == pytest.approx(other - one)
    assert paired.low <= paired.difference <= paired.high
    assert paired.only_second - paired.only_first == round(paired.difference * len(labels))
    swapped = featx.compare_pipelines(result, weak, images, labels)
    assert (swapped.difference, swapped.low) == (-paired.difference, pytest.approx(-paired.high))
    assert swapped.p_value == pytest.approx(paired.p_value)
    for text in (str(paired), repr(paired), paired._repr_html_()):
        assert "accuracy" in text
    assert len(paired.to_frame()) == len(labels)
    json.dumps(paired.to_dict(), allow_nan=False)


def test_the_same_pipeline_does_not_differ_and_embeds_once(result, extractor, monkeypatch):
    other = featx.fit(X, Y, head="knn", extractor=extractor, estimate=False)
    calls = []
    original = FeatureExtractor.embed
    monkeypatch.setattr(FeatureExtractor, "embed", lambda *a, **k: calls.append(1) or original(*a, **k))
    featx.compare_pipelines(result, other, X, Y)
    assert calls == [1]
    same = featx.compare_pipelines(result, result, X, Y)
    assert (same.difference, same.p_value) == (0, 1)
    assert same.low < 0 < same.high
    assert "do not tell which is better" in str(same)


def test_numbers(shallow):
    first, second = (
        featx.fit(X, NUMBERS + 0.5, head=head, extractor=shallow, estimate=False) for head in ("ridge", "knn")
    )
    paired = featx.compare_pipelines(first, second, X, NUMBERS + 0.5)
    assert paired.metric == "mae"
    one, other = (featx.evaluate(model, X, NUMBERS + 0.5).metrics["mae"] for model in (first, second))
    assert paired.difference == pytest.approx(other - one)
    assert paired.low < paired.difference < paired.high


def test_different_tasks_are_refused(result, shallow):
    number = featx.fit(X, NUMBERS + 0.5, head="ridge", extractor=shallow, estimate=False)
    with pytest.raises(InputError, match="a classification and a regression"):
        featx.compare_pipelines(result, number, X, Y)


def test_the_command_takes_two_models(result, weak, photos, capsys):
    result.save("a.featx")
    weak.save("b.featx")
    expected = featx.compare_pipelines("a.featx", "b.featx", "photos")
    assert main(["evaluate", "a.featx", "b.featx", "photos"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert main(["evaluate", "a.featx", "b.featx", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected.to_dict()
    assert main(["evaluate", "a.featx", "b.featx", "a.featx", "photos"]) == 2
