"""Branches of ONNX graphs whose condition depends on shapes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, reference

from featx.recipes.branches import _replace_first


def branch(operator, name):
    node = helper.make_node(operator, ["x"], [name])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def model_of(*nodes, least=1, dims=("N", 3)):
    """Return a graph that negates its input if a number is larger than ``least``, and else takes its absolute value."""
    condition = helper.make_node("Greater", ["number", "least"], ["condition"])
    choice = helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch("Neg", "a"), else_branch=branch("Abs", "b")
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.array(least), "least"), numpy_helper.from_array(np.array(1), "second")]
    graph = helper.make_graph([*nodes, condition, choice], "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


SHAPE = helper.make_node("Shape", ["x"], ["shape"])
RANK = (SHAPE, helper.make_node("Size", ["shape"], ["number"]))
WIDTH = (SHAPE, helper.make_node("Gather", ["shape", "second"], ["number"]))


@pytest.mark.parametrize(
    ("nodes", "least", "dims", "operator"),
    [
        (RANK, 1, ("N", 3), "Neg"),  # the number of dimensions is known, the sides are not
        (RANK, 2, ("N", 3), "Abs"),
        (WIDTH, 2, (1, 3), "Neg"),
        (WIDTH, 3, (1, 3), "Abs"),
    ],
)
def test_the_branch_that_runs_is_kept(nodes, least, dims, operator):
    model = model_of(*nodes, least=least, dims=dims)
    assert _replace_first(model)
    assert not _replace_first(model)
    operators = {node.op_type for node in model.graph.node}
    assert operator in operators
    assert not operators & ({"If", "Neg", "Abs"} - {operator})
    x = np.array([[1, -2, 3]], np.float32)
    (y,) = reference.ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(y, -x if operator == "Neg" else abs(x))


@pytest.mark.parametrize(
    ("nodes", "dims"),
    [(WIDTH, ("N", "W")), ([helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0)], (1, 3))],
)
def test_a_branch_that_depends_on_the_image_stays(nodes, dims):
    nodes = list(nodes)
    if nodes[-1].op_type == "ReduceMax":
        nodes.append(helper.make_node("Cast", ["largest"], ["number"], to=TensorProto.INT64))
    assert not _replace_first(model_of(*nodes, dims=dims))
