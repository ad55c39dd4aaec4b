"""Measured costs of candidates."""

import pytest

from featx import FeatureExtractor
from featx.errors import ImageError
from featx.selection import Candidate
from featx.selection.timing import Timing


def test_costs_are_measured_as_they_run_and_no_layer_is_slower_than_a_deeper_one(tiny_backbone, colours):
    readable = [b"", *colours[0][:8]]
    base = FeatureExtractor(precision="int8", pooling="flatten", progress=True, cache=True)
    cost = Timing(base, readable)
    some = [Candidate(str(tiny_backbone), layer, "avg", "whole", 8) for layer in ("stem", "head", ["stem", "stage1"])]
    (stem, small), (head, large), (stage1, middle) = cost.measure(some)
    assert 0 < stem <= stage1 <= head
    assert small < middle < large
    assert cost.measure(some[:1]) == [(stem, small)]  # known
    with pytest.raises(ImageError):
        Timing(base, [b"", b""]).measure(some)
