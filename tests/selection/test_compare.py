"""Tasks, images, groups, budgets and mistakes of a comparison."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featx
from featx import FeatureExtractor
from featx.errors import BackboneError, ImageError, InputError, SourceError
from featx.images.decode import decode
from featx.samples import extract_fashion_mnist, load_fashion_mnist
from featx.selection import compare
from featx.selection.timing import Timing
from tests.selection.selection_tools import of_tiny


def test_the_red_channel_is_found_and_chance_is_called_so(tiny_backbone, colours):
    X, y, _ = colours
    found = compare(X[:120], y[:120], **of_tiny(tiny_backbone))
    assert found.task == "classification"
    assert found.recommended.score > 0.9
    assert "ignores the images" not in found.reason
    rng = np.random.default_rng(0)
    chance = compare(X[:120], rng.permutation(y[:120]), **of_tiny(tiny_backbone))
    assert "may be no better than a prediction that ignores the images (0.500)" in chance.reason


def test_a_regression_and_its_logarithm(tiny_backbone, colours):
    X, _, light = colours
    found = compare(X[:120], light[:120], **of_tiny(tiny_backbone))
    assert (found.task, found.metric) == ("regression", "r2")
    assert found.recommended.score > 0.8
    logarithm = compare(X[:120], light[:120], log_target=True, **of_tiny(tiny_backbone))
    assert logarithm.metric == "r2 of the logarithm"
    assert "The r2 of the logarithm of a linear probe on left-out images is " in logarithm.reason


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
        kept = [(c.key, c.score, c.low, c.high, c.loss, c.stopped, c.behind) for c in found.candidates]
        return kept, found.used.tolist(), found.notes

    assert outcome(0) == outcome(0)
    assert outcome(0)[1] != outcome(1)[1]


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
    assert found.notes[0] == "1 image without a label left out"


def test_when_none_can_be_read_the_first_is_named_by_its_place_in_x(tiny_backbone):
    items = ["gone.png", *(f"gone{i}.png" for i in range(9))]
    with pytest.raises(ImageError, match="not one of 9 images could be read") as caught:
        compare(items, [None, *"abc" * 3], **of_tiny(tiny_backbone))
    assert caught.value.failure.source == items[caught.value.failure.index]


def test_a_class_that_loses_its_images_takes_no_part(tiny_backbone, colours):
    X, y, _ = colours
    items, labels = [*X[:40], b"", X[40]], [*y[:40], "blue", "blue"]
    found = compare(items, labels, **of_tiny(tiny_backbone))
    assert any(note.startswith("1 of 3 classes were left out") for note in found.notes)
    assert found.recommended.n_images == 40
    with pytest.raises(InputError, match="3 readable images of 1 classes with two images or more"):
        compare([*X[[0, 2, 4]], b"", X[1]], ["a", "a", "a", "b", "b"], **of_tiny(tiny_backbone))


def test_groups_are_never_on_both_sides(tiny_backbone, monkeypatch):
    monkeypatch.setattr("featx.selection.duplicates._MIN_ALIKE_COSINE", 1.0)  # a scene's images have up to 0.999
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
        (["a", None] * 4, "groups: image 1 has no group"),
        ([["a"]] * 8, "expected a number or a name"),
        (["a"] * 8, "in 1 groups: too few to compare on"),
    ],
)
def test_groups_that_allow_no_folds(tiny_backbone, colours, groups, said):
    with pytest.raises(InputError, match=re.escape(said)):
        compare(colours[0][:8], colours[1][:8], groups=groups, **of_tiny(tiny_backbone))


def test_a_column_of_the_table_groups(tiny_backbone, colours, tmp_path):
    X, y, _ = colours
    rows = ["path,label,patient,site"]
    for i in range(24):
        Image.fromarray(X[i]).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{y[i]},{i // 4},A")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    found = compare(tmp_path / "t.csv", groups="patient", **of_tiny(tiny_backbone))
    given = compare(tmp_path / "t.csv", groups=[i // 4 for i in range(24)], **of_tiny(tiny_backbone))
    assert (found.recommended.score, found.recommended.low) == (given.recommended.score, given.recommended.low)
    for groups, said in (("doctor", "groups='doctor': no such column"), ("site", "all are in the group 'A'")):
        with pytest.raises(InputError, match=said):
            compare(tmp_path / "t.csv", groups=groups, **of_tiny(tiny_backbone))
    with pytest.raises(InputError, match="groups='patient': X holds images, which have no columns"):
        compare(X[:8], y[:8], groups="patient", **of_tiny(tiny_backbone))


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
    assert re.match(r"\d+ of 56 images are near-duplicates, in \d+ groups, 1 with different labels", note)
    own = compare(items, labels, groups=range(56), **choice)
    [note] = [note for note in own.notes if "near-duplicates" in note]
    assert re.search(r"`groups` separates [6-9] of them, which are kept together", note)


def test_images_that_all_look_alike_are_no_duplicates_and_that_is_said(tiny_backbone, colours, monkeypatch):
    monkeypatch.setattr("featx.selection.duplicates._MIN_ALIKE_COSINE", 1.0)  # features at random tell very little
    X, y, _ = colours
    X = np.concatenate([X[:59], X[3:4]])
    found = compare(X, y[:60], **of_tiny(tiny_backbone))
    assert [note for note in found.notes if "images look too much alike" in note]
    assert [note for note in found.notes if note.startswith("1 of 60 images is a near-duplicate, in 1 group")]
    [pair] = [found.used[found.groups == g].tolist() for g in np.flatnonzero(np.bincount(found.groups) > 1)]
    assert sorted(pair) == [3, 59]


def test_earlier_layers_look_for_no_duplicates():
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
    X[::2, 12:24, 12:24] ^= 1  # or the two images of a class were identical
    y = np.repeat([f"class {i}" for i in range(1000)], 2)
    found = compare(X, y, **of_tiny(tiny_backbone, layers="head"))
    assert found.n_used == 2000
    assert found.recommended.score > 0.005  # of a thousand classes, and features at random
    assert "1000 classes" in found.reason
    assert "With so few images the order is mostly chance." in found.reason
    some = compare(X, y, max_images=100, **of_tiny(tiny_backbone, layers="head"))
    assert some.recommended.n_images == 100  # two of each of fifty
    assert any(note.startswith("950 of 1000 classes were left out") for note in some.notes)


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
    assert "Of 2 candidates within 2.5 ms per image, it predicts 2 classes with" in found.reason
    assert "1 of 3 candidates exceed the budget" in found.notes
    one = compare(X[:60], y[:60], max_ms=2.5, max_mb=0.1, **few)
    assert [c.layer for c in one.candidates] == ["stem"]
    assert "The only candidate within 2.5 ms per image and 0.1 MB to predict 2 classes" in one.reason
    with pytest.raises(InputError, match=r"within max_ms=0.5, max_mb=None: the fastest takes 1.00 ms .* 0.10 MB"):
        compare(X[:60], y[:60], max_ms=0.5, **few)
    with pytest.raises(InputError, match="max_mb=0: expected a number above 0"):
        compare(X[:60], y[:60], max_mb=0, **few)


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images of each of two classes, one broken, and a table of them with numbers and holes."""
    folder, everything = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("all")
    extract_fashion_mnist(everything)
    rows = []
    for name in ("bag", "coat"):
        (folder / "images" / name).mkdir(parents=True)
        for i, file in enumerate(sorted((everything / "train" / name).iterdir())[:8]):
            file.rename(folder / "images" / name / f"{i}.png")
            rows.append((f"images/{name}/{i}.png", f"{len(rows) * 1.25:.2f}", len(rows) % 3))
    (folder / "images" / "coat" / "7.png").write_bytes(b"no image")
    rows[4] = (rows[4][0], "", rows[4][2])
    pd.DataFrame(rows, columns=["path", "price", "grade"]).to_csv(folder / "table.csv", index=False)
    return folder


