"""Use pipelines on the command line that were fitted and saved in Python."""

import json

import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featx import FeatureExtractor, save
from tests.cli.cli_tools import CLASSES, write_csv


@pytest.fixture
def images(world):
    return sorted((world / "train").glob("*/*.png"))


def test_more_steps_number_classes_and_no_probabilities(featx, here, images):
    numbers = [CLASSES.index(image.parent.name) for image in images]
    pipeline = make_pipeline(FeatureExtractor(), StandardScaler(), PCA(8), LinearSVC())
    save(pipeline.fit(images, numbers), "mine.featx")
    write_csv("truth.csv", ["path", "label"], *zip(images, numbers, strict=True))
    facts = json.loads(featx("evaluate", "mine.featx", "truth.csv", "--json").out)
    assert facts["accuracy"] > 0.9
    assert facts["log_loss"] is facts["roc_auc"] is None
    assert featx("predict", "mine.featx", "truth.csv", "-o", "answers.csv").code == 0
    answers = pd.read_csv("answers.csv")
    assert [name for name in answers.columns if name != "label"] == ["path", "predicted", "true", "error"]
    assert answers["predicted"].tolist() == pipeline.predict(images).tolist()
    assert answers["true"].tolist() == numbers


@pytest.mark.parametrize("steps", [[FeatureExtractor()], [FeatureExtractor(), StandardScaler()]])
def test_what_predicts_nothing_is_refused_in_one_line(featx, here, images, steps):
    save(make_pipeline(*steps).fit(images[:4]), "mine.featx")
    ran = featx("predict", "mine.featx", images[0], "-o", "answers.csv")
    assert ran.code == 2
    assert ran.err.startswith("featx: error: mine.featx: ")
    assert ran.err.count("\n") == 1
