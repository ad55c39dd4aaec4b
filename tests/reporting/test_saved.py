"""The description of a saved pipeline."""

import pytest

from featx.reporting.saved import _locate

IDENTITY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("lite0", "timm:lite0", "lite0 (0123456789ab): in this file"),
        ("lite0", None, "lite0 (0123456789ab): in this file"),
        (
            "lite0_tuned",
            "timm:lite0, tuned after stage4 on 1,000 images",
            "lite0, tuned after stage4 on 1,000 images (0123456789ab): in this file",
        ),
        (
            "lite0_tuned_int8",
            "timm:lite0, tuned after stage4 on 1,000 images, as int8",
            "lite0, tuned after stage4 on 1,000 images, as int8 (0123456789ab): in this file",
        ),
    ],
)
def test_a_tuned_backbone_is_named_by_its_origin(name, source, expected):
    facts = {"name": name, "identity": IDENTITY, "license": None, "source": source}
    assert _locate(facts, [IDENTITY]) == expected
