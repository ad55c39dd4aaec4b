import numpy as np
import pytest

from featx.heads import design, find_path, make_head
from featx.heads.path import fit_path

RNG = np.random.default_rng(0)
Y = np.arange(90) % 9
X = (RNG.normal(size=(9, 20))[Y] + RNG.normal(size=(90, 20))).astype(np.float32)


@pytest.mark.parametrize("min_columns", [1, 400])
@pytest.mark.parametrize("d", [20, 200])
def test_roots_that_are_taken_again_give_the_same_head(monkeypatch, d, min_columns):
    monkeypatch.setattr(design, "_MIN_COLUMNS_WITHOUT_COPY", min_columns)
    features = np.tile(X, d // 20)
    kept = features.copy()
    lean, usual = make_head(), make_head().fit(features, Y)
    fit_path(lean, features, Y)
    np.testing.assert_array_equal(features, kept)
    assert lean[-1].C_ == usual[-1].C_
    np.testing.assert_allclose(lean.predict_proba(features), usual.predict_proba(features), atol=1e-3)
    np.testing.assert_allclose(find_path(lean).mean_, find_path(usual).mean_, rtol=1e-5)


def test_other_heads_are_fitted_as_they_are():
    head = make_head("ridge", task="regression", log_target=True)
    fit_path(head, X, Y + 1.0)
    np.testing.assert_allclose(
        head.predict(X), make_head("ridge", task="regression", log_target=True).fit(X, Y + 1.0).predict(X)
    )
