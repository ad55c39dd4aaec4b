"""Graphs in float16: order of nodes, and the types of input and output."""

import numpy as np
import onnx
from onnx import TensorProto, helper, reference

from featx.recipes.hub_precision import sort_nodes, widen_ends


def test_ends_become_float32_and_nodes_are_sorted():
    nodes = [helper.make_node("Neg", ["b"], ["y"]), helper.make_node("Abs", ["x"], ["b"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 2]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 18)]
    )
    sort_nodes(model.graph)
    widen_ends(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Abs", "Neg", "Cast"]
    x = np.array([[1.0001, -2]], np.float32)
    (y,) = reference.ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    assert (y.dtype, model.graph.output[0].name) == (np.float32, "y")
    np.testing.assert_array_equal(y, [[-1, -2]])


def test_a_circle_stays_for_the_checker():
    nodes = [helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Abs", ["a"], ["b"])]
    graph = helper.make_graph(nodes, "g", [], [])
    sort_nodes(graph)
    assert len(graph.node) == 2
