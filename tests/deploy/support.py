"""Try the cases, and lay what came of them out as docs/deploy.md."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline

import featx
from featx.deploy import export
from featx.deploy.walk import Walk
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
        self.pictures = [X[i] for i in chosen]
        self.X = self.extractor.transform(self.pictures)
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
            warnings.simplefilter("ignore")  # of few pictures and few rounds
            head.fit(self.X[rows], y[rows])
        return Pipeline([("features", self.extractor), ("head", head)])

    def outcome(self, name: str, target: str, make) -> str:
        """Say what came of a case: "yes", "skl2onnx" or why not."""
        if (name, target) not in self._known:
            self._known[name, target] = self._try(self.fit(target, make()))
        return self._known[name, target]

    def _try(self, pipeline: Pipeline) -> str:
        through = []
        find = Walk._find

        def spy(walk, kind, estimator):
            write = find(walk, kind, estimator)
            if write in (getattr(walk._library, kind).values()):
                through.append(type(estimator).__name__)
            return write

        Walk._find = spy
        self.path.unlink(missing_ok=True)
        try:
            export(pipeline, self.path)
        except ExportError as error:
            assert list(self.path.parent.iterdir()) == []
            return str(error).removeprefix(f"{self.path}: ")
        finally:
            Walk._find = find
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
    """Every head behind everything that can stand in front of it."""
    for front, step in cases.IN_FRONT.items():
        for name, targets, make in cases.heads():
            if "log target" not in name:
                yield f"{front} + {name}", targets[-1], lambda s=step, m=make: make_pipeline(s(), m())


def _plain(head: str, target: str):
    return cases.quick(featx.make_head(head, task="regression" if target == "numbers" else "classification", cv=3))
