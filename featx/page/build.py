"""Build the page: one HTML file that needs no network, no library and no script."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._results import format_metric
from featx._text import show_html as _escape
from featx.page.answers import Answers
from featx.page.cards import shorten, write_cards
from featx.page.charts import draw_coverage, draw_reliability, draw_scatter, measure_coverage, measure_reliability
from featx.page.contents import Contents, make_contents
from featx.page.doubt import mark_risks, write_doubt
from featx.page.duplicates import Compared, Pair, write_duplicates
from featx.page.layout import lay_out
from featx.page.template import fill_template
from featx.page.thumbnails import GALLERY_SIDE, make_thumbnails, to_uri

__all__ = ["build_page"]

_MAX_GALLERY = 1000
_MAX_TABLE_CLASSES = 40
_MAP_SIDE = 28
_MAP_WIDTH, _MAP_HEIGHT, _MAX_MAP_IMAGES = 900, 620, 150


def build_page(
    answers: Answers, title: str, pairs: Sequence[Pair] | None, images: bool, events: Events | None = None
) -> str:
    """Return the HTML of a page.

    ``pairs`` are near-duplicates in the training data, or None without training data. ``images=False`` leaves out every
    image, text and row; their names stay.
    """
    contents = make_contents(answers.model, answers.names, answers.items, images)
    compared = Compared.of(answers.model, _list_titles(contents), answers.items, answers.features, answers.guarded)
    if answers.numbers is not None:
        sections = [
            _write_headline(answers, title),
            _write_several(answers),
            *_write_scatters(answers, contents),
            write_duplicates(compared, answers.noun, pairs),
            _write_facts(answers, images),
        ]
        return fill_template(title, sections)
    sections = [
        _write_headline(answers, title),
        _write_several(answers),
        _write_confusion(answers) if answers.classes is not None else _write_scatter(answers, contents),
        *write_cards(answers, contents, events),
        *([] if answers.classes is None else _write_certainty(answers)),
        write_doubt(answers, contents),
        _write_map(answers, contents),
        write_duplicates(compared, answers.noun, pairs),
        _write_gallery(answers, contents),
        _write_facts(answers, images),
    ]
    return fill_template(title, sections)


def _write_headline(answers: Answers, title: str) -> str:
    (metric, value), *others = answers.metrics.items()
    interval = (
        "" if answers.low is None else f" (95 % interval {format_metric(answers.low)} to {format_metric(answers.high)})"
    )
    lines = [f"<h1>{_escape(title)}</h1>"]
    n, noun = len(answers.true), answers.noun
    if answers.classes is not None:
        n_right = int(answers.right.sum())
        lines.append(
            f'<p class="lead">{n_right} of {n} {noun}s are right: {metric} {format_metric(value)}{interval}.</p>'
        )
    else:
        lines.append(f'<p class="lead">{n} {noun}s: {metric} {format_metric(value)}{interval}.</p>')
    lines.append(f'<p class="soft">{_escape(answers.how)}</p>')
    cells = "".join(
        f'<tr><th scope="row">{_escape(name)}</th><td>{format_metric(number)}</td></tr>' for name, number in others
    )
    return "\n".join([*lines, f"<table><tbody>{cells}</tbody></table>"])


def _write_confusion(answers: Answers) -> str:
    """Return the confusion matrix, or the most frequent confusions of many classes."""
    assert answers.classes is not None
    counts: dict[tuple[str, str], int] = {}
    for pair in zip(answers.true.tolist(), answers.predicted.tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    head = '<h2 id="confusion-title">Confusion</h2>'
    used = [label for label in answers.classes if any(label in pair for pair in counts)]
    if len(used) > _MAX_TABLE_CLASSES:
        wrong = sorted(((n, pair) for pair, n in counts.items() if pair[0] != pair[1]), reverse=True)[
            :_MAX_TABLE_CLASSES
        ]
        rows = "".join(
            f'<tr><th scope="row">{_escape(t)}</th><td>{_escape(p)}</td>{_count_cell(t, p, n, answers.noun)}</tr>'
            for n, (t, p) in wrong
        )
        note = f"<p>The most frequent confusions among {len(used)} classes.</p>"
        columns = (
            '<thead><tr><th scope="col">true</th><th scope="col">predicted</th>'
            f'<th scope="col">{answers.noun}s</th></tr></thead>'
        )
        return f'{head}{note}<div class="scroll"><table id="confusion">{columns}<tbody>{rows}</tbody></table></div>'
    columns = "".join(f'<th scope="col">{_escape(label)}</th>' for label in used)
    body = "".join(
        f'<tr><th scope="row">{_escape(t)}</th>'
        + "".join(_count_cell(t, p, counts.get((t, p), 0), answers.noun) for p in used)
        + "</tr>"
        for t in used
    )
    return (
        f'{head}<p>Rows are true classes, columns are predicted classes. <span class="screen">A number shows its '
        f'{answers.noun}s below.</span></p><div class="scroll">'
        '<table id="confusion" aria-labelledby="confusion-title"><thead><tr>'
        f"<td></td>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _count_cell(true: str, predicted: str, n: int, noun: str) -> str:
    if n == 0:
        return '<td class="none">0</td>'
    kind = "right" if true == predicted else "wrong"
    title = f"{n} {noun}s of {true}, predicted {predicted}"
    names = f'data-true="{_escape(true)}" data-predicted="{_escape(predicted)}"'
    return f'<td class="{kind}" title="{_escape(title)}" {names}>{n}</td>'


def _write_scatter(answers: Answers, contents: Contents) -> str:
    chart = draw_scatter(answers.true.astype(float), answers.predicted.astype(float), _list_titles(contents))
    return f'<h2>Predicted against true</h2><div class="charts"><div>{chart}</div></div>'


def _write_several(answers: Answers) -> str:
    """Return the table of several labels or numbers; an empty string for a single target."""
    if answers.several is None:
        return ""
    columns = list(next(iter(answers.several.values())))
    heads = [f"{answers.noun}s" if column == "support" else column.replace("_", " ") for column in columns]
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = []
    for name, row in answers.several.items():
        cells = [str(value) if isinstance(value, int) else format_metric(value) for value in row.values()]
        body.append(f'<tr><th scope="row">{_escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    title = "Numbers" if answers.numbers is not None else "Labels"
    return (
        f'<h2>{title}</h2><div class="scroll"><table id="several"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _list_titles(contents: Contents) -> list[str]:
    return [contents.title(row) for row in range(len(contents.names))]


def _write_scatters(answers: Answers, contents: Contents) -> Iterator[str]:
    """Yield a chart for each of several numbers."""
    assert answers.numbers is not None
    assert answers.several is not None
    yield "<h2>Predicted against true</h2>"
    titles = _list_titles(contents)
    for name, true, predicted in zip(answers.several, answers.numbers[0].T, answers.numbers[1].T, strict=True):
        chart = draw_scatter(true.astype(float), predicted.astype(float), titles)
        yield f'<h3>{_escape(name)}</h3><div class="charts"><div>{chart}</div></div>'


def _write_certainty(answers: Answers) -> Iterator[str]:
    sure = answers.confidence
    if sure is None or len(sure) < 2:
        return
    measured = measure_reliability(sure, answers.right)
    share, accuracy, threshold = measure_coverage(sure, answers.right)
    marks = mark_risks(answers.guard, sure, answers.right)
    mark_note = f" Dots are thresholds of the guard: {'; '.join(title for *_, title in marks)}." if marks else ""
    rows = []
    for wanted in (0.5, 0.8, 0.9, 0.95, 1.0):
        i = min(int(np.searchsorted(share, wanted - 1e-12)), len(share) - 1)
        rows.append(f"<tr><td>{share[i]:.3f}</td><td>{accuracy[i]:.3f}</td><td>{threshold[i]:.3f}</td></tr>")
    heads = (f"{answers.noun}s answered", "accuracy", "lowest probability")
    table = f"<table><thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in heads)}</tr></thead>"
    yield (
        "<h2>How sure is it, and is it right?</h2>"
        f"<p>Expected calibration error {measured.error:.3f}, in {len(measured.counts)} bins of equal mass. "
        "On the line, the stated probability is the share of right answers. On the right: the accuracy if only the "
        f"surest {answers.noun}s are answered.{mark_note}</p>"
        f'<div class="charts"><div>{draw_reliability(measured, answers.noun)}</div>'
        f"<div>{draw_coverage(share, accuracy, marks, answers.noun)}</div></div>"
        f"{table}<tbody>{''.join(rows)}</tbody></table>"
    )


def _write_map(answers: Answers, contents: Contents) -> str:
    """Return the map on which similar inputs lie together; an empty string without features."""
    layout = None if answers.features is None else lay_out(answers.features)
    if layout is None:
        return ""
    colors = _make_colors(answers)
    places = layout.places * [_MAP_WIDTH - 40, _MAP_HEIGHT - 40] + 20
    is_wrong = ~answers.right if answers.classes is not None else np.zeros(len(answers.true), bool)
    parts = []
    for (x, y), row in zip(places, layout.rows, strict=True):
        title = _escape(answers.describe(int(row), contents.title(int(row))))
        kind = ' class="mistake"' if is_wrong[row] else ""
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{colors(int(row))}"{kind}><title>{title}</title></circle>'
        )
    if contents.is_image:
        parts += _draw_map_images(answers, places, layout.rows, colors)
    sample = "" if len(layout.rows) == len(answers.true) else f" A sample of {len(layout.rows)} {answers.noun}s."
    rings = " Rings and dashed frames mark mistakes." if is_wrong.any() else ""
    return (
        "<h2>Map of the features</h2>"
        f"<p>Similar {answers.noun}s lie together (PCA, then t-SNE; trustworthiness {layout.trustworthiness:.3f} of 1)."
        f" The distance between groups that lie far apart means nothing.{rings}{sample}</p>{_write_legend(answers)}"
        f'<svg viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}" role="img" aria-label="Map of the features">'
        f"{''.join(parts)}</svg>"
    )


def _make_colors(answers: Answers) -> Any:
    """Return a function from a row to its colour: by class, or by value from blue to red."""
    if answers.classes is not None:
        palette = {label: _hue(i / len(answers.classes)) for i, label in enumerate(answers.classes)}
        return lambda row: palette[str(answers.true[row])]
    ranks = np.argsort(np.argsort(answers.true.astype(float))) / max(1, len(answers.true) - 1)
    return lambda row: _hue(0.62 * (1 - float(ranks[row])))


def _hue(share: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(share, 0.5, 0.6)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _write_legend(answers: Answers) -> str:
    if answers.classes is None:
        return '<p class="soft">Blue is the lowest value, red the highest.</p>'
    if len(answers.classes) > _MAX_TABLE_CLASSES:
        return ""
    labels = enumerate(answers.classes)
    items = [
        f'<li><span style="background:{_hue(i / len(answers.classes))}"></span>{_escape(c)}</li>' for i, c in labels
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _draw_map_images(
    answers: Answers, places: npt.NDArray[np.float64], rows: npt.NDArray[np.intp], colors: Any
) -> list[str]:
    """Draw thumbnails of inputs that do not overlap."""
    assert answers.items is not None
    order = np.random.default_rng(0).permutation(len(rows))
    free: list[npt.NDArray[np.float64]] = []
    chosen = []
    for i in order:
        if all(np.abs(places[i] - other).max() > _MAP_SIDE + 6 for other in free):
            free.append(places[i])
            chosen.append(int(i))
        if len(chosen) == _MAX_MAP_IMAGES:
            break
    thumbnails = make_thumbnails([answers.items[int(rows[i])] for i in chosen], _MAP_SIDE * 2)
    parts = []
    for i, content in zip(chosen, thumbnails, strict=True):
        if content is None:
            continue
        x, y = places[i] - _MAP_SIDE / 2
        box = f'x="{x:.0f}" y="{y:.0f}" width="{_MAP_SIDE}" height="{_MAP_SIDE}"'
        title = _escape(answers.describe(int(rows[i]), answers.names[int(rows[i])]))
        ring = "" if answers.classes is None or answers.right[rows[i]] else ' stroke-dasharray="5 3"'
        parts.append(
            f'<g><title>{title}</title><image {box} preserveAspectRatio="xMidYMid slice" href="{to_uri(content)}"/>'
            f'<rect {box} fill="none" stroke="{colors(int(rows[i]))}" stroke-width="2"{ring}/></g>'
        )
    return parts


def _write_gallery(answers: Answers, contents: Contents) -> str:
    """Return all inputs, or all mistakes and a sample of the other inputs."""
    n = len(answers.true)
    rows = np.arange(n)
    if n > _MAX_GALLERY:
        wrong = np.flatnonzero(~answers.right) if answers.classes is not None else np.zeros(0, int)
        wrong = wrong[:_MAX_GALLERY]
        others = np.setdiff1d(rows, wrong)
        sample = np.random.default_rng(0).choice(others, min(len(others), _MAX_GALLERY - len(wrong)), replace=False)
        rows = np.sort(np.concatenate([wrong, sample]))
    items = []
    previews = contents.preview(rows.tolist(), GALLERY_SIDE)
    for row, preview in zip(rows.tolist(), previews, strict=True):
        true, predicted, name = answers.true[row], answers.predicted[row], answers.names[row]
        if answers.classes is None:
            caption, data = f"{float(predicted):.4g}, true {float(true):.4g}", ""
        else:
            is_right = true == predicted
            caption = (
                _escape(str(true))
                if is_right
                else f'<span class="wrong">{_escape(f"{true}: predicted {predicted}")}</span>'
            )
            data = f' data-true="{_escape(str(true))}" data-predicted="{_escape(str(predicted))}"'
        items.append(
            f'<li{data} title="{_escape(name)}">{preview}<div>{caption}</div>'
            f'<div class="name">{_escape(shorten(contents, row))}</div></li>'
        )
    sample_note = "" if len(rows) == n else f" All mistakes and a sample of the others: {len(rows)} of {n}."
    kind = "gallery wide" if contents.is_shown and not contents.is_image else "gallery"
    return (
        f'<h2 id="images">{answers.noun.capitalize()}s</h2>'
        f'<p>{n} {answers.noun}s.{sample_note} <span id="shown" role="status"></span></p>'
        f'<ul class="{kind}" id="gallery">{"".join(items)}</ul>'
    )


def _write_facts(answers: Answers, images: bool) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_escape(name)}</th><th scope="row">{_escape(text)}</th></tr>'
        for name, text in answers.facts
    )
    privacy = (
        f"The {answers.noun}s are in this file: share it as you would share them."
        if images
        else f"No {answers.noun} is in this file; their names are."
    )
    return f'<h2>How this was made</h2><table><tbody>{rows}</tbody></table><p class="soft">{privacy}</p>'
