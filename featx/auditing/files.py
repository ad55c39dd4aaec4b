"""Find faults of files: unreadable files, duplicates, unusual files, and images that are blurred, dark or blank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featx._results import format_metric
from featx.auditing.duplicates import Pairs, name_change
from featx.auditing.inspection import Inspected
from featx.auditing.result import Finding
from featx.errors import Failure
from featx.images.statistics import LOOKS
from featx.similarity import Groups

__all__ = ["check_files", "check_pairs", "describe_failures"]

#: If at least this share of the images has a property, the other images are odd ones out.
_USUAL_SHARE = 0.95
#: Sides and aspect ratios beyond these multiples of the median are odd.
_ODD_SIDE, _ODD_ASPECT = 4.0, 2.0
#: Sharpness below which an image is blurred: photos of 500 pixels blurred by a Gaussian of 4 pixels have 0.26 to 0.32,
#: and the photos themselves 0.30 and more. Brightness below which an image is dark; contrast below which it is blank.
_MAX_BLURRED, _MAX_DARK, _MAX_BLANK = 0.28, 0.08, 0.03
#: The frame of a screenshot: rows of the thumbnail at each side, minimum spread of its grey levels, maximum mean
#: difference of two frames, and minimum difference inside them.
_FRAME, _MIN_FRAME_SPREAD, _MAX_FRAME_DIFFERENCE, _MIN_INSIDE_DIFFERENCE = 2, 20.0, 2.0, 12.0
_MIN_FRAMED = 3
_MAX_FRAME_ROWS = 5000
_MAX_LISTED = 100


def describe_failures(failures: Sequence[Failure], where: str = "") -> list[Finding]:
    """Return a finding for each image that could not be read."""
    findings = []
    for failure in failures:
        reason = failure.reason
        is_empty = reason.startswith("no bytes")
        kind = "empty file" if is_empty else "damaged file" if reason.startswith("damaged") else "unreadable file"
        evidence = f"{where}{reason}"
        findings.append(
            Finding("files", kind, "warning", (failure.source,), evidence, "get the file again, or delete it", 1.0)
        )
    return findings


def check_pairs(
    images: Inspected,
    others: Inspected | None,
    pairs: Pairs,
    labels: Sequence[str | None] | None,
    other_labels: Sequence[str | None] | None,
) -> list[Finding]:
    """Return a finding for each pair of duplicates; it is severe across train and test, or with different labels."""
    rest = images if others is None else others
    findings = []
    for i in range(len(pairs)):
        a, b = int(pairs.first[i]), int(pairs.second[i])
        one = None if labels is None else labels[a]
        two = None if other_labels is None else other_labels[b]
        differ = one is not None and two is not None and one != two
        across = others is not None
        kind = "duplicate" if pairs.is_exact[i] else "near-duplicate"
        kind += " across train and test" if across else ""
        kind += " with another label" if differ else ""
        evidence = name_change(images, rest, pairs, i)
        if not pairs.is_exact[i]:
            evidence += f"; cosine {format_metric(pairs.cosine[i])}, correlation {format_metric(pairs.correlation[i])}"
        evidence += f"; labels {one} and {two}" if differ else ""
        if differ:
            advice = "look at both images, and correct the wrong label"
        elif across:
            advice = "remove it from one of the sets: it makes the score on the test set too good"
        else:
            advice = "remove one image, or keep both on one side of each split (featx fit does)"
        is_sure = bool(pairs.is_exact[i]) or not pairs.is_alike
        severity = "severe" if (across or differ) and is_sure else "note"
        if severity == "note" and (pairs.is_exact[i] or across or differ):
            severity = "warning"
        score = float(pairs.cosine[i] + pairs.correlation[i]) + 10 * differ
        findings.append(
            Finding("files", kind, severity, (images.names[a], rest.names[b]), evidence, advice, score, one, two)
        )
    return findings


def check_files(images: Inspected) -> list[Finding]:
    """Return the findings on the files and looks of readable images."""
    if images.measured is None:
        return []
    return [*_find_odd(images), *_find_bad_looks(images), *_find_frames(images)]


def _find_odd(images: Inspected) -> list[Finding]:
    """Find images whose format, mode, size or aspect ratio differs from that of nearly all images."""
    assert images.measured is not None
    rows = [i for i, one in enumerate(images.measured) if one is not None and one.container is not None]
    containers = [one.container for one in images.measured if one is not None and one.container is not None]
    if len(rows) < 10:
        return []
    findings = []

    def add(i: int, evidence: str, score: float, advice: str) -> None:
        name = images.names[rows[i]]
        findings.append(Finding("files", "odd one out", "note", (name,), evidence, advice, score))

    for title, values in (("format", [one.format for one in containers]), ("mode", [one.mode for one in containers])):
        usual, n = Counter(values).most_common(1)[0]
        if _USUAL_SHARE <= n / len(values) < 1:
            for i, value in enumerate(values):
                if value != usual:
                    text_of_value = f"{title} {value}; {n} of {len(values)} images have {usual}"
                    add(
                        i,
                        text_of_value,
                        n / len(values),
                        "check where it comes from; convert all images in the same way",
                    )
    sides = np.array([np.sqrt(one.width * one.height) for one in containers], float)
    aspects = np.array([max(one.width, one.height) / min(one.width, one.height) for one in containers], float)
    for values_, bound, title, text in (
        (sides, _ODD_SIDE, "size", "{0.width} x {0.height}; the median side is {1:.0f} pixels"),
        (aspects, _ODD_ASPECT, "aspect", "{0.width} x {0.height}; the median aspect is {1:.2f}"),
    ):
        middle = float(np.median(values_))
        factor = np.maximum(values_ / middle, middle / values_)
        if (odd := np.flatnonzero(factor >= bound)).size <= (1 - _USUAL_SHARE) * len(values_):
            for i in odd.tolist():
                add(i, f"{title} {text.format(containers[i], middle)}", float(factor[i]), "check what it shows")
    return findings


def _find_bad_looks(images: Inspected) -> list[Finding]:
    looks = images.looks
    assert looks is not None
    columns = dict(zip(LOOKS, looks.T, strict=True))
    brightness, contrast, sharpness = (columns[name] for name in ("brightness", "contrast", "sharpness"))
    is_blank = contrast < _MAX_BLANK
    is_dark = (brightness < _MAX_DARK) & ~is_blank
    is_blurred = (sharpness < _MAX_BLURRED) & ~is_blank & ~is_dark
    findings = []
    for kind, severity, marked, values, told, advice in (
        ("blank image", "warning", is_blank, 1 - contrast, "contrast {:.3f}", "leave it out if it shows nothing"),
        ("dark image", "note", is_dark, 1 - brightness, "brightness {:.3f}", "leave it out if nothing can be seen"),
        ("blurred image", "note", is_blurred, 1 - sharpness, "sharpness {:.3f}", "leave it out if it is useless"),
    ):
        for row in np.flatnonzero(marked).tolist():
            evidence = told.format(1 - values[row])
            findings.append(
                Finding("files", kind, severity, (images.names[row],), evidence, advice, float(values[row]))
            )
    return findings


def _find_frames(images: Inspected) -> list[Finding]:
    """Find groups of images with one patterned border and different insides, such as screenshots of one program."""
    thumbnails = images.thumbnails
    assert thumbnails is not None
    inside = np.zeros(thumbnails.shape[1:], bool)
    inside[_FRAME:-_FRAME, _FRAME:-_FRAME] = True
    borders = thumbnails[:, ~inside].astype(np.float32)
    rows = np.flatnonzero(borders.std(axis=1) >= _MIN_FRAME_SPREAD)[:_MAX_FRAME_ROWS]
    groups = Groups(len(rows))
    for i in range(len(rows) - 1):
        later = rows[i + 1 :]
        near = np.abs(borders[later, ::7] - borders[rows[i], ::7]).mean(axis=1) <= 2 * _MAX_FRAME_DIFFERENCE
        if not near.any():
            continue
        candidates = later[near]
        same = np.abs(borders[candidates] - borders[rows[i]]).mean(axis=1) <= _MAX_FRAME_DIFFERENCE
        middles = thumbnails[candidates][:, inside].astype(np.float32)
        differ = np.abs(middles - thumbnails[rows[i]][inside]).mean(axis=1) >= _MIN_INSIDE_DIFFERENCE
        found = np.flatnonzero(near)[same & differ] + i + 1
        groups.join(np.full(len(found), i), found)
    return list(_describe_frames(images, rows, groups.numbers()))


def _describe_frames(images: Inspected, rows: npt.NDArray[np.intp], numbers: npt.NDArray[np.int_]) -> list[Finding]:
    findings = []
    for group in np.flatnonzero(np.bincount(numbers) >= _MIN_FRAMED) if len(numbers) else ():
        names = tuple(images.names[row] for row in rows[numbers == group][:_MAX_LISTED])
        n = int((numbers == group).sum())
        findings.append(
            Finding(
                "files",
                "same frame",
                "warning",
                names,
                f"{n} images have the same border around different insides, such as screenshots of one program",
                "crop the frame away; check that it does not reveal the label",
                float(n),
            )
        )
    return findings
