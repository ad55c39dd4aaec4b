import inspect

import numpy as np
import pytest

import featx
from featx.fitting.refusals import _REASONS, _REFUSALS, refuse

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(featx.fit).parameters.items()}
FACTS = {"private": 1.0, "model": "m.featx"}


@pytest.mark.parametrize("kind", _REFUSALS)
def test_each_name_is_a_parameter_whose_default_is_not_refused(kind):
    assert set(_REFUSALS[kind][0].split()) <= DEFAULTS.keys()
    refuse(kind, DEFAULTS, **FACTS)
    assert {name for fit, name in _REASONS if fit == kind} <= set(_REFUSALS[kind][0].split())


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("names", {"y": np.zeros(3)}, "y: needs images"),
        ("names", {"views": 3}, "views=3: needs images"),
        ("names", {"exclude": "*.png"}, r"exclude='\*.png': needs images"),
        ("columns", {"max_ms": 5}, "max_ms=5: not for several kinds of columns"),
        ("texts", {"views": 6}, "views=6: texts have no views"),
        ("texts", {"continue_from": object()}, "continue_from: a model of texts"),
        ("columns", {"search": {"effort": "quick"}}, r"search=\.\.\.: not for several kinds"),
        ("columns", {"include": ["*.jpg"]}, r"include=\['\*.jpg'\]: not for several kinds of columns"),
        ("private", {"cv": 5}, "cv=5: not with private=1, because an estimate from the images"),
        ("tune", {"estimate": False}, "estimate=False: with `tune`"),
        ("continue_from", {"search": "quick"}, "search='quick': the features of m.featx are taken over"),
        ("several", {"tune": True}, "tune=True: a network is tuned on a single class"),
    ],
)
def test_a_message_names_the_parameter(kind, given, said):
    with pytest.raises(featx.InputError, match=said):
        refuse(kind, DEFAULTS | given, **FACTS)
