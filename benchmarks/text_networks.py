"""Train a convolutional and a recurrent text classifier from scratch, on the folds of `benchmarks/text.py`.

    python benchmarks/text_networks.py DIR [--network cnn rnn] [--folds 10]

The networks that a frozen encoder replaces: the CNN of Kim (2014, "CNN-rand": random word vectors, filters of 3, 4
and 5 words, maximum over time) and a bidirectional LSTM with the maximum over time. Both are tuned on the first draw
and the first fold: every row of `SETTINGS` is trained on nine tenths of the sentences to fit, and the row with the
best accuracy on the other tenth is taken for all draws and folds. The number of epochs is chosen in each fit by the
same tenth, so that no test sentence chooses anything.

DIR holds rt-polarity.pos.txt and rt-polarity.neg.txt. It needs PyTorch (extra `tune`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from text import read
from torch import nn
from torch.nn.functional import cross_entropy, relu

#: Width of the word vectors, learning rate, dropout, least number of sentences that a word stands in.
SETTINGS = [
    (300, 1e-3, 0.5, 1),
    (300, 1e-3, 0.7, 2),
    (128, 1e-3, 0.5, 1),
    (128, 3e-3, 0.5, 2),
]
#: Words of a sentence that a network reads; the longest sentences have 59.
MAX_WORDS = 60
EPOCHS = 12
BATCH_SIZE = 50


class Convolutional(nn.Module):
    """Classify by the maximum over time of filters over 3, 4 and 5 words."""

    def __init__(self, n_words: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_words, width, padding_idx=0)
        self.filters = nn.ModuleList(nn.Conv1d(width, 100, size, padding=size - 1) for size in (3, 4, 5))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(300, 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, shape (n_sentences, 2)."""
        words = self.embedding(ids).transpose(1, 2)
        return self.head(torch.cat([relu(one(words)).amax(2) for one in self.filters], 1))


class Recurrent(nn.Module):
    """Classify by the maximum over time of a bidirectional LSTM."""

    def __init__(self, n_words: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_words, width, padding_idx=0)
        self.drop = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, 100, batch_first=True, bidirectional=True)
        self.head = nn.Linear(200, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, shape (n_sentences, 2)."""
        lengths = (ids != 0).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.drop(self.embedding(ids)), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-1e9)
        return self.head(self.drop(states.amax(1)))


NETWORKS = {"cnn": Convolutional, "rnn": Recurrent}


def encode(texts: list[str], words: dict[str, int]) -> np.ndarray:
    """Return the numbers of the words, 0 behind the end and 1 for an unknown word."""
    ids = np.zeros((len(texts), MAX_WORDS), np.int64)
    for row, text in zip(ids, texts, strict=True):
        numbers = [words.get(word, 1) for word in text.split()[:MAX_WORDS]]
        row[: len(numbers)] = numbers
    return ids


def list_words(texts: list[str], least: int) -> dict[str, int]:
    """Return a number for each word that stands in at least so many of the texts."""
    counts = Counter(word for text in texts for word in set(text.split()))
    return {word: i for i, word in enumerate((word for word, n in counts.items() if n >= least), start=2)}


def batches(ids: torch.Tensor, rng: np.random.Generator | None = None) -> Iterator[torch.Tensor]:
    """Yield the rows of each batch, cut to its longest sentence; in random order with a generator."""
    order = np.arange(len(ids)) if rng is None else rng.permutation(len(ids))
    for start in range(0, len(order), BATCH_SIZE):
        yield torch.from_numpy(order[start : start + BATCH_SIZE])


def cut(ids: torch.Tensor) -> torch.Tensor:
    """Drop the columns behind the longest sentence; the filters need five words."""
    return ids[:, : max(5, int((ids != 0).sum(1).max()))]


def predict(network: nn.Module, ids: torch.Tensor) -> np.ndarray:
    """Return the class of each row."""
    network.eval()
    with torch.no_grad():
        return np.concatenate([network(cut(ids[rows])).argmax(1).numpy() for rows in batches(ids)])


def train(
    kind: str, setting: tuple[int, float, float, int], texts: list[str], y: np.ndarray, seed: int
) -> tuple[float, nn.Module, dict[str, int]]:
    """Train on nine tenths; return the best accuracy on the other tenth, the network of that epoch and its words."""
    width, rate, dropout, least = setting
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    held, fit = order[: len(y) // 10], order[len(y) // 10 :]
    words = list_words([texts[i] for i in fit], least)
    ids, target = torch.from_numpy(encode(texts, words)), torch.from_numpy(y)
    network = NETWORKS[kind](len(words) + 2, width, dropout)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=1e-5)
    best, state = -1.0, {}
    for _ in range(EPOCHS):
        network.train()
        for rows in batches(ids[fit], rng):
            optimizer.zero_grad()
            cross_entropy(network(cut(ids[fit][rows])), target[fit][rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 3.0)
            optimizer.step()
        accuracy = float((predict(network, ids[held]) == y[held]).mean())
        if accuracy > best:
            best, state = accuracy, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return best, network, words


def measure(kind: str, texts: list[str], y: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the test accuracy of each split, with the setting that the first split chooses."""
    fit = splits[0][0]
    own = [texts[i] for i in fit]
    setting = max(SETTINGS, key=lambda one: train(kind, one, own, y[fit], seed=0)[0])
    found = []
    for seed, (fit, test) in enumerate(splits):
        _, network, words = train(kind, setting, [texts[i] for i in fit], y[fit], seed)
        ids = torch.from_numpy(encode([texts[i] for i in test], words))
        found.append(float((predict(network, ids) == y[test]).mean()))
    print(f"{kind}: width, rate, dropout, least count {setting}", flush=True)
    return found


def main() -> int:
    """Print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--draws", type=int, default=5, help="draws of 500 sentences (default: 5)")
    parser.add_argument("--folds", type=int, default=10, help="folds of all sentences that are run (default: 10)")
    options = parser.parse_args()
    texts, y = read(options.folder)
    draws = [np.random.default_rng(draw).permutation(len(y)) for draw in range(options.draws)]
    few = [(order[:500], order[500:3500]) for order in draws]
    folds = list(StratifiedKFold(10, shuffle=True, random_state=0).split(texts, y))[: options.folds]
    for kind in options.network:
        for name, splits in (("500 to fit, 3,000 to test", few), ("all, 10-fold", folds)):
            if not splits:
                continue
            start = time.process_time()
            values = measure(kind, texts, y, splits)
            print(
                f"{name}, {len(values)} runs: {kind} {np.mean(values):.3f} +- {np.std(values):.3f}, "
                f"{time.process_time() - start:.0f} s of processor time",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
