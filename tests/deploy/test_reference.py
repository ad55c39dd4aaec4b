"""Reference images and their predictions."""

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from featx.backbones import open_backbone
from featx.deploy.reference import make_reference
from featx.errors import ExportError


def test_a_folder_is_spread_over_evenly(trials, tiny_backbone, tmp_path):
    for i in range(10):
        Image.fromarray(np.full((40, 40, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "9.png").write_bytes(b"no image")
    head = trials.fit("3 classes", LogisticRegression())[-1]
    reference = make_reference(tmp_path, trials.extractor, head, open_backbone(str(tiny_backbone)), 5)
    assert [image.mean() for image in reference.read_images()] == [0, 40, 80, 120, 160]
    assert len(reference.features) == len(reference.canvases) == len(reference.expected.numbers) == 5
    everything = make_reference(tmp_path, trials.extractor, head, open_backbone(str(tiny_backbone)), 50)
    assert len(everything.items) == 9
    assert [failure.index for failure in everything.failures] == [9]


def test_no_image_is_an_error(trials, tiny_backbone):
    head = trials.fit("3 classes", LogisticRegression())[-1]
    with pytest.raises(ExportError, match="no image to compare with"):
        make_reference([], trials.extractor, head, open_backbone(str(tiny_backbone)), 5)
