"""Inputs that the tests of the selection share."""

import numpy as np

from featx.selection.folds import split_rows
from featx.selection.probe import standardize
from featx.selection.target import encode_target


def of_tiny(tiny_backbone, **more):
    return {"backbones": tiny_backbone, "poolings": "avg", "crops": "center", **more}


def margins(n, seed=0):
    """Images that differ in what ``center`` cuts off."""
    rng = np.random.default_rng(seed)
    X = rng.integers(80, 120, (n, 36, 144, 3), dtype=np.uint8)
    y = np.arange(n) % 2
    X[y == 1, :, :24] += 100
    return X, np.array(["without", "with"])[y]


def make_task(kind, n=90, width=7, seed=0):
    rng = np.random.default_rng(seed)
    X = standardize(rng.normal(size=(n, width)).astype(np.float32))
    signal = X @ rng.normal(size=(width, 3)) + rng.normal(size=(n, 3))
    y = {
        "classes": np.array(["ant", "bee", "fly"])[signal.argmax(axis=1)],
        "number": signal[:, 0],
        "numbers": signal * [1, 1000, 1e-6],
        "labels": (signal > 0.3).astype(int),
    }[kind]
    target, rows = encode_target(y)
    return X, target, rows


def split(target, groups, n_folds, seed):
    return split_rows(target.strata, groups, n_folds, seed, stratify=target.has_classes)
