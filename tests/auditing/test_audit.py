"""Tests of featx.audit: planted faults are found, clean data are not accused, and nothing else happens."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

import featx
from featx._events import Events
from featx.auditing import Membership
from featx.auditing.audit import _describe_exposed
from featx.auditing.duplicates import find_pairs
from featx.auditing.inspection import Inspected
from featx.auditing.labels import find_wrong_labels
from featx.auditing.leaks import describe_name, find_bursts, make_leak, measure_leak
from featx.cli import main
from featx.images.statistics import LOOKS, measure_container, measure_image, measure_looks

X, Y = featx.samples.load_fashion_mnist("test")
HOSTILE = "<img src=x onerror=alert(1)>"


def encode(image, quality=90, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def of_kind(found, text):
    return [one for one in found.findings if text in one.kind]


@pytest.fixture(scope="module")
def photos():
    """Cuts of two photographs, and clothes."""
    china, flower = load_sample_images().images
    cuts = [china[200:400, :200], china[200:400, 400:600], flower[100:300, 150:350]]
    clothes = [X[list(Y).index(label)] for label in ("bag", "trouser", "ankle-boot", "dress", "sandal")]
    resized = [Image.open(io.BytesIO(content)).convert("RGB").resize((200, 200)) for content in clothes]
    return [*map(Image.fromarray, cuts), *resized]


def test_planted_copies_are_found_by_kind_and_nothing_else(photos) -> None:
    copies = {
        "saved again": encode(photos[0], 60),
        "resized": encode(photos[1].resize((100, 100))),
        "mirrored": encode(photos[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "brightness changed": encode(ImageEnhance.Brightness(photos[3]).enhance(1.3)),
        "": encode(photos[5].crop((5, 5, 195, 195))),
        "the same file": encode(photos[6]),
    }
    found = featx.audit([*map(encode, photos), *copies.values()], test=list(map(encode, photos[:1])), images=False)
    pairs = {one.images: one.evidence for one in of_kind(found, "duplicate")}
    originals = [0, 1, 2, 3, 5, 6]
    for (change, _), i, k in zip(copies.items(), originals, range(8, 14), strict=True):
        assert change in pairs.pop((f"X[{i}]", f"X[{k}]"))
    assert set(pairs) == {("test[0]", "X[0]"), ("test[0]", "X[8]")}  # across the split
    assert found.counts["severe"] == 2
    assert found.fails()


def test_wrong_labels_rank_first() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 50)
    right = np.eye(3)[codes] * 0.8 + rng.dirichlet(np.ones(3), 150) * 0.2
    right[[3, 70, 120]] = np.eye(3)[codes[[3, 70, 120]]] * 0.97 + 0.01
    given = codes.copy()
    given[[3, 70, 120]] = [1, 2, 0]
    found = find_wrong_labels(right, given)
    assert set(found[:3].tolist()) == {3, 70, 120}
    assert len(find_wrong_labels(right, codes)) <= 3


@pytest.mark.heavy
def test_a_wrong_label_is_found_in_images_with_its_proposal() -> None:
    chosen = [i for i, label in enumerate(Y) if label in ("bag", "trouser", "ankle-boot")]
    labels = [str(Y[i]) for i in chosen]
    labels[0] = "trouser" if labels[0] != "trouser" else "bag"
    found = featx.audit([X[i] for i in chosen], labels, images=False)
    wrong = {one.images[0]: one for one in of_kind(found, "wrong label")}
    assert wrong["X[0]"].proposed == str(Y[chosen[0]])
    assert len(wrong) <= 3
    assert found.accuracy > 0.8
    assert {leak.source for leak in found.leaks} == {"container", "looks"}
    assert json.dumps(found.to_dict())
    assert found.to_frame().shape == (len(found.findings), 9)
    assert "Audit of" in found._repr_html_()
    assert "label told from" in str(found)


def test_qualities_of_two_classes_are_a_severe_leak() -> None:
    rng = np.random.default_rng(0)
    columns = []
    codes = np.repeat([0, 1], 40)
    for label in codes:
        image = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
        measured = measure_image(encode(image, 90 if label else 88))[0]
        columns.append([measured.container.n_bytes, *measured.container.tables])
    leak = measure_leak("container", np.array(columns, float), codes, None, np.arange(80) % 10 > 0, Events())
    assert leak.accuracy > 0.95
    assert leak.severity == "severe"


@pytest.mark.parametrize(("n_right", "severity"), [(100, None), (118, "note"), (135, "warning"), (175, "severe")])
def test_a_leak_is_graded_by_its_share_of_the_gain(n_right, severity) -> None:
    codes = np.repeat([0, 1], 100)
    leak = make_leak("container", np.arange(200) < n_right, codes, np.arange(200) < 190)
    assert leak.severity == severity


def test_names_lose_their_folder_and_words_of_the_class() -> None:
    assert describe_name("a/cats/cat.0012.jpg", ["cats"]) == describe_name("b/dogs/dogs.0012.jpg", ["cats", "dogs"])
    assert describe_name("x_12.jpg", []) != describe_name("x_13.jpg", [])


def test_exif_tells_camera_and_bursts() -> None:
    def take(second, model="A"):
        exif = Image.Exif()
        exif[0x0110] = model
        exif.get_ifd(0x8769)[0x9003] = f"2026:01:02 03:04:{second:02}"
        return measure_image(encode(Image.new("RGB", (8, 8)), exif=exif))[0]

    groups = find_bursts([take(1), take(30), take(2), take(3, "B"), None])
    assert groups.tolist() == [0, 1, 0, 2, 3]


def test_looks_find_blur_darkness_and_blanks(photos) -> None:
    from PIL import ImageFilter

    bad = [
        photos[0].filter(ImageFilter.GaussianBlur(6)),
        Image.eval(photos[1], lambda value: value // 8),
        Image.new("RGB", (200, 200), "grey"),
    ]
    found = featx.audit([encode(image) for image in (*photos[:3], *bad)], images=False)
    kinds = {one.kind: one.images[0] for one in found.findings if "image" in one.kind}
    assert kinds == {"blurred image": "X[3]", "dark image": "X[4]", "blank image": "X[5]"}
    assert len(measure_looks(bad[2])[0]) == len(LOOKS)


def test_images_in_one_frame_are_found(photos) -> None:
    frame = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).resize((320, 320), 0)
    shots = []
    for photo in photos[:3]:
        shot = frame.copy()
        shot.paste(photo.resize((260, 260)), (30, 30))
        shots.append(shot)
    found = featx.audit([encode(image) for image in (*photos[3:], *shots)], images=False)
    (finding,) = of_kind(found, "same frame")
    assert set(finding.images) == {"X[5]", "X[6]", "X[7]"}


def test_a_container_is_read_without_its_pixels() -> None:
    content = encode(Image.new("RGB", (30, 20)))
    assert measure_container(content[:-20]) == measure_container(content).__class__(
        **{**{name: getattr(measure_container(content), name) for name in measure_container(content).__slots__}}
        | {"n_bytes": len(content) - 20}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "photos"
    for i in range(0, 120):
        label = {"bag": HOSTILE, "sandal": "sandal"}.get(Y[i * 2])
        if label:
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{i}'\"><b>.png").write_bytes(bytes(X[i * 2]))
    (folder / "sandal" / "empty.png").write_bytes(b"")
    (folder / "sandal" / "cut.png").write_bytes(bytes(X[0])[:200])
    return folder


def test_the_command_writes_a_page_and_a_table(folder, tmp_path, capsys) -> None:
    page, table = tmp_path / "audit.html", tmp_path / "findings.csv"
    assert main(["audit", str(folder), "-o", str(page), "--csv", str(table)]) == 0
    out = capsys.readouterr().out
    assert "0 severe findings" in out
    assert "audit.html: written" in out
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<b>.png" not in text
    assert html.escape(HOSTILE) in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(address.startswith("data:") for address in addresses)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["image", "kind", "severity", "evidence", "suggestion"]
    kinds = {row["kind"]: row for row in rows}
    assert kinds["empty file"]["image"].endswith("empty.png")
    assert kinds["damaged file"]["severity"] == "warning"


@pytest.mark.heavy
def test_the_exit_status_is_for_pipelines(folder, tmp_path, capsys) -> None:
    assert main(["audit", str(folder), "--fail-on", "warning"]) == 1
    assert main(["audit", str(folder / "nothing")]) == 2
    assert main(["audit", str(folder), "-o", str(tmp_path / "audit.txt")]) == 2
    assert "ends in .html" in capsys.readouterr().err


def test_an_interrupted_audit_leaves_no_file(folder, tmp_path, monkeypatch) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("featx.auditing.duplicates.NearestRows.add", interrupt)
    assert main(["audit", str(folder), "-o", str(tmp_path / "a.html"), "--csv", str(tmp_path / "a.csv")]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_features_are_those_of_the_extractor_and_images_are_read_once(folder, monkeypatch) -> None:
    from featx.auditing.inspection import inspect
    from featx.fitting.inputs import read_inputs

    extractor = featx.FeatureExtractor().fit(None)
    inputs = read_inputs(folder)
    seen = inspect(inputs, extractor, Events())
    assert np.array_equal(seen.features, extractor.transform(seen.items))
    assert len(seen.failures) == 2
    cached = inspect(inputs, featx.FeatureExtractor(cache=str(folder.parent / "cache")).fit(None), Events())
    assert np.array_equal(cached.looks, seen.looks)


@pytest.mark.heavy
def test_a_dataset_of_embeddings_is_audited(folder, tmp_path) -> None:
    featx.dataset.embed(folder, tmp_path / "vectors")
    found = featx.audit(tmp_path / "vectors", images=False)
    assert {leak.source for leak in found.leaks} == {"container", "looks", "name"}
    moved = folder.rename(folder.with_name("moved"))
    try:
        found = featx.audit(tmp_path / "vectors", background=True, images=False)
    finally:
        moved.rename(folder)
    assert {leak.source for leak in found.leaks} == {"name"}
    assert any("cannot be reached" in note for note in found.notes)
    assert any("background: not checked" in note for note in found.notes)


def test_numbers_and_missing_labels_are_said() -> None:
    found = featx.audit([*X[:12]], np.linspace(0, 1, 12), images=False)
    assert any("are numbers" in note for note in found.notes)
    found = featx.audit([*X[:4]], images=False)
    assert any("no labels" in note for note in found.notes)
    assert found.leaks == ()


def test_a_model_brings_its_features() -> None:
    labels = list(map(str, Y[:60]))
    result = featx.fit(list(X[:60]), labels, head="knn", extractor=featx.FeatureExtractor(layer="stem"), estimate=False)
    found = featx.audit(list(X[:20]), labels[:20], model=result, images=False)
    assert "layer [&#x27;stem&#x27;]" in found.page
    with pytest.raises(featx.InputError, match="features of the model are used"):
        featx.audit(list(X[:20]), model=result, extractor=featx.FeatureExtractor())


def test_a_severity_that_is_none_is_refused() -> None:
    found = featx.audit(list(X[:3]), images=False)
    with pytest.raises(featx.InputError, match="severity='bad': expected 'severe', 'warning' or 'note'"):
        found.fails("bad")


def test_classes_that_no_head_knows_count_neither_for_nor_against_the_head() -> None:
    rows = [*np.flatnonzero(Y == "bag")[:15], *np.flatnonzero(Y == "trouser")[:15]]
    rare = np.setdiff1d(np.arange(len(Y)), rows)[:12]
    labels = [*Y[rows], *(f"rare{i // 2}" for i in range(12))]
    found = featx.audit([X[i] for i in (*rows, *rare)], labels, images=False)
    looks = next(leak for leak in found.leaks if leak.source == "looks")
    assert (looks.n_images, looks.majority) == (30, 0.5)
    assert looks.head == found.accuracy > 0.9


def test_a_model_for_numbers_and_a_class_of_one_image_are_notes() -> None:
    numbers = featx.fit(
        list(X[:12]), np.arange(12) + 0.5, head="ridge", extractor=featx.FeatureExtractor(layer="stem"), estimate=False
    )
    found = featx.audit(list(X[:25]), ["ant", "bee"] * 12 + ["cat"], model=numbers, images=False)
    assert found.membership is None
    assert any("1 images are alone in their class" in note for note in found.notes)
    assert any("expected a classifier" in note for note in found.notes)


@pytest.mark.heavy
def test_the_most_exposed_images_are_named(tmp_path, capsys) -> None:
    chosen = [i for i, label in enumerate(Y) if label in ("shirt", "coat")]
    for i in chosen:
        (tmp_path / "clothes" / Y[i]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "clothes" / Y[i] / f"{i}.png").write_bytes(X[i])
    extractor = featx.FeatureExtractor(layer="stem")
    fitted = featx.fit(tmp_path / "clothes", head="knn", extractor=extractor, estimate=False)
    fitted.save(tmp_path / "m.featx")
    page, table = tmp_path / "a.html", tmp_path / "a.csv"
    arguments = ["--model", str(tmp_path / "m.featx"), "-o", str(page), "--csv", str(table), "--json"]
    main(["audit", str(tmp_path / "clothes"), *arguments])
    found = json.loads(capsys.readouterr().out)
    exposed = [one for one in found["findings"] if one["kind"] == "exposed image"]
    assert len(exposed) == 5
    assert {one["severity"] for one in exposed} == {"note"}
    assert found["membership"]["n_shadows"] == 64
    assert "training vectors" in found["contents"]
    (name,) = exposed[0]["images"]
    with table.open(encoding="utf-8", newline="") as file:
        assert name in {row["image"] for row in csv.DictReader(file) if row["kind"] == "exposed image"}
    text = page.read_text(encoding="utf-8")
    assert "exposed image: 5" in text
    assert html.escape(name) in text


def test_no_image_is_exposed_by_chance() -> None:
    rates = ((0.001, 0.001, 0.0, 0.004), (0.01, 0.012, 0.008, 0.02))
    membership = Membership(2, 2, 8, rates, np.array([0.3, 0.1]), (0, 1), ())
    assert not membership.finds_members
    assert _describe_exposed(None, membership) == []
    told = replace(membership, rates=(rates[0], (0.01, 0.1, 0.08, 0.2)), exposure=np.array([0.3, -0.1]))
    images = SimpleNamespace(names=["a.jpg", "b.jpg", "c.jpg"])
    (finding,) = _describe_exposed(SimpleNamespace(images=images, rows=np.array([2, 1]), labels=["x", "y", "z"]), told)
    assert (finding.images, finding.label) == (("c.jpg",), "z")


def test_groups_of_a_column_straddle_the_split(tmp_path, capsys) -> None:
    for i in (0, 1, 2, 4, 5):
        (tmp_path / f"{i}.png").write_bytes(X[i * 7])
    (tmp_path / "a.csv").write_text("file,patient,kind\n0.png,p1,a\n1.png,p2,b\n2.png,,a\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("file,patient,kind\n0.png,p2,b\n4.png,,a\n5.png,p9,a\n", encoding="utf-8")
    tables = [str(tmp_path / "a.csv"), "--path-column", "file", "--target", "kind", "--test", str(tmp_path / "b.csv")]
    assert main(["audit", *tables, "--groups", "patient", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (finding,) = [one for one in found["findings"] if "'patient'" in one["kind"]]
    assert [name.rsplit("/", 1)[-1] for name in finding["images"]] == ["0.png"]
    assert [one["label"] for one in found["findings"] if "with another label" in one["kind"]] == ["b"]
    assert main(["audit", *tables, "--groups", "ward"]) == 2
    assert "no such column" in capsys.readouterr().err


def test_series_by_name_and_cameras_straddle_the_split(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "A"
    for part, patients in (("train", "01234567"), ("test", "789")):
        (tmp_path / part).mkdir()
        for patient in patients:
            for k in range(2):
                image = Image.open(io.BytesIO(X[int(patient) * 11 + k * 5])).convert("RGB")
                taken = {"exif": exif} if patient in "07" else {}
                name = f"patient{patient}_{len(part)}{k}.jpg"
                (tmp_path / part / name).write_bytes(encode(image, **taken))
    found = featx.audit(tmp_path / "train", test=tmp_path / "test", images=False)
    straddling = {one.kind: one for one in of_kind(found, "straddles the split")}
    series, camera = straddling["series by name straddles the split"], straddling["camera straddles the split"]
    assert [re.split(r"[/\\]", name)[-1] for name in series.images] == ["patient7_40.jpg", "patient7_41.jpg"]
    assert (series.severity, camera.severity) == ("warning", "note")
    assert set(camera.images) == set(series.images)
    alone = featx.audit(tmp_path / "train", images=False)
    (group,) = of_kind(alone, "group: series by name")
    assert len(group.images) == 16


def test_small_copies_of_small_images_are_found_by_their_thumbnails() -> None:
    rng = np.random.default_rng(0)

    def draw(side):
        return Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)

    def see(contents):
        measured = [measure_image(content)[0] for content in contents]
        features = rng.normal(size=(len(contents), 8)).astype(np.float32)
        names = [str(i) for i in range(len(contents))]
        return Inspected(None, names, np.arange(len(contents)), features, measured, [], None)

    small, large = [draw(32) for _ in range(12)], [draw(128) for _ in range(12)]
    copies = [encode(image.resize((image.width // 2,) * 2)) for image in (small[3], large[3])]
    ours = see([*map(encode, (*small, *large)), *copies])
    pairs = find_pairs(ours, None, Events())
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(3, 24)]
    across = find_pairs(see(copies), see([*map(encode, small)]), Events())
    assert list(zip(across.first, across.second, strict=True)) == [(0, 3)]


def test_a_result_names_the_first_of_many_files(tmp_path) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for path, image in zip(paths, X, strict=False):
        (tmp_path / path).write_bytes(image)
    assert featx.audit(paths, images=False).where == f"{paths[0]} and 4 more"


def test_texts_are_refused_with_what_an_audit_takes(tmp_path, capsys) -> None:
    (tmp_path / "t.csv").write_text("review,stars\ngood film,1\nbad film,0\n")
    with pytest.raises(featx.SourceError, match=r"which column holds the paths.*an audit takes images"):
        featx.audit(tmp_path / "t.csv", target="stars")
    with pytest.raises(featx.InputError, match="extractor=TextExtractor: an audit takes images"):
        featx.audit(["good film", "bad film"], extractor=featx.TextExtractor())
    assert main(["audit", str(tmp_path / "t.csv"), "--text-column", "review"]) == 2
    assert "--text-column review: an audit takes images" in capsys.readouterr().err


def test_without_a_page_the_command_names_it_and_the_column_of_labels(folder, tmp_path, capsys) -> None:
    images = [*sorted((folder / "sandal").glob("*b>.png")), folder / "sandal" / "empty.png"]
    rows = [[str(path), "sandal"] for path in images]
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "article"], *rows])
    assert main(["audit", str(tmp_path / "table.csv")]) == 0
    said = capsys.readouterr()
    assert "no labels (--target names their column, such as 'article')" in said.out
    assert "1 warning, " in said.out
    assert "-o audit.html" in said.err
