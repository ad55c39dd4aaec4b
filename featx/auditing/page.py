"""Build the page of an audit, with the template of the report pages."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

from featx._results import format_metric
from featx.auditing.result import SEVERITIES, Audit, Finding
from featx.errors import UnreadableError
from featx.images.decode import decode
from featx.images.thumbnails import make_thumbnail, to_jpeg
from featx.page.template import fill_template

__all__ = ["build_page"]

#: Largest number of cards per kind of finding, and of rows in the table of the other findings.
_MAX_CARDS, _MAX_ROWS = 12, 200
_MAX_IMAGES = 2
_SIDE = 288
_escape = html.escape
_MEANINGS = {
    "severe": "Do not trust the score until this is fixed.",
    "warning": "Check this: it costs accuracy, or hides a fault.",
    "note": "Good to know.",
}


def build_page(
    audit: Audit, title: str, items: Mapping[str, Any], images: bool, facts: Sequence[tuple[str, str]]
) -> str:
    """Return the HTML of an audit; ``items`` maps names to images; ``images=False`` shows no image."""
    findings = [one for one in audit.findings if one.images]
    shown = _choose(findings) if images else []
    thumbnails = _make_thumbnails(
        {name: items[name] for one in shown for name in one.images[:_MAX_IMAGES] if name in items}
    )
    sections = [_write_headline(audit, title), _write_leaks(audit), _write_whole(audit)]
    for severity in SEVERITIES:
        own = sorted((one for one in findings if one.severity == severity), key=lambda one: one.kind)
        if own:
            sections.append(
                f'<h2 id="{severity}">{severity.capitalize()}</h2><p class="soft">{_MEANINGS[severity]}</p>'
            )
        for kind, group in groupby(own, key=lambda one: one.kind):
            sections.append(_write_kind(kind, sorted(group, key=lambda one: -one.score), thumbnails, images))
    sections.append(_write_model(audit))
    sections.append(_write_facts(audit, facts, images))
    return fill_template(title, sections)


def _choose(findings: Sequence[Finding]) -> list[Finding]:
    """Return the first findings of each severity and kind, which become cards."""
    ordered = sorted(findings, key=lambda one: (one.severity, one.kind, -one.score))
    groups = groupby(ordered, key=lambda one: (one.severity, one.kind))
    return [one for _, group in groups for one in list(group)[:_MAX_CARDS]]


def _write_headline(audit: Audit, title: str) -> str:
    test = "" if audit.n_test is None else f" and {audit.n_test} test images"
    lead = f"{audit.n_images} images{test}: {audit.describe_counts()}."
    lines = [f"<h1>{_escape(title)}</h1>", f'<p class="lead">{lead}</p>']
    if audit.accuracy is not None and audit.classes is not None:
        lines.append(
            f'<p class="soft">A head on the features recognises {len(audit.classes)} classes on left-out images: '
            f"accuracy {format_metric(audit.accuracy)}.</p>"
        )
    if not audit.findings:
        lines.append("<p>Nothing was found.</p>")
    return "\n".join(lines)


def _write_leaks(audit: Audit) -> str:
    if not audit.leaks:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_escape(leak.source)}</th><td>{leak.accuracy:.3f}</td><td>{leak.majority:.3f}</td>'
        f"<td>{leak.head:.3f}</td><td>{leak.share:.0%}</td><td>{leak.severity or 'none'}</td></tr>"
        for leak in audit.leaks
    )
    heads = ("told from", "accuracy", "largest class", "head", "share of its gain", "grade")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        "<h2>Can the label be told without looking?</h2>"
        "<p>Each row is cross-validated. A head on the features gains accuracy over always answering the largest "
        "class: the share is the part of this gain that is reached.</p>"
        + _scroll(f'<table class="whole"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>')
    )


def _write_whole(audit: Audit) -> str:
    """Return the findings that are about no single image."""
    found = [one for one in audit.findings if not one.images]
    if not found:
        return ""
    rows = "".join(
        f"<li><b>{one.severity}: {_escape(one.kind)}.</b> {_escape(one.evidence)}. "
        f'<span class="soft">{_escape(_capitalize(one.suggestion))}.</span></li>'
        for one in found
    )
    return f"<h2>The set as a whole</h2><ul>{rows}</ul>"


def _write_kind(kind: str, group: Sequence[Finding], thumbnails: Mapping[str, bytes], images: bool) -> str:
    n = len(group)
    parts = [f"<h3>{_escape(kind)}: {n}</h3>", f"<p>{_escape(_capitalize(group[0].suggestion))}.</p>" if n else ""]
    n_cards = _MAX_CARDS if images else 0
    if n_cards:
        cards = "".join(_write_card(one, thumbnails) for one in group[:n_cards])
        parts.append(f'<ul class="cards">{cards}</ul>')
    rest = group[n_cards : n_cards + _MAX_ROWS]
    if rest:
        rows = "".join(
            f'<tr><th scope="row">{_escape(" = ".join(one.images[:_MAX_IMAGES]))}</th>'
            f'<th scope="row">{_escape(one.evidence)}</th></tr>'
            for one in rest
        )
        more = n - n_cards - len(rest)
        note = f"<p>and {more} more, which are in the table of findings</p>" if more > 0 else ""
        parts.append(
            f"<details{'' if images else ' open'}><summary>{len(rest)} {'more' if images else 'images'}</summary>"
            f"{_scroll(f'<table><tbody>{rows}</tbody></table>')}{note}</details>"
        )
    return "".join(parts)


def _write_card(finding: Finding, thumbnails: Mapping[str, bytes]) -> str:
    figures = []
    for name in finding.images[:_MAX_IMAGES]:
        content = thumbnails.get(name)
        uri = "" if content is None else f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        drawn = f'<img src="{uri}" alt="">' if uri else ""
        figures.append(f'<figure>{drawn}<figcaption class="name">{_escape(_last(name))}</figcaption></figure>')
    more = len(finding.images) - _MAX_IMAGES
    also = f" and {more} more images" if more > 0 else ""
    body = f'<div class="pair">{"".join(figures)}</div><div>{_escape(finding.evidence)}{also}</div>'
    return f'<li class="card" title="{_escape(finding.images[0])}">{body}</li>'


def _write_model(audit: Audit) -> str:
    """Return the section on training data that the model reveals."""
    lines = [audit.contents] if audit.contents else []
    lines += [str(audit.membership)] if audit.membership is not None else []
    if not lines:
        return ""
    return "<h2>Training data that the model reveals</h2>" + "".join(f"<pre>{_escape(line)}</pre>" for line in lines)


def _write_facts(audit: Audit, facts: Sequence[tuple[str, str]], images: bool) -> str:
    rows = "".join(f'<tr><th scope="row">{_escape(a)}</th><th scope="row">{_escape(b)}</th></tr>' for a, b in facts)
    notes = "".join(f"<li>{_escape(text)}</li>" for text in audit.notes)
    privacy = (
        "Images are in this file: share it as you would share them."
        if images
        else "No image is in this file; their names are."
    )
    left = f"<p>Not checked, or checked only in part:</p><ul>{notes}</ul>" if notes else ""
    return f'<h2>How this was made</h2><table><tbody>{rows}</tbody></table>{left}<p class="soft">{privacy}</p>'


def _make_thumbnails(items: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a JPEG for each image that can be read."""

    def make(item: Any) -> bytes | None:
        try:
            return to_jpeg(make_thumbnail(decode(item), _SIDE))
        except UnreadableError:
            return None

    with ThreadPoolExecutor() as pool:
        made = zip(items, pool.map(make, items.values()), strict=True)
        return {name: content for name, content in made if content is not None}


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _scroll(table: str) -> str:
    """Return a table in a frame that scrolls, by keyboard as well."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="table">{table}</div>'


def _last(name: str) -> str:
    return "/".join(name.replace("\\", "/").split("/")[-2:])
