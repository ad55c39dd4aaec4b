"""Try the cases, and lay what came of them out as docs/deploy.md."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline, make_pipeline

import featx
from featx.deploy import export
from featx.deploy.converter import Converter
from featx.errors import ExportError
from featx.extractor import FeatureExtractor

from . import cases


class Trials:
    """Fits on features of one extractor, exports, and remembers what came of it."""

    def __init__(self, backbone, folder):
        X, y = featx.samples.load_fashion_mnist("test")
        kinds = sorted(set(y.tolist()))[:3]
        chosen = [i for kind in kinds for i in np.flatnonzero(y == kind)[:25]]
        self.extractor = FeatureExtractor(str(backbone)).fit(None)
        self.images = [X[i] for i in chosen]
        self.X = self.extractor.transform(self.images)
        labels = y[chosen]
        numbers = np.exp(self.X[:, 0] / self.X[:, 0].std()) * 1000
        two = labels != kinds[2]
        self.targets = {
            "2 classes": (two, labels),
            "3 classes": (slice(None), labels),
            "numbers": (slice(None), numbers),
            "2 numbers": (slice(None), np.column_stack([numbers, self.X[:, 1]])),
            "2 questions": (slice(None), np.column_stack([labels == kinds[0], labels == kinds[1]])),
        }
        self.path = folder / "tried.onnx"
        self._known: dict[tuple[str, str], str] = {}

    def fit(self, target: str, head) -> Pipeline:
        rows, y = self.targets[target]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few images and few rounds
            head.fit(self.X[rows], y[rows])
        return Pipeline([("features", self.extractor), ("head", head)])

    def outcome(self, name: str, target: str, make) -> str:
        """Say what came of a case: "yes", "skl2onnx" or why not."""
        if (name, target) not in self._known:
            self._known[name, target] = self._try(self.fit(target, make()))
        return self._known[name, target]

    def _try(self, pipeline: Pipeline) -> str:
        through = []
        find = Converter._find

        def spy(walk, kind, estimator):
            write = find(walk, kind, estimator)
            if write in (getattr(walk._library, kind).values()):
                through.append(type(estimator).__name__)
            return write

        Converter._find = spy
        self.path.unlink(missing_ok=True)
        try:
            export(pipeline, self.path)
        except ExportError as error:
            assert list(self.path.parent.iterdir()) == []
            return str(error).removeprefix(f"{self.path}: ")
        finally:
            Converter._find = find
        return "skl2onnx" if through else "yes"


def rows(section: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Name and makers by target, of every case of a section of the table."""
    if section == "heads":
        found: dict[str, dict[str, object]] = {}
        for name, targets, make in cases.heads():
            found.setdefault(name, {}).update(dict.fromkeys(targets, make))
        yield from found.items()
    elif section == "in front":
        for name, step in cases.IN_FRONT.items():
            makers = {"2 classes": "logistic_regression", "3 classes": "logistic_regression", "numbers": "ridge"}
            yield name, {t: (lambda h=h, t=t, s=step: make_pipeline(s(), _plain(h, t))) for t, h in makers.items()}
    else:
        table = {"around": cases.AROUND, "others": cases.OTHERS}[section]
        for name, (targets, make) in table.items():
            yield name, dict.fromkeys(targets, make)


def crossed() -> Iterator[tuple[str, str, object]]:
    """Every head behind everything that can stand in front of it, of classes and of numbers by turns."""
    for i, (front, step) in enumerate(cases.IN_FRONT.items()):
        for j, (name, targets, make) in enumerate(h for h in cases.heads() if "log target" not in h[0]):
            if (i + j) % 2 == 0 and (front, name) != ("KBinsDiscretizer", "knn"):
                yield f"{front} + {name}", targets[-1], lambda s=step, m=make: make_pipeline(s(), m())


