"""Measure how well a label can be predicted without the subject of the image; find groups that straddle a split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from featx._events import Events
from featx._results import format_metric
from featx._validation import is_missing
from featx.auditing.inspection import Inspected
from featx.auditing.result import Finding, Leak, grade
from featx.images.statistics import Measured
from featx.selection.folds import make_folds
from featx.selection.target import label_text
from featx.similarity import Groups

__all__ = [
    "check_groups",
    "check_own_groups",
    "describe_container",
    "describe_leak",
    "describe_name",
    "find_bursts",
    "make_leak",
    "measure_leak",
]

Floats = npt.NDArray[np.float64]

#: Largest number of images for a forest: its accuracy is then known to 1.5 points.
_MAX_ROWS = 1000
_N_TREES = 40
#: Share of the head's gain from which on a leak is a warning, and from which on it is severe. Brightness may be the
#: class itself, the subject often reaches beyond the middle of an image, and a network sees no names: these weigh less.
_BOUNDS = {"container": (0.33, 0.5), "looks": (0.33, 0.95), "background": (0.6, 0.95), "name": (0.33, np.inf)}
_ADVICE = {
    "container": "the files of the classes were made in different ways: save all images in the same way, in one "
    "size, format and quality, and remove EXIF and colour profiles",
    "looks": "the classes differ in brightness, colour or border: check whether they were taken under different "
    "conditions, and add images that break the rule",
    "background": "the surroundings reveal the class: add images of each class with other backgrounds, or crop to "
    "the subject",
    "name": "the names of the files reveal the class: the images of the classes come from different series; keep a "
    "series on one side of each split (the parameter groups of featx.fit)",
}
#: A gain of fewer standard errors above the majority is only a note.
_MIN_ERRORS = 3.0
_N_TOKENS = 16
#: Largest number of seconds between two exposures of a burst.
_MAX_BURST_SECONDS = 2
#: Smallest number of groups by prefix, and largest share of the images in one group.
_MIN_PREFIXES, _MAX_PREFIX_SHARE = 5, 0.2
_MAX_LISTED = 20


def measure_leak(
    source: str,
    columns: Floats,
    codes: npt.NDArray[np.intp],
    groups: npt.NDArray[np.int_] | None,
    head_is_right: npt.NDArray[np.bool_],
    events: Events,
) -> Leak:
    """Cross-validate a small forest on numbers that do not show the subject, with near-duplicates on one side.

    ``head_is_right`` marks the images whose label was predicted correctly by a head that was fitted without them.
    """
    rows = _sample(codes)
    X, y = np.nan_to_num(columns[rows], nan=-1.0), codes[rows]
    folds, _ = make_folds("classification", y, None if groups is None else groups[rows])
    right = np.zeros(len(rows), bool)
    events.begin(source, len(folds), unit="fold")
    try:
        for fit, out in folds:
            forest = RandomForestClassifier(_N_TREES, min_samples_leaf=2, random_state=0)
            right[out] = forest.fit(X[fit], y[fit]).predict(X[out]) == y[out]
            events.advance()
    finally:
        events.end()
    return make_leak(source, right, y, head_is_right[rows])


def make_leak(
    source: str, right: npt.NDArray[np.bool_], codes: npt.NDArray[np.intp], head_is_right: npt.NDArray[np.bool_]
) -> Leak:
    """Return a leak with a grade by its share of the head's gain over the majority."""
    majority = float(np.bincount(codes).max() / len(codes))
    accuracy, head = float(right.mean()), float(head_is_right.mean())
    gain = accuracy - majority
    # if the head is no better than the majority, any gain would count as a leak
    share = gain / max(head - majority, 0.1 * (1 - majority), 1e-9)
    error = float(np.sqrt(max(majority * (1 - majority), 1e-9) / len(codes)))
    severity = grade(share, _BOUNDS[source]) if gain > 0 else None
    if severity is not None and gain < _MIN_ERRORS * error:
        severity = "note" if gain > error else None
    return Leak(source, accuracy, majority, head, share, severity, len(codes))


