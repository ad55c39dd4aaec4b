import numpy as np

from featx._events import Events
from featx.fitting.embeddings import Embeddings
from featx.fitting.head import ChosenHead
from featx.fitting.options import CheckOptions
from featx.fitting.single import _fit_in_parts
from featx.inference.transformer import Embedded


def test_a_fit_in_parts_names_the_kind_of_its_inputs():
    y = np.array(["a", "b"] * 40)
    X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32) + (y == "b")[:, None].astype(np.float32)
    embeddings = Embeddings.of(Embedded(X, []), np.arange(80), list(map(str, range(80))))
    head = ChosenHead("sgd", "classification", log_target=False, is_named=True)
    fitted = _fit_in_parts(head, embeddings, y, "text", CheckOptions(), Events())
    assert "left-out texts, " in fitted.score.how
