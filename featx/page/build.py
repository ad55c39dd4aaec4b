"""Build the page: one HTML file that needs no network, no library and no script."""

from __future__ import annotations

import colorsys
import html
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._results import format_metric
from featx.errors import InputError
from featx.explanation import Explanation, explain
from featx.fitting.estimate import sees_content
from featx.images.thumbnails import make_thumbnail
from featx.page.answers import Answers
from featx.page.charts import draw_coverage, draw_reliability, draw_scatter, measure_coverage, measure_reliability
from featx.page.doubt import mark_risks, write_doubt
from featx.page.layout import lay_out
from featx.page.template import fill_template
from featx.page.thumbnails import GALLERY_SIDE, embed_image, make_thumbnails, read_image, to_uri
from featx.similarity import MIN_DUPLICATE_COSINE, NearestRows

__all__ = ["Pair", "build_page"]

#: Name of an image, name of an image that looks the same, and their cosine.
Pair = tuple[str, str, float]

_MAX_CARDS, _MAX_UNSURE, _MAX_PAIRS = 24, 12, 30
_MAX_GALLERY = 1000
_MAX_TABLE_CLASSES = 40
_CARD_SIDE, _MAP_SIDE = 288, 28
_MAP_WIDTH, _MAP_HEIGHT, _MAX_MAP_IMAGES = 900, 620, 150
_escape = html.escape


def build_page(answers: Answers, title: str, pairs: Sequence[Pair] | None, images: bool) -> str:
    """Return the HTML of a page.

    ``pairs`` are near-duplicates in the training images, None if none were given. ``images=False`` leaves out every
    image, also as a heat map.
    """
    shown = images and answers.items is not None
    if answers.numbers is not None:
        sections = [
            _write_headline(answers, title),
            _write_several(answers),
            *_write_scatters(answers),
            _write_duplicates(answers, pairs),
            _write_facts(answers, images),
        ]
        return fill_template(title, sections)
    sections = [
        _write_headline(answers, title),
        _write_several(answers),
        _write_confusion(answers) if answers.classes is not None else _write_scatter(answers),
        *_write_cards(answers, shown),
        *([] if answers.classes is None else _write_certainty(answers)),
        write_doubt(answers, shown),
        _write_map(answers, shown),
        _write_duplicates(answers, pairs),
        _write_gallery(answers, shown),
        _write_facts(answers, images),
    ]
    return fill_template(title, sections)


