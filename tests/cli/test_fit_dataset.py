"""``featx fit`` on a dataset of embeddings."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import featx as library
from featx import _memory
from featx.fitting import head as head_module
from featx.heads import HEADS
from featx.persistence.archive import read_info
from tests.cli.cli_tools import CLASSES, listing, write_csv
from tests.dataset.dataset_tools import write_dataset

LITTLE = 3_000_000


@pytest.fixture
def vectors(featx, here, world):
    """The images of three classes, embedded."""
    assert featx("embed", world / "train", "-o", "vectors").code == 0
    return here / "vectors"


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """300 rows of two classes; some failed, some without a label."""
    rng = np.random.default_rng(0)
    labels = ["ant", "bee"] * 150
    X = rng.normal(size=(300, 1280)).astype(np.float32)
    X[1::2, :20] += 1.5
    labels[:7] = [None] * 7
    X[10:13] = np.nan
    return write_dataset(tmp_path_factory.mktemp("synthetic") / "vectors", X, labels, 100, failed=(10, 11, 12))


@pytest.mark.parametrize("head", ["logistic_regression", "sgd"])
def test_the_saved_pipeline_takes_images_and_says_what_the_head_says_of_the_vectors(featx, here, world, vectors, head):
    ran = featx("fit", "vectors", "--head", head, "-o", "m.featx")
    assert ran.code == 0
    assert ran.err.startswith("featx: ")
    assert "no guard" in ran.err
    assert f"m.featx: {head} on efficientnet_lite0, 36 embeddings, 3 classes (bag 12" in ran.out
    assert "left-out images, " in ran.out

    pipeline, dataset = library.load("m.featx"), library.dataset.open(vectors)
    images = [str(world / "train" / key) for key in dataset.keys]
    np.testing.assert_array_equal(pipeline.predict(images), pipeline[-1].predict(dataset.X))
    expected = pipeline[-1].predict_proba(dataset.X)
    np.testing.assert_allclose(pipeline.predict_proba(images), expected, atol=1e-5)
    facts = json.loads(featx("evaluate", here / "m.featx", world / "test", "--json").out)
    assert facts["accuracy"] > 0.8
    assert read_info(here / "m.featx")["info"]["n"] == 36


def test_a_dataset_gives_what_its_folder_gives(featx, here, world, vectors):
    from_folder = featx("fit", world / "train", "-o", "a.featx")
    from_dataset = featx("fit", "vectors", "-o", "b.featx")
    assert from_dataset.out.splitlines()[1] == from_folder.out.splitlines()[1]  # the estimate
    a, b = (library.load(here / f"{name}.featx") for name in "ab")
    np.testing.assert_array_equal(a[-1][-1].coef_, b[-1][-1].coef_)
    assert a[0].value_parameters_ == b[0].value_parameters_


def test_no_image_is_needed(featx, here, world):
    shutil.copytree(world / "train", "photos")
    assert featx("embed", "photos", "-o", "vectors").code == 0
    shutil.rmtree("photos")
    assert featx("fit", "vectors", "-o", "m.featx").code == 0


def test_other_features_and_half_precision(featx, here, world):
    options = ("--layer", "stage2", "--pooling", "max", "--crop", "whole", "--dtype", "float16")
    assert featx("embed", world / "train", "-o", "vectors", *options).code == 0
    assert featx("fit", "vectors", "-o", "m.featx", "--head", "ridge").code == 0
    pipeline, dataset = library.load("m.featx"), library.dataset.open("vectors")
    assert (pipeline[0].layer, pipeline[0].pooling, pipeline[0].crop) == (["stage2"], "max", "whole")
    images = [str(world / "train" / key) for key in dataset.keys]
    expected = pipeline[-1].predict_proba(dataset.X)
    np.testing.assert_allclose(pipeline.predict_proba(images), expected, atol=0.01)


@pytest.mark.parametrize("head", ["ridge", "sgd"])
def test_numbers_of_a_table(featx, here, world, head):
    table = world / "brightness-train.csv"
    assert featx("embed", table, "--target", "brightness", "--layer", "stem", "-o", "vectors").code == 0
    ran = featx("fit", "vectors", "--head", head, "--log-target", "-o", "m.featx")
    assert ran.code == 0
    assert f"m.featx: {head} on efficientnet_lite0, 36 embeddings, target " in ran.out
    assert "mae " in ran.out
    arguments = ("--path-column", "image", "--target", "brightness", "--json")
    facts = json.loads(featx("evaluate", "m.featx", world / "brightness-test.csv", *arguments).out)
    assert facts["mape"] < 0.5


def test_rows_without_a_vector_or_a_label_are_left_out_and_counted(featx, here, synthetic):
    ran = featx("fit", synthetic, "-o", "m.featx", "--no-cross-validation", "--head", "ridge")
    assert ran.code == 0
    first, second = ran.err.splitlines()
    assert first == (
        f"featx: 3 images have no embedding and are left out; featx dataset info {synthetic} names the reasons"
    )
    assert second.startswith("featx: 7 images have no label and no part in the fit")
    assert "290 embeddings, 2 classes (ant 144, bee 146)" in ran.out


def test_of_the_images_without_a_label_those_to_label_first_are_named(featx, here, synthetic):
    ran = featx("fit", synthetic, "-o", "m.featx", "--no-cross-validation")
    assert ran.code == 0
    head = library.load("m.featx")[-1]
    sure = head.predict_proba(library.dataset.open(synthetic).X[:7]).max(axis=1)
    first = ", ".join(f"{i}.jpg" for i in np.argsort(sure)[:5])
    assert f"7 images have no label and no part in the fit; the head is least sure of {first}: label" in ran.err


def test_the_columns_of_the_table_are_remembered(featx, here, world):
    table = ("--path-column", "image", "--target", "brightness")
    assert featx("embed", world / "brightness-train.csv", *table, "--layer", "stem", "-o", "vectors").code == 0
    assert featx("fit", "vectors", "-o", "m.featx", "--no-cross-validation").code == 0
    info = read_info("m.featx")["info"]
    assert (info["path_column"], info["target_column"]) == ("image", "brightness")
    assert featx("evaluate", "m.featx", world / "brightness-test.csv").code == 0


def test_a_dataset_without_labels_is_refused(featx, here, world):
    assert featx("embed", *sorted((world / "train" / "bag").iterdir()), "-o", "vectors").code == 0
    ran = featx("fit", "vectors", "-o", "m.featx")
    assert ran.code == 2
    assert "vectors: no row has a label; embed a folder with one sub-folder per class" in ran.err
    assert listing(here / "vectors")
    assert not (here / "m.featx").exists()


@pytest.mark.parametrize(
    "option",
    [
        *(("--layer", "stem"), ("--pooling", "avg"), ("--crop", "center"), ("--decode", "exact")),
        *(("--precision", "int8"), ("--l2-normalize",), ("--target", "x"), ("--path-column", "x"), ("--cache",)),
    ],
)
def test_what_the_dataset_has_decided_is_refused_by_name(featx, here, synthetic, option):
    ran = featx("fit", synthetic, "-o", "m.featx", *option)
    assert ran.code == 2
    assert ran.err.startswith(f"featx: error: {option[0]}: {synthetic} holds embeddings")


def test_the_backbone_must_be_the_one_of_the_dataset(featx, here, synthetic):
    ran = featx("fit", synthetic, "-o", "m.featx", "--backbone", "efficientnet_lite0_int8")
    assert ran.code == 2
    assert "efficientnet_lite0_int8 is another backbone" in ran.err
    command = ("fit", synthetic, "-o", "m.featx", "--backbone", "efficientnet_lite0", "--head", "knn")
    assert featx(*command, "--no-cross-validation").code == 0


def test_whole_numbers_are_asked_about(featx, here, world):
    paths = [path for name in CLASSES for path in sorted((world / "train" / name).iterdir())]
    write_csv("t.csv", ["path", "label"], *([path, i // 12] for i, path in enumerate(paths)))
    assert featx("embed", "t.csv", "--target", "label", "-o", "vectors").code == 0
    ran = featx("fit", "vectors", "-o", "m.featx")
    assert ran.code == 2
    assert "classes or quantities?" in ran.err
    assert featx("fit", "vectors", "-o", "m.featx", "--task", "regression", "--no-cross-validation").code == 0


class TestLittleMemory:
    """A process with less memory than fitting at once would take."""

    @pytest.fixture(autouse=True)
    def _little(self, monkeypatch):
        monkeypatch.setattr(head_module, "available_memory", lambda: LITTLE)

    def test_the_default_head_gives_way(self, featx, here, synthetic):
        ran = featx("fit", synthetic, "-o", "m.featx")
        assert ran.code == 0
        assert "featx: 290 rows of 1280 features take up to " in ran.err
        assert "MB to fit in memory, and 3.0 MB are available: sgd is fitted in parts" in ran.err
        assert "left-out images, 29 of 290: accuracy " in ran.out

    @pytest.mark.parametrize("head", [name for name in HEADS if name not in ("sgd", "mlp")])
    def test_a_head_by_name_that_needs_all_rows_is_refused(self, featx, here, synthetic, head):
        ran = featx("fit", synthetic, "-o", "m.featx", "--head", head)
        assert ran.code == 2
        assert "290 rows of 1280 features take up to" in ran.err
        assert head in ran.err.partition("290")[0]
        assert "choose mlp or sgd, which learn in parts" in ran.err
        assert not (here / "m.featx").exists()


PROGRAM = """
import resource, sys
from featx.cli import main
import featx.cli.fit, featx.fitting, featx.extractor, pyarrow.parquet, onnxruntime, skops.io
pages = int(open("/proc/self/statm").read().split()[5])
limit = pages * resource.getpagesize() + {headroom}
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if {blind}:
    sys.modules["featx.fitting.head"].available_memory = lambda: None
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such limit")
def test_more_features_than_memory_under_a_real_limit(here):
    """300 MB of features and 250 MB to be had: in parts it works; all at once it is refused, or fails."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(1000, 1280)).astype(np.float32)
    half[::2, :200] += 1
    X = np.broadcast_to(half, (60, 1000, 1280)).reshape(60_000, 1280)
    assert X.nbytes > 300_000_000
    write_dataset(here / "big", X, ["ant", "bee"] * 30_000)
    del X

    def run(*arguments, blind=False):
        program = PROGRAM.format(headroom=250_000_000, blind=blind)
        # Arrow's own pool reserves a gigabyte of addresses before it uses any
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-c", program, "fit", "big", "-o", "m.featx", "--device", "cpu", *arguments]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=600)

    refused = run("--head", "ridge")
    assert refused.returncode == 2
    assert "60000 rows of 1280 features take up to 6" in refused.stderr  # MB: the features, their roots and little else
    assert "choose mlp or sgd" in refused.stderr
    failed = run("--head", "ridge", blind=True)  # the limit is a real one
    assert failed.returncode == 2
    assert "out of memory on 60000 embeddings; free memory, or choose" in failed.stderr
    assert not (here / "m.featx").exists()

    ran = run()
    assert ran.returncode == 0, ran.stderr
    assert "sgd is fitted in parts" in ran.stderr
    assert "m.featx: sgd on efficientnet_lite0, 60000 embeddings, 2 classes (ant 30000, bee 30000)" in ran.stdout
    assert "left-out images, 6000 of 60000: accuracy 1.000" in ran.stdout
    assert library.load(here / "m.featx")[-1].score(half, ["ant", "bee"] * 500) > 0.99


def test_the_memory_asked_about_is_that_of_this_process():
    assert head_module.available_memory is _memory.available_memory
