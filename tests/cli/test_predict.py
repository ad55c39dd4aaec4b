"""``featx embed`` and ``featx predict``: one row an image, openable paths, reasons beside failures."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.cli.cli_tools import CLASSES, listing, write_csv


def test_predict_writes_path_class_and_a_probability_for_each_class(featx, here, to_world, models):
    ran = featx("predict", models["classes"], f"{to_world}/test", "-o", "p.csv")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "p.csv: 12 of 12 images predicted on cpu\n"
    assert listing(here) == ["p.csv"]
    table = pd.read_csv("p.csv")
    names = [name for name in table.columns if name != "true"]
    assert names == ["path", "predicted", *(f"proba_{name}" for name in CLASSES), "error"]
    assert all((here / path).is_file() for path in table["path"])
    probabilities = table[[f"proba_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)  # they are float32
    assert table["predicted"].tolist() == [CLASSES[i] for i in probabilities.argmax(axis=1)]
    assert table["error"].isna().all()


def test_predict_writes_the_value_of_a_regression(featx, here, world, models):
    assert featx("predict", models["brightness"], world / "brightness-test.csv", "-o", "p.parquet").code == 0
    table = pd.read_parquet("p.parquet")
    truth = pd.read_csv(world / "brightness-test.csv")["brightness"]
    assert table.columns[0] == "path"
    assert [name for name in table.columns if name in ("predicted", "error")] == ["predicted", "error"]
    assert np.corrcoef(table["predicted"], truth)[0, 1] > 0.7


def test_both_formats_hold_the_same(featx, here, world, models):
    for name in ("p.csv", "p.parquet"):
        assert featx("predict", models["classes"], world / "test", "-o", name).code == 0
    left, right = pd.read_csv("p.csv"), pd.read_parquet("p.parquet")
    assert left["predicted"].tolist() == right["predicted"].tolist()
    np.testing.assert_allclose(left["proba_bag"], right["proba_bag"], rtol=1e-12)


@pytest.mark.parametrize("source", ["test", "test.csv", "brightness-test.csv", "test/*/*.png"])
def test_paths_open_from_where_the_command_ran(featx, here, to_world, models, source):
    options = ("--path-column", "image") if source.startswith("bright") else ()
    assert featx("predict", models["classes"], f"{to_world}/{source}", "-o", "p.csv", *options).code == 0
    paths = pd.read_csv("p.csv")["path"].tolist()
    assert len(paths) == 12
    assert all(path.startswith(f"{to_world}/test/") for path in paths)
    assert all((here / path).is_file() for path in paths)


def test_paths_are_written_as_given(featx, here, world, models):
    shutil.copy(next((world / "test" / "bag").iterdir()), "mine ü.png")
    given = ["mine ü.png", "./mine ü.png", str(here / "mine ü.png")]
    assert featx("predict", models["classes"], *given, "-o", "p.csv").code == 0
    table = pd.read_csv("p.csv")
    assert table["path"].tolist() == given
    assert table["proba_bag"].nunique() == 1


def test_bad_images_get_a_row_with_the_reason(featx, here, world, models):
    good = next((world / "test" / "bag").iterdir())
    write_csv("t.csv", ["path"], [good], [world / "broken.png"], ["gone.png"], [good])
    for model, empty in (
        ("classes", ["predicted", *(f"proba_{name}" for name in CLASSES)]),
        ("brightness", ["predicted"]),
    ):
        ran = featx("predict", models[model], "t.csv", "-o", "p.csv", "--path-column", "path")
        assert ran.code == 0
        assert ran.out == "p.csv: 2 of 4 images predicted on cpu\n"
        assert ran.err.splitlines()[-3] == "featx: 2 images could not be read, row without a prediction:"
        assert ran.err.splitlines()[-1].startswith("  gone.png: no such file")
        with open("p.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [bool(row[empty[0]]) for row in rows] == [True, False, False, True]
        assert all(rows[i][name] == "" for i in (1, 2) for name in empty)
        assert rows[0]["error"] == rows[3]["error"] == ""
        assert rows[1]["error"]
        assert rows[2]["error"].startswith("no such file")


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_embed_writes_paths_beside_vectors(featx, here, to_world, suffix):
    ran = featx("embed", f"{to_world}/test", "-o", f"f.{suffix}", "--layer", "stage1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"f.{suffix}: 12 images, 24 features each, efficientnet_lite0 on ")
    if suffix == "npy":
        assert listing(here) == ["f.npy", "f.paths.csv"]
        features, table = np.load("f.npy"), pd.read_csv("f.paths.csv")
    else:
        assert listing(here) == [f"f.{suffix}"]
        table = pd.read_csv("f.csv") if suffix == "csv" else pd.read_parquet("f.parquet")
        features = table[[f"efficientnet_lite0_stage1_{i}" for i in range(24)]].to_numpy()
    assert features.shape == (12, 24)
    assert np.isfinite(features).all()
    assert all((here / path).is_file() for path in table["path"])
    assert table["error"].isna().all()


def test_embed_writes_the_same_numbers_in_every_format(featx, here, world):
    for suffix in ("npy", "csv", "parquet"):
        assert featx("embed", world / "test" / "bag", "-o", f"f.{suffix}").code == 0
    expected = np.load("f.npy")
    for table in (pd.read_csv("f.csv"), pd.read_parquet("f.parquet")):
        np.testing.assert_array_equal(table.filter(like="efficientnet").to_numpy(np.float32), expected)


def test_embed_takes_a_whole_tree_with_splits(featx, here, world):
    assert featx("embed", world / "train", world / "test", "-o", "f.npy").code == 0
    assert np.load("f.npy").shape == (48, 1280)


def test_embed_copies_the_label_of_a_table(featx, here, world):
    assert featx("embed", world / "test.csv", "-o", "f.csv").code == 0
    table = pd.read_csv("f.csv")
    assert table["label"].tolist() == [path.split("/")[-2] for path in table["path"]]
    arguments = ("--path-column", "image", "--target", "brightness", "-o", "g.csv")
    assert featx("embed", world / "brightness-test.csv", *arguments).code == 0
    assert pd.read_csv("g.csv")["label"].tolist() == pd.read_csv(world / "brightness-test.csv")["brightness"].tolist()


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_embed_keeps_an_empty_row_for_a_bad_image(featx, here, world, suffix):
    good = next((world / "test" / "bag").iterdir())
    ran = featx("embed", good, world / "broken.png", "-o", f"f.{suffix}")
    assert ran.code == 0
    assert ran.err.splitlines()[0] == "featx: 1 image could not be read, row left empty:"
    assert ran.err.splitlines()[1].startswith(f"  {world / 'broken.png'}: ")
    table = pd.read_parquet("f.parquet") if suffix == "parquet" else pd.read_csv(next(here.glob("f*.csv")))
    features = np.load("f.npy") if suffix == "npy" else table.filter(like="efficientnet").to_numpy(float)
    assert np.isfinite(features[0]).all()
    assert np.isnan(features[1]).all()
    assert pd.isna(table["error"][0])
    assert table["error"][1]
