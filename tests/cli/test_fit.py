"""``featx fit`` and ``featx evaluate``."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from featx.heads import HEADS
from featx.persistence.archive import read_info
from tests.cli.cli_tools import CLASSES, listing, write_csv

CLASSIFICATION = [
    "n",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "roc_auc",
    "balance",
    "per_class",
    "confusion",
]


def test_a_folder_from_fit_to_evaluate(featx, here, to_world):
    ran = featx("fit", f"{to_world}/train", "-o", "m.featx")
    assert ran.code == 0
    assert ran.err == "featx: no guard: 36 images are too few for a guard; at least 50 are needed\n"
    assert "m.featx: logistic_regression on efficientnet_lite0 (cpu), 36 images, 3 classes (bag 12" in ran.out
    assert "left-out images, 5 folds: accuracy 0.9" in ran.out or "accuracy 1.0" in ran.out
    assert listing(here) == ["m.featx", "m.featx.md"]

    ran = featx("evaluate", "m.featx", f"{to_world}/test", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert list(facts) == CLASSIFICATION
    assert facts["n"] == 12
    assert facts["accuracy"] > 0.8
    assert list(facts["per_class"]) == list(CLASSES)
    assert [sum(row) for row in facts["confusion"]] == [4, 4, 4]
    assert listing(here) == ["m.featx", "m.featx.md"]


def test_evaluate_for_reading(featx, world, models):
    ran = featx("evaluate", models["classes"], world / "test")
    assert ran.code == 0
    for word in ("accuracy", "log_loss", "precision", "confusion", *CLASSES):
        assert word in ran.out


def test_a_folder_and_its_table_give_the_same_facts(featx, here, world, models):
    from_folder = featx("evaluate", models["classes"], world / "test", "--json")
    from_table = featx("evaluate", models["classes"], world / "test.csv", "--json")
    assert from_table.out == from_folder.out
    assert "paths from column 'path'" in from_table.err
    assert "target from column 'label'" in from_table.err


def test_a_regression_from_fit_to_evaluate(featx, here, world):
    options = ("--target", "brightness", "--log-target", "--layer", "stem")
    ran = featx("fit", world / "brightness-train.csv", *options, "-o", "b.featx")
    assert ran.code == 0
    assert ran.err.startswith("featx: paths from column 'image'\n")
    assert "b.featx: ridge on efficientnet_lite0 (cpu), 36 images, target " in ran.out
    assert "mae " in ran.out
    ran = featx("evaluate", "b.featx", world / "brightness-test.csv", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert list(facts) == ["n", "mae", "rmse", "r2", "mape"]
    assert facts["n"] == 12
    assert facts["r2"] > 0.5
    assert 0 < facts["mape"] < 0.5


def test_the_model_remembers_the_columns(featx, here, world, models):
    """Names that nobody would guess are taken at evaluate, and can be overruled."""
    info = read_info(models["brightness"])["info"]
    assert (info["task"], info["path_column"], info["target_column"], info["n"]) == (
        "regression",
        "image",
        "brightness",
        36,
    )
    table = pd.read_csv(world / "brightness-test.csv")
    table["path"], table["value"] = "nowhere.png", 0.0
    table["image"] = [str(world / path) for path in table["image"]]
    table.to_csv("t.csv", index=False)
    expected = json.loads(featx("evaluate", models["brightness"], world / "brightness-test.csv", "--json").out)
    assert json.loads(featx("evaluate", models["brightness"], "t.csv", "--json").out) == expected
    other = json.loads(featx("evaluate", models["brightness"], "t.csv", "--target", "value", "--json").out)
    assert other["mape"] is None
    assert other["mae"] > expected["mae"]
    assert featx("predict", models["brightness"], "t.csv", "-o", "p.csv").code == 0
    assert pd.read_csv("p.csv")["path"].tolist() == table["image"].tolist()


def test_whole_numbers_whose_logarithm_is_asked_for_are_quantities(featx, here, world):
    table = pd.read_csv(world / "brightness-train.csv")
    table["image"] = [str(world / path) for path in table["image"]]
    table["price"] = np.arange(len(table)) % 7 + 1
    table.to_csv("t.csv", index=False)
    options = ("--path-column", "image", "--target", "price", "--layer", "stem", "--no-cross-validation")
    assert "classes or quantities?" in featx("fit", "t.csv", "-o", "m.featx", *options).err
    assert featx("fit", "t.csv", "-o", "m.featx", *options, "--log-target").code == 0
    assert read_info("m.featx")["info"]["task"] == "regression"


def test_evaluate_reads_parquet(featx, here, world, models):
    table = pd.read_csv(world / "test.csv")
    table["path"] = [str(world / path) for path in table["path"]]
    table.to_parquet("t.parquet")
    facts = json.loads(featx("evaluate", models["classes"], "t.parquet", "--json").out)
    assert facts == json.loads(featx("evaluate", models["classes"], world / "test", "--json").out)


@pytest.mark.parametrize(("task", "key"), [("classification", "per_class"), ("regression", "mae")])
def test_class_indices_with_either_task(featx, here, world, task, key):
    table = pd.read_csv(world / "train.csv")
    table["label"] = table["label"].map(CLASSES.index)
    table["path"] = [str(world / path) for path in table["path"]]
    table.to_csv("t.csv", index=False)
    asked = featx("fit", "t.csv", "-o", "m.featx")
    assert asked.code == 2
    assert "classes or quantities?" in asked.err
    assert featx("fit", "t.csv", "--task", task, "-o", "m.featx", "--no-cross-validation").code == 0
    facts = json.loads(featx("evaluate", "m.featx", "t.csv", "--json").out)
    assert key in facts
    if task == "classification":
        assert list(facts["per_class"]) == ["0", "1", "2"]


@pytest.mark.parametrize("head", [name for name, head in HEADS.items() if head.classifier])
def test_every_head_classifies(featx, here, world, head):
    assert featx("fit", world / "train", "--head", head, "-o", "m.featx", "--no-cross-validation").code == 0
    assert featx("predict", "m.featx", world / "test", "-o", "p.csv").code == 0
    table = pd.read_csv("p.csv")
    assert set(table["predicted"]) <= set(CLASSES)
    assert table[[f"proba_{name}" for name in CLASSES]].sum(axis=1).tolist() == pytest.approx([1.0] * 12, abs=1e-5)


@pytest.mark.parametrize("head", [name for name, head in HEADS.items() if head.regressor])
def test_every_head_predicts_numbers(featx, here, world, head):
    arguments = ("--target", "brightness", "--head", head, "-o", "m.featx", "--no-cross-validation")
    assert featx("fit", world / "brightness-train.csv", *arguments).code == 0
    assert featx("predict", "m.featx", world / "test", "-o", "p.csv").code == 0
    assert pd.read_csv("p.csv")["predicted"].between(-500, 800).all()


def test_features_other_than_the_default_are_remembered(featx, here, world):
    options = ("--layer", "stage2", "--pooling", "max", "--l2-normalize", "--head", "ridge")
    assert featx("fit", world / "train", "-o", "m.featx", "--no-cross-validation", *options).code == 0
    assert json.loads(featx("evaluate", "m.featx", world / "test", "--json").out)["n"] == 12


def test_failed_images_are_left_out_counted_and_named(featx, here, world):
    shutil.copytree(world / "train", "p")
    for name in ("bag/0.png", "sandal/x y.png"):
        shutil.copy(world / "broken.png", f"p/{name}")
    ran = featx("fit", "p", "-o", "m.featx", "--no-cross-validation")
    assert ran.code == 0
    first, *named = ran.err.splitlines()
    assert first == "featx: 2 images could not be read, left out:"
    assert [line.split(":")[0] for line in named] == ["  p/bag/0.png", "  p/sandal/x y.png"]
    assert "36 images" in ran.out
    assert read_info("m.featx")["info"]["n"] == 36
    ran = featx("evaluate", "m.featx", "p", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["n"] == 36
    assert "2 images could not be read, left out" in ran.err


def test_a_class_whose_images_all_fail_but_one_is_refused(featx, here, world):
    shutil.copytree(world / "test", "p")
    for file in sorted((here / "p" / "bag").iterdir())[1:]:
        shutil.copy(world / "broken.png", file)
    ran = featx("fit", "p", "-o", "m.featx")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("featx: error: 1 of 3 classes have a single readable image ('bag')")
    assert not (here / "m.featx").exists()


def test_too_few_images_for_a_head_are_a_mistake_and_save_nothing(featx, here, world):
    paths = [str(file) for name in CLASSES[:2] for file in sorted((world / "train" / name).iterdir())[:2]]
    write_csv("t.csv", ["path", "label"], *([path, path.split("/")[-2]] for path in paths))
    ran = featx("fit", "t.csv", "--head", "knn", "-o", "m.featx")
    assert ran.code == 2
    assert "knn cannot be fitted on 4 images" in ran.err
    assert listing(here) == ["t.csv"]
    ran = featx("fit", "t.csv", "-o", "m.featx")
    assert ran.code == 0
    assert "too few images of a class to estimate the accuracy" in ran.err


def test_evaluating_some_of_the_classes(featx, here, world, models):
    for name in CLASSES[:2]:
        shutil.copytree(world / "test" / name, here / "p" / name)
    facts = json.loads(featx("evaluate", models["classes"], "p", "--json").out)
    assert facts["n"] == 8
    assert facts["roc_auc"] is None
    assert facts["per_class"][CLASSES[2]]["support"] == 0


@pytest.mark.heavy
def test_notes_about_cells_of_numbers_and_the_kind_of_a_column(featx, here):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"zip": rng.choice([8001, 8002, 8004], 40), "a:b": rng.normal(size=40).round(2).astype(str)})
    frame["price"] = frame.zip + rng.normal(size=40)
    frame.loc[3, "a:b"] = "n/a"
    frame.to_csv("t.csv", index=False)
    ran = featx("fit", "t.csv", "--columns", "zip,a:b", "--target", "price", "-o", "m.featx")
    assert ran.code == 0
    assert "column a:b: 1 cell counts as missing: 'n/a' in row 4" in ran.err
    assert "zip: whole numbers of 4 digits" in ran.err
    assert "--columns zip:category" in ran.err
    frame.assign(zip=[9999] * 2 + [8001] * 38).to_csv("new.csv", index=False)
    ran = featx("predict", "m.featx", "new.csv", "-o", "a.csv")
    assert "column zip: 2 rows have numbers far outside of those of the fit, 8001 to 8004" in ran.err
    assert "'n/a' in row 4" in ran.err
    ran = featx("fit", "t.csv", "--columns", "zip:category,a:b", "--target", "price", "-o", "m.featx")
    assert ran.code == 0
    assert "whole numbers" not in ran.err
    assert "unseen" in featx("predict", "m.featx", "new.csv").out
    assert (
        "named twice" in featx("fit", "t.csv", "--columns", "zip,zip:number", "--target", "price", "-o", "n.featx").err
    )
