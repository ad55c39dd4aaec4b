import itertools
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

import featx
from featx.backbones import open_backbone, tap
from featx.extractor import FeatureExtractor
from featx.images.decode import Deferred
from featx.images.preprocess import Preprocess
from featx.inference import engine
from featx.inference.cached import CachedEngine
from featx.inference.engine import Options, View
from featx.inference.timing import Profile
from featx.session import Session

X = featx.samples.load_fashion_mnist("test")[0][:40]
BACKBONE = open_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def stage1():
    return Session(tap(BACKBONE, "stage1", "avg", False), "cpu")


def run(items, session, batch_size=4, n_threads=2):
    return CachedEngine([View(session, BACKBONE.preprocess, 24)], Options(batch_size, n_threads)).run(items)


def run_card(card, items, batch_size, n_threads=1, events=None):
    return CachedEngine([View(card, PREPROCESS, 3)], Options(batch_size, n_threads), events=events).run(items)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(1, 1), (3, 2), (7, 5), (100, 2)])
def test_every_item_comes_out_once_and_in_order(stage1, batch_size, n_threads):
    rows = np.concatenate([batch.features for batch in run(X, stage1, batch_size, n_threads)])
    alone = np.concatenate([next(run([x], stage1)).features for x in X])
    np.testing.assert_array_equal(rows, alone)


def test_a_last_batch_that_is_not_full_is_not_lost(stage1):
    assert [len(batch.features) for batch in run(X[:9], stage1, 4)] == [4, 4, 1]


def test_failures_keep_their_place(stage1):
    items = [X[0], b"", X[1], b"text", b"", X[2]]
    batches = list(run(items, stage1, 2))
    rows = np.concatenate([batch.features for batch in batches])
    assert [failure.index for batch in batches for failure in batch.failures] == [1, 3, 4]
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False, True, True, False]
    np.testing.assert_array_equal(rows[[0, 2, 5]], np.concatenate([b.features for b in run(X[:3], stage1)]))


def test_an_endless_stream_is_read_ahead_by_a_bounded_number(stage1):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield X[i % len(X)]

    batches = run(endless(), stage1, batch_size=4, n_threads=2)
    for _ in range(5):
        next(batches)
    assert len(taken) <= 4 * (5 + 2 * 2)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("featx-worker")]


def test_iter_embed_with_batches_of_one_answers_before_it_asks_for_more():
    log = []

    def stream():
        for i, x in enumerate(X[:4]):
            log.append(f"asked {i}")
            yield x

    for i, _ in enumerate(FeatureExtractor(layer="stage1", batch_size=1).iter_embed(stream())):
        log.append(f"answered {i}")
    assert log == [f"{what} {i}" for i in range(4) for what in ("asked", "answered")]


def test_iter_embed_checks_its_parameters_at_once():
    with pytest.raises(featx.InputError, match="batch_size=0"):
        FeatureExtractor(batch_size=0).iter_embed([])


def test_iter_embed_hands_out_failures_in_their_place():
    answers = list(FeatureExtractor(layer="stage1").iter_embed([X[0], b"", "nowhere.jpg"]))
    assert answers[0].shape == (24,)
    assert answers[1] == featx.Failure(1, "<bytes>", "no bytes at all; the file or download is empty")
    assert answers[2].source == "nowhere.jpg"


def test_embed_batch_is_transform_in_the_callers_thread(monkeypatch):
    extractor = FeatureExtractor(layer="stage1", batch_size=4, device="cpu")
    expected = extractor.transform(X[:3])
    monkeypatch.setattr(engine, "ThreadPoolExecutor", None)
    answers = extractor.embed_batch([X[0], b"", *X[1:3]])
    assert answers.pop(1) == featx.Failure(1, "<bytes>", "no bytes at all; the file or download is empty")
    assert np.array_equal(answers, expected)
    assert extractor.embed_batch([]) == []
    assert [type(answer) for answer in extractor.embed_batch([b"", b"x"])] == [featx.Failure] * 2
    with pytest.raises(featx.InputError, match="5 images: expected at most one batch, batch_size=4"):
        extractor.embed_batch(X[:5])


def test_an_error_in_the_source_reaches_the_caller(stage1):
    def broken():
        yield X[0]
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        list(run(broken(), stage1))


