"""Fitted pipelines and folders of images that the tests of fitting share."""

import pytest

import featx
from featx import FeatureExtractor
from tests.fitting.fitting_tools import X, Y


@pytest.fixture(scope="session")
def extractor():
    return FeatureExtractor(device="cpu", crop="whole")


@pytest.fixture(scope="session")
def shallow():
    return FeatureExtractor(layer="stem", device="cpu")


@pytest.fixture(scope="session")
def result(extractor):
    return featx.fit(X, Y, head="ridge", extractor=extractor)


@pytest.fixture(scope="session")
def features(extractor):
    return extractor.fit(None).transform(X)


@pytest.fixture(scope="session")
def evaluation(result):
    return featx.evaluate(result, X, Y)


@pytest.fixture(scope="session")
def weak(shallow):
    return featx.fit(X, Y, head="knn", extractor=FeatureExtractor(layer="stem", device="cpu"), estimate=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here):
    """A folder with a sub-folder per class, with the images of X."""
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        folder = here / "photos" / y
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(x)
    return here / "photos"
