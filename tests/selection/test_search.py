"""The heads that a search tries, its budget, its features, groups and events."""

import numpy as np
import pytest
from PIL import Image

import featx
from featx import FeatureExtractor
from featx._events import Events
from featx.errors import InputError
from featx.inference import engine
from featx.selection import racing, search
from featx.selection.candidates import SharedEmbedding
from featx.selection.search import EFFORTS
from featx.selection.timing import Timing
from tests.selection.selection_tools import margins, of_tiny


def test_a_search_spares_many_classes_logistic_regression(tiny_backbone, colours, monkeypatch):
    X, y, _ = colours
    monkeypatch.setattr("featx.heads.table._MAX_SAMPLES_TIMES_CLASSES", 100)
    found = search(X[:60], y[:60], backbones=tiny_backbone, layers=["head"], crops="whole", poolings="avg")
    assert {score.head for score in found.scores} == {"sgd", "ridge", "linear_svm"}
    assert found.name == min(found.scores, key=lambda score: score.loss).head
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(X[:60]))
    asked = search(X[:60], y[:60], head="logistic_regression", backbones=tiny_backbone, layers=["head"], crops="whole")
    assert {score.head for score in asked.scores} == {"logistic_regression"}


def test_groups_stay_together_and_events_count_candidates_and_heads(tiny_backbone, colours):
    class Record(Events):
        def __init__(self):
            self.tasks = []

        def begin(self, task, total, done=0, *, unit="image"):
            self.tasks.append([task, total, unit, 0])

        def advance(self, n=1, **_):
            self.tasks[-1][3] += n

    X, y, _ = colours
    choice = {"backbones": tiny_backbone, "layers": ["head", "stem"], "crops": "whole", "poolings": "avg"}
    record, y = Record(), np.random.default_rng(0).permutation(y[:60])
    groups = [f"group {i // 30}" for i in range(60)]
    found = search(X[:60], y, head="ridge", groups=groups, events=record, **choice)
    assert [tuple(task) for task in record.tasks] == [
        ("timing", 1, "backbone", 1),
        ("embed", 60, "image", 60),
        ("round 1 of 1", 2, "candidate", 2),
        ("embed", 8, "image", 8),  # compared with the shared embedding
        ("heads", 2, "fit", 2),
    ]
    alone = search(X[:60], y, head="ridge", **choice)
    assert found.scores[0].error != alone.scores[0].error  # two groups make two folds
    groups = ["one", *["other"] * 59]
    with pytest.raises(InputError, match="groups: no fold can keep them together"):
        search(X[:60], y, head="ridge", groups=groups, **choice)


class Counting:
    """Count the images that a view embeds."""

    def __init__(self, monkeypatch):
        self.n = 0
        original = engine.to_canvas

        def to_canvas(*arguments, **options):
            self.n += 1
            return original(*arguments, **options)

        monkeypatch.setattr(engine, "to_canvas", to_canvas)


@pytest.mark.parametrize("effort", ["quick", "thorough"])
def test_no_more_is_embedded_than_the_effort_pays_for(tiny_backbone, colours, monkeypatch, effort):
    X, y, _ = colours
    monkeypatch.setattr(Timing, "measure", lambda self, candidates: [(1.0, 1.0)] * len(candidates))
    monkeypatch.setattr(racing, "find_behind", lambda losses, groups: set())  # or all but a few stop early
    counting = Counting(monkeypatch)
    choice = {"backbones": [tiny_backbone, tiny_backbone.with_name("tiny_int8.onnx")], "layers": "head"}
    choice |= {"poolings": ["avg", "std"], "crops": ["whole", "center", "pad"]}
    found = search(X[:200], y[:200], effort=effort, head="ridge", **choice)
    assert counting.n == found.cost.n_embedded <= EFFORTS[effort].max_embeddings * 200
    assert found.cost.everything >= found.cost.times
    assert len(found.embedded.features) == 200
    left_out = [note for note in found.comparison.notes if "candidates were left out" in note]
    assert left_out == [
        f"{12 - len(found.comparison.candidates)} of 12 candidates were left out: the budget pays for "
        f"{len(found.comparison.candidates)} of 12 embeddings of each image"
    ]


def test_features_of_a_search_are_in_the_cache_and_the_fit_embeds_nothing_again(
    tiny_backbone, colours, monkeypatch, tmp_path
):
    X, y, _ = colours
    for i, image in enumerate(X[:60]):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    paths = sorted(map(str, tmp_path.glob("*.png")))
    counting = Counting(monkeypatch)
    extractor = FeatureExtractor(cache=tmp_path / "cache")
    choice = {"backbones": [tiny_backbone], "layers": ["head", ["stem", "head"]]}
    fitted = featx.fit(paths, y[:60], head="ridge", search={"effort": "quick", **choice}, extractor=extractor)
    assert 0 < counting.n <= EFFORTS["quick"].max_embeddings * 60
    counting.n = 0
    known = fitted.pipeline[0].transform(paths)
    assert counting.n == 0
    fresh = FeatureExtractor(**{**fitted.pipeline[0].get_params(), "cache": False}).transform(paths)
    np.testing.assert_array_equal(known, fresh)
    counting.n = 0
    again = search(paths, y[:60], head="ridge", extractor=extractor, **choice)
    assert counting.n <= again.cost.n_embedded - 60  # the timing alone
    np.testing.assert_array_equal(again.embedded.features, fresh)


def test_an_extractor_that_differs_from_the_shared_embedding_embeds_all_images_itself(
    tiny_backbone, colours, monkeypatch
):
    X, y, _ = colours
    original = SharedEmbedding.features
    monkeypatch.setattr(SharedEmbedding, "features", lambda self, *given: original(self, *given) + np.float32(1e-3))
    found = search(X[:60], y[:60], head="ridge", backbones=tiny_backbone, layers="head", crops="whole")
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(X[:60]))


def test_images_without_a_target_are_left_out_and_broken_ones_are_named(tiny_backbone, colours):
    X, y, _ = colours
    items, labels = list(X[:60]), [None, *y[1:60]]
    items[7] = b"no image"
    found = search(items, labels, backbones=tiny_backbone, layers="head", poolings="avg", crops="whole", head="ridge")
    assert found.labelled.tolist() == list(range(1, 60))
    assert found.embedded.features.shape[0] == 59
    assert [failure.index for failure in found.embedded.failures] == [6]
    assert np.isnan(found.embedded.features[6]).all()
    np.testing.assert_array_equal(found.embedded.features[7:], found.extractor.transform(items[8:]))
    assert "1 image without a label left out" in found.comparison.notes
    assert [failure.index for failure in found.comparison.failures] == [7]


def test_several_labels_are_searched(tiny_backbone, colours):
    X, y, _ = colours
    several = np.c_[y[:60] == "red", y[:60] == "blue"].astype(int)
    options = {"layers": "head", "poolings": "avg", "crops": "whole", "head": "knn"}
    found = search(X[:60], several, backbones=tiny_backbone, **options)
    assert (found.name, found.comparison.task) == ("knn", "multilabel")
    assert found.head.fit(found.embedded.features, several).predict(found.embedded.features[:2]).shape == (2, 2)


def test_after_an_early_end_of_the_rounds_all_other_images_are_embedded(tiny_backbone):
    X, y = margins(600)
    found = search(X, y, head="ridge", **of_tiny(tiny_backbone, layers="head", crops=["whole", "center"]))
    assert found.comparison.n_used == 160
    assert found.cost.n_embedded < 160 * 2 + 440 + 100
    assert found.heads.n_images == 600
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(X))
    assert found.scores[0].score > 0.95
