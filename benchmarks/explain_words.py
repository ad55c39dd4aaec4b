"""Measure whether the words of an explanation are those that an answer relies on, beside other orders of words.

    python benchmarks/explain_words.py SENTENCES [--texts 80]

SENTENCES holds rt-polarity.pos.txt and rt-polarity.neg.txt, 10,662 sentences of film reviews. The text encoder
minilm_l6 must be on this machine (featx backbones make text:minilm_l6). Its head is fitted on 2,000 sentences, and the
words of other sentences are left out in an order: deletion leaves out the strongest words first, insertion begins
with no words and adds the strongest first. The figure is the mean probability of the prediction on the way, over the
first half of the words. The exit status is 1 if the explained order does not beat random words by 0.05 in both.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import featx
from featx.fitting.texts import make_text_extractor

N_FIT, STEPS = 2000, 5


def read(folder):
    """Return the sentences in a random order, and 1 for the good reviews."""
    texts, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        lines = (folder / f"rt-polarity.{name}.txt").read_text("latin-1").strip("\n").split("\n")
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order], np.array(labels)[order]


def keep(text, spans, kept):
    """Return the text with some of its words alone, and with all that lies between words."""
    pieces, end = [], 0
    for i, (start, stop) in enumerate(spans):
        pieces.append(text[end:start])
        pieces.append(text[start:stop] if i in kept else "")
        end = stop
    return " ".join("".join([*pieces, text[end:]]).split())


def walk(model, texts, spans, orders, predicted):
    """Return the mean probability of the prediction while words are left out, and while they are added."""
    deletion, insertion = [], []
    for text, own, order, label in zip(texts, spans, orders, predicted, strict=True):
        ends = np.linspace(0, len(order) / 2, STEPS + 1).round().astype(int)[1:]
        varied = [keep(text, own, set(order[end:])) for end in ends]
        varied += [keep(text, own, set(order[:end])) for end in ends]
        curve = model.predict_proba(varied)[:, label]
        deletion.append(curve[:STEPS].mean())
        insertion.append(curve[STEPS:].mean())
    return float(np.mean(deletion)), float(np.mean(insertion))


def explain_words(model, frame, spans, predicted):
    """Return the order of the words of the encoder by the words of TF-IDF that stand at the same place."""
    found = featx.explain(model, frame)
    orders = []
    for i, own in enumerate(spans):
        detail = found.details[i][0]
        values = np.zeros(len(own))
        for (start, stop), value in zip(detail.spans, detail.words[:, predicted[i]], strict=True):
            for place, (first, last) in enumerate(own):
                if first < stop and start < last:
                    values[place] += value
        orders.append(np.argsort(-values, kind="stable"))
    return orders


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--texts", type=int, default=80)
    options = parser.parse_args()
    texts, y = read(options.sentences)
    extractor = make_text_extractor()
    model = make_pipeline(extractor, featx.make_head()).fit(texts[:N_FIT], y[:N_FIT])
    shuffled = make_pipeline(extractor, featx.make_head())
    shuffled.fit(texts[:N_FIT], np.random.default_rng(1).permutation(y[:N_FIT]))
    new = [text for text in texts[N_FIT : N_FIT + 4 * options.texts] if 8 <= len(text.split()) <= 40][: options.texts]
    started = time.perf_counter()
    found = featx.explain(model, new)
    seconds = time.perf_counter() - started
    spans = [list(details[0].spans) for details in found.details]
    values = [details[0].words[:, label] for details, label in zip(found.details, found.predicted, strict=True)]
    predicted = found.predicted.tolist()
    n_words = sum(map(len, spans))
    print(f"{len(new)} sentences, {n_words} words, {n_words / seconds:.0f} words/s explained")
    parts = [("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), "text")]
    words = make_pipeline(ColumnTransformer(parts), LogisticRegression(C=10, max_iter=1000))
    words.fit(pd.DataFrame({"text": texts[:N_FIT]}), y[:N_FIT])
    rng = np.random.default_rng(2)
    orders = {
        "left out in turn": [np.argsort(-own, kind="stable") for own in values],
        "words of TF-IDF": explain_words(words, pd.DataFrame({"text": new}), spans, predicted),
        "first word first": [np.arange(len(own)) for own in spans],
        "random": [rng.permutation(len(own)) for own in spans],
    }
    figures = {}
    for name, order in orders.items():
        figures[name] = walk(model, new, spans, order, predicted)
        print(f"{name:18} deletion {figures[name][0]:.3f}  insertion {figures[name][1]:.3f}")
    other = featx.explain(shuffled, new)
    theirs = [details[0].words[:, label] for details, label in zip(other.details, predicted, strict=True)]
    same = np.corrcoef(np.concatenate(values), np.concatenate(theirs))[0, 1]
    print(f"correlation with the words of a head that was fitted on shuffled labels: {same:.2f}")
    best, chance = figures["left out in turn"], figures["random"]
    return int(not (best[0] <= chance[0] - 0.05 and best[1] >= chance[1] + 0.05))


if __name__ == "__main__":
    sys.exit(main())
