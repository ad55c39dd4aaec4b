import contextlib
import io
import zipfile

import numpy as np
import pytest

import featx
from featx.errors import PipelineFileError
from featx.guard import Guard
from featx.persistence.archive import _ZIP_ERRORS
from featx.persistence.guards import read_guard, write_guard
from tests.guard.guard_tools import answer, draw
from tests.tools import rewrite


@pytest.fixture(scope="module")
def guard():
    features, codes = draw(80)
    return Guard.fit(features, answer(features, codes))


@pytest.fixture
def path(tmp_path, guard):
    path = tmp_path / "model.featx"
    featx.save(featx.FeatureExtractor().fit(None), path, guard=guard)
    return path


def test_a_file_gives_back_its_guard(path, guard):
    loaded = featx.load_guard(path)
    assert loaded.to_arrays().keys() == guard.to_arrays().keys()
    assert all(np.array_equal(array, guard.to_arrays()[name]) for name, array in loaded.to_arrays().items())
    assert "from 80 left-out images" in str(featx.describe_file(path))
    assert featx.describe_file(path).to_dict()["guard"] == {"n_images": 80}


def test_a_file_without_a_guard_loads(tmp_path):
    featx.save(featx.FeatureExtractor().fit(None), tmp_path / "model.featx")
    assert featx.load_guard(tmp_path / "model.featx") is None
    assert "Guard: none" in str(featx.describe_file(tmp_path / "model.featx"))


def archive(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def header(shape, dtype="<f4", order=False):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": order, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        archive({}),
        archive({"basis.npy": header((10**12, 10**3))}),
        archive({"basis.npy": header((2,), "|O") + bytes(16)}),
        archive({"basis.npy": header((2,), "<U4") + bytes(32)}),
        archive({"basis.npy": header((1, 1), order=True) + bytes(4)}),
        archive({"basis.npy": bytes(2_000_000)}, zipfile.ZIP_DEFLATED),
    ],
    ids=["empty", "text", "nothing", "huge", "objects", "text array", "order", "compressed"],
)
def test_a_guard_of_a_stranger_is_refused(path, content):
    rewrite(path, lambda members: members | {"guard.npz": content})
    with pytest.raises(PipelineFileError, match="damaged guard"):
        featx.load_guard(path)
    assert featx.load(path) is not None  # the pipeline does without


def test_random_damage_raises_no_other_error(guard):
    content = bytearray(write_guard(guard))
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(*_ZIP_ERRORS):
            read_guard(bytes(damaged))
