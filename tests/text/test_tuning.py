"""Text encoders in torch: the operators have rows, and weights come back."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from featx.backbones import open_backbone, tap
from featx.session import run_graph
from featx.tuning import cut
from featx.tuning.tail import Tail


@pytest.mark.heavy
def test_an_encoder_tunes_for_one_step_and_comes_back(encoder):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    trunk = cut(open_backbone(encoder), "block1")
    assert trunk.shape == (0, 16)
    ids = np.array([[2, 4, 5, 7, 3], [2, 4, 6, 8, 3]])
    (tokens,) = run_graph(trunk.model, {"input_ids": ids}, ["features"])
    whole = onnx.load_from_string(tap(trunk.backbone, None, "avg", False))
    tail = Tail(trunk)
    weights = {name: value.requires_grad_() for name, value in tail.weights().items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    (tail.run(torch.from_numpy(tokens), weights) * torch.randn(2, 16)).sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in weights.values())
    (frozen,) = run_graph(whole.SerializeToString(), {"input_ids": ids}, ["features"])
    np.testing.assert_allclose(tail.embed(tokens, weights), frozen, atol=1e-4)
    optimizer.step()
    tuned = {name: value.detach() for name, value in weights.items()}
    for tensor in whole.graph.initializer:
        if tensor.name in tuned:
            tensor.CopyFrom(numpy_helper.from_array(tuned[tensor.name].numpy(), tensor.name))
    (features,) = run_graph(whole.SerializeToString(), {"input_ids": ids}, ["features"])
    assert np.abs(features - frozen).max() > 1e-3
    np.testing.assert_allclose(tail.embed(tokens, tuned), features, atol=1e-4)
