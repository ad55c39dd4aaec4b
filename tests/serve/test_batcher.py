"""Requests share batches: no item is lost or doubled, and none waits for a batch to fill."""

import threading
from concurrent.futures import CancelledError

import pytest

from featx.serve.batcher import Batcher, _QueueFullError


class Gate:
    """A function that waits until the gate is opened, and remembers every batch."""

    def __init__(self):
        self.open, self.busy, self.batches = threading.Event(), threading.Semaphore(0), []

    def __call__(self, items):
        self.batches.append(list(items))
        self.busy.release()
        assert self.open.wait(30)
        return [-item for item in items]


@pytest.fixture
def gated():
    """Two workers, each blocked by one item."""
    gate = Gate()
    batcher = Batcher(gate, n_workers=2, batch_size=8, max_waiting=40)
    first = batcher.submit([1, 2])
    for _ in range(2):
        assert gate.busy.acquire(timeout=30)
    yield batcher, gate, first
    gate.open.set()
    batcher.close()


def test_whoever_comes_first_is_not_kept_waiting_for_a_batch(gated):
    _, gate, _ = gated
    assert sorted(gate.batches) == [[1], [2]]


def test_batches_grow_with_what_waits_and_keep_the_order(gated):
    batcher, gate, first = gated
    futures = batcher.submit(list(range(10, 40)))
    gate.open.set()
    assert [future.result(30) for future in first + futures] == [-1, -2, *(-i for i in range(10, 40))]
    later = gate.batches[2:]
    assert max(map(len, later)) == 8
    assert [item for batch in sorted(later) for item in batch] == list(range(10, 40))


def test_a_full_queue_takes_all_or_none(gated):
    batcher, gate, _ = gated
    kept = batcher.submit(range(38))
    with pytest.raises(_QueueFullError) as full:
        batcher.submit(range(3))
    assert full.value.waiting == batcher.waiting == 38
    kept += batcher.submit(range(2))
    gate.open.set()
    assert sum(future.result(30) for future in kept) == -sum(range(38)) - 1


def test_what_nobody_waits_for_is_not_computed_and_makes_room(gated):
    batcher, gate, _ = gated
    given_up = batcher.submit(range(100, 140))
    assert all(future.cancel() for future in given_up[1:])
    futures = batcher.submit(range(39))
    gate.open.set()
    assert [future.result(30) for future in futures] == [-i for i in range(39)]
    assert given_up[0].result(30) == -100
    assert not {*range(101, 140)} & {item for batch in gate.batches for item in batch}
    with pytest.raises(CancelledError):
        given_up[1].result()


def test_an_error_reaches_everybody_in_the_batch_and_the_worker_goes_on():
    def answer(items):
        return [1 / item for item in items]

    batcher = Batcher(answer, n_workers=1, batch_size=4, max_waiting=10)
    try:
        with pytest.raises(ZeroDivisionError):
            batcher.submit([0])[0].result(30)
        assert batcher.submit([4])[0].result(30) == 0.25
    finally:
        batcher.close()


def test_the_end_answers_what_waits():
    gate, sizes = Gate(), []
    batcher = Batcher(gate, n_workers=1, batch_size=4, max_waiting=100, on_batch=sizes.append)
    futures = batcher.submit(range(50))
    assert gate.busy.acquire(timeout=30)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.open.set()
    closing.join(30)
    assert [future.result(0) for future in futures] == [-i for i in range(50)]
    assert sizes == [len(batch) for batch in gate.batches]
    assert sum(sizes) == 50


def test_many_threads_hand_in_at_once():
    batcher = Batcher(lambda items: [item * 2 for item in items], n_workers=3, batch_size=8, max_waiting=10_000)
    wrong = []

    def client(n):
        for i in range(200):
            items = [n * 1000 + i, i]
            if [future.result(30) for future in batcher.submit(items)] != [item * 2 for item in items]:
                wrong.append(items)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batcher.close()
    assert wrong == []