_TARGETS = ("2 classes", "3 classes", "numbers", "log target")
_SHOWN = {"2 questions": "3 classes", "2 numbers": "numbers"}
_SAY = {"yes": "yes", "skl2onnx": "by skl2onnx"}
_TITLES = {
    "heads": "Heads of `featx fit --head` and `make_head`",
    "in front": "In front of a head",
    "around": "Around a head",
    "others": "Other heads",
}
_INTRO = """\
# A pipeline as one ONNX file

    featx export ants.featx -o ants.onnx --images photos/val

or `featx.deploy.export(pipeline, "ants.onnx", images=...)` writes a fitted pipeline as one file that any ONNX
Runtime runs. It takes `pixels`, uint8 of shape (N, 3, height, width), and gives `label`, `class_index` and
`probabilities` (`scores` where the head has no probabilities; of a vote, the label alone), or `value`; with
`--features` the `features` as well. It holds ONNX's own operators only. `metadata_props` say how an image becomes
pixels (`featx.preprocess`, `featx.features`), what the classes are, which backbone and versions made it, and when.

The pipeline begins with a `FeatureExtractor`, or is made of such by searches and meta-estimators:
`GridSearchCV`, `CalibratedClassifierCV`, `VotingClassifier`, `TransformedTargetRegressor` and so on over
`make_pipeline(FeatureExtractor(), ...)`, where all extractors give the same features. `featx predict`, `evaluate` and
`serve` take the same, and embed an image once for all.

Nothing is written unless it answers as scikit-learn does. Real images go through both, from pixels to answer:
every label must be the same, and every probability within 1e-4. So must 256 rows of features in the range of theirs,
in every step by itself, so that the step to blame can be named. Of these rows, one in a hundred may get another
answer where each step is right: a tree on the far side of a last digit.

The tables are what `tests/deploy/test_support.py` found with scikit-learn {version}. "By skl2onnx" needs the extra
`deploy`; the rest does not. What is not in them goes through skl2onnx, and is written if it passes the comparison.

## Images of any size

With `--resize in-graph` the file takes whole images, `pixels` uint8 of shape (N, H, W, 3), RGB with the channels
last, as a canvas in a browser has them; one size in a batch. It resizes and crops by the backbone's own rule and
the extractor's `crop`, with Pillow's filters written as matrix products in Pillow's order, since ONNX's Resize knows
neither lanczos nor Pillow's rounding. An image without pixels is an error of the node `an_image_has_no_pixels`.

The export measures how far that is from Pillow on the same images and prints it: a few values in a hundred
thousand of a photograph by one level of 255, since float32 stands where Pillow has 22 bits; more of an image that is
enlarged or more than 8 times as long as wide, by two at most. Every label must be the same and every probability
within `--resize-tolerance`, or nothing is written: 0.01, and 0.1 for int8, whose steps make more of a value that is
rounded otherwise. With heads that answer in steps (`knn`, forests) a step can be more than that.
A file fitted with `decode="fast"` is compared with that decoding, which the graph does not do.

## Smaller

`--precision int8 --images FOLDER` computes the network in int8, a quarter of the size; `float16` in half of it,
for cards. The head stays, though it learned from float32: so one in three of the images, 100 at most, shows int8
the range of activations, the mean of every feature is set right on them, and the others tell how many labels stay
(of numbers R²). Below `--min-agreement`, 0.95, nothing is written. Give images that the pipeline was not fitted on:
of its own it is so certain that no label changes. Where that refuses, `featx fit --precision int8` makes a head that
learns the int8 features, and its export is as small. What it costs and gains is in `benchmarks/RESULTS.md`.

## Elsewhere

Beside its file `featx export` writes `ants.onnx.md`, a model card: what it was fitted on and how good it is, the
backbone's licence, and how to run it in a few lines of Python, JavaScript and C#. The tests run the first two.

The tests run exported files with onnxruntime-node and get the same labels. `examples/browser/` is a page that
classifies an image of the user's with onnxruntime-web, and [`classify.mjs`](../examples/browser/classify.mjs) the
part of it that has nothing to do with pages.
"""


def write_page(trials: Trials) -> str:
    """Lay everything out; the page is a fact and not a promise."""
    parts = [_INTRO.format(version=".".join(sklearn.__version__.split(".")[:2]))]
    for section, title in _TITLES.items():
        found: dict[str, dict[str, str]] = {}
        for name, makers in rows(section):
            kind, _, log = name.partition(", log ")
            for at, make in makers.items():
                column = "log target" if log == "target" else _SHOWN.get(at, at)
                found.setdefault(kind if log == "target" else name, {})[column] = trials.outcome(name, at, make)
        parts += [f"\n## {title}\n", *_lay_out(found)]
        if section == "in front":
            outcomes = [trials.outcome(*case) for case in crossed()]
            n = sum(outcome in _SAY for outcome in outcomes)
            parts.append(
                f"\nTried in front of logistic regression and ridge as the table says, and of every head above: {n} of "
                f"{len(outcomes)} pairs export, the rest are those that are refused here. `knn` behind "
                "`KBinsDiscretizer` was not tried: so many neighbours lie at one distance that scikit-learn takes "
                "whichever it meets."
            )
    return "\n".join(parts) + "\n"


def _lay_out(found: dict[str, dict[str, str]]) -> list[str]:
    """Make a table, and say below it why something is not exported."""
    columns = [column for column in _TARGETS if any(column in outcomes for outcomes in found.values())]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    reasons = {}
    for name, outcomes in found.items():
        for said in outcomes.values():
            if said not in _SAY:
                reasons[name] = said.partition("cannot be exported: ")[2] or said
        cells = [_SAY.get(outcomes[column], "no") if column in outcomes else "" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines + (["", *(f"- {name}: {why}." for name, why in reasons.items())] if reasons else [])


def _plain(head: str, target: str):
    return cases.quick(featx.make_head(head, task="regression" if target == "numbers" else "classification", cv=3))
