"""Graphs that a backbone may not hold are refused before anything is computed."""

import sys

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import featx
from featx.backbones.file import read_backbone
from featx.backbones.guard import refuse_hostile, refuse_large
from featx.errors import BackboneError
from tests.backbones.backbone_tools import (
    GIANT,
    make_model,
    save,
    value_info,
)

try:
    import resource
except ImportError:  # Windows
    resource = None


BRANCH = helper.make_graph([helper.make_node("Identity", ["head"], ["z"])], "branch", [], [])


def append_node(operator, **attributes):
    return lambda model: model.graph.node.append(helper.make_node(operator, ["head"], ["z"], **attributes))


def define_function(model):
    node = helper.make_node("Identity", ["a"], ["b"])
    function = helper.make_function("here", "Twice", ["a"], ["b"], [node], [helper.make_opsetid("", 18)])
    model.functions.append(function)


def hide_graph(model):
    append_node("Relu", body=BRANCH)(model)
    model.graph.node[-1].attribute[0].type = AttributeProto.INT


def change_tensor(where="initializer", **fields):
    def change(model):
        tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "extra")
        for key, value in fields.items():
            if key == "dims":
                tensor.dims[:] = value
            else:
                setattr(tensor, key, value)
        PLACES[where](model, tensor)

    return change


def put_in_constant(model, tensor):
    model.graph.node.append(helper.make_node("Constant", [], ["z"], value=tensor))


def put_in_disguised_constant(model, tensor):
    put_in_constant(model, tensor)
    model.graph.node[-1].attribute[0].type = AttributeProto.FLOAT


def make_sparse(tensor):
    return onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.zeros(1, np.int64)), dims=[8])


PLACES = {
    "initializer": lambda model, tensor: model.graph.initializer.append(tensor),
    "constant": put_in_constant,
    "disguised constant": put_in_disguised_constant,
    "list of tensors": lambda model, tensor: append_node("Relu", tensors=[tensor])(model),
    "sparse initializer": lambda model, tensor: model.graph.sparse_initializer.append(make_sparse(tensor)),
    "sparse constant": lambda model, tensor: append_node("Constant", sparse_value=make_sparse(tensor))(model),
}