def test_a_programming_error_is_no_bad_image(stage1, monkeypatch):
    monkeypatch.setattr(engine, "to_canvas", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(run(X, stage1))


def test_raise_stops_early_instead_of_reading_the_rest():
    class Paths(list):
        n_taken = 0

        def __getitem__(self, i):
            Paths.n_taken += 1
            return super().__getitem__(i)

    items = Paths([b""] + X * 50)
    with pytest.raises(featx.ImageError, match="item 0"):
        FeatureExtractor(layer="stage1", batch_size=4).transform(items)
    assert 0 < Paths.n_taken < 100


def test_a_call_that_raises_leaves_no_thread_behind():
    with pytest.raises(featx.ImageError) as caught:  # which keeps the frames, and what they hold, alive
        FeatureExtractor(layer="stage1", batch_size=2).transform([b"", *X])
    assert caught.value.failure.index == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("featx-worker")]


def test_an_abandoned_stream_may_be_collected_in_a_worker_of_another(stage1):
    def abandon():
        answers = FeatureExtractor(layer="stage1", batch_size=1, n_threads=1).iter_embed(iter(X))
        next(answers)
        return answers

    class Trap(bytes):
        def __len__(self):  # asked for by the decoder, in a worker
            held.clear()
            return super().__len__()

    held = [abandon()]
    assert len(list(run([Trap(X[0])], stage1))) == 1
    assert not held


class Card:
    """A session on a GPU, with memory for a number of images at once."""

    device, fixed_shape, n_lanes = "cuda:0", True, 6

    def __init__(self, room):
        self.room, self.shapes = room, []

    def run(self, pixels, stop=None):
        self.shapes.append(len(pixels))
        if len(pixels) > self.room:
            raise featx.OutOfMemoryError("onnxruntime failed on cuda:0: Failed to allocate memory")
        return pixels[:, :, 0, 0].astype(np.float32)


IMAGES = [np.full((30, 40, 3), level, np.uint8) for level in (1, 2, 3, 4)]
PREPROCESS = Preprocess(8, 8, 9, "bilinear", (0, 0, 0), (1, 1, 1))


def test_elsewhere_than_on_the_cpu_every_run_has_one_shape():
    card = Card(room=100)
    rows = list(run_card(card, IMAGES[:3] * 3, 4))
    assert card.shapes == [4, 4, 4]
    assert [len(batch.features) for batch in rows] == [4, 4, 1]
    assert np.concatenate([batch.features for batch in rows])[:, 0].tolist() == [1, 2, 3] * 3


def test_for_a_card_several_threads_decode_one_batch():
    both = threading.Barrier(2, timeout=30)

    class Meeting(Deferred):  # is read only while another one is, too
        def fetch(self):
            both.wait()
            return X[0]

    card = Card(room=100)
    items = [Meeting() if i in (0, 4) else image for i, image in enumerate(IMAGES * 2)]
    items[2] = items[7] = b"no image"
    (batch,) = run_card(card, items, 8, n_threads=2)
    assert card.shapes == [8]
    assert [failure.index for failure in batch.failures] == [2, 7]
    assert np.isnan(batch.features).all(axis=1).tolist() == [i in (2, 7) for i in range(8)]
    assert batch.features[[1, 3, 5, 6], 0].tolist() == [2, 4, 2, 3]


def test_a_batch_that_does_not_fit_goes_in_halves_with_a_warning():
    card = Card(room=3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        batches = list(run_card(card, IMAGES * 4, 8))
    assert np.concatenate([batch.features for batch in batches])[:, 0].tolist() == [1, 2, 3, 4] * 4
    assert card.shapes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [str(warning.message).partition("; ")[2] for warning in warned] == [
        "continuing with batches of 4",
        "continuing with batches of 2",
    ]


def test_an_image_that_does_not_fit_alone_raises():
    with (
        pytest.warns(UserWarning, match="continuing with batches of 1"),
        pytest.raises(featx.OutOfMemoryError, match="Failed to allocate"),
    ):
        list(run_card(Card(room=0), IMAGES[:2], 2))


def test_a_profile_counts_every_step_and_image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    profile = Profile()
    list(run_card(Card(9), [path] * 5, 2, n_threads=2, events=profile))
    assert profile.n_images == 5
    assert all(profile.seconds[name] > 0 for name in ("read", "decode", "resize", "inference", "wait"))
    lines = str(profile).splitlines()
    assert [line.split()[0] for line in lines] == ["step", "read", "decode", "resize", "inference", "wait", "write"]
