"""Which candidate wins, who stops, what is embedded, and what a comparison says."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featx import FeatureExtractor
from featx.backbones import open_backbone
from featx.backbones.file import Layer
from featx.errors import BackboneError, ImageError, InputError
from featx.images.decode import decode
from featx.samples import load_fashion_mnist
from featx.selection import Candidate, compare, group_duplicates, racing, search
from featx.selection.candidates import _usual_layers, list_candidates
from featx.selection.duplicates import describe_copies, find_copies
from featx.selection.result import mark_front
from featx.selection.timing import Timing


@pytest.fixture(scope="module")
def colours():
    """Noise whose red tells the class, and whose brightness is a number."""
    rng = np.random.default_rng(0)
    X = rng.integers(60, 140, (500, 36, 36, 3), dtype=np.uint8)
    y = np.array(["green", "red"])[np.arange(500) % 2]
    X[1::2, :, :, 0] += 12
    light = rng.integers(0, 60, 500)
    return X + light[:, None, None, None].astype(np.uint8), y, light + 0.5


def of_tiny(tiny_backbone, **more):
    return {"backbones": tiny_backbone, "poolings": "avg", "crops": "center", **more}


class Counting:
    """Counts what each extractor that runs in a race is asked for."""

    def __init__(self, monkeypatch):
        self.asked = {}
        original = racing.embed_together

        def embed_together(extractors, X):
            for one in extractors:
                self.asked[one.crop] = self.asked.get(one.crop, 0) + len(X)
            return original(extractors, X)

        monkeypatch.setattr(racing, "embed_together", embed_together)


def margins(n, seed=0):
    """Images that differ in what ``center`` cuts off."""
    rng = np.random.default_rng(seed)
    X = rng.integers(80, 120, (n, 36, 144, 3), dtype=np.uint8)
    y = np.arange(n) % 2
    X[y == 1, :, :24] += 100
    return X, np.array(["without", "with"])[y]


def test_the_crop_that_shows_the_difference_wins_and_the_other_is_embedded_no_further(tiny_backbone, monkeypatch):
    counting = Counting(monkeypatch)
    X, y = margins(600)
    found = compare(X, y, backbones=tiny_backbone, poolings=["avg", "max"])
    assert found.recommended.crop == "whole"
    assert found.recommended.score > 0.95
    assert counting.asked["center"] == 160
    assert counting.asked["whole"] >= 400
    assert {(c.crop, c.stopped, c.n_images) for c in found.candidates} >= {("center", True, 160)}
    assert not [c for c in found.candidates if c.crop == "center" and not c.stopped]
    assert found.n_used == counting.asked["whole"]
    assert [c.stopped for c in found.candidates] == sorted(c.stopped for c in found.candidates)


def test_once_a_single_candidate_is_left_nothing_more_is_embedded(tiny_backbone, monkeypatch):
    counting = Counting(monkeypatch)
    X, y = margins(600)
    found = compare(X, y, **of_tiny(tiny_backbone, layers="head", crops=["whole", "center"]))
    assert counting.asked == {"center": 160, "whole": 160}
    assert (found.n_used, found.n_images, found.recommended.n_images) == (160, 600, 160)
    assert "on 160 of 600 images" in found.reason
    assert "All others are clearly behind." in found.reason


def test_stopped_ones_are_compared_on_the_images_that_both_saw(tiny_backbone):
    X, y = margins(600)
    found = compare(X, y, backbones=tiny_backbone, poolings="avg")
    first = compare(X[found.used[:160]], y[found.used[:160]], backbones=tiny_backbone, poolings="avg")
    for stopped in (c for c in found.candidates if c.stopped):
        twin = next(c for c in first.candidates if c.key == found.recommended.key)
        assert stopped.behind == pytest.approx(stopped.loss - twin.loss, abs=0.05)
        assert stopped.behind > 0
    assert found.recommended.behind == 0
    for c in found.candidates:
        if not c.stopped:
            assert c.behind == pytest.approx(c.loss - found.recommended.loss)


def test_the_red_channel_is_found_and_chance_is_called_so(tiny_backbone, colours):
    X, y, _ = colours
    found = compare(X[:120], y[:120], **of_tiny(tiny_backbone))
    assert found.task == "classification"
    assert found.recommended.score > 0.9
    assert "no better than not looking" not in found.reason
    rng = np.random.default_rng(0)
    chance = compare(X[:120], rng.permutation(y[:120]), **of_tiny(tiny_backbone))
    assert "may be no better than not looking at the images (0.500)" in chance.reason


def test_a_regression_and_its_logarithm(tiny_backbone, colours):
    X, _, light = colours
    found = compare(X[:120], light[:120], **of_tiny(tiny_backbone))
    assert (found.task, found.metric) == ("regression", "r2")
    assert found.recommended.score > 0.8
    logarithm = compare(X[:120], light[:120], log_target=True, **of_tiny(tiny_backbone))
    assert logarithm.metric == "r2 of the logarithm"
    assert "(r2 of the logarithm " in logarithm.reason


def test_ordinal_and_multilabel(tiny_backbone, colours):
    X, y, light = colours
    levels = pd.cut(light[:120], 3, labels=["dark", "mid", "bright"])
    found = compare(X[:120], levels, **of_tiny(tiny_backbone))
    assert (found.task, found.metric) == ("ordinal", "r2 of the levels")
    assert found.recommended.score > 0.5
    labels = np.c_[y[:120] == "red", light[:120] > 30, light[:120] < 15].astype(int)
    found = compare(X[:120], labels, **of_tiny(tiny_backbone))
    assert found.task == "multilabel"
    assert "3 labels" in found.reason
    assert found.recommended.score > 0.8


def test_one_random_state_gives_one_outcome(tiny_backbone, colours):
    X, y, _ = colours

    def outcome(seed):
        found = compare(X[:200], y[:200], backbones=tiny_backbone, random_state=seed, max_images=190)
        kept = [(c.key, c.score, c.low, c.high, c.logme, c.stopped, c.behind) for c in found.candidates]
        return kept, found.used.tolist(), found.notes

    assert outcome(0) == outcome(0)
    assert outcome(0)[1] != outcome(1)[1]


def test_of_equals_each_race_stops_the_same(tiny_backbone, monkeypatch):
    losses = {"a": np.repeat([0.0, 1.0], [20, 20]), "b": np.repeat([1.0, 0.0], [20, 20]), "c": np.ones(40)}
    losses["c"][:10] = 0

    def left(names):
        sharing = type("Sharing", (), {"candidates": [Candidate(name, "head", "avg", "whole", 8) for name in names]})
        one = racing.Race.__new__(racing.Race)
        one.shared, one._stopped, one._features, one.last_groups = [sharing], [], [[]], None
        one.last_losses = {c.key: losses[c.backbone] for c in sharing.candidates}
        one._stop_who_is_behind()
        return [c.backbone for c in sharing.candidates]

    assert left("abc") == left("abc") == ["a", "b"]
    assert left("bac") == ["b", "a", "c"]  # the first of equals is who others are measured by


@pytest.mark.parametrize("kind", ["paths", "bytes", "frame", "list"])
def test_images_of_every_kind(tiny_backbone, colours, kind, tmp_path):
    X, y, _ = colours
    X, y = X[:40], y[:40]
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    paths = sorted(tmp_path.glob("*.png"))
    given = {
        "paths": paths,
        "bytes": [path.read_bytes() for path in paths],
        "frame": pd.DataFrame({"path": [str(path) for path in paths]}),
        "list": list(X),
    }[kind]
    expected = compare(X, y, **of_tiny(tiny_backbone))
    found = compare(given, pd.Series(y), **of_tiny(tiny_backbone))
    assert [(c.key, c.score) for c in found.candidates] == [(c.key, c.score) for c in expected.candidates]


def test_images_that_cannot_be_read_are_named_by_their_place_in_x(tiny_backbone, colours):
    X, y, _ = colours
    items, labels = list(X[:60]), list(y[:60])
    order = compare(X[1:60], y[1:60], **of_tiny(tiny_backbone)).used[:4]  # those that are looked at first
    labels[0] = None
    for i in order:
        items[i + 1] = b"no image"
    found = compare(items, labels, **of_tiny(tiny_backbone))
    assert [failure.index for failure in found.failures] == sorted(order + 1)
    assert (found.n_images, found.n_used, found.n_unlabelled) == (59, 55, 1)
    assert not {0, *(order + 1)} & set(found.used.tolist())
    assert len(found.groups) == len(found.used) == 55
    assert found.notes[0].startswith("1 image without a label took no part")


def test_when_none_can_be_read_the_first_is_named_by_its_place_in_x(tiny_backbone):
    items = ["gone.png", *(f"gone{i}.png" for i in range(9))]
    with pytest.raises(ImageError, match="not one of 9 images could be read") as caught:
        compare(items, [None, *"abc" * 3], **of_tiny(tiny_backbone))
    assert caught.value.failure.source == items[caught.value.failure.index]


def test_a_class_that_loses_its_images_takes_no_part(tiny_backbone, colours):
    X, y, _ = colours
    items, labels = [*X[:40], b"", X[40]], [*y[:40], "blue", "blue"]
    found = compare(items, labels, **of_tiny(tiny_backbone))
    assert any(note.startswith("1 of 3 classes take no part") for note in found.notes)
    assert found.recommended.n_images == 40
    with pytest.raises(InputError, match="3 readable images of 1 classes with two and more"):
        compare([*X[[0, 2, 4]], b"", X[1]], ["a", "a", "a", "b", "b"], **of_tiny(tiny_backbone))


def test_groups_are_never_on_both_sides(tiny_backbone):
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 200, (30, 1, 1, 3))
    X = np.repeat(scenes, 6, axis=0) + rng.integers(0, 50, (180, 36, 36, 3))  # a scene's images know their label
    y = np.repeat(rng.permutation(["day", "night"] * 15), 6)
    apart = compare(X.astype(np.uint8), y, **of_tiny(tiny_backbone))
    names = np.repeat([f"scene {i}" for i in range(30)], 6)
    together = compare(X.astype(np.uint8), y, groups=names, **of_tiny(tiny_backbone))
    assert apart.recommended.score > together.recommended.score + 0.15
    assert together.recommended.error > apart.recommended.error


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a"] * 3, "groups: 3 for 8 images"),
        (["a", None] * 4, "groups: image 1 has none"),
        ([["a"]] * 8, "expected a number or a name"),
        (["a"] * 8, "in 1 groups: too few to compare on"),
    ],
)
def test_groups_that_allow_no_folds(tiny_backbone, colours, groups, said):
    with pytest.raises(InputError, match=re.escape(said)):
        compare(colours[0][:8], colours[1][:8], groups=groups, **of_tiny(tiny_backbone))


def test_near_duplicates_are_found_counted_and_kept_together():
    X, y = load_fashion_mnist("train")
    items, labels = list(X[::12]), list(y[::12])
    lighter = [np.clip(np.asarray(decode(image)).astype(int) + 4, 0, 255).astype(np.uint8) for image in items[:6]]
    choice = {"backbones": "efficientnet_lite0", "layers": "head", "crops": "whole"}
    items, labels = [*items, *lighter], [*labels, *labels[:5], "shirt"]
    found = compare(items, labels, **choice)
    pairs = {tuple(sorted(found.used[found.groups == g])) for g in np.flatnonzero(np.bincount(found.groups) > 1)}
    assert pairs >= {(i, i + 50) for i in range(6)}
    [note] = [note for note in found.notes if "near-duplicates" in note]
    assert re.match(r"\d+ of 56 images are near-duplicates of others, in \d+ groups, 1 with several labels", note)
    own = compare(items, labels, groups=range(56), **choice)
    [note] = [note for note in own.notes if "near-duplicates" in note]
    assert re.search(r"the given groups divide [6-9]$", note)


def test_images_that_all_look_alike_are_no_copies(tiny_backbone, colours):
    X, y, _ = colours
    found = compare(X[:60], y[:60], **of_tiny(tiny_backbone))
    assert not [note for note in found.notes if "near-duplicates" in note]
    assert found.groups.tolist() == list(range(60))


def test_earlier_layers_look_for_no_copies():
    X, y = load_fashion_mnist("train")
    found = compare(X[::10], y[::10], backbones="efficientnet_lite0", layers="stage2", poolings="avg", crops="whole")
    assert found.groups.tolist() == list(range(60))


def test_classes_of_two_images(tiny_backbone, colours):
    X, y, _ = colours
    labels = [*y[:58], "blue", "blue"]
    found = compare(X[:60], labels, max_images=30, **of_tiny(tiny_backbone))
    assert {58, 59} <= set(found.used.tolist())  # however few are looked at
    assert found.recommended.n_images == 30
    assert "3 classes" in found.reason


def test_a_thousand_classes_of_two_images(tiny_backbone):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.integers(0, 256, (1000, 2, 2, 3), dtype=np.uint8), 2, axis=0)
    X = np.repeat(np.repeat(X, 18, axis=1), 18, axis=2)
    y = np.repeat([f"class {i}" for i in range(1000)], 2)
    found = compare(X, y, **of_tiny(tiny_backbone, layers="head"))
    assert found.n_used == 2000
    assert found.recommended.score > 0.01  # of a thousand classes, and features at random
    assert "1000 classes" in found.reason
    assert "With so few images the order is mostly chance." in found.reason
    some = compare(X, y, max_images=100, **of_tiny(tiny_backbone, layers="head"))
    assert some.recommended.n_images == 100  # two of each of fifty
    assert some.notes[0].startswith("950 of 1000 classes take no part")


@pytest.mark.parametrize("n", [4, 5, 7])
def test_fewer_images_than_folds(tiny_backbone, colours, n):
    X, _, light = colours
    classes = compare(X[:n], list("aabbbbb")[:n], **of_tiny(tiny_backbone))
    numbers = compare(X[:n], light[:n], **of_tiny(tiny_backbone))
    for found in (classes, numbers):
        assert found.n_used == n
        assert np.isfinite(found.recommended.score)
        assert "mostly chance" in found.reason


def test_as_many_as_allowed_are_looked_at_and_each_once(tiny_backbone, colours):
    X, y, _ = colours
    found = compare(X, y, max_images=400, **of_tiny(tiny_backbone))
    assert found.n_used == len(set(found.used.tolist())) <= 400
    assert abs(np.mean(y[found.used] == "red") - 0.5) < 0.01


def test_the_cache_is_used(tiny_backbone, colours, tmp_path, monkeypatch):
    X, y, _ = colours
    run = FeatureExtractor(cache=tmp_path / "cache")
    first = compare(X[:60], y[:60], extractor=run, **of_tiny(tiny_backbone))
    monkeypatch.setattr(Timing, "measure", lambda self, candidates: [(1.0, 1.0)] * len(candidates))
    monkeypatch.setattr("featx.inference.engine.to_canvas", lambda *_, **__: pytest.fail("embedded again"))
    again = compare(X[:60], y[:60], extractor=run, **of_tiny(tiny_backbone))
    assert [c.score for c in again.candidates] == [c.score for c in first.candidates]


def test_budgets(tiny_backbone, colours, monkeypatch):
    X, y, _ = colours
    costs = {"stem": (1.0, 0.1), "stage1": (2.0, 0.2), "head": (3.0, 0.3)}
    monkeypatch.setattr(Timing, "measure", lambda self, cs: [costs[c.layers[-1]] for c in cs])
    few = {**of_tiny(tiny_backbone), "layers": ["stem", "stage1", "head"]}
    found = compare(X[:60], y[:60], max_ms=2.5, **few)
    assert {c.layer for c in found.candidates} == {"stem", "stage1"}
    assert "none of 2 candidates within 2.5 ms an image predicted" in found.reason
    assert "1 of 3 candidates cost more than allowed" in found.notes
    one = compare(X[:60], y[:60], max_ms=2.5, max_mb=0.1, **few)
    assert [c.layer for c in one.candidates] == ["stem"]
    assert "the only candidate within 2.5 ms an image and 0.1 MB: it predicted 2 classes" in one.reason
    with pytest.raises(InputError, match=r"within max_ms=0.5, max_mb=None: the quickest takes 1.00 ms .* 0.10 MB"):
        compare(X[:60], y[:60], max_ms=0.5, **few)
    with pytest.raises(InputError, match="max_mb=0: expected a number above 0"):
        compare(X[:60], y[:60], max_mb=0, **few)


def test_costs_are_measured_as_they_run_and_no_layer_is_slower_than_a_deeper_one(tiny_backbone, colours):
    readable = [b"", *colours[0][:8]]
    base = FeatureExtractor(precision="int8", pooling="flatten", progress=True, cache=True)
    cost = Timing(base, readable)
    some = [Candidate(str(tiny_backbone), layer, "avg", "whole", 8) for layer in ("stem", "head", ["stem", "stage1"])]
    (stem, small), (head, large), (stage1, middle) = cost.measure(some)
    assert 0 < stem <= stage1 <= head
    assert small < middle < large
    assert cost.measure(some[:1]) == [(stem, small)]  # known
    with pytest.raises(ImageError):
        Timing(base, [b"", b""]).measure(some)


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "catavgmax"])
@pytest.mark.parametrize("layer", ["head", ["stem", "head"]])
def test_shared_features_are_those_of_the_extractor(tiny_backbone, colours, pooling, layer):
    X = colours[0][:6]
    poolings = ["avg", "max", "avgmax", "catavgmax", "std"]
    shared = list_candidates(FeatureExtractor(), [tiny_backbone], ["stage1", layer], poolings, ["pad"])
    assert [sharing.extractor.pooling for sharing in shared] == ["catavgmax", "std"]
    [candidate] = [c for c in shared[0].candidates if (c.pooling, c.layer) == (pooling, layer)]
    features = shared[0].features(candidate, shared[0].extractor.transform(X))
    expected = FeatureExtractor(**candidate.parameters()).transform(X)
    assert candidate.n_features == features.shape[1]
    assert features == pytest.approx(expected, rel=1e-6, abs=1e-6)


def stub(*names, default="head"):
    layers = tuple(Layer(name, (), name, 8, 4, 4, 8) for name in names)
    backbone = open_backbone("efficientnet_lite0")
    return type(backbone)(**{**backbone.__dict__, "layers": layers, "default_layer": default})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
            [
                *("head", "stage4", "stage3"),
                *(("stage4", "head"), ("stage3", "stage4", "head"), ("stage2", "stage3", "stage4", "head")),
            ],
        ),
        (  # a ResNet, whose last stage is its head
            ["stem", "stage1", "layer2.0", "stage2", "layer3.0", "stage3", "layer4.0", "head"],
            ["head", "stage3", "stage2", ("stage3", "head"), ("stage2", "stage3", "head")],
        ),
        (  # a transformer
            [f"block{i}" for i in range(1, 13)] + ["head"],
            ["head", "block9", "block12", ("block9", "block12", "head")],
        ),
        (["stem", "stage1", "head"], ["head", "stage1", ("stage1", "head")]),
        (["stem", "head"], ["head"]),
        (["head"], ["head"]),
    ],
)
def test_the_usual_layers(names, expected):
    assert _usual_layers(stub(*names)) == expected


def test_what_is_given_once_need_not_be_a_list_and_twice_counts_once(tiny_backbone):
    one = list_candidates(FeatureExtractor(), tiny_backbone, "head", "avg", "whole")
    other = list_candidates(
        FeatureExtractor(), [tiny_backbone] * 2, ["head", None, ["head"], -1], ["avg", "avg"], ["whole"] * 2
    )
    assert [s.candidates for s in one] == [s.candidates for s in other]
    assert len(one[0].candidates) == 1


def test_without_names_every_backbone_on_this_machine_takes_part(tiny_backbone, monkeypatch):
    monkeypatch.setenv("FEATX_BACKBONES", str(tiny_backbone.parent))
    shared = list_candidates(FeatureExtractor(), None, ["head"], ["avg"], ["center"])
    names = [sharing.candidates[0].backbone for sharing in shared]
    assert names == ["efficientnet_lite0", "efficientnet_lite0_int8", "tiny", "tiny_int8"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backbones": []}, InputError, "nothing to compare"),
        ({"layers": []}, InputError, "nothing to compare"),
        ({"poolings": []}, InputError, "nothing to compare"),
        ({"crops": []}, InputError, "nothing to compare"),
        ({"backbones": ["resnet9000"]}, BackboneError, "resnet9000"),
        ({"backbones": [3]}, BackboneError, "backbone=3"),
        ({"layers": ["stage9"]}, BackboneError, "stage9"),
        ({"poolings": ["mean"]}, InputError, "pooling='mean'"),
        ({"crops": ["middle"]}, InputError, "crop='middle'"),
        ({"max_images": 1}, InputError, "max_images=1: expected an integer of at least 2"),
        ({"max_images": 10.0}, InputError, "max_images=10.0"),
        ({"cv": True}, InputError, "cv=True"),
        ({"max_images": 3}, InputError, "too few to compare on"),
        ({"max_ms": float("nan")}, InputError, "max_ms=nan"),
        ({"task": "ranking"}, InputError, "task='ranking'"),
        ({"extractor": FeatureExtractor(n_threads=0)}, InputError, "n_threads=0"),
    ],
)
def test_arguments_that_cannot_be_used(tiny_backbone, colours, options, error, said):
    with pytest.raises(error, match=re.escape(said)):
        compare(colours[0][:8], colours[1][:8], **{**of_tiny(tiny_backbone), **options})


def test_targets_and_images_must_be_as_many(tiny_backbone, colours):
    for y in (colours[1][:7], None):
        with pytest.raises(InputError, match="y: "):
            compare(colours[0][:8], y, **of_tiny(tiny_backbone))


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


def test_the_front_takes_distance_on_the_same_images():
    def candidate(behind, ms, score):
        return Candidate("a", "head", "avg", "whole", 8, behind=behind, ms=ms, score=score)

    some = [candidate(0.0, 9, 0.90), candidate(0.03, 4, 0.95), candidate(0.05, 5, 0.97), candidate(0.03, 4, 0.9)]
    assert [c.on_front for c in mark_front(some)] == [True, True, False, False]


def test_names_are_short():
    def describe(backbone, layer):
        return Candidate(backbone, layer, "avg", "whole", 8).describe()

    assert describe("/somewhere/far/resnet18.onnx", "head") == "resnet18 head, avg, whole"
    assert describe("a", ["stage2", "stage3", "stage4", "head"]) == "a stage2+3+4+head, avg, whole"
    assert describe("a", ["stem", "stage1", "block3"]) == "a stem+stage1+block3, avg, whole"


def unit(*angles):
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def test_what_is_the_same_as_the_same_is_one_group():
    step = np.arccos(0.95)
    assert group_duplicates(unit(0, step, 2 * step, 3)).tolist() == [0, 0, 0, 1]
    assert group_duplicates(unit(0, step, 2 * step, 3), 0.96).tolist() == [0, 1, 2, 3]
    assert group_duplicates(unit(0, 3, step)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_length_of_features_does_not_matter(scale):
    rng = np.random.default_rng(0)
    rows = rng.random((30, 1280)).astype(np.float32)
    rows = np.concatenate([rows, 3 * rows[::3]]) * np.float32(scale)
    assert group_duplicates(rows, 1.0).tolist() == [*range(30), *range(0, 30, 3)]


def test_pairs_across_blocks_are_found(monkeypatch):
    monkeypatch.setattr("featx.selection.duplicates._BLOCK", 7)
    rng = np.random.default_rng(0)
    place = rng.permutation(np.repeat(np.arange(25), 2))
    rows = rng.normal(size=(25, 64)).astype(np.float32)[place]
    groups = group_duplicates(rows)
    assert len(set(groups.tolist())) == 25
    assert all(len(set(place[groups == g].tolist())) == 1 for g in range(25))
    chain = unit(*(np.arange(50) * np.arccos(0.95)))
    assert group_duplicates(chain).max() == 0


def test_thousands_of_copies_take_no_memory():
    assert group_duplicates(np.ones((6000, 4), np.float32)).max() == 0


@pytest.mark.parametrize(
    ("features", "threshold", "said"),
    [
        (np.ones(3), 0.9, "of shape (3,)"),
        ([[np.nan, 1.0]], 0.9, "finite numbers"),
        ([["a"]], 0.9, "expected numbers"),
        (np.ones((2, 2)), 0.0, "threshold=0.0"),
        (np.ones((2, 2)), 1.5, "threshold=1.5"),
        (np.ones((2, 2)), "0.9", "threshold='0.9'"),
        (np.ones((2, 2)), None, "threshold=None"),
    ],
)
def test_what_cannot_be_grouped(features, threshold, said):
    with pytest.raises(InputError, match=re.escape(said)):
        group_duplicates(features, threshold)


def test_nothing_has_no_groups():
    assert group_duplicates(np.empty((0, 5))).tolist() == []
    assert group_duplicates(np.zeros((2, 5))).tolist() == [0, 1]  # says nothing, so it is like nothing


def test_copies_are_described():
    groups = np.array([0, 1, 1, 2, 3, 3])
    assert describe_copies(np.arange(3), np.zeros(3, int), None) == ""
    text = describe_copies(groups, np.array([0, 0, 1, 1, 1, 1]), None)
    assert text.startswith("2 of 6 images are near-duplicates of others, in 2 groups, 1 with several labels; a group")
    assert describe_copies(groups, np.zeros(6, int), np.arange(6)).endswith("in 2 groups; the given groups divide 2")


@pytest.mark.parametrize("n", [2, 4, 7, 12])
def test_few_images_that_all_look_alike_are_no_copies(n):
    assert find_copies(np.ones((n, 3), np.float32)).tolist() == list(range(n))


def test_a_large_part_that_looks_alike_is_believed_to_be_no_copies():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 64)).astype(np.float32)
    rows[:30] = 1
    assert find_copies(rows).tolist() == list(range(100))
    rows[:20] = rng.normal(size=(20, 64))
    assert find_copies(rows).max() == 90


def test_a_search_spares_many_classes_logistic_regression(tiny_backbone, colours, monkeypatch):
    X, y, _ = colours
    monkeypatch.setattr("featx.heads._MOST_WORK", 100)
    found = search(X[:60], y[:60], backbones=tiny_backbone, layers=["head"], crops="whole", poolings="avg")
    assert {tried.head for tried in found.tried} == {"sgd", "ridge", "linear_svm"}
    np.testing.assert_array_equal(found.embedded.features, found.extractor.transform(X[:60]))
    asked = search(X[:60], y[:60], head="logistic_regression", backbones=tiny_backbone, layers=["head"], crops="whole")
    assert {tried.head for tried in asked.tried} == {"logistic_regression"}