def test_a_folder_and_a_table_are_taken_as_they_are(folder, tiny_backbone):
    found = compare(folder / "images", **of_tiny(tiny_backbone))
    assert (found.task, found.n_images, found.n_used) == ("classification", 16, 15)
    [failure] = found.failures
    assert failure.source == str(folder / "images" / "coat" / "7.png")
    paths = sorted(map(str, folder.glob("images/*/*.png")))
    same = compare(paths, [path.split("/")[-2] for path in paths], **of_tiny(tiny_backbone))
    assert [(c.key, c.score) for c in found.candidates] == [(c.key, c.score) for c in same.candidates]
    found = compare(str(folder / "table.csv"), target="price", **of_tiny(tiny_backbone))
    assert (found.task, found.n_images, found.n_unlabelled) == ("regression", 15, 1)
    assert {"paths from column 'path'", "1 image without a label left out"} <= set(found.notes)
    levels = compare(str(folder / "table.csv"), target="grade", task="ordinal", **of_tiny(tiny_backbone))
    assert (levels.task, levels.n_images) == ("ordinal", 16)


def test_an_archive_is_a_source_and_patterns_choose_its_images(folder, tiny_backbone, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", folder / "images")
    found = compare(archive, include="*/[0-5].png", **of_tiny(tiny_backbone))
    same = compare(folder / "images", exclude=["*/6.png", "*/7.png"], **of_tiny(tiny_backbone))
    assert found.n_used == same.n_used == 12
    assert found.failures == []


def test_sources_that_cannot_be_compared(folder, tiny_backbone, tmp_path):
    with pytest.raises(InputError, match="expected levels that are numbers: column 'path'"):
        compare(str(folder / "table.csv"), target="path", task="ordinal", **of_tiny(tiny_backbone))
    with pytest.raises(InputError, match="task='multilabel': a source has one label per image"):
        compare(folder / "images", task="multilabel", **of_tiny(tiny_backbone))
    with pytest.raises(SourceError):
        compare(folder / "nowhere", **of_tiny(tiny_backbone))


def test_a_dataset_is_compared_on_the_images_it_was_made_from(folder, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    featx.dataset.embed(folder / "images", "vectors", featx.FeatureExtractor(tiny_backbone), exclude="*/6.png")
    found = compare("vectors", **of_tiny(tiny_backbone))
    assert found.n_used == compare(folder / "images", **of_tiny(tiny_backbone)).n_used
    shutil.copytree(folder / "images", "moved")
    featx.dataset.embed("moved", "others", featx.FeatureExtractor(tiny_backbone))
    shutil.rmtree("moved")
    with pytest.raises(SourceError, match="others: a dataset of embeddings; other features need its images"):
        compare("others", **of_tiny(tiny_backbone))