def _write_headline(answers: Answers, title: str) -> str:
    (metric, value), *others = answers.metrics.items()
    interval = (
        "" if answers.low is None else f" (95 % interval {format_metric(answers.low)} to {format_metric(answers.high)})"
    )
    lines = [f"<h1>{_escape(title)}</h1>"]
    n = len(answers.true)
    if answers.classes is not None:
        n_right = int(answers.right.sum())
        lines.append(
            f'<p class="lead">{n_right} of {n} images are right: {metric} {format_metric(value)}{interval}.</p>'
        )
    else:
        lines.append(f'<p class="lead">{n} images: {metric} {format_metric(value)}{interval}.</p>')
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
            f'<tr><th scope="row">{_escape(t)}</th><td>{_escape(p)}</td>{_count_cell(t, p, n)}</tr>'
            for n, (t, p) in wrong
        )
        note = f"<p>The most frequent of the confusions among {len(used)} classes.</p>"
        columns = (
            '<thead><tr><th scope="col">true</th><th scope="col">predicted</th><th scope="col">images</th></tr></thead>'
        )
        return f'{head}{note}<div class="scroll"><table id="confusion">{columns}<tbody>{rows}</tbody></table></div>'
    columns = "".join(f'<th scope="col">{_escape(label)}</th>' for label in used)
    body = "".join(
        f'<tr><th scope="row">{_escape(t)}</th>'
        + "".join(_count_cell(t, p, counts.get((t, p), 0)) for p in used)
        + "</tr>"
        for t in used
    )
    return (
        f'{head}<p>Rows are true classes, columns predicted ones. <span class="screen">A number shows its images '
        f'below.</span></p><div class="scroll"><table id="confusion" aria-labelledby="confusion-title"><thead><tr>'
        f"<td></td>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _count_cell(true: str, predicted: str, n: int) -> str:
    if n == 0:
        return '<td class="none">0</td>'
    kind = "right" if true == predicted else "wrong"
    title = f"{n} images of {true}, predicted {predicted}"
    names = f'data-true="{_escape(true)}" data-predicted="{_escape(predicted)}"'
    return f'<td class="{kind}" title="{_escape(title)}" {names}>{n}</td>'


def _write_scatter(answers: Answers) -> str:
    chart = draw_scatter(answers.true.astype(float), answers.predicted.astype(float), answers.names)
    return f'<h2>Predicted against true</h2><div class="charts"><div>{chart}</div></div>'


def _write_several(answers: Answers) -> str:
    """Return the table of several labels or numbers; empty for one."""
    if answers.several is None:
        return ""
    columns = list(next(iter(answers.several.values())))
    heads = ["images" if column == "support" else column.replace("_", " ") for column in columns]
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


def _write_scatters(answers: Answers) -> Iterator[str]:
    """Write a chart of each of several numbers."""
    assert answers.numbers is not None
    assert answers.several is not None
    yield "<h2>Predicted against true</h2>"
    for name, true, predicted in zip(answers.several, answers.numbers[0].T, answers.numbers[1].T, strict=True):
        chart = draw_scatter(true.astype(float), predicted.astype(float), answers.names)
        yield f'<h3>{_escape(name)}</h3><div class="charts"><div>{chart}</div></div>'


def _write_cards(answers: Answers, shown: bool) -> Iterator[str]:
    """Write the surest mistakes and the least sure right answers, or the largest residuals."""
    legend = (
        '<p class="soft">Red speaks for the label under the image, blue against it. Hatching covers what the network '
        "did not see. A cell sees more of the image than its square.</p>"
    )
    if answers.classes is None:
        residuals = np.abs(answers.true.astype(float) - answers.predicted.astype(float))
        rows = np.argsort(-residuals, kind="stable")[:_MAX_CARDS]
        yield f"<h2>Largest residuals</h2>{legend if shown else ''}{_Cards(answers, shown).write(rows)}"
        return
    cards = _Cards(answers, shown)
    sure = answers.confidence
    wrong = np.flatnonzero(~answers.right)
    if sure is not None:
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    more = f" The first {_MAX_CARDS} of {len(wrong)} are here." if len(wrong) > _MAX_CARDS else ""
    order = "" if sure is None else ", surest first"
    text = f"<p>{len(wrong)} mistakes{order}.{more}</p>" if len(wrong) else "<p>There are none.</p>"
    text += legend if shown and len(wrong) else ""
    yield f'<h2 id="mistakes">Mistakes</h2>{text}{cards.write(wrong[:_MAX_CARDS])}'
    if sure is not None:
        right = np.flatnonzero(answers.right)
        unsure = right[np.argsort(sure[right], kind="stable")][:_MAX_UNSURE]
        if len(unsure):
            yield f"<h2>Least sure right answers</h2>{cards.write(unsure)}"


class _Cards:
    """Cards of images with heat maps of the given and of the right answer."""

    def __init__(self, answers: Answers, shown: bool) -> None:
        self._answers, self._shown = answers, shown

    def write(self, rows: npt.NDArray[np.intp]) -> str:
        """Return a list of cards."""
        if not len(rows):
            return ""
        explanation = self._explain(rows) if self._shown else None
        cards = "".join(self._write_card(i, int(row), explanation) for i, row in enumerate(rows))
        return f'<ul class="cards">{cards}</ul>'

    def _explain(self, rows: npt.NDArray[np.intp]) -> Explanation | None:
        assert self._answers.items is not None
        if self._answers.several is not None:  # a set of labels has no score of its own
            return None
        try:
            return explain(self._answers.pipeline, [self._answers.items[row] for row in rows])
        except InputError:  # a head without scores
            return None

    def _write_card(self, i: int, row: int, explanation: Explanation | None) -> str:
        answers = self._answers
        true, predicted = answers.true[row], answers.predicted[row]
        figures = []
        if self._shown:
            labels = [predicted] if answers.classes is None or true == predicted else [predicted, true]
            for label in labels:
                drawn = self._draw(i, row, label, explanation)
                figures.append(f"<figure>{drawn}<figcaption>{self._caption(row, label)}</figcaption></figure>")
        else:
            figures.append(f"<div>{self._caption(row, predicted)}</div>")
        if answers.classes is None:
            told = f"true {format_metric(float(true))}"
        else:
            told = f"true {_escape(str(true))}" if true != predicted else "right"
        body = f'<div class="pair">{"".join(figures)}</div><div>{told}</div>'
        return f'<li class="card">{body}<div class="name">{_escape(_last(answers.names[row]))}</div></li>'

    def _draw(self, i: int, row: int, label: Any, explanation: Explanation | None) -> str:
        assert self._answers.items is not None
        alt = f"{self._answers.names[row]}: what speaks for {label}"
        if explanation is None:
            image = read_image(self._answers.items[row])
        else:
            image = explanation.draw(i, None if self._answers.classes is None else label)
        return "" if image is None else embed_image(make_thumbnail(image, _CARD_SIDE), alt)

    def _caption(self, row: int, label: Any) -> str:
        answers = self._answers
        if answers.classes is None:
            return f"predicted {format_metric(float(label))}"
        if answers.probabilities is None:
            return _escape(str(label))
        probability = answers.probabilities[row, list(answers.classes).index(label)]
        return f"{_escape(str(label))} {probability:.3f}"


def _write_certainty(answers: Answers) -> Iterator[str]:
    sure = answers.confidence
    if sure is None or len(sure) < 2:
        return
    measured = measure_reliability(sure, answers.right)
    share, accuracy, threshold = measure_coverage(sure, answers.right)
    marks = mark_risks(answers.guard, sure, answers.right)
    told = f" Dots are thresholds of the guard: {'; '.join(title for *_, title in marks)}." if marks else ""
    rows = []
    for wanted in (0.5, 0.8, 0.9, 0.95, 1.0):
        i = min(int(np.searchsorted(share, wanted - 1e-12)), len(share) - 1)
        rows.append(f"<tr><td>{share[i]:.3f}</td><td>{accuracy[i]:.3f}</td><td>{threshold[i]:.3f}</td></tr>")
    heads = ("images answered", "accuracy", "lowest probability")
    table = f"<table><thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in heads)}</tr></thead>"
    yield (
        "<h2>How sure is it, and is it right?</h2>"
        f"<p>Expected calibration error {measured.error:.3f}, in {len(measured.counts)} bins of equal mass. "
        "On the line, the stated probability is the share of right answers. On the right: the accuracy if only the "
        f"surest images are answered.{told}</p>"
        f'<div class="charts"><div>{draw_reliability(measured)}</div>'
        f"<div>{draw_coverage(share, accuracy, marks)}</div></div>"
        f"{table}<tbody>{''.join(rows)}</tbody></table>"
    )


def _write_map(answers: Answers, shown: bool) -> str:
    """Return the plane on which similar images lie together."""
    layout = lay_out(answers.features)
    if layout is None:
        return ""
    colors = _make_colors(answers)
    places = layout.places * [_MAP_WIDTH - 40, _MAP_HEIGHT - 40] + 20
    is_wrong = ~answers.right if answers.classes is not None else np.zeros(len(answers.true), bool)
    parts = []
    for (x, y), row in zip(places, layout.rows, strict=True):
        told = _escape(answers.describe(int(row)))
        kind = ' class="mistake"' if is_wrong[row] else ""
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="{colors(int(row))}"{kind}><title>{told}</title></circle>'
        )
    if shown:
        parts += _draw_map_images(answers, places, layout.rows, colors)
    sample = "" if len(layout.rows) == len(answers.true) else f" A sample of {len(layout.rows)} images."
    rings = " Rings and dashed frames mark mistakes." if is_wrong.any() else ""
    return (
        "<h2>Map of the features</h2>"
        f"<p>Similar images lie together (PCA, then t-SNE; trustworthiness {layout.trustworthiness:.3f} of 1). The "
        f"distance between groups that lie far apart means nothing.{rings}{sample}</p>{_write_legend(answers)}"
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
    """Draw thumbnails where there is room for them."""
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
        told = _escape(answers.describe(int(rows[i])))
        ring = "" if answers.classes is None or answers.right[rows[i]] else ' stroke-dasharray="5 3"'
        parts.append(
            f'<g><title>{told}</title><image {box} preserveAspectRatio="xMidYMid slice" href="{to_uri(content)}"/>'
            f'<rect {box} fill="none" stroke="{colors(int(rows[i]))}" stroke-width="2"{ring}/></g>'
        )
    return parts


def _write_duplicates(answers: Answers, pairs: Sequence[Pair] | None) -> str:
    """Return near-duplicates among these images, and between them and the training images."""
    parts = ["<h2>Near-duplicates</h2>"]
    if not sees_content(answers.pipeline[0]):
        text = "They were not looked for: by these features (an early layer, or not avg), many images are alike."
        return f"{parts[0]}<p>{text}</p>"
    if pairs is not None:
        parts.append(
            f"<p>{len(pairs)} of these images look like an image that the model was fitted on"
            f"{', so that the score flatters' if pairs else ''}.</p>"
        )
        parts.append(_list_pairs(pairs))
    own = find_pairs(answers.features, answers.names)
    parts.append(f"<p>{len(own)} of these images look like another of them.</p>{_list_pairs(own)}")
    if pairs is None:
        parts.append('<p class="soft">Name the training images to compare with them, too.</p>')
    return "".join(parts)


def find_pairs(
    features: npt.NDArray[np.float32],
    names: Sequence[str],
    others: npt.NDArray[np.float32] | None = None,
    other_names: Sequence[str] = (),
) -> list[Pair]:
    """Find the images whose nearest image, among the others or among themselves, is a near-duplicate."""
    if others is not None and not len(others):
        return []
    own = others is None
    nearest = NearestRows(features, 1, left_out=range(len(features)) if own else None)
    nearest.add(0, features if others is None else others)
    pairs = []
    for i, (rows, cosines) in enumerate(zip(nearest.rows, nearest.similarities, strict=True)):
        if len(rows) and cosines[0] >= MIN_DUPLICATE_COSINE:
            j = int(rows[0])
            if own and j < i and int(nearest.rows[j][0]) == i:
                continue  # listed from the other side
            pairs.append((names[i], names[j] if own else other_names[j], float(cosines[0])))
    return sorted(pairs, key=lambda pair: -pair[2])


def _list_pairs(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_escape(a)}</th><th scope="row">{_escape(b)}</th><td>{cosine:.3f}</td></tr>'
        for a, b, cosine in pairs[:_MAX_PAIRS]
    )
    more = f"<p>and {len(pairs) - _MAX_PAIRS} more</p>" if len(pairs) > _MAX_PAIRS else ""
    head = "<thead><tr><th scope=col>image</th><th scope=col>looks like</th><th scope=col>cosine</th></tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>{more}'


