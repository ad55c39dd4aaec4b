"""Write the section of a page that compares its inputs with those of the fit, by the model's guard."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx._text import show_html
from featx.errors import InputError
from featx.guard import MIN_SET_IMAGES, OUTLIER_LEVEL, SHIFT_LEVEL, Guard
from featx.page.answers import Answers
from featx.page.contents import Contents
from featx.page.thumbnails import GALLERY_SIDE

__all__ = ["mark_risks", "write_doubt"]

_RISKS = (0.01, 0.02, 0.05, 0.1)
_MAX_SHOWN = 24


@dataclass(frozen=True, eq=False)
class _Doubt:
    """The sentences of the section, the p-value of each input, and the outliers, the smallest p-value first."""

    sentences: list[str]
    outlier: npt.NDArray[np.float64]
    rows: list[int]


def mark_risks(
    guard: Guard | None, confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> list[tuple[float, float, str]]:
    """Return share, accuracy and title for each bound of the error that the guard can promise."""
    marks = []
    for risk in _RISKS:
        if guard is None or guard.risk is None:
            break
        with suppress(InputError):  # too few images for this bound
            answered = confidence.astype(np.float32) >= guard.threshold(risk)
            if answered.any():
                share, accuracy = float(answered.mean()), float(right[answered].mean())
                marks.append((share, accuracy, f"risk {risk:g}: {100 * share:.1f} % answered, accuracy {accuracy:.3f}"))
    return marks


def _measure_doubt(answers: Answers) -> _Doubt | None:
    """Compare the inputs with those of the fit; return None without a guard, or for the inputs of the fit itself."""
    if answers.guard is None or answers.guarded is None or answers.is_fit:
        return None
    given = answers.probabilities if answers.classes is not None else answers.predicted.astype(float)
    checked = answers.guard.check_set(answers.guarded, given)
    n, noun = len(checked.outlier), answers.noun
    rows = np.flatnonzero(checked.outlier < OUTLIER_LEVEL)
    rows = rows[np.argsort(checked.outlier[rows], kind="stable")]
    sentences = [
        f"{len(rows)} of {n} {noun}s are outliers: among {noun}s like those of the fit, fewer than "
        f"{100 * OUTLIER_LEVEL:g} % are as far away."
    ]
    if n < MIN_SET_IMAGES:
        sentences.append(f"{n} {noun}s are too few to compare as a set.")
    elif checked.p_value < SHIFT_LEVEL:
        sentences.append(f"As a set, they differ from those of the fit (p {checked.p_value:.2g}).")
    else:
        sentences.append(f"As a set, they look like those of the fit (p {checked.p_value:.2g}).")
    if checked.accuracy is not None:
        sentences.append(f"The guard expects an accuracy of {checked.accuracy:.3f} without their labels.")
    return _Doubt(sentences, checked.outlier, rows[:_MAX_SHOWN].tolist())


def write_doubt(answers: Answers, contents: Contents) -> str:
    """Return the comparison of the inputs with those of the fit, and the inputs with the smallest p-values."""
    doubt = _measure_doubt(answers)
    if doubt is None:
        return ""
    items = []
    for row, preview in zip(doubt.rows, contents.preview(doubt.rows, GALLERY_SIDE), strict=True):
        caption = show_html(f"p {doubt.outlier[row]:.2g}: {answers.describe(row)}")
        items.append(f'<li title="{show_html(answers.names[row])}">{preview}<div>{caption}</div></li>')
    kind = "gallery" if contents.is_image or not contents.is_shown else "gallery wide"
    gallery = f'<ul class="{kind}" id="outliers">{"".join(items)}</ul>' if items else ""
    return f"<h2>Unlike the {answers.noun}s of the fit</h2><p>{show_html(' '.join(doubt.sentences))}</p>{gallery}"
