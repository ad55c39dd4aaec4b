"""An image that takes too long is a failure, and the rest goes on."""

import threading
import time

import numpy as np
import pytest

import featx
from featx import dataset
from featx.errors import DecodingStuckError, Failure, UnreadableError
from featx.inference import engine, time_limit
from featx.inference.time_limit import TimeLimit, count_abandoned
from featx.samples import load_fashion_mnist

IMAGES, _ = load_fashion_mnist("test")
SLOW = IMAGES[3]


@pytest.fixture
def gate(monkeypatch):
    """Hold back the decoding of one image until the test is over."""
    opened = threading.Event()
    real = engine.decode

    def decode(content, shortest=None):
        if content == SLOW:
            assert opened.wait(30)
        return real(content, shortest)

    monkeypatch.setattr(engine, "decode", decode)
    yield opened
    opened.set()
    deadline = time.monotonic() + 10
    while count_abandoned():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def extractor():
    return featx.FeatureExtractor(layer="stem", device="cpu", n_threads=2, batch_size=4)


def test_results_and_errors_come_through():
    with TimeLimit(30) as limit:
        assert limit.run(sum, [1, 2]) == 3
        with pytest.raises(ZeroDivisionError):
            limit.run(lambda: 1 / 0)
        assert limit.run(threading.current_thread) is limit.run(threading.current_thread)
    with TimeLimit(None) as limit:
        assert limit.run(threading.current_thread) is threading.current_thread()


def test_a_stream_goes_on_past_an_image_that_takes_too_long(gate, extractor):
    results = list(extractor.iter_embed(iter(IMAGES[:8]), image_timeout=0.2))
    assert [isinstance(result, Failure) for result in results] == [False] * 3 + [True] + [False] * 4
    assert results[3].reason.startswith("not decoded within image_timeout=0.2 seconds")
    assert count_abandoned() == 1
    np.testing.assert_array_equal(results[0], extractor.transform(IMAGES[:1])[0])


def test_a_job_writes_the_reason_and_ends(gate, extractor, tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(IMAGES[i])
    done = dataset.embed(tmp_path / "*.png", tmp_path / "vectors", extractor, image_timeout=0.2)
    assert (done.n_images, done.n_failed) == (8, 1)
    (bad,) = dataset.open(tmp_path / "vectors").failures()
    assert (bad.index, "image_timeout=0.2" in bad.reason) == (3, True)


def test_too_many_such_images_end_the_run(gate, extractor, monkeypatch):
    monkeypatch.setattr(time_limit, "MAX_ABANDONED", 2)
    with pytest.raises(DecodingStuckError, match="images are still being decoded"):
        list(extractor.iter_embed([SLOW] * 8, image_timeout=0.05))


def test_no_thread_is_left(extractor):
    before = threading.active_count()
    list(extractor.iter_embed(IMAGES[:8], image_timeout=30))
    assert len(extractor.embed_batch(IMAGES[:4], image_timeout=30)) == 4
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("seconds", [0, -1, "1", True])
def test_what_is_no_time(extractor, seconds):
    with pytest.raises(featx.InputError, match="expected a positive number of seconds"):
        extractor.embed_batch(IMAGES[:1], image_timeout=seconds)


def test_an_abandoned_function_may_raise():
    with TimeLimit(0.05) as limit, pytest.raises(UnreadableError):
        limit.run(lambda: (time.sleep(0.2), 1 / 0))
