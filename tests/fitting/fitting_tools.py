"""Images, labels and events that the tests of fitting share."""

import numpy as np

from featx._events import Events
from featx.samples import load_fashion_mnist

ALL, LABELS = load_fashion_mnist("test")
CLASSES = ("bag", "coat", "sandal")
CHOSEN = [i for name in CLASSES for i in np.flatnonzero(name == LABELS)[:9]]
X, Y = [ALL[i] for i in CHOSEN], LABELS[CHOSEN]
NUMBERS = np.array([float(len(x)) for x in X])


class Heard(Events):
    """Keep the events."""

    def __init__(self):
        self.notes, self.tasks, self.count = [], {}, 0

    def note(self, text):
        self.notes.append(text)

    def begin(self, task, total, done=0, *, unit="image"):
        self.tasks[task] = [total, 0]
        self.task = task

    def advance(self, n=1, *, n_failed=0, n_bytes=0):
        self.tasks[self.task][1] += n
