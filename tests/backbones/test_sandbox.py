import io
import json
import math
import os
import subprocess
import sys
import zipfile
from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from PIL import Image

from featx.backbones import open_backbone, sandbox, tap
from featx.backbones.file import Layer, canonical_pixels, describe_model, read_backbone
from featx.backbones.sandbox import inspect_apart, refuse_hostile, refuse_large
from featx.errors import BackboneError
from featx.images.preprocess import Preprocess
from featx.session import Session

try:
    import resource
except ImportError:  # Windows
    resource = None

posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Python is a shell script")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A sound backbone of three convolutions."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    rng = np.random.default_rng(0)
    names, widths = ("stem", "stage1", "head"), (3, 4, 6, 8)
    values = {"mean": np.full((1, 3, 1, 1), 127, np.float32), "std": np.full((1, 3, 1, 1), 128, np.float32)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["normalized"]),
    ]
    for i, (name, before) in enumerate(zip(names, ("normalized", *names), strict=False)):
        values[f"{name}.weight"] = rng.normal(size=(widths[i + 1], widths[i], 3, 3)).astype(np.float32)
        inputs = [before, f"{name}.weight"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.conv"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"{name}.conv"], [name]))
    made = make_model(*nodes, output="head", **values)
    description = {
        "name": "small",
        "preprocess": Preprocess(16, 16, 18, "bicubic", (127.0,) * 3, (128.0,) * 3),
        "layers": [
            Layer(name, (f"block{i}",), name, widths[i + 1], 8 >> i, 8 >> i, 2 << i) for i, name in enumerate(names)
        ],
        "default_layer": "head",
        "parameters": sum(value.size for value in values.values()),
        "gflops": 0.001,
        "license": "MIT",
        "source": "made here",
        "recipe": {"onnx": onnx.__version__},
    }
    describe_model(made, **description, canonical=np.empty(0, np.float32))
    onnx.save(made, path)
    canonical = features_of(read_backbone(path))[0]
    describe_model(made, **description, canonical=canonical)
    onnx.save(made, path)
    return path


@pytest.fixture
def model(small):
    return onnx.load(small)


def make_model(*nodes, output="y", values=(), **initializers):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
        value_info=list(values),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def features_of(backbone):
    return Session(tap(backbone, None, "avg", False), "cpu").run(canonical_pixels(backbone.preprocess))


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def metadata(model, key):
    return next(prop for prop in model.metadata_props if prop.key == f"featx.{key}")


def change_metadata(model, key, change):
    prop = metadata(model, key)
    value = json.loads(prop.value)
    change(value)
    prop.value = json.dumps(value)


def read_or_refuse(path, what):
    """Give the backbone, sound, or None when it is refused by an error that names the file."""
    try:
        backbone = read_backbone(path)
    except Exception as error:
        if not isinstance(error, BackboneError) or path.name not in str(error):
            pytest.fail(f"{what}: {error!r}")
        return None
    assert backbone.layer(None) in backbone.layers, what
    assert all(min(layer.size) > 0 for layer in backbone.layers), what
    assert backbone.canonical.ndim == 1, what
    assert math.isfinite(backbone.gflops), what
    assert len(backbone.identity) == 64, what
    assert f"{backbone.name} {backbone.license} {backbone.source} {backbone.recipe}".encode(), what
    return backbone


def test_the_small_backbone_of_these_tests_is_sound(small):
    backbone = open_backbone(small)
    assert [layer.name for layer in backbone.layers] == ["stem", "stage1", "head"]
    np.testing.assert_allclose(features_of(backbone)[0], backbone.canonical, rtol=1e-5)
    assert backbone.canonical.any()


# What a graph may not hold

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
    "a Loop": (append_node("Loop", body=BRANCH), "operator Loop is not one that networks for images need"),
    "an If": (append_node("If", then_branch=BRANCH, else_branch=BRANCH), "FEATX_ALLOW_OPERATORS=If"),
    "a Scan": (append_node("Scan", body=BRANCH), "operator Scan"),
    "a custom operator": (append_node("Run", domain="com.evil"), "operator com.evil.Run"),
    "a known name elsewhere": (append_node("Relu", domain="com.evil"), "operator com.evil.Relu"),
    "an operator without a name": (append_node(""), "operator  is not one"),
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


# Shapes

CAST = helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT)
GIANT = [2**20, 2**20]


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


