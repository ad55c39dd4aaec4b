"""Names of classes in `featx.fit`; tests/recipes/test_hub_text.py fits with two towers."""

import numpy as np
import pytest

import featx
from featx.fitting.zero_shot import ClassNames, check_zero_shot


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("knn", ["a", "b"], None, True), "only head="),
        ((None, None, "a {}", True), "only head="),
        (("zero_shot", "cat", None, True), "a sequence of names"),
        (("zero_shot", None, None, False), "the names of the classes"),
        ((None, None, None, False), "expected images"),
    ],
)
def test_mistakes_are_named(arguments, part):
    with pytest.raises(featx.InputError, match=part):
        check_zero_shot(*arguments)


def test_a_backbone_without_texts_is_refused():
    with pytest.raises(featx.BackboneError, match="has no text tower"):
        featx.fit(head="zero_shot", classes=["a", "b"])
    with pytest.raises(featx.InputError, match="views=3: needs images"):
        featx.fit(head="zero_shot", classes=["a", "b"], views=3)
    two = featx.FeatureExtractor(["efficientnet_lite0", "efficientnet_lite0_int8"])
    with pytest.raises(featx.InputError, match="one image tower"):
        featx.fit(head="zero_shot", classes=["a", "b"], extractor=two)


def test_labels_are_the_names_unless_there_are_others():
    labels = np.array(["bag", "coat", "bag"])
    assert ClassNames().or_labels(labels).classes == ["bag", "coat"]
    assert ClassNames(["shoe"]).or_labels(labels).classes == ["shoe"]