HOSTILE = {
    "a Loop": (append_node("Loop", body=BRANCH), "operator Loop is not allowed"),
    "a scale of the whole batch": (
        append_node("DynamicQuantizeLinear"),
        "one text or image changes the features of another",
    ),
    "an If": (append_node("If", then_branch=BRANCH, else_branch=BRANCH), "FEATX_ALLOW_OPERATORS=If"),
    "a Scan": (append_node("Scan", body=BRANCH), "operator Scan"),
    "a custom operator": (append_node("Run", domain="com.evil"), "operator com.evil.Run"),
    "a known name elsewhere": (append_node("Relu", domain="com.evil"), "operator com.evil.Relu"),
    "an operator without a name": (append_node(""), "operator  is not allowed"),
    "functions": (define_function, "functions of its own"),
    "a graph in an attribute": (append_node("Relu", body=BRANCH), "a graph of its own"),
    "graphs in an attribute": (append_node("Relu", bodies=[BRANCH, BRANCH]), "a graph of its own"),
    "a graph that says it is a number": (hide_graph, "a graph of its own"),
    "too many bytes": (change_tensor(raw_data=bytes(25)), "declares [2, 3] and holds 25 bytes"),
    "too few bytes": (change_tensor(raw_data=b""), "holds 0 bytes"),
    "too few bytes in a constant": (change_tensor("constant", dims=[2**40, 2**40]), "holds 24 bytes"),
    "too few bytes in a sparse tensor": (change_tensor("sparse initializer", dims=[7]), "holds 24 bytes"),
    "negative dims": (change_tensor(dims=[-2, -3]), "declares the shape [-2, -3]"),
    "negative dims in a constant": (change_tensor("constant", dims=[-6]), "declares the shape [-6]"),
    "an unknown type": (change_tensor(data_type=77), "of unknown type 77"),
    "no type": (change_tensor(data_type=0), "of unknown type 0"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_graph_is_refused_by_its_name(model, tmp_path, what):
    change, message = HOSTILE[what]
    change(model)
    path = save(model, tmp_path / "hostile.onnx")
    for look in (lambda: refuse_hostile(model, path), lambda: read_backbone(path)):
        with pytest.raises(BackboneError, match=r"hostile\.onnx: ") as caught:
            look()
        assert message in str(caught.value)


RECORDERS = []


@pytest.fixture(scope="module")
def audit():
    def record(event, args):
        if event == "open":
            for recorder in RECORDERS:
                recorder.append(str(args[0]))

    sys.addaudithook(record)  # stays for good


@pytest.fixture
def opened(audit):
    paths = []
    RECORDERS.append(paths)
    yield paths
    RECORDERS.remove(paths)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("where", PLACES)
def test_no_other_file_is_opened(model, tmp_path, opened, where, absolute, declared):
    (tmp_path / "secret").write_bytes(bytes(24))
    (tmp_path / "folder").mkdir()
    tensor = TensorProto(name="extra", data_type=TensorProto.FLOAT, dims=[2, 3])
    tensor.external_data.add(key="location", value=str(tmp_path / "secret") if absolute else "../secret")
    if declared:
        tensor.data_location = TensorProto.EXTERNAL
    PLACES[where](model, tensor)
    path = save(model, tmp_path / "folder" / "hostile.onnx")
    opened.clear()
    for look in (lambda: refuse_hostile(model, path), lambda: read_backbone(path)):
        with pytest.raises(BackboneError, match=r"hostile\.onnx: keeps weights in other files"):
            look()
    assert str(path) in opened  # the recorder works
    assert not any("secret" in name for name in opened)


def test_operators_are_allowed_by_name(model, monkeypatch):
    append_node("If", then_branch=BRANCH, else_branch=BRANCH)(model)
    append_node("Run", domain="com.evil")(model)
    monkeypatch.setenv("FEATX_ALLOW_OPERATORS", "If")
    with pytest.raises(BackboneError, match=r"x\.onnx: operator com\.evil\.Run"):
        refuse_hostile(model, "x.onnx")
    monkeypatch.setenv("FEATX_ALLOW_OPERATORS", "If, com.evil.Run")
    refuse_hostile(model, "x.onnx")


@pytest.mark.parametrize("what", ["operator", "weights"])
def test_what_an_allowed_operator_holds_is_looked_at_as_well(model, monkeypatch, what):
    branch = helper.make_graph([helper.make_node("Identity", ["head"], ["z"])], "branch", [], [])
    if what == "operator":
        branch.node.add(op_type="Run", domain="com.evil")
    else:
        branch.initializer.add(name="w").external_data.add(key="location", value="../secret")
    deep = helper.make_graph([helper.make_node("If", ["a"], ["b"], then_branch=branch)], "deep", [], [])
    append_node("If", then_branch=BRANCH, else_branch=deep)(model)
    monkeypatch.setenv("FEATX_ALLOW_OPERATORS", "If")
    with pytest.raises(BackboneError, match=r"x\.onnx: (operator com\.evil\.Run|keeps weights in other files)"):
        refuse_hostile(model, "x.onnx")


CAST = helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT)


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


LARGE = {
    "ConstantOfShape": make_model(helper.make_node("ConstantOfShape", ["s"], ["y"]), s=GIANT),
    "ConstantOfShape of a constant": make_model(
        constant("s", GIANT), helper.make_node("ConstantOfShape", ["s"], ["y"])
    ),
    "Expand": make_model(CAST, helper.make_node("Expand", ["x", "s"], ["y"]), s=[2**40, 3, 16, 16]),
    "Tile": make_model(CAST, helper.make_node("Tile", ["x", "s"], ["y"]), s=[1, 1, *GIANT]),
    "Tile by a constant": make_model(CAST, constant("s", [1, 1, *GIANT]), helper.make_node("Tile", ["x", "s"], ["y"])),
    "Pad": make_model(CAST, helper.make_node("Pad", ["x", "s"], ["y"]), s=[0] * 6 + GIANT),
    "Resize": make_model(CAST, helper.make_node("Resize", ["x", "", "", "s"], ["y"]), s=[1, 3, *GIANT]),
    "Resize by scales": make_model(
        CAST, helper.make_node("Resize", ["x", "", "s"], ["y"]), s=np.float32([1, 1, 1e6, 1e6])
    ),
    "computed": make_model(
        CAST,
        helper.make_node("Mul", ["s", "s"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["y"]),
        s=[2**20, 1, 1, 1],
    ),
    "an outer product": make_model(
        helper.make_node("MatMul", ["a", "b"], ["y"]),
        a=np.zeros((2**16, 1), np.float32),
        b=np.zeros((1, 2**16), np.float32),
    ),
    "a sparse constant": make_model(
        helper.make_node(
            "Constant",
            [],
            ["y"],
            sparse_value=onnx.SparseTensorProto(
                values=numpy_helper.from_array(np.ones(1, np.float32)),
                indices=numpy_helper.from_array(np.zeros(1, np.int64)),
                dims=GIANT,
            ),
        )
    ),
    "value_info": make_model(CAST, helper.make_node("Relu", ["x"], ["y"]), values=value_info("x", ["N", 3, *GIANT])),
    "value_info of nothing": make_model(CAST, helper.make_node("Relu", ["x"], ["y"]), values=value_info("z", GIANT)),
    "negative": make_model(CAST, helper.make_node("Relu", ["x"], ["y"]), values=value_info("z", [-1, -1])),
}


def peak_memory():
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else 0


@pytest.mark.parametrize("what", LARGE)
def test_giant_shapes_are_refused_before_anything_is_computed(what):
    refuse_hostile(LARGE[what], "large.onnx")
    before = peak_memory()
    with pytest.raises(BackboneError, match=r"large\.onnx: (malformed graph|'.' has the shape)"):
        refuse_large(LARGE[what], "large.onnx")
    assert peak_memory() - before < 2**28


def test_shapes_of_a_network_for_images_pass(model):
    refuse_large(model, "small.onnx")


def test_weights_in_other_files_are_refused(tmp_path, bundled_model):
    bundled_model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    bundled_model.graph.initializer[0].external_data.add(key="location", value="../outside.bin")
    (tmp_path / "external.onnx").write_bytes(bundled_model.SerializeToString())
    with pytest.raises(featx.BackboneError, match="one file"):
        read_backbone(tmp_path / "external.onnx")
