"""Real photographs and pieces of clothing, and pipelines fitted on them."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data
from sklearn.pipeline import make_pipeline

import featx

collect_ignore = ["fuzz_hooks.py"]  # schemathesis imports it
CLASSES = ("bag", "coat", "sandal")


@pytest.fixture(scope="session")
def clothes():
    """Encoded images of three classes, 30 each, and their labels."""
    X, y = featx.samples.load_fashion_mnist("test")
    kept = [i for i, label in enumerate(y) if label in CLASSES]
    return [X[i] for i in kept], np.array([y[i] for i in kept])


@pytest.fixture(scope="session")
def photos():
    """Photographs as JPEG files of several sizes and kinds."""
    arrays = [data.astronaut(), data.astronaut()[:, ::-1], data.astronaut()[100:300, :], data.camera()]
    arrays += [array[: 300 + 10 * i, : 400 - 10 * i] for i, array in enumerate(arrays[:2])]
    encoded = []
    for i, array in enumerate(arrays):
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(array)).save(stream, "JPEG", quality=80 + i)
        encoded.append(stream.getvalue())
    return encoded


@pytest.fixture(scope="session")
def pipeline(clothes):
    """A pipeline as `featx fit` makes it by default."""
    X, y = clothes
    return make_pipeline(featx.FeatureExtractor(device="cpu"), featx.make_head()).fit(X[::2], y[::2])


@pytest.fixture(scope="session")
def model(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "clothes.featx"
    featx.save(pipeline, path)
    return path
