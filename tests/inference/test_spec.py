"""Parameters are checked, and layers and features named."""

import numpy as np
import pytest
from sklearn.base import clone

import featx
from featx.extractor import FeatureExtractor

X = featx.samples.load_fashion_mnist("test")[0][:2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"n_threads": 0}, "n_threads=0"),
        ({"on_error": "ignore"}, "on_error='ignore': expected 'raise' or 'nan'"),
        ({"pooling": "mean"}, "pooling='mean': expected one of avg, max"),
        ({"l2_normalize": "yes"}, "l2_normalize='yes'"),
        (
            {"layer": "stage9"},
            "backbone efficientnet_lite0 has the layers stem, stage1, stage2",
        ),
        ({"device": "gpu"}, "device='gpu': expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ({"backbone": "nothing"}, "backbone='nothing': expected a file or one of"),
        ({"backbone": 7}, "backbone=7: expected a name or a path"),
    ],
)
def test_wrong_arguments_are_named_at_fit_and_at_transform(wrong, message):
    for call in (FeatureExtractor(**wrong).fit, FeatureExtractor(**wrong).transform):
        with pytest.raises(featx.FeatxError) as caught:
            call(X[:1])
        assert message in str(caught.value)


def test_several_layers_have_names_that_say_which():
    extractor = FeatureExtractor(layer=["stage1", "stem"])
    names = extractor.get_feature_names_out()
    assert [names[0], names[23], names[24]] == [
        "efficientnet_lite0_stage1_0",
        "efficientnet_lite0_stage1_23",
        "efficientnet_lite0_stem_0",
    ]
    rows = clone(extractor).fit(X).transform(X[:2])
    np.testing.assert_array_equal(rows[:, 24:], FeatureExtractor(layer="stem").transform(X[:2]))


def test_feature_names_say_where_they_come_from():
    names = FeatureExtractor(layer="stage1").get_feature_names_out()
    assert names[0] == "efficientnet_lite0_stage1_0"
    assert len(set(names)) == len(names) == 24
