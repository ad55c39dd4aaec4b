import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import featx
from featx.heads import make_head
from featx.persistence.contents import describe_contents

RNG = np.random.default_rng(0)
Y = np.array(["ant", "bee"] * 15)
X = RNG.normal(size=(30, 4)).astype(np.float32) + (Y == "ant")[:, None]


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (make_head(), "nothing but weights"),
        (make_head("ridge"), "nothing but weights"),
        (make_head("linear_svm"), "nothing but weights"),
        (make_head("sgd"), "nothing but weights"),
        (make_head("knn"), "30 training vectors (KNeighborsClassifier)"),
        (make_head("private"), "noisy class means, with epsilon 1 and delta 1e-05 for each image"),
        (GaussianNB(), "class means (GaussianNB)"),
        (GaussianProcessClassifier(), "30 training vectors"),
        (RandomForestClassifier(5), "5 trees of thresholds"),
        (make_pipeline(StandardScaler(), KNeighborsClassifier()), "30 training vectors"),
        (VotingClassifier([("a", KNeighborsClassifier()), ("b", LogisticRegression())]), "30 training vectors"),
        (StackingClassifier([("a", KNeighborsClassifier())], cv=2), "30 training vectors"),
        (CalibratedClassifierCV(KNeighborsClassifier(), cv=3), "60 training vectors"),
    ],
)
def test_the_contents_of_a_head_are_one_sentence(head, text):
    assert text in describe_contents(head.fit(X, Y))


def test_support_vectors_are_counted():
    head = SVC().fit(X, Y)
    assert describe_contents(head) == f"{len(head.support_vectors_)} support vectors (SVC)"
    assert "support vectors (SVC)" in describe_contents(make_head("rbf_svm").fit(X, Y))


def test_the_card_and_the_description_of_a_file_say_it(tmp_path):
    images, _ = featx.samples.load_fashion_mnist("test")
    extractor = featx.FeatureExtractor(layer="stem")
    result = featx.fit(images[:12], ["ant", "bee"] * 6, head="knn", extractor=extractor, estimate=False)
    result.save(tmp_path / "a.featx")
    found = featx.describe_file(tmp_path / "a.featx")
    assert found.contents == "12 training vectors (KNeighborsClassifier)"
    assert "the file holds 12 training vectors" in found.card
    assert found.to_dict()["pipeline"]["contents"] == found.contents


def test_words_are_contents():
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["a good film", "a bad film"], ["good", "bad"])
    assert describe_contents(words) == "3 terms of training texts (TfidfVectorizer)"
