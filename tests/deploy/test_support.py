"""Heads, transformers and meta-estimators: each is exported with parity, or refused by name."""

import os
import re
from pathlib import Path

import pytest

from featx.heads import HEADS

from .support import crossed, rows, write_page

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
CASES = [
    pytest.param(name, target, make, id=f"{name}-{target}")
    for section in ("heads", "in front", "around", "others")
    for name, makers in rows(section)
    for target, make in makers.items()
]
#: Cases that are refused; all others are exported.
REFUSED = {
    "FunctionTransformer(user's own)": r"its function is halve, expected one of np\.exp",
    "MultiOutputClassifier": r"\(MultiOutputClassifier\).*export one classifier per output",
    "TransformedTargetRegressor(QuantileTransformer)": r"\(TransformedTargetRegressor\).*is QuantileTransformer",
    "GaussianProcessClassifier": r"\(GaussianProcessClassifier\).*skl2onnx",
    "KernelRidge": r"\(KernelRidge\).*skl2onnx has no converter for it; use SVR",
}


#: Some four hundred exports: two minutes of a core.
pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(("name", "target", "make"), CASES)
def test_it_is_exported_with_parity_or_refused_by_name(trials, name, target, make):
    outcome = trials.outcome(name, target, make)
    if name in REFUSED:
        assert re.match(r"head[\w.]* \(\w+\): cannot be exported: ", outcome)
        assert re.search(REFUSED[name], outcome)
    else:
        assert outcome in ("yes", "skl2onnx")


@pytest.mark.parametrize(("name", "target", "make"), [pytest.param(*case, id=case[0]) for case in crossed()])
def test_every_head_is_exported_behind_whatever_stands_in_front(trials, name, target, make):
    assert (trials.outcome(name, target, make) in ("yes", "skl2onnx")) == ("user's own" not in name)


def test_the_heads_that_featx_makes_need_no_skl2onnx(trials):
    made = {name.removesuffix(", log target") for name, _ in rows("heads")}
    assert made == set(HEADS)
    for name, makers in rows("heads"):
        for target, make in makers.items():
            assert trials.outcome(name, target, make) == "yes", (name, target)


def test_the_page_says_what_was_found(trials):
    text = write_page(trials)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text