def describe_leak(leak: Leak) -> Finding | None:
    """Return the finding on a leak; None if its gain is small."""
    if leak.severity is None or (leak.severity == "note" and leak.share < 0.1):
        return None
    cue = {
        "container": "the file without its pixels (bytes, size, quantisation tables, EXIF)",
        "looks": "brightness, contrast, colour, sharpness and border",
        "background": "the image with its middle hidden",
        "name": "the file name without its folder",
    }[leak.source]
    evidence = (
        f"accuracy {format_metric(leak.accuracy)} from {cue}, on {leak.n_images} images; the largest class has "
        f"{format_metric(leak.majority)}, a head on the features {format_metric(leak.head)}: {leak.share:.0%} of its "
        "gain"
    )
    kind = f"label told by {leak.source}"
    return Finding("leaks", kind, leak.severity, (), evidence, _ADVICE[leak.source], leak.share)


def _sample(codes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return all rows, or a sample in which each class of at least two images has two."""
    rows = np.random.default_rng(0).permutation(len(codes))[:_MAX_ROWS]
    counts = np.bincount(codes[rows], minlength=int(codes.max()) + 1)
    return np.sort(rows[counts[codes[rows]] > 1])


def describe_container(one: Measured | None) -> list[float]:
    """Return the numbers of a container that a forest predicts labels from."""
    if one is None or one.container is None:
        return [-1.0] * 14
    c = one.container
    tables = (*c.tables, 0, 0)[:2]
    kinds = (hash_text(c.format), hash_text(c.mode), c.table_digest % 9973, hash_text(c.camera))
    sizes = (c.n_bytes, c.n_bytes / (c.width * c.height), c.width, c.height, c.width / c.height)
    return [*map(float, (*sizes, *tables, *kinds, c.n_exif, c.n_icc, c.is_progressive))]


def hash_text(text: str) -> int:
    """Return a small hash of a text, which is the same in every process."""
    return int.from_bytes(text.encode()[:64], "big") % 9973


def describe_name(name: str, classes: Sequence[str]) -> list[float]:
    """Return the numbers of a file name without its folders and without words of the classes."""
    words, numbers = split_name(name, classes)
    bins = [0.0] * _N_TOKENS
    for word in words:
        bins[hash_text(word) % _N_TOKENS] += 1
    first, last = (numbers[0], numbers[-1]) if numbers else (-1, -1)
    return [float(min(first, 10**12)), float(min(last, 10**12)), len(numbers), len(words), *bins]


def split_name(name: str, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split a file name into words, without words of a class, and numbers.

    Examples
    --------
    >>> from featx.auditing.leaks import split_name
    >>> split_name("train/cats/cat_IMG_0012.jpg", ["cats", "dogs"])
    (['img'], [12])
    """
    stem = re.split(r"[/\\]", name)[-1].rsplit(".", 1)[0].lower()
    known = {str(label).lower() for label in classes}
    words = re.findall(r"[^\W\d_]+", stem)
    words = [word for word in words if not any(word in label or label in word for label in known)]
    return words, [int(digits) for digits in re.findall(r"\d+", stem)]


def find_bursts(measured: Sequence[Measured | None]) -> npt.NDArray[np.int_]:
    """Return the group of each image by camera and time: exposures within two seconds are one burst."""
    groups = Groups(len(measured))
    by_camera: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for i, one in enumerate(measured):
        if one is not None and one.container is not None and one.container.taken:
            try:
                moment = datetime.strptime(one.container.taken[:19], "%Y:%m:%d %H:%M:%S")
            except ValueError:
                continue
            by_camera[one.container.camera].append(((moment - datetime(1970, 1, 1)).total_seconds(), i))
    for moments in by_camera.values():
        for (before, i), (after, j) in pairwise(sorted(moments)):
            if after - before <= _MAX_BURST_SECONDS:
                groups.join([i], [j])
    return groups.numbers()


def check_groups(train: Inspected, test: Inspected | None) -> list[Finding]:
    """Find groups of images that belong together and straddle the split, or would straddle a random split."""
    images = [*train.names, *([] if test is None else test.names)]
    measured = [*(train.measured or [None] * len(train))]
    measured += [] if test is None else [*(test.measured or [None] * len(test))]
    findings = []
    cameras = [one.container.camera if one is not None and one.container is not None else "" for one in measured]
    for kind, groups, advice in (
        ("burst", find_bursts(measured), "keep the images of a burst on one side"),
        ("series by name", _group_by_prefix(images), "if a series is one patient or object, keep it on one side"),
        ("camera", _group_by_text(cameras), "expect a lower score with another camera; test with a new camera"),
    ):
        finding = _describe_groups(kind, groups, advice, images, len(train), test is not None)
        if finding is not None:
            findings.append(finding)
    return findings


def check_own_groups(name: str, groups: npt.NDArray[np.str_], train: Inspected, test: Inspected) -> list[Finding]:
    """Find groups that straddle the split, by a column that the test images have as well."""
    column = test.inputs.columns[name]
    texts = [*groups[train.positions].tolist()]
    texts += ["" if is_missing(column[i]) else label_text(column[i]) for i in test.positions.tolist()]
    found = _describe_groups(
        f"group of column {name!r}",
        _group_by_text(texts),
        "keep the images of a group on one side",
        [*train.names, *test.names],
        len(train),
        has_test=True,
    )
    return [] if found is None else [found]


def _group_by_prefix(names: Sequence[str]) -> npt.NDArray[np.int_]:
    """Group names by the part before their last number, as in patient12_003."""
    prefixes = []
    for name in names:
        stem = re.split(r"[/\\]", name)[-1].rsplit(".", 1)[0]
        match = re.fullmatch(r"(.*\d.*[\W_a-zA-Z])\d+\D*", stem)
        prefixes.append(match[1].lower() if match else "")
    counts = Counter(prefixes)
    counts.pop("", None)
    repeated = {prefix: n for prefix, n in counts.items() if n > 1}
    if len(repeated) < _MIN_PREFIXES or max(repeated.values()) > _MAX_PREFIX_SHARE * len(names):
        return np.arange(len(names))
    return _group_by_text([prefix if prefix in repeated else "" for prefix in prefixes])


def _group_by_text(texts: Sequence[str]) -> npt.NDArray[np.int_]:
    """Group equal texts; each empty text is a group of its own."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(text or i, len(numbers)) for i, text in enumerate(texts)], int)


def _describe_groups(
    kind: str, groups: npt.NDArray[np.int_], advice: str, names: Sequence[str], n_train: int, has_test: bool
) -> Finding | None:
    counts = np.bincount(groups) if len(groups) else np.zeros(0, int)
    shared = counts > 1
    if not shared.any():
        return None
    n_groups, n_images = int(shared.sum()), int(counts[shared].sum())
    if not has_test:
        if kind == "camera":
            return None
        rows = np.flatnonzero(shared[groups])[:_MAX_LISTED].tolist()
        evidence = f"{n_images} of {len(names)} images are in {n_groups} groups"
        return Finding("leaks", f"group: {kind}", "note", tuple(names[i] for i in rows), evidence, advice, n_images)
    in_train = np.bincount(groups[:n_train], minlength=len(counts)) > 0
    straddling = np.flatnonzero(in_train[groups[n_train:]]) + n_train
    if not len(straddling):
        return None
    n_test = len(names) - n_train
    share = len(straddling) / n_test
    evidence = f"{len(straddling)} of {n_test} test images are in a group with training images"
    is_sure = kind not in ("camera", "series by name")  # a prefix of names may mean anything
    severity = "note" if kind == "camera" else "severe" if is_sure and share >= 0.01 else "warning"
    images = tuple(names[i] for i in straddling[:_MAX_LISTED].tolist())
    return Finding("leaks", f"{kind} straddles the split", severity, images, evidence, advice, share)
