import numpy as np
import pytest

import featx
from featx.cli import main
from featx.fitting.active_learning import choose_diverse

EXTRACTOR = featx.FeatureExtractor(layer="stem")


@pytest.fixture
def folder(tmp_path):
    X, _ = featx.samples.load_fashion_mnist("test")
    for i, label in enumerate(["ant", "bee"] * 6):
        path = tmp_path / "photos" / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(X[i])
    return tmp_path / "photos"


def fit(folder, labels):
    return featx.fit(folder, labels=labels, head="knn", extractor=EXTRACTOR, estimate=False)


def test_corrected_labels_replace_those_of_the_source(folder, tmp_path):
    path = tmp_path / "corrected.csv"
    path.write_text("path,predicted,label\nant/0.png,ant,bee\nbee/1.png,ant,\n4.png,ant,-\nant/2.png,bee,ant\n")
    result = fit(folder, path)
    assert result.info["counts"] == {"ant": 4, "bee": 7}
    assert any("1 labels changed, 0 new, 1 images left out, 1 as they were" in note for note in result.notes)


def test_rows_of_findings_that_were_corrected_go_back(folder, tmp_path):
    path = tmp_path / "findings.csv"
    path.write_text("image,kind,label,proposed\nant/0.png,wrong label,bee,bee\n,small class,ant,\nbee/1.png,dark,,\n")
    assert fit(folder, path).info["counts"] == {"ant": 5, "bee": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nant/77.png,bee\n", "row 2: ant/77.png is not in the source"),
        ("path,label\nant/0.png,bee\nant/10.pgn,bee\n", "did you mean 'ant/10.png'"),
        ("path,label\nant/0.png,bee\n0.png,ant\n", "row 3: 0.png is the same as .*row 2"),
        ("path,label\nant/0.png,bee\nant/0.png,ant\n", "row 3: ant/0.png has the label ant, and bee in .*row 2"),
        ("file,label\nant/0.png,bee\n", "columns file, label; expected path .or image. and label"),
    ],
)
def test_a_mistake_in_the_corrections_names_its_row(folder, tmp_path, text, message):
    path = tmp_path / "corrected.csv"
    path.write_text(text)
    with pytest.raises(featx.InputError, match=message):
        fit(folder, path)


def test_images_to_label_go_round_the_loop(folder, tmp_path):
    result = fit(folder, {"ant/0.png": "bee"})
    X, _ = featx.samples.load_fashion_mnist("test")
    found = featx.label_next(result, [*X[12:30], X[12]], n=4)
    assert len(set(found.names)) == 4
    assert not {"X[0]", "X[18]"} <= set(found.names)  # the same image
    found.save(tmp_path / "to_label.csv")
    first, *rows = (tmp_path / "to_label.csv").read_text().splitlines()
    assert first == "path,predicted,probability,label"
    assert len(rows) == 4
    assert len(featx.label_next(result, X[12:14], n=50).names) == 2


def test_uncertain_rows_are_chosen_from_each_cluster():
    rng = np.random.default_rng(0)
    centres = np.eye(4)[np.arange(200) % 4]
    features = (centres + 0.01 * rng.normal(size=(200, 4))).astype(np.float32)
    uncertainty = np.where(np.arange(200) < 100, 0.8, 0.1)
    chosen = choose_diverse(features, uncertainty, 4)
    assert sorted(chosen % 4) == [0, 1, 2, 3]
    assert (chosen < 100).all()


@pytest.mark.heavy
def test_the_command_writes_the_file_to_fill_in(folder, tmp_path, capsys):
    fit(folder, None).save(tmp_path / "m.featx")
    output = tmp_path / "to_label.csv"
    sheet = tmp_path / "sheet.png"
    arguments = ["label-next", str(tmp_path / "m.featx"), str(folder), "-n", "3", "-o", str(output)]
    assert main([*arguments, "--sheet", str(sheet)]) == 0
    assert "3 of 12 images to label next" in capsys.readouterr().out
    rows = output.read_text().splitlines()
    output.write_text("\n".join([rows[0], *(row + "bee" for row in rows[1:])]) + "\n")
    assert sheet.stat().st_size > 1000
    assert any("0 new" in note for note in fit(folder, output).notes)


def test_an_empty_label_of_a_mapping_changes_nothing(folder):
    result = fit(folder, {"ant/0.png": "bee", "ant/2.png": "", "ant/4.png": None, "ant/6.png": float("nan")})
    assert result.info["counts"] == {"ant": 5, "bee": 7}
    assert any("1 labels changed, 0 new, 0 images left out" in note for note in result.notes)


def test_corrected_numbers_stay_numbers():
    X, _ = featx.samples.load_fashion_mnist("test")
    arguments = {"extractor": EXTRACTOR, "head": "ridge", "estimate": False}
    result = featx.fit(list(X[:12]), np.arange(12) + 0.5, labels={"X[0]": "3.5", "X[1]": "-"}, **arguments)
    assert (result.task, result.n_images) == ("regression", 11)
    with pytest.raises(featx.InputError, match=r"labels\['X\[0\]'\]: 'bag' is not a number"):
        featx.fit(list(X[:12]), np.arange(12) + 0.5, labels={"X[0]": "bag"}, **arguments)