def _write_gallery(answers: Answers, shown: bool) -> str:
    """Return every image, or all mistakes and a sample of the rest."""
    n = len(answers.true)
    rows = np.arange(n)
    if n > _MAX_GALLERY:
        wrong = np.flatnonzero(~answers.right) if answers.classes is not None else np.zeros(0, int)
        wrong = wrong[:_MAX_GALLERY]
        rest = np.setdiff1d(rows, wrong)
        sample = np.random.default_rng(0).choice(rest, min(len(rest), _MAX_GALLERY - len(wrong)), replace=False)
        rows = np.sort(np.concatenate([wrong, sample]))
    thumbnails: Sequence[bytes | None] = [None] * len(rows)
    if shown:
        assert answers.items is not None
        thumbnails = make_thumbnails([answers.items[row] for row in rows.tolist()], GALLERY_SIDE)
    items = []
    for row, content in zip(rows.tolist(), thumbnails, strict=True):
        true, predicted, name = answers.true[row], answers.predicted[row], answers.names[row]
        image = "" if content is None else f'<img src="{to_uri(content)}" alt="">'
        if answers.classes is None:
            told, data = f"{float(predicted):.4g}, true {float(true):.4g}", ""
        else:
            is_right = true == predicted
            told = (
                _escape(str(true))
                if is_right
                else f'<span class="wrong">{_escape(f"{true}: predicted {predicted}")}</span>'
            )
            data = f' data-true="{_escape(str(true))}" data-predicted="{_escape(str(predicted))}"'
        items.append(
            f'<li{data} title="{_escape(name)}">{image}<div>{told}</div>'
            f'<div class="name">{_escape(_last(name))}</div></li>'
        )
    sample_note = "" if len(rows) == n else f" All mistakes and a sample of the rest: {len(rows)} of {n}."
    return (
        f'<h2 id="images">Images</h2><p>{n} images.{sample_note} <span id="shown" role="status"></span></p>'
        f'<ul class="gallery" id="gallery">{"".join(items)}</ul>'
    )


def _write_facts(answers: Answers, images: bool) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_escape(name)}</th><th scope="row">{_escape(text)}</th></tr>'
        for name, text in answers.facts
    )
    privacy = (
        "The images are in this file: share it as you would share them."
        if images
        else "No image is in this file; their names are."
    )
    return f'<h2>How this was made</h2><table><tbody>{rows}</tbody></table><p class="soft">{privacy}</p>'


def _last(name: str) -> str:
    """Return the folder and the file of a path."""
    return "/".join(name.replace("\\", "/").split("/")[-2:])
