"""The images of a call, shared by several processes: whatever they are, the features are those of one process."""

import io
import shutil
import struct
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from skimage import data

import featx
from featx import extractor
from featx.extractor import FeatureExtractor
from featx.inference import workers
from featx.inference.timing import Profile


@pytest.fixture
def several_processes(monkeypatch):
    """Let two processes share as few as eight images."""
    monkeypatch.setattr(workers, "_MIN_IMAGES", 4)


def test_processes_that_are_used_again_find_what_is_relative_to_another_folder(
    several_processes, tmp_path, monkeypatch, tiny_backbone
):
    names = [f"{i}.png" for i in range(8)]
    for shade, folder in enumerate(["one", "other"]):
        (tmp_path / folder).mkdir()
        shutil.copy(tiny_backbone, tmp_path / folder / "net.onnx")
        for i, name in enumerate(names):
            Image.new("RGB", (32, 32), (90 * shade, 20 * i, 60)).save(tmp_path / folder / name)
        monkeypatch.chdir(tmp_path / folder)
        shared = FeatureExtractor("net.onnx", n_jobs=2, cache="kept").fit(names)
        np.testing.assert_array_equal(shared.transform(names), FeatureExtractor("net.onnx").transform(names))
        assert Path("kept").is_dir()
    assert not shared.embed(names).failures
    assert "relative to the working directory" in shared.embed([*names, "none.png"]).failures[0].reason


def twelve_bits():
    """A TIFF whose white is 4095, which only its own tags tell."""
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), 0xFFFF, np.uint16)).save(file, "TIFF")
    tiff = file.getvalue()
    entry = struct.pack("<HHI", 258, 3, 1)  # BitsPerSample, one SHORT
    assert tiff.count(entry + struct.pack("<H", 16)) == 1
    return tiff.replace(entry + struct.pack("<H", 16), entry + struct.pack("<H", 12))


def test_every_process_gets_enough_images():
    assert [workers.count_jobs(4, n_items) for n_items in (1000, 600, 100)] == [3, 2, 0]


def test_open_images_and_what_is_none_come_out_of_processes_as_they_do_here(several_processes, tmp_path):
    turned, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x112] = 6
    Image.fromarray(data.astronaut()[:90, :60]).save(turned, exif=exif)
    cut = turned.read_bytes()[:-500]

    def items():
        closed = Image.open(turned)
        closed.close()
        opened = [Image.open(io.BytesIO(one)) for one in (turned.read_bytes(), twelve_bits(), cut)]
        return [*opened, Image.open(turned), closed, threading.Lock(), io.BytesIO(cut), None]

    here = FeatureExtractor(layer="stem").embed(items())
    there = FeatureExtractor(layer="stem", n_jobs=2).embed(items())
    np.testing.assert_array_equal(there.features, here.features)
    assert there.failures == here.failures
    assert [failure.index for failure in here.failures] == [2, 4, 5, 6, 7]


def test_a_sequence_that_has_no_slices_is_shared(several_processes):
    class Images(Sequence):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            if i.__index__() >= 8:
                raise IndexError
            return np.full((8, 8), 30 * i, np.uint8)

    assert FeatureExtractor(layer="stem", n_jobs=2).transform(Images()).shape == (8, 16)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_extractors_that_read_together_share_processes(several_processes, backend):
    X = featx.samples.load_fashion_mnist("test")[0][:8]
    views = [FeatureExtractor(layer="stem"), FeatureExtractor(layer="stem", crop="whole", l2_normalize=True)]
    with joblib.parallel_config(backend, n_jobs=2), warnings.catch_warnings():
        warnings.simplefilter("error")
        together = extractor.embed_together(views, [*X, b""])
    for view, embedded in zip(views, together, strict=True):
        np.testing.assert_array_equal(embedded.features[:8], view.transform(X))
        assert [failure.index for failure in embedded.failures] == [8]


def test_a_failure_in_a_process_cancels_the_rest_in_silence(several_processes, recwarn):
    X = featx.samples.load_fashion_mnist("test")[0][:200]
    with pytest.raises(featx.ImageError, match="item 0"):
        FeatureExtractor(layer="stem", n_jobs=2, batch_size=1).transform([b"", *X])
    assert not recwarn.list


@pytest.mark.heavy
def test_processes_share_the_images_and_nothing_else_changes(tmp_path):
    X, _ = featx.samples.load_fashion_mnist("test")
    items = [*X[:300], b"", *X[:299], b"x", *X[300:]]
    here = FeatureExtractor(layer="stem", on_error="nan")
    shared = FeatureExtractor(layer="stem", on_error="nan", n_jobs=2, n_threads=2)
    profile = Profile()
    want, got = here.embed(items), shared.embed(items, events=profile)
    np.testing.assert_array_equal(got.features, want.features)
    assert got.failures == want.failures
    assert [failure.index for failure in got.failures] == [300, 600]
    assert profile.n_images == len(items)
    with pytest.raises(featx.ImageError, match="item 300"):
        shared.set_params(on_error="raise").transform(items)


def test_n_jobs_follows_joblib_and_spares_few_images_a_process(monkeypatch):
    X, _ = featx.samples.load_fashion_mnist("test")
    asked = []
    real = joblib.Parallel
    monkeypatch.setattr(joblib, "Parallel", lambda n, **rest: asked.append(n) or real(n, **rest))
    few = FeatureExtractor(layer="stem", n_jobs=4).transform(X[:300])
    assert asked == []
    with joblib.parallel_config("threading", n_jobs=3):
        np.testing.assert_array_equal(FeatureExtractor(layer="stem").transform([*X[:300], *X[:300]])[300:], few)
    assert asked == [2]
    for wrong in (0, 1.5, True, "2"):
        with pytest.raises(featx.InputError, match="n_jobs"):
            FeatureExtractor(n_jobs=wrong).transform(X[:1])


def test_threads_take_their_share_inside_a_worker():
    def threads():
        return workers.count_threads(None)

    cores = joblib.cpu_count()
    assert threads() == cores
    assert workers.count_threads(7) == 7
    with joblib.parallel_config("threading"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(threads)() for _ in range(2)) == [1, 1]
    with joblib.parallel_config("loky"):
        inside = joblib.Parallel(n_jobs=2)(joblib.delayed(_threads_in_worker)() for _ in range(2))
    assert inside == [max(1, cores // 2)] * 2


def _threads_in_worker():
    return workers.count_threads(None)
