import threading
import time

from featx.images.budget import PixelBudget


def test_threads_never_hold_more_than_the_budget_together():
    budget, most, lock, held = PixelBudget(100), [0], threading.Lock(), [0]

    def work(n):
        for _ in range(20):
            with budget.hold():
                budget.take(n)
                with lock:
                    held[0] += n
                    most[0] = max(most[0], held[0])
                time.sleep(0.0005)
                with lock:
                    held[0] -= n

    threads = [threading.Thread(target=work, args=(n,)) for n in (30, 40, 60, 90, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 60 <= most[0] <= 100
    assert budget.n_taken == 0


def test_an_image_beyond_the_budget_passes_alone():
    budget = PixelBudget(100)
    with budget.hold():
        budget.take(1000)
        assert budget.n_taken == 1000
    assert budget.n_taken == 0


def test_nested_calls_give_back_at_the_end_of_the_outermost_and_a_second_image_replaces_the_first():
    budget = PixelBudget(100)
    with budget.hold():
        with budget.hold():
            budget.take(80)
        assert budget.n_taken == 80
        with budget.hold():
            budget.take(90)
        assert budget.n_taken == 90
    assert budget.n_taken == 0
