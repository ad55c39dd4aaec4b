import csv
from dataclasses import replace

import numpy as np
import pytest

import featx
import featx.deploy
import featx.serve.server
from featx.cli import main
from featx.errors import InputError
from featx.fitting.prediction import _escape
from featx.samples import load_fashion_mnist

X, Y = load_fashion_mnist("train")
NEW, TRUE = load_fashion_mnist("test")
KEEP = np.isin(Y, ["bag", "trouser"])
X, Y = [x for x, keep in zip(X, KEEP, strict=True) if keep][:100], Y[KEEP][:100]


@pytest.fixture(scope="module")
def result():
    return featx.fit(X, Y, head="ridge", cv=3, extractor=featx.FeatureExtractor(layer="stem"))


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "m.featx"
    result.save(path)
    return path


def test_fit_makes_a_guard_that_the_file_keeps(result, saved):
    assert repr(result.guard) == repr(featx.load_guard(saved)) == "Guard(100 images, 2 classes)"
    assert featx.load(saved).steps[0][0] == "features"


def test_below_fifty_images_and_on_request_there_is_none(result):
    extractor = featx.FeatureExtractor(layer="stem")
    few = featx.fit(X[::3], Y[::3], head="knn", cv=2, extractor=extractor)
    assert few.guard is None
    assert any("too few for a guard" in note for note in few.notes)
    off = featx.fit(X[::3], Y[::3], head="knn", cv=2, extractor=extractor, guard=False)
    assert not any("guard" in note for note in off.notes)
    with pytest.raises(InputError, match=r"risk=0.1: FitResult has no guard; featx.fit makes one"):
        featx.predict(few, NEW[:1], risk=0.1)


def test_columns(result):
    found = featx.predict(result, [*NEW[:12], b"no image"], risk=0.2, coverage=0.9)
    columns = found.to_columns()
    assert list(columns)[-4:] == ["outlier", "reason", "set", "error"]
    assert columns["outlier"][-1] is columns["predicted"][-1] is None
    assert all(0 < p <= 1 for p in columns["outlier"][:-1])
    for value, reason in zip(columns["predicted"][:-1], columns["reason"], strict=False):
        assert (value is None) == (reason is not None)
    assert "outlier  set  reason" in str(found)
    assert found.to_dict() == columns
    assert list(featx.predict(result, NEW[:2]).to_columns())[-2:] == ["outlier", "error"]


def test_other_images_are_outliers(result):
    own = [x for x, keep in zip(NEW, np.isin(TRUE, ["bag", "trouser"]), strict=True) if keep][:40]
    noise = [np.random.default_rng(i).integers(0, 256, (28, 28, 3)).astype(np.uint8) for i in range(5)]
    assert featx.predict(result, noise).outlier.max() < 0.05
    assert featx.predict(result, own).outlier.mean() > 0.3


def test_labels_of_a_set_are_escaped():
    assert _escape("a|b\\c") == "a\\|b\\\\c"


def test_adapting_the_prior_says_what_moved(result):
    bags = [x for x, label in zip(NEW, TRUE, strict=True) if label == "bag"]
    notes = []

    class Notes(featx.Events):
        def note(self, text):
            notes.append(text)

    found = featx.predict(result, bags, adapt_prior=True, events=Notes())
    before, after = found.changes["shares"]["bag"]
    assert before < 0.65 < 0.8 < after
    assert any("bag" in note and "shares" in note for note in notes)


def test_changed_answers_promise_nothing(result):
    with pytest.raises(InputError, match=r"adapt_prior=True: risk=0\.1 promises"):
        featx.predict(result, NEW[:1], adapt_prior=True, risk=0.1)
    with pytest.raises(InputError, match="at least 30"):
        featx.predict(result, NEW[:2], restandardize=True)


def test_a_promise_is_refused_before_the_images_are_read(result):
    for asked in ({"coverage": 0.9999}, {"coverage": 2}, {"per_class": True}, {"risk": 1e-9}):
        with pytest.raises(InputError, match=next(iter(asked))):
            featx.predict(result, [b"no image"], **asked)


def test_restandardize_says_so(result):
    found = featx.predict(result, X[:40], restandardize=True)
    assert found.changes == {"restandardized": 40}
    assert found.outlier.mean() > 0.2  # of the images as they came


def test_a_guard_of_another_pipeline_is_refused(result, tmp_path):
    deeper = featx.fit(X[::5], Y[::5], head="knn", estimate=False, extractor=featx.FeatureExtractor(layer="stage1"))
    with pytest.raises(InputError, match="another pipeline"):
        featx.predict(deeper, NEW[:1], guard=result.guard)
    turned = replace(result.guard, classes=result.guard.classes[::-1])
    for use in (featx.predict, featx.shift):
        with pytest.raises(InputError, match="another pipeline"):
            use(result, NEW, guard=turned)
    for use in (featx.serve.serve, lambda one, guard: featx.deploy.export(one, tmp_path / "x.onnx", guard=guard)):
        with pytest.raises(InputError, match="another pipeline"):
            use(result.pipeline, guard=turned)


def test_numbers_have_intervals():
    sizes = np.linspace(1, 2, 60)
    found = featx.fit(X[:60], sizes, head="ridge", cv=3, extractor=featx.FeatureExtractor(layer="stem"))
    predicted = featx.predict(found, NEW[:3], coverage=0.9)
    columns = predicted.to_columns()
    low, value, high = (np.array(columns[name]) for name in ("low", "predicted", "high"))
    assert (low < value).all()
    assert (value < high).all()
    assert " to " in str(predicted)


def test_the_command_writes_them(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    featx.samples.extract_fashion_mnist("clothes")
    assert main(["predict", str(saved), "clothes/test/bag", "--sets", "0.9", "-o", "new.csv"]) == 0
    assert (tmp_path / "new.csv").read_text().split("\n")[0].endswith("outlier,set,error")
    assert main(["predict", str(saved), "clothes/test/bag", "--sets", "0.999"]) == 2
    assert "--sets 0.999: 100 left-out answers cannot promise it; at least 999" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["predict", str(saved), "clothes/test/coat", "--risk", "0.2", "-o", "new.csv"]) == 0
    rows = list(csv.DictReader((tmp_path / "new.csv").read_text().splitlines()))
    unanswered = sum(not row["predicted"] for row in rows)
    assert 0 < unanswered == sum(bool(row["reason"]) for row in rows)
    assert f"{unanswered} of them without an answer" in capsys.readouterr().out
