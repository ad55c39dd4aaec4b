"""Test the display of a comparison, and the candidates on the front."""

import json

import numpy as np
from PIL import Image

from featx import FeatureExtractor
from featx.selection import Candidate, compare
from featx.selection.candidates import Budget
from featx.selection.result import explain, mark_front
from featx.selection.target import encode_target
from tests.selection.selection_tools import margins, of_tiny


def test_the_recommended_extractor_decodes_as_it_was_compared(tiny_backbone, colours):
    X, y, _ = colours
    found = compare(X[:40], y[:40], extractor=FeatureExtractor(decode="fast"), **of_tiny(tiny_backbone))
    extractor = found.extractor(device="cpu", n_threads=1)
    assert (extractor.decode, extractor.device, extractor.crop) == ("fast", "cpu", "center")
    assert extractor.transform(X[:2]).shape == (2, found.recommended.n_features)
    assert found.extractor(decode="exact").decode == "exact"


def test_the_table_names_everything_and_marks_the_front(tiny_backbone):
    X, y = margins(400)
    found = compare(X, y, backbones=tiny_backbone, poolings="avg")
    lines = str(found).splitlines()
    assert len([line for line in lines if line.startswith("tiny ")]) == len(found.candidates)
    assert sum(" * " in line for line in lines[: len(found.candidates) + 1]) == 1
    assert any(", stopped" in line for line in lines)
    assert len({len(line.removesuffix(", stopped")) for line in lines[1:3]}) == 1
    short = found.table(1).splitlines()
    further = sum(c.on_front for c in found.candidates[1:])
    assert len([line for line in short if line.startswith("tiny ")]) == 1 + further
    assert "images/s" in lines[0]
    assert "behind, %" in lines[0]


def test_the_front_takes_distance_on_the_same_images():
    def candidate(behind, ms, score):
        return Candidate("a", "head", "avg", "whole", 8, behind=behind, ms=ms, score=score)

    some = [candidate(0.0, 9, 0.90), candidate(0.03, 4, 0.95), candidate(0.05, 5, 0.97), candidate(0.03, 4, 0.9)]
    assert [c.on_front for c in mark_front(some)] == [True, True, False, False]


def test_a_comparison_shows_in_a_line_as_html_and_as_plain_values(tiny_backbone, colours, tmp_path):
    X, y, _ = colours
    found = compare(X[:60], y[:60], backbones=tiny_backbone, poolings=["avg", "max", "std", "gem"])
    assert repr(found).startswith("Comparison(recommended='tiny ")
    assert len(repr(found)) < 160
    html = found._repr_html_()
    assert html.count("<tr>") < len(found.candidates)
    assert "Recommended: tiny " in html
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["recommended"] == found.recommended.parameters()
    assert len(plain["candidates"]) == len(found.candidates)
    frame = found.to_frame()
    assert frame["behind"].tolist() == [c.behind for c in found.candidates]
    assert frame.loc[0, "layer"] == found.recommended.layer
    found.plot(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"


def candidate(name, behind, error, score, **more):
    results = {"behind": behind, "behind_error": error, "score": score, "low": score - 0.1, "high": score + 0.1}
    return Candidate(name, "head", "avg", "whole", 8, **{"ms": 9.0, "mb": 1.0, "n_images": 100, **results, **more})


def test_the_reason_says_what_is_ranked_who_is_tied_and_who_is_faster():
    target, _ = encode_target(["ant", "bee"] * 50)
    best = candidate("best", 0.0, 0.0, 0.9)
    ties = [candidate("a", 0.01, 0.01, 0.92, tied=True), candidate("b", 0.02, 0.01, 0.89, ms=3.0, tied=True)]
    others = [candidate("c", 0.03, 0.01, 0.91), candidate("d", 0.3, 0.1, 0.7, stopped=True, n_images=40)]
    text = explain([best, *ties, *others], target, "accuracy", 100, 0.5, Budget())
    assert text.startswith("Recommended: best head, avg, whole. Of 5 candidates, it predicts 2 classes")
    assert "the lowest squared error of the probabilities; 2 of 5 are tied with it." in text
    assert "b head, avg, whole is tied and 3.0 times as fast." in text
    assert "The accuracy of a linear probe on left-out images is 0.900 (95 % interval 0.800 to 1.000, on 100" in text
    assert "mostly chance" not in text
    alone = explain([best, others[1]], target, "accuracy", 200, 0.85, Budget(max_mb=3))
    assert "Of 2 candidates within 3 MB" in alone
    assert "all others are behind by more than two standard errors." in alone
    assert "on 100 of 200 images" in alone
    assert "ignores the images (0.850)" in alone


def test_only_classes_and_labels_have_probabilities():
    numbers, _ = encode_target(np.linspace(0.1, 9.9, 50))
    two = [candidate("best", 0.0, 0.0, 0.9), candidate("a", 0.01, 0.01, 0.8)]
    assert "a number with the lowest squared error; " in explain(two, numbers, "r2", 100, 0.0, Budget())
    labels, _ = encode_target(np.eye(3, dtype=int)[np.arange(60) % 3])
    assert "3 labels with the lowest squared error of the prob" in explain(two, labels, "score", 100, 0.5, Budget())


def test_order_table_and_plot_have_one_measure(tiny_backbone):
    X, y = margins(400)
    found = compare(X, y, backbones=tiny_backbone)
    running = [c for c in found.candidates if not c.stopped]
    behind = [c.behind for c in running]
    assert behind == sorted(behind)
    assert [c.tied for c in running] == [i > 0 and c.behind <= 2 * c.behind_error for i, c in enumerate(running)]
    rows = found.table().splitlines()[1 : 1 + len(found.candidates)]
    assert [f"{100 * c.behind:.1f} ± " in row for c, row in zip(found.candidates, rows, strict=True)]
    assert [" tied " in row for row in rows] == [c.tied for c in found.candidates]
    n = sum(c.tied for c in found.candidates)
    assert (f"{n} of {len(found.candidates)} " if n else "all others are behind") in found.reason
