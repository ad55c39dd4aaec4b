"""The manifest: features that can be made again, and versions that cannot be read."""

import json

import pytest

import featx
from featx import FeatureExtractor, dataset
from featx.dataset.manifest import MANIFEST


def change_manifest(folder, **values):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def vectors(tree, extractor):
    dataset.embed("photos", "vectors", extractor)
    return dataset.open("vectors")


def test_a_newer_format_is_refused(vectors):
    change_manifest(vectors.folder, format=99)
    with pytest.raises(featx.DatasetError, match="dataset format 99, this featx reads 1; upgrade featx"):
        dataset.open("vectors")


@pytest.mark.parametrize("layer", [None, "stage2", -1, ["stem", "head"]])
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", ["efficientnet_lite0", "efficientnet_lite0_int8"]])
def test_the_extractor_asks_for_what_was_asked_for(tree, backbone, layer):
    given = FeatureExtractor(backbone, layer=layer, device="cpu")
    dataset.embed("photos/bag/*.png", "vectors", given)
    made = dataset.open("vectors").extractor(device="cpu")
    assert made.value_parameters_ == given.fit(None).value_parameters_
    assert made.backbone == backbone
    assert (made.layer is None) == (layer in (None, -1))


def test_a_format_that_was_removed_is_refused(vectors, extractor):
    change_manifest(vectors.folder, vectors="lance")
    with pytest.raises(
        featx.DatasetError, match=r"vectors: has vectors in the format 'lance', which featx does not read"
    ):
        dataset.open("vectors")
    with pytest.raises(featx.DatasetError, match="'lance'"):
        dataset.embed("photos", "vectors", extractor)