def value_info(name, shape):
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]


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
    """Give the most bytes that this process ever held."""
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


# A process of its own


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Run a shell script in Python's place."""

    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


@pytest.fixture
def no_process(monkeypatch):
    def run(*args, **kwargs):
        pytest.fail("a process was started")

    return lambda: monkeypatch.setattr(subprocess, "run", run)


def test_what_passed_is_remembered_by_its_content(tmp_path, no_process):
    bundled = open_backbone("efficientnet_lite0").path
    inspect_apart(bundled, tmp_path / "deep" / "verdicts")
    no_process()
    inspect_apart(bundled, tmp_path / "deep" / "verdicts")
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(bundled.read_bytes())
    inspect_apart(copy, tmp_path / "deep" / "verdicts")
    copy.write_bytes(bundled.read_bytes() + b"\x00")
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        inspect_apart(copy, tmp_path / "deep" / "verdicts")


def test_a_folder_that_cannot_be_written_remembers_nothing(small, tmp_path, no_process):
    (tmp_path / "file").write_bytes(b"")
    inspect_apart(small, tmp_path / "file" / "verdicts")
    no_process()
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        inspect_apart(small, tmp_path / "file" / "verdicts")


@posix
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "ended with status -11 (no message)"),
        ("kill -KILL $$", "ended with status -9"),
        ("echo first >&2; echo last words >&2; exit 1", "ended with status 1 (last words)"),
        ("exit 3", "ended with status 3"),
        ("printf '\\377' >&2; exit 9", "ended with status 9"),
        ("exec sleep 60", "took more than 1 s"),
    ],
)
def test_a_look_that_crashes_or_hangs_is_an_error_that_names_the_file(
    small, tmp_path, stand_in, monkeypatch, script, message
):
    monkeypatch.setattr(sandbox, "_SECONDS", 1 if "sleep" in script else 60)
    stand_in(script)
    with pytest.raises(BackboneError, match=r"small\.onnx: ") as caught:
        inspect_apart(small, tmp_path / "verdicts")
    assert message in str(caught.value)
    assert not (tmp_path / "verdicts").exists()


def test_a_file_larger_than_a_message_may_be_is_refused_unread(small, tmp_path, monkeypatch, no_process):
    monkeypatch.setattr(sandbox, "_LARGEST_FILE", 100)
    no_process()
    with pytest.raises(BackboneError, match=r"small\.onnx: [\d,]+ bytes; a backbone is one file of at most 100"):
        inspect_apart(small, tmp_path / "verdicts")


def set_layer(**values):
    return lambda model: change_metadata(model, "layers", lambda layers: layers[0].update(values))


def shorten_canonical(model):
    metadata(model, "canonical").value = '"AACAPwAAgD8="'


def take_one_image_of_a_batch(model):
    model.graph.node.insert(1, helper.make_node("Slice", ["float", "zero", "one"], ["first"]))
    model.graph.node[2].input[0] = "first"
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([i]), name) for i, name in enumerate(["zero", "one"])
    )


