"""The drawing of a classification."""

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from featx.reporting.confusion import draw_classification
from featx.samples import load_fashion_mnist


@pytest.mark.parametrize("all_right", [False, True])
def test_the_drawing_is_an_image_that_opens(tmp_path, all_right):
    X, y = load_fashion_mnist("test")
    X, y = X[::25], y[::25]
    predicted = y if all_right else np.roll(y, 1)
    classes = sorted(set(y))
    confusion = metrics.confusion_matrix(y, predicted, labels=classes)
    confidence = np.linspace(0.5, 1, len(y))
    draw_classification(tmp_path / "d.png", "A title", confusion, classes, X, y, predicted, confidence)
    with Image.open(tmp_path / "d.png") as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) > 400
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    assert [file.name for file in tmp_path.iterdir()] == ["d.png"]
