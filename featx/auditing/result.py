"""Hold the result of `featx.audit`: findings with a severity, and leaks of the label."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx._files import write_whole
from featx._results import format_html, make_frame, to_plain
from featx._text import printable
from featx._validation import check_choice
from featx.errors import Failure
from featx.writers import write

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SEVERITIES", "Audit", "Finding", "Leak", "grade"]

#: Severities, from the worst to the mildest.
SEVERITIES = ("severe", "warning", "note")
#: Largest number of findings in the summary.
_MAX_LISTED = 12
#: Largest number of findings in a notebook.
_MAX_ROWS = 20


@dataclass(frozen=True)
class Finding:
    """A fault of an image, of several images, or of the whole set.

    Parameters
    ----------
    check : {"files", "labels", "leaks", "model"}
        Check that found it.
    kind : str
        Kind of fault, such as ``"near-duplicate"`` or ``"wrong label"``.
    severity : {"severe", "warning", "note"}
        Severity of the fault.
    images : tuple of str
        Names of the images; look at the first image first. Empty for a fault of the whole set.
    evidence : str
        The measurement that shows the fault.
    suggestion : str
        The next step.
    score : float
        Order within the kind; the finding with the highest score is the surest.
    label : str or None, default=None
        Label of the first image.
    proposed : str or None, default=None
        Label that is more probable.

    See Also
    --------
    featx.audit : Makes it; its example shows one.
    """

    check: str
    kind: str
    severity: str
    images: tuple[str, ...]
    evidence: str
    suggestion: str
    score: float = 0.0
    label: str | None = None
    proposed: str | None = None


@dataclass(frozen=True)
class Leak:
    """The accuracy of predicting the label without the subject of the image.

    Parameters
    ----------
    source : str
        Information that the label is predicted from: ``"container"`` (the file), ``"looks"``, ``"background"`` or
        ``"name"``.
    accuracy : float
        Cross-validated accuracy.
    majority : float
        Accuracy of always answering the largest class.
    head : float
        Accuracy of a head on the features, on the same images.
    share : float
        Share of the head's gain over the majority that is reached: (accuracy - majority) / (head - majority).
    severity : str or None
        Severity; None if it is not a finding.
    n_images : int
        Number of images that it was measured on.

    See Also
    --------
    featx.audit : Makes it; its example shows one.
    """

    source: str
    accuracy: float
    majority: float
    head: float
    share: float
    severity: str | None
    n_images: int


@dataclass(frozen=True, repr=False, eq=False)
class Audit:
    """The result of `featx.audit`.

    Parameters
    ----------
    where : str
        The source.
    n_images : int
        Number of images of the source.
    n_test : int or None
        Number of images of the test source; None without a test source.
    classes : tuple of str or None
        Names of the classes; None without labels, or if the labels are numbers.
    accuracy : float or None
        Accuracy of a head on left-out images; None if it was not estimated.
    findings : tuple of Finding
        Findings, the severe findings first.
    leaks : tuple of Leak
        Leaks of the label.
    failures : tuple of Failure
        Images that could not be read.
    notes : tuple of str
        Checks that were not made, and why.
    contents : str
        With a model, the contents of its file from the training images.
    membership : featx.auditing.Membership or None
        With a model, the result of a membership inference attack. The most exposed images are findings.
    page : str
        The report, one HTML file.

    See Also
    --------
    featx.audit : Makes it; its example shows one.
    """

    where: str
    n_images: int
    n_test: int | None
    classes: tuple[str, ...] | None
    accuracy: float | None
    findings: tuple[Finding, ...]
    leaks: tuple[Leak, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    contents: str = ""
    membership: Any = None
    page: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each severity."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def fails(self, severity: str = "severe") -> bool:
        """Return True if a finding has at least this severity; raise InputError for an unknown severity."""
        check_choice("severity", severity, SEVERITIES)
        return any(self.counts[worse] for worse in SEVERITIES[: SEVERITIES.index(severity) + 1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as an HTML file, completely or not at all."""
        with write_whole(path) as scratch:
            scratch.write_text(self.page, encoding="utf-8")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the findings (`to_columns`) as a table with one row per finding, in the format of the suffix."""
        write(path, self.to_columns())

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the findings as columns of a table.

        Returns
        -------
        dict of str to list
            ``image`` (empty for the whole set), ``kind``, ``severity``, ``evidence``, ``suggestion``, ``others`` (more
            images, separated by `` | ``), ``label``, ``proposed`` and ``check``.
        """
        rows = self.findings
        return {
            "image": [row.images[0] if row.images else "" for row in rows],
            **{name: [getattr(row, name) for row in rows] for name in ("kind", "severity", "evidence", "suggestion")},
            "others": [" | ".join(row.images[1:]) for row in rows],
            "label": [row.label or "" for row in rows],
            "proposed": [row.proposed or "" for row in rows],
            "check": [row.check for row in rows],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return `to_columns` as a pandas DataFrame."""
        return make_frame(self.to_columns())

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the page as dicts, lists, strings and numbers."""
        names = ("where", "n_images", "n_test", "classes", "accuracy", "counts", "findings", "leaks", "failures")
        return {name: to_plain(getattr(self, name)) for name in (*names, "notes", "contents", "membership")}

    def describe_counts(self) -> str:
        """Return the number of findings of each severity as words."""
        nouns = zip(self.counts.values(), ("severe finding", "warning", "note"), strict=True)
        return ", ".join(f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in nouns)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {severity}" for severity, n in self.counts.items())
        return f"Audit({self.n_images} images: {counts})"

    def __str__(self) -> str:
        test = "" if self.n_test is None else f", {self.n_test} of the test set"
        lines = [f"{printable(self.where)}: {self.n_images} images{test}"]
        lines.append(self.describe_counts())
        if self.leaks:
            lines += ["", f"{'label told from':16}  accuracy  majority   head  share of the head's gain"]
            lines += [
                f"{leak.source:16}  {leak.accuracy:8.3f}  {leak.majority:8.3f}  {leak.head:5.3f}  {leak.share:.2f}"
                f"{f'  {leak.severity}' if leak.severity else ''}"
                for leak in self.leaks
            ]
        kinds = Counter((finding.severity, finding.kind) for finding in self.findings)
        if kinds:
            lines.append("")
            for severity, kind in sorted(kinds, key=lambda key: (SEVERITIES.index(key[0]), -kinds[key])):
                lines.append(f"{severity:8}  {kinds[severity, kind]:5}  {kind}")
        bad = [finding for finding in self.findings if finding.severity == "severe"]
        if bad:
            lines.append("")
            lines += [f"severe: {_describe(finding)}" for finding in bad[:_MAX_LISTED]]
            lines += [f"and {len(bad) - _MAX_LISTED} more severe findings"] if len(bad) > _MAX_LISTED else []
        for text in (self.contents, "" if self.membership is None else str(self.membership)):
            lines += ["", text] if text else []
        lines += [f"note: {text}" for text in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        leaks = [
            {"label told from": leak.source, "accuracy": leak.accuracy, "majority": leak.majority, "head": leak.head}
            for leak in self.leaks
        ]
        names = ("severity", "kind", "image", "evidence", "suggestion")
        rows: list[Mapping[str, Any]] = [
            {**dict.fromkeys(names), "severity": one.severity, "kind": one.kind, "evidence": one.evidence}
            | {"image": " = ".join(one.images[:2]), "suggestion": one.suggestion}
            for one in self.findings[:_MAX_ROWS]
        ]
        counts = ", ".join(f"{n} {severity}" for severity, n in self.counts.items())
        title = f"Audit of {self.n_images} images: {counts}"
        shown = format_html(title, rows, self.notes) if rows else f"<p><b>{html.escape(title)}</b></p>"
        return shown + (format_html("Can the label be told without looking?", leaks) if leaks else "")


def _describe(finding: Finding) -> str:
    names = " = ".join(map(printable, finding.images[:3]))
    more = f" and {len(finding.images) - 3} more" if len(finding.images) > 3 else ""
    return f"{finding.kind}{f' {names}{more}' if names else ''}: {printable(finding.evidence)}"


def grade(share: float, bounds: tuple[float, float]) -> str:
    """Return the severity of a share, with the bounds of a warning and of a severe finding.

    Examples
    --------
    >>> from featx.auditing.result import grade
    >>> grade(0.2, (0.3, 0.5)), grade(0.6, (0.3, 0.5))
    ('note', 'severe')
    """
    return "severe" if share >= bounds[1] else "warning" if share >= bounds[0] else "note"