LIES = {
    "a layer with more channels": (set_layer(channels=5), "layer stem of 2 images is of shape (2, 4, 8, 8)"),
    "a layer without end": (set_layer(channels=10**30), "layer stem"),
    "a flatter layer": (set_layer(height=4, width=16), "layer stem"),
    "canonical features of another length": (shorten_canonical, "2 canonical features"),
    "one row for a batch": (take_one_image_of_a_batch, "layer stem of 2 images is of shape (1, 4, 8, 8)"),
    "a giant declared": (lambda model: model.graph.value_info.extend(value_info("z", GIANT)), "has the shape"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_file_that_does_not_compute_what_it_says_is_refused(model, tmp_path, what):
    change, message = LIES[what]
    change(model)
    path = save(model, tmp_path / "lies.onnx")
    with pytest.raises(BackboneError, match=r"lies\.onnx: ") as caught:
        inspect_apart(path, tmp_path / "verdicts")
    assert message in str(caught.value)
    assert not (tmp_path / "verdicts").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no limit on memory")
def test_a_layer_whose_size_depends_on_the_image_may_not_take_all_memory(model, tmp_path):
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["float"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Mul", ["whole", "giant"], ["rows"]),
            helper.make_node("Add", ["rows", "map"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["z"]),  # 8 GB for the canonical image
        ]
    )
    for name, shape in (("giant", [20_000, 0, 0, 0]), ("map", [0, 3, 16, 16])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    layer = {"name": "z", "aliases": [], "tensor": "z", "channels": 3, "height": 16, "width": 16, "stride": 1}
    change_metadata(model, "layers", lambda layers: layers.append(layer))
    with pytest.raises(BackboneError, match=r"giant\.onnx: cannot be run .*memory"):
        inspect_apart(save(model, tmp_path / "giant.onnx"))


# Damage


def flip(content, rng, most=50):
    data = np.frombuffer(content, np.uint8).copy()
    where = rng.integers(len(data), size=rng.integers(1, most + 1))
    data[where] ^= (1 << rng.integers(8, size=len(where))).astype(np.uint8)
    return data.tobytes()


def cut_out(content, rng):
    start, length = rng.integers(len(content)), rng.integers(1, 500)
    return content[:start] + content[start + length :]


def repeat(content, rng):
    start, length = rng.integers(len(content)), rng.integers(1, 500)
    return content[: start + length] + content[start:]


def splice(content, rng):
    start, source = rng.integers(len(content), size=2)
    block = content[source : source + rng.integers(1, 500)]
    return content[:start] + block + content[start + len(block) :]


DAMAGE = {
    "cut off": lambda content, rng: content[: rng.integers(len(content))],
    "bits flipped": flip,
    "few bits flipped": lambda content, rng: flip(content, rng, 2),
    "a block cut out": cut_out,
    "a block twice": repeat,
    "a block over another": splice,
    "random bytes": lambda content, rng: rng.bytes(rng.integers(1, 5000)),
    "random bytes as a graph": lambda content, rng: content + b"\x3a\x40" + rng.bytes(64),
    "its own bytes in another order": lambda content, rng: rng.permutation(np.frombuffer(content, np.uint8)).tobytes(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_by_its_name_or_reads_well(small, tmp_path, what):
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for i in range(40):
        path.write_bytes(DAMAGE[what](small.read_bytes(), rng))
        read_or_refuse(path, f"{what}, file {i}")


@pytest.fixture(scope="module")
def survivors(small, tmp_path_factory):
    """Damaged files that read well."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("survivors") / "damaged.onnx"
    contents = []
    while len(contents) < 12:
        path.write_bytes(flip(small.read_bytes(), rng, 8))
        if read_or_refuse(path, "bits flipped"):
            contents.append(path.read_bytes())
    return contents


@pytest.mark.parametrize("which", range(12))
def test_a_damaged_file_that_reads_well_is_refused_by_its_name_or_runs(survivors, tmp_path, which):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(survivors[which])
    try:
        inspect_apart(path)
    except BackboneError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "damaged.onnx: " in refusal
    else:
        backbone = read_backbone(path)
        assert features_of(backbone).shape == (1, backbone.layer(None).channels) == (1, len(backbone.canonical))


KEYS = ("format", "name", "preprocess", "layers", "default_layer", "cost", "license", "source", "recipe", "canonical")
VALUES = {
    "number": "3",
    "huge number": "9" * 4000,
    "number too huge to read": "9" * 100_000,
    "fraction": "1.5",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "null": "null",
    "true": "true",
    "text": '"x"',
    "half a character": '"\\ud800"',
    "empty list": "[]",
    "list": '[[], null, {"name": 3}]',
    "deep list": "[" * 100_000,
    "deep list with an end": "[" * 100_000 + "]" * 100_000,
    "object": "{}",
    "object with NaN": '{"parameters": 1, "gflops": NaN}',
    "nothing": "",
    "not JSON": "{'a'}",
}
SOUND = {("name", "text"), ("license", "text"), ("source", "text"), ("recipe", "object")}


@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_another_type_is_refused(model, tmp_path, key):
    for what, value in VALUES.items():
        metadata(model, key).value = value
        backbone = read_or_refuse(save(model, tmp_path / "typed.onnx"), f"{key} as {what}")
        assert bool(backbone) == ((key, what) in SOUND), f"{key} as {what}"


@pytest.mark.parametrize("key", KEYS)
def test_metadata_without_one_of_its_keys_is_refused(model, tmp_path, key):
    model.metadata_props.remove(metadata(model, key))
    assert read_or_refuse(save(model, tmp_path / "without.onnx"), key) is None


@pytest.mark.parametrize("key", ["layers", "preprocess", "cost"])
def test_a_part_of_metadata_of_another_type_is_refused_or_reads_well(model, tmp_path, key):
    prop = metadata(model, key)
    sound = prop.value
    fields = json.loads(sound)[0] if key == "layers" else json.loads(sound)
    for field in fields:
        for wrong in (None, True, [], {}, "x", [None], 0, -1, 1.5, 10**30, 10**400, math.nan, {"size": "x"}):
            value = json.loads(sound)
            (value[0] if key == "layers" else value)[field] = wrong
            prop.value = json.dumps(value)
            read_or_refuse(save(model, tmp_path / "part.onnx"), f"{key}.{field} as {wrong!r}")


def test_swapped_metadata_is_refused_or_reads_well(small, tmp_path):
    for one, other in combinations(KEYS, 2):
        model = onnx.load(small)
        a, b = metadata(model, one), metadata(model, other)
        a.value, b.value = b.value, a.value
        read_or_refuse(save(model, tmp_path / "swapped.onnx"), f"{one} and {other} swapped")


@pytest.mark.parametrize("key", [b"featx.nam\xff", b"\xffeatx.name", b"featx.\xc3\x28me"])
def test_a_metadata_key_that_is_no_text_is_refused(small, tmp_path, key):
    path = tmp_path / "key.onnx"
    path.write_bytes(small.read_bytes().replace(b"featx.name", key))
    assert read_or_refuse(path, key) is None


def test_metadata_under_keys_of_another_program_does_not_count(model, tmp_path):
    for prop in model.metadata_props:
        prop.key = prop.key.removeprefix("featx.")
    with pytest.raises(BackboneError, match=r"bare\.onnx: an ONNX model without featx's metadata"):
        read_backbone(save(model, tmp_path / "bare.onnx"))


def make_png():
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()


def make_zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("small.onnx", b"model")
    return out.getvalue()


OTHER = {
    "empty": b"",
    "a zero": b"\x00",
    "ones": b"\xff" * 100,
    "text": b"pixels",
    "PNG": make_png(),
    "zip": make_zip(),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_file_of_another_kind_is_refused(tmp_path, what):
    path = tmp_path / "other.onnx"
    path.write_bytes(OTHER[what])
    assert read_or_refuse(path, what) is None


def test_a_folder_or_nothing_in_a_files_place_is_named(tmp_path, no_process):
    (tmp_path / "folder.onnx").mkdir()
    no_process()
    for name in ("folder.onnx", "missing.onnx", "folder.onnx/missing.onnx"):
        assert read_or_refuse(tmp_path / name, name) is None
        with pytest.raises(BackboneError, match=name):
            inspect_apart(tmp_path / name, tmp_path / "verdicts")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_named(model, tmp_path, no_process):
    path = save(model, tmp_path / "locked.onnx")
    path.chmod(0)
    no_process()
    assert read_or_refuse(path, "locked") is None
    with pytest.raises(BackboneError, match=r"locked\.onnx: cannot be read"):
        inspect_apart(path, tmp_path / "verdicts")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    with pytest.raises(BackboneError, match=r"pipe\.onnx: is not a regular file"):
        inspect_apart(pipe)


def test_without_a_python_to_start_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere"))
    with pytest.raises(BackboneError, match=r"efficientnet_lite0\.onnx: no process of its own could be started"):
        inspect_apart(open_backbone("efficientnet_lite0").path)
