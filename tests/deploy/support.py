"""Try all cases and format the results as docs/exporting.md."""

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
    """Fit on features of one extractor, export, and keep the outcomes."""

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
            "2 outputs": (slice(None), np.column_stack([labels == kinds[0], labels == kinds[1]])),
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
        """Return the outcome of a case: "yes", "skl2onnx" or the reason for the refusal."""
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
    """Yield the name, and the makers by target, of every case of a section."""
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
    """Yield every head behind every transformer, with classes and numbers in turn."""
    for i, (front, step) in enumerate(cases.IN_FRONT.items()):
        for j, (name, targets, make) in enumerate(h for h in cases.heads() if "log target" not in h[0]):
            if (i + j) % 2 == 0 and (front, name) != ("KBinsDiscretizer", "knn"):
                yield f"{front} + {name}", targets[-1], lambda s=step, m=make: make_pipeline(s(), m())


_TARGETS = ("2 classes", "3 classes", "numbers", "log target")
_SHOWN = {"2 outputs": "3 classes", "2 numbers": "numbers"}
_SAY = {"yes": "yes", "skl2onnx": "by skl2onnx"}
_TITLES = {
    "heads": "Heads of `featx fit --head` and `make_head`",
    "in front": "Transformers in front of a head",
    "around": "Meta-estimators around a head",
    "others": "Other heads",
}
_INTRO = """\
# Export a pipeline as one ONNX file

    featx export ants.featx -o ants.onnx --images photos/test

or `featx.deploy.export(pipeline, "ants.onnx", images="photos/test", card=True)` writes a fitted pipeline as one file
that any ONNX Runtime runs. The input is `pixels`, uint8 of shape (N, 3, height, width). The outputs are `label`,
`class_index` and `probabilities` (`scores` if the head has no probabilities; a hard vote has the label only), or
`value` for a regression. Of several labels per image they are `labels`, 0 and 1 of shape (N, labels), and
`probabilities`; several numbers are `value` of shape (N, numbers) ([targets](targets.md)). `--features` adds
`features`. The file uses only standard ONNX operators. Its `metadata_props` describe the preprocessing
(`featx.preprocess`, `featx.features`), the classes, the backbone, the versions that made the file and the date.

The pipeline begins with a `FeatureExtractor` or a `TextExtractor`, or consists of searches and meta-estimators over
such pipelines: `GridSearchCV`, `CalibratedClassifierCV`, `VotingClassifier`, `TransformedTargetRegressor` and others
over `make_pipeline(FeatureExtractor(), ...)`, if all extractors give the same features. `featx predict`, `evaluate` and
`serve` take the same pipelines, and embed each image once.

The file is written only if it predicts as scikit-learn does. Real images go through both, from pixels to prediction:
every label must be equal, and every probability within 1e-4. 256 synthetic rows of features in the same range must
agree at every step as well, so that an error names the step. One in a hundred of these rows may get another prediction
if each step by itself is correct, because a tree can fall on the other side of a threshold in the last digit.

The tables below are the results of `tests/deploy/test_support.py` with scikit-learn {version}. "By skl2onnx" needs the
extra `deploy`, "yes" needs no extra, and nor does the head `zero_shot`. Estimators that are not in the tables are
converted by skl2onnx, and exported if they pass the comparison.

## Texts

    featx export stars.featx -o stars.onnx --texts reviews.txt

A pipeline of a `TextExtractor` and a head exports in the same way, and so do the words and the stack that
`featx fit --text-column` may choose. The input is `input_ids`, int64 of shape (N,
n_tokens): one text, or texts with the same number of tokens. The file takes no mask, so do not pad. The export compares
file and pipeline on the lines of `--texts` (at most 256), or on a few texts of its own, and the guard's outputs as for
images. `featx.preprocess` in the metadata holds `kind` (`text`), `tokenizer` (the content of `tokenizer.json`) and
`max_tokens`. A tokenizer of Python cuts a longer text by itself. That of JavaScript does not, and `n_last` counts the
special tokens that must stay at the end. The card has the code for both languages, and
[examples/browser](../examples/browser/README.md) has a page and a module that read the tokenizer from the file. With
`@huggingface/tokenizers` 0.2.0, 304 of 304 texts got the label of Python, in `onnxruntime-node` (probabilities within
9e-8) and in `onnxruntime-web` under Node.js (within 2e-5). `--images`, `--resize`, `--precision` and `--heat-map` are
for images.

## Several kinds of columns

    featx export houses.featx -o houses.onnx --rows houses.csv

A stack or a pipeline over several columns ([columns](columns.md)) becomes one graph with an input per column:

| column | input | |
|---|---|---|
| image | `front` | uint8 (N, 3, height, width), on the canvas of its backbone |
| text | `description_input_ids` | int64 (N, n_tokens), tokens as above |
| number | `area` | float32 (N, 1), NaN if missing |
| category | `zipcode` | string (N, 1), empty if missing |
| images whose mean is taken | `front`, `front_present` | as an image; bool (N, 1), false for a missing one |

Each member begins with a `ColumnTransformer` of extractors, `OneHotEncoder`, and any steps for numbers that export,
`SimpleImputer` and `PowerTransformer` among them. `featx.columns` in the metadata has the preprocessing, the backbone
and the features of each column, and the known categories. With a text column, run one row at a time, or rows whose
texts have the same number of tokens. In Python, pass `rows=FRAME`. The export compares 64 rows at most, from the whole
table, and writes nothing if a label differs or a probability by more than `--tolerance`. A row without a text is left
out and listed. The guard stays in the `.featx` file. The card has code that makes each input and runs the file, in
Python and JavaScript.

Words (TF-IDF) of `featx.fit` and of `featx.text.make_words()` are tokens of the text encoder, which ONNX's
`TfIdfVectorizer` counts. Words and encoder share one input: the tokens of the whole text, of which the graph cuts the
beginning for the encoder. A program does not cut them, and `max_tokens` is null. A `TfidfVectorizer` that splits
strings does not export, because ONNX has no operator that splits as scikit-learn does. Models of `featx.fit` whose
words are strings load and predict; fit them again to export them. Of a column, words and encoder must have one
tokenizer.

`OneHotEncoder` needs `handle_unknown="ignore"`, because a graph cannot raise for an unknown category. The other options
are for a single column.

## Heat maps

`--heat-map` adds the output `heat_map`: float32 of shape (N, classes, rows, columns), what each cell of the image adds
to the score of each class ([explaining](explaining.md)). The head must be linear. The export compares the map with
`featx.explain` on the same images. `featx.heat_map` in the metadata has the base to which the cells add up.

## Doubt

A model of images or texts alone with a [guard](doubt.md) adds the output `outlier`: float32 of shape (N,), the p-value
of each image, small for an image unlike those of the fit. `--risk 0.05` adds `answered`, bool of shape (N,): False if
the error of the answers would not stay below 0.05, and for outliers. `--sets 0.95` adds `set`, bool of shape (N,
classes): labels that hold the true one for 95 % of images. For a regression, `--sets` adds `interval`, float32 of shape
(N, 2). In Python, pass `guard=featx.load_guard("ants.featx")`, `risk` and `coverage`. The export compares them with
`featx.Guard.check` on the same images, and `featx.guard` in the metadata has the figures.

## Images of any size

With `--resize in-graph` the file takes whole images: `pixels` is uint8 of shape (N, H, W, 3), RGB with the channels
last, as in a browser's canvas, one size per batch. The graph resizes and crops by the backbone's rules and the
extractor's `crop`. Pillow's filters are matrix products, applied in Pillow's order, because ONNX's Resize has no
lanczos filter and rounds differently. An image without pixels is an error of the node `an_image_has_no_pixels`.

The export measures the difference from Pillow on the same images and prints it. In a photograph, a few values in a
hundred thousand differ by one level of 255, because the graph computes in float32 where Pillow has 22 bits. If an
image is enlarged, or more than 8 times as long as wide, more values differ, by at most two levels. Every label must be
equal and every probability within `--resize-tolerance`: 0.01, or 0.1 for int8, because its quantisation steps amplify
rounding differences. Heads whose output has steps (`knn`, forests) can exceed that. A pipeline fitted with
`decode="fast"` is compared with that decoding, which the graph does not do.

## Smaller files

`--precision int8 --images FOLDER` converts the backbone to int8, a quarter of the size. `float16` has half the size
and is meant for GPUs. The head stays, although it was fitted on float32 features. One in three of the images, 100 at
most, calibrates int8 and corrects the mean of every feature. The other images measure the share of labels that stay
(R² for a regression). Below `--min-agreement` (0.95) nothing is written. Use images that the pipeline was not fitted
on: its predictions for the others are so certain that no label changes. If the export is refused, `featx fit
--precision int8` fits a head on int8 features, and its export is as small. `benchmarks/RESULTS.md` has sizes, speed
and accuracy.

## Other languages

Beside the file, `featx export` writes the model card `ants.onnx.md`: the images it was fitted on, its quality, the
backbone's licence, and a few lines of Python and JavaScript that run it. The tests run both.

The tests also run exported files with onnxruntime-node and compare the labels. `examples/browser/` is a page that
classifies images with onnxruntime-web. Its module [`classify.mjs`](../examples/browser/classify.mjs) is independent
of the page.
"""


def write_page(trials: Trials) -> str:
    """Format the page from the outcomes."""
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
                f"\nThe table shows logistic regression and ridge. With every head above, {n} of {len(outcomes)} pairs "
                "export, and the others contain a transformer that is refused here. `knn` after `KBinsDiscretizer` "
                "was not tried: many neighbours are at the same distance, and scikit-learn's choice among them is "
                "arbitrary."
            )
    return "\n".join(parts) + "\n"


def _lay_out(found: dict[str, dict[str, str]]) -> list[str]:
    """Format a table, and below it the reasons for refusals."""
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
