"""A small tree of images, and an extractor whose shards are small and quick to make."""

import shutil

import pytest

from featx import FeatureExtractor, dataset
from featx.samples import extract_fashion_mnist


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clothes")
    extract_fashion_mnist(folder)
    return folder / "test"


@pytest.fixture
def tree(archive, tmp_path, monkeypatch):
    """Two classes of ten images each, below the working directory."""
    monkeypatch.chdir(tmp_path)
    for label in ("bag", "coat"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for path in sorted((archive / label).iterdir())[:10]:
            shutil.copy2(path, tmp_path / "photos" / label)
    return tmp_path / "photos"


@pytest.fixture
def extractor():
    return FeatureExtractor(layer="stem", pooling="avg", device="cpu")


@pytest.fixture
def grown(tree, extractor, archive):
    """A dataset of three generations: one that is new, and one in the place of a changed and a mended image."""
    (tree / "bag" / "zz-broken.png").write_bytes(b"broken")
    (tree / "bag" / "zz-lost.png").write_bytes(b"broken")
    dataset.embed("photos", "grown", extractor, shard_size=8)
    shutil.copytree(archive / "sandal", tree / "sandal")
    dataset.embed("photos", "grown", extractor)
    shutil.copy(next((archive / "shirt").iterdir()), tree / "bag" / "zz-broken.png")
    shutil.copy(next((archive / "shirt").iterdir()), min((tree / "coat").iterdir()))
    dataset.embed("photos", "grown", extractor)
    return dataset.open("grown")
