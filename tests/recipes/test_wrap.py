"""Classifiers as other people export them, small and with random weights, made into backbones."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from featx import BackboneError, FeatureExtractor, InputError, MissingDependencyError, _files
from featx.backbones import catalogue, open_backbone
from featx.images.preprocess import Preprocess
from featx.recipes import wrap
from featx.recipes.wrap import wrap_backbone

SMALL = Preprocess(32, 32, 36, "bilinear", (123.0, 117.0, 104.0), (58.0, 50.0, 64.0))
LARGE = Preprocess(64, 64, 72, "bilinear", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


@pytest.fixture
def looked_at(monkeypatch, tmp_path):
    """Ask for the process that looks at a file first, and give where it remembers what passed."""
    cache = tmp_path.with_name(f"{tmp_path.name}-cache")
    monkeypatch.setattr(_files.platformdirs, "user_cache_path", lambda name: cache / name)
    return cache / "featx" / "inspected"


@pytest.fixture(autouse=True)
def _look_at_nothing(request, monkeypatch):
    """Leave that process out of the other tests: it takes two seconds a file."""
    if "looked_at" not in request.fixturenames:
        for module in (wrap, catalogue):
            monkeypatch.setattr(module, "inspect_file", lambda path, verdicts: None)


class Net:
    """A graph that grows node by node; a tensor is called after its operator unless a name is given."""

    def __init__(self, opset=17, seed=0):
        self.opset, self.rng = opset, np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def add(self, operator, *inputs, to=None, **attributes):
        """Add a node; ``into`` is Cast's attribute."""
        name = to or f"{operator.lower()}_{len(self.nodes)}"
        if "into" in attributes:
            attributes["to"] = attributes.pop("into")
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def hold(self, values, name=None, dtype=np.float32):
        name = name or f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def ints(self, *values):
        return self.hold(values, dtype=np.int64)

    def random(self, *shape, name=None):
        return self.hold(self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape), name)

    def conv(self, x, before, after, side=3, stride=1, group=1, to=None):
        bias = self.hold(self.rng.normal(0, 0.1, after))
        pads = [side // 2] * 4
        weight = self.random(after, before // group, side, side)
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=pads, group=group, to=to)

    def dense(self, x, before, after, to=None):
        weight = self.random(after, before)
        return self.add("Gemm", x, weight, self.hold(self.rng.normal(0, 0.1, after)), transB=1, to=to)

    def stem(self, x, channels=8):
        x = self.add("Relu", self.conv(x, 3, channels, stride=2))
        return self.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def residual(self, x, before, after, stride=2, gate=False):
        y = self.add("Relu", self.conv(x, before, after, stride=stride))
        y = self.conv(y, after, after)
        if gate:
            g = self.add("Relu", self.conv(self.add("GlobalAveragePool", y), after, 4, side=1))
            y = self.add("Mul", y, self.add("Sigmoid", self.conv(g, 4, after, side=1)))
        return self.add("Relu", self.add("Add", y, self.conv(x, before, after, side=1, stride=stride)))

    def maps(self, x="image", gate=False):
        """From an image to 24 channels at stride 8, called ``map``."""
        x = self.residual(self.stem(x), 8, 24, gate=gate)
        return self.add("Relu", self.conv(x, 24, 24), to="map")

    def reduce(self, operator, x, axes, keepdims=0, to=None):
        if self.opset < 18:
            return self.add(operator, x, axes=axes, keepdims=keepdims, to=to)
        return self.add(operator, x, self.ints(*axes), keepdims=keepdims, to=to)

    def scores(self, row, width, to="scores"):
        return self.add("Softmax", self.dense(row, width, 10), axis=1, to=to)

    def save(
        self, path, shape=("N", 3, 32, 32), inputs=("image",), outputs=("scores",), kind=TensorProto.FLOAT, **options
    ):
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        opsets = options.pop("opsets", [helper.make_opsetid("", self.opset)])
        model = helper.make_model(graph, opset_imports=opsets, **{"ir_version": 8, **options})
        path.write_bytes(model.SerializeToString())
        return path


def resnet(opset=17, gate=False, x="image"):
    net = Net(opset)
    pooled = net.add("GlobalAveragePool", net.maps(x, gate))
    net.scores(net.add("Flatten", pooled, axis=1), 24)
    return net


def images(preprocess):
    """Five patchworks of six by six colours that need no resizing."""
    cells = np.random.default_rng(1).integers(0, 256, (5, 6, 6, 3), np.uint8)
    return cells.repeat(preprocess.resize // 6, 1).repeat(preprocess.resize // 6, 2)


def run_original(source, tensors, preprocess=SMALL, layout="NCHW", order="RGB"):
    """Run the file as it is, image by image, without featx."""
    edge = (preprocess.resize - preprocess.height) // 2
    x = images(preprocess)[:, edge:-edge, edge:-edge].astype(np.float32)
    x = (x - np.float32(preprocess.mean)) / np.float32(preprocess.std)
    x = x[..., ::-1] if order == "BGR" else x
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if layout == "NCHW" else x)
    model = onnx.load(source)
    existing = {value.name for value in model.graph.output}
    for name in set(tensors) - existing:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    weights = {tensor.name for tensor in model.graph.initializer}
    (name,) = {value.name for value in model.graph.input} - weights
    runs = [session.run(list(tensors), {name: image[None]}) for image in x]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def assert_near(rows, expected):
    assert rows.shape == expected.shape
    assert np.abs(expected - expected.mean(0)).max() > 0.02 * np.abs(expected).max()  # images are told apart
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def wrapped(source, features=None, preprocess=SMALL, **options):
    target = source.with_name("wrapped.onnx")
    conversion = wrap_backbone(source, target, name="small", preprocess=preprocess, features=features, **options)
    assert conversion.backbone.path == target
    assert [difference.name for difference in conversion.differences] == ["features", "logits"]
    assert sorted(path.name for path in source.parent.iterdir()) == sorted([source.name, target.name])
    return open_backbone(target)


def assert_wrapped(source, tensor, axes, *, features=None, preprocess=SMALL, layout="NCHW", order="RGB"):
    """Wrap a file, and compare its features with a tensor of the original averaged over ``axes``."""
    backbone = wrapped(source, features, preprocess, channel_order=order)
    (expected,) = run_original(source, [tensor], preprocess, layout, order)
    expected = expected.mean(axes).reshape(5, -1)
    given = list(images(preprocess))
    extractor = FeatureExtractor(backbone.path, device="cpu", n_threads=1)
    assert_near(extractor.transform(given), expected)
    assert_near(np.concatenate([extractor.transform([image]) for image in given]), expected)

    assert backbone.layers[-1].name == backbone.default_layer == "head"
    assert backbone.layer("head").channels == expected.shape[1]
    assert len({layer.name for layer in backbone.layers}) == len(backbone.layers)
    maps = backbone.layers[:-1]
    assert all(backbone.layer(layer.name) is layer for layer in backbone.layers)
    if maps:
        names = [layer.aliases[0] if layer.aliases else layer.name.removeprefix("_") for layer in maps]
        wholes = run_original(source, names, preprocess, layout, order)
        assert [layer.size for layer in maps] == [whole.shape[1:] for whole in wholes]
        extractor = FeatureExtractor(backbone.path, layer=[layer.name for layer in maps], device="cpu", n_threads=1)
        assert_near(extractor.transform(given), np.concatenate([whole.mean((2, 3)) for whole in wholes], axis=1))
    return backbone


def refusal(source, match, **options):
    """Expect an error that names the file, and nothing left behind."""
    options = {"name": "small", "preprocess": SMALL, **options}
    before = sorted(source.parent.iterdir())
    with pytest.raises(BackboneError, match=match) as caught:
        wrap_backbone(source, source.with_name("wrapped.onnx"), **options)
    assert str(source) in str(caught.value)
    assert ".featx-" not in str(caught.value)
    assert sorted(source.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_a_resnet_of_any_opset_gives_what_its_last_pooling_averages(opset, tmp_path):
    source = resnet(opset).save(tmp_path / "resnet.onnx")
    backbone = assert_wrapped(source, "map", (2, 3))
    assert backbone.layer("head").size == (24, 4, 4)


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_the_pooling_of_a_gate_is_not_the_last_one(opset, tmp_path):
    assert_wrapped(resnet(opset, gate=True).save(tmp_path / "se.onnx"), "map", (2, 3))


def test_layers_are_called_by_stage_and_by_their_own_tensor(tmp_path):
    backbone = wrapped(resnet().save(tmp_path / "resnet.onnx"))
    assert [(layer.name, layer.size, layer.stride) for layer in backbone.layers] == [
        ("conv_0", (8, 16, 16), 2),
        ("stem", (8, 16, 16), 2),
        ("stage1", (8, 8, 8), 4),
        ("add_7", (24, 4, 4), 8),
        ("relu_8", (24, 4, 4), 8),
        ("conv_9", (24, 4, 4), 8),
        ("head", (24, 4, 4), 8),
    ]
    assert [backbone.layer(name).name for name in ("relu_1", "maxpool_2", "map", "stage2")] == [
        *("stem", "stage1", "head", "head")
    ]


def constant_shape(net, way, *values):
    """Hold a shape as an initializer, or as a node's tensor or list of integers."""
    if way == "initializer":
        return net.ints(*values)
    if way == "ints":
        return net.add("Constant", value_ints=list(values))
    return net.add("Constant", value=numpy_helper.from_array(np.array(values, np.int64)))


@pytest.mark.parametrize("way", ["initializer", "tensor", "ints"])
@pytest.mark.parametrize("width", [24, -1])
def test_a_batch_of_one_that_was_written_down_is_freed(width, way, tmp_path):
    net = Net()
    pooled = net.add("GlobalAveragePool", net.maps(gate=True))
    net.scores(net.add("Reshape", pooled, constant_shape(net, way, 1, width)), 24)
    assert_wrapped(net.save(tmp_path / "one.onnx", (1, 3, 32, 32)), "map", (2, 3))


def test_a_batch_of_one_is_freed_where_a_zero_would_mean_none(tmp_path):
    net = Net(18)  # as torch's newer exporter writes it
    pooled = net.reduce("ReduceMean", net.maps(), [-1, -2], keepdims=1)
    net.scores(net.add("Reshape", pooled, net.ints(1, 24), allowzero=1), 24)
    assert_wrapped(net.save(tmp_path / "one.onnx", (1, 3, 32, 32)), "map", (2, 3))


def test_a_batch_of_one_is_freed_and_reshaped_weights_are_left(tmp_path):
    net = Net()
    scale = net.add("Reshape", net.hold(np.linspace(0.5, 2, 24)), net.ints(1, 24, 1, 1))
    pooled = net.add("GlobalAveragePool", net.add("Mul", net.maps(), scale, to="scaled"))
    net.scores(net.add("Reshape", pooled, net.ints(1, -1)), 24)
    assert_wrapped(net.save(tmp_path / "one.onnx", (1, 3, 32, 32)), "scaled", (2, 3))


def test_a_shuffle_of_channels_with_a_batch_of_one_is_freed(tmp_path):
    net = Net()
    groups = net.add("Reshape", net.maps(), net.ints(1, 4, 6, 4, 4))
    x = net.add("Reshape", net.add("Transpose", groups, perm=[0, 2, 1, 3, 4]), net.ints(1, 24, 4, 4))
    pooled = net.add("GlobalAveragePool", net.add("Relu", net.conv(x, 24, 24), to="shuffled"))
    net.scores(net.add("Reshape", pooled, net.ints(1, 24)), 24)
    assert_wrapped(net.save(tmp_path / "one.onnx", (1, 3, 32, 32)), "shuffled", (2, 3))


def from_nhwc(opset=13):
    net = Net(opset)
    return net, net.maps(net.add("Transpose", "image", perm=[0, 3, 1, 2]))


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("batch", ["N", 1])
def test_images_with_the_channels_last_are_turned_inside(batch, opset, tmp_path):
    net, x = from_nhwc(opset)
    net.scores(net.reduce("ReduceMean", x, [2, 3]), 24)
    source = net.save(tmp_path / "tf.onnx", (batch, 32, 32, 3))
    backbone = assert_wrapped(source, "map", (2, 3), layout="NHWC")
    assert backbone.layer("head").size == (24, 4, 4)
    assert min(layer.channels for layer in backbone.layers) > 3  # none of them is the image


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_maps_that_are_averaged_with_the_channels_last_give_their_rows(keepdims, opset, tmp_path):
    net, x = from_nhwc(opset)
    turned = net.add("Transpose", x, perm=[0, 2, 3, 1], to="turned")
    row = net.reduce("ReduceMean", turned, [1, 2], keepdims=keepdims)
    net.scores(net.add("Reshape", row, net.ints(-1, 24)) if keepdims else row, 24)
    source = net.save(tmp_path / "tf.onnx", ("N", 32, 32, 3))
    assert_wrapped(source, "turned", (1, 2), layout="NHWC")


def test_maps_are_followed_through_both_ways_of_turning_them(tmp_path):
    net, x = from_nhwc()
    turned = net.add("Relu", net.add("Transpose", x, perm=[0, 2, 3, 1]))
    back = net.add("Transpose", turned, perm=[0, 3, 1, 2], to="back")
    net.scores(net.reduce("ReduceMean", back, [2, 3]), 24)
    source = net.save(tmp_path / "tf.onnx", ("N", 32, 32, 3))
    backbone = assert_wrapped(source, "back", (2, 3), layout="NHWC")
    assert backbone.layer("head").size == backbone.layer("map").size == (24, 4, 4)


def test_a_map_with_the_channels_last_can_be_named(tmp_path):
    net, x = from_nhwc()
    turned = net.add("Relu", net.add("Transpose", x, perm=[0, 2, 3, 1]), to="turned")
    net.scores(net.reduce("ReduceMean", turned, [1, 2]), 24)
    source = net.save(tmp_path / "tf.onnx", ("N", 32, 32, 3))
    backbone = assert_wrapped(source, "turned", (1, 2), features="turned", layout="NHWC")
    assert backbone.layer("head").size == (24, 4, 4)


def as_grid_of_tokens(net, x):
    tokens = net.add("Transpose", net.add("Reshape", x, net.ints(0, 24, 16)), perm=[0, 2, 1])
    return net.add("Reshape", tokens, net.ints(0, 4, 4, 24), to="grid")


def as_einstein_sum(net, x):
    return net.add("Einsum", x, equation="nchw->nhwc", to="grid")


@pytest.mark.parametrize("turn", [as_grid_of_tokens, as_einstein_sum])
def test_four_dimensions_in_an_unknown_order_are_refused(turn, tmp_path):
    net = Net()
    net.scores(net.reduce("ReduceMean", turn(net, net.maps()), [1, 2], to="row"), 24)
    source = net.save(tmp_path / "swin.onnx")
    refusal(source, "features=grid: has 4 dimensions, and it is unknown which holds the channels", features="grid")
    assert_wrapped(source, "row", ())


def test_windows_of_a_map_are_no_layers(tmp_path):
    net = Net()
    cut = net.add("Transpose", net.add("Reshape", net.maps(), net.ints(0, 24, 2, 2, 4)), perm=[0, 2, 1, 3, 4])
    windows = net.add("Relu", net.conv(net.add("Reshape", cut, net.ints(-1, 24, 2, 4)), 24, 24), to="windows")
    back = net.add("Transpose", net.add("Reshape", windows, net.ints(-1, 2, 24, 2, 4)), perm=[0, 2, 1, 3, 4])
    x = net.add("Relu", net.conv(net.add("Reshape", back, net.ints(0, 24, 4, 4)), 24, 24), to="whole")
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", x)), 24)
    source = net.save(tmp_path / "windows.onnx")
    message = refusal(source, "features=windows: .*, of which the first counts the images", features="windows")
    assert "windows (" not in message
    assert "windows" not in [layer.name for layer in assert_wrapped(source, "whole", (2, 3)).layers]


@pytest.mark.parametrize("ir_version", [3, 4, 8])
@pytest.mark.parametrize("opset", [9, 11])
def test_weights_that_are_also_listed_as_inputs_are_no_inputs(opset, ir_version, tmp_path):
    net = resnet(opset)
    source = net.save(tmp_path / "old.onnx", ir_version=ir_version)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, source)
    backbone = assert_wrapped(source, "map", (2, 3))
    onnx.checker.check_model(onnx.load(backbone.path), full_check=True)


@pytest.mark.parametrize("opset", [13, 18])
def test_weights_that_are_nodes_are_counted_as_weights(opset, tmp_path):
    net = resnet(opset)
    plain = wrapped(net.save(tmp_path / "plain.onnx"))
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in net.weights if len(t.dims)]
    net.nodes, net.weights = constants + net.nodes, []
    folder = tmp_path / "nodes"
    folder.mkdir()
    backbone = assert_wrapped(net.save(folder / "nodes.onnx"), "map", (2, 3))
    assert backbone.parameters == plain.parameters > 10_000
    assert backbone.gflops == plain.gflops > 0


def test_domains_that_are_named_and_not_used_do_no_harm(tmp_path):
    opsets = [helper.make_opsetid("ai.onnx.ml", 2), helper.make_opsetid("", 13)]
    assert_wrapped(resnet(13).save(tmp_path / "tf.onnx", opsets=opsets), "map", (2, 3))


def test_a_graph_without_a_name_is_taken(tmp_path):
    source = resnet(18).save(tmp_path / "nameless.onnx")
    model = onnx.load(source)
    model.graph.name = ""
    onnx.save(model, source)
    assert_wrapped(source, "map", (2, 3))


def test_the_largest_values_are_the_features_where_the_network_takes_those(tmp_path):
    net = Net()
    net.scores(net.add("Flatten", net.add("GlobalMaxPool", net.maps(), to="largest")), 24)
    source = net.save(tmp_path / "max.onnx", ("N", 3, 32, 32))
    backbone = assert_wrapped(source, "largest", ())
    assert backbone.layer("head").size == (24, 1, 1)
    (whole,) = run_original(source, ["map"])
    rows = FeatureExtractor(backbone.path, n_threads=1).transform(list(images(SMALL)))
    np.testing.assert_allclose(rows, whole.max((2, 3)), rtol=1e-4)


@pytest.mark.parametrize(("preprocess", "side"), [(SMALL, 4), (LARGE, 8)])
def test_an_average_over_a_window_of_the_maps_size_is_a_global_one(preprocess, side, tmp_path):
    net = Net()
    pooled = net.add("AveragePool", net.maps(), kernel_shape=[side, side])
    net.scores(net.add("Flatten", pooled), 24)
    source = net.save(tmp_path / "window.onnx", ("N", 3, preprocess.height, preprocess.width))
    backbone = assert_wrapped(source, "map", (2, 3), preprocess=preprocess)
    assert backbone.layer("head").size == (24, side, side)


WINDOWS = [
    {"kernel_shape": [3, 3], "strides": [3, 3]},
    {"kernel_shape": [4, 4], "strides": [4, 4], "pads": [1, 1, 0, 0]},
]


@pytest.mark.parametrize("window", WINDOWS, ids=["small", "moved"])
def test_an_average_over_a_part_of_the_map_is_taken_as_it_is(window, tmp_path):
    net = Net()
    net.scores(net.add("Flatten", net.add("AveragePool", net.maps(), **window, to="corner")), 24)
    backbone = assert_wrapped(net.save(tmp_path / "window.onnx"), "corner", ())
    assert backbone.layer("head").size == (24, 1, 1)


@pytest.mark.parametrize("features", [None, "swished"])
def test_a_convolution_behind_the_pooling_is_of_the_classifier_unless_it_is_named(features, tmp_path):
    net = Net()
    x = net.conv(net.add("GlobalAveragePool", net.maps()), 24, 40, side=1)
    net.scores(net.add("Flatten", net.add("HardSwish", x, to="swished")), 40)
    source = net.save(tmp_path / "mobilenet.onnx")
    if features:
        assert assert_wrapped(source, "swished", (), features=features).layer("head").size == (40, 1, 1)
    else:
        assert assert_wrapped(source, "map", (2, 3)).layer("head").size == (24, 4, 4)


def test_a_classifier_that_is_a_convolution_lists_what_could_be_meant(tmp_path):
    net = Net()
    x = net.add("Relu", net.conv(net.maps(), 24, 10, side=1))
    net.add("Softmax", net.add("Flatten", net.add("GlobalAveragePool", x)), axis=1, to="scores")
    source = net.save(tmp_path / "squeezenet.onnx")
    message = refusal(source, "no pooling in front of its classifier")
    assert "map (N, 24, 4, 4)" in message
    assert message.index("relu_12 (N, 10, 4, 4)") < message.index("map (N, 24, 4, 4)")
    assert_wrapped(source, "map", (2, 3), features="map")


def test_a_classifier_of_three_layers_lists_what_could_be_meant(tmp_path):
    net = Net()
    row = net.add("Flatten", net.maps(), to="flat")
    for before, name in ((384, "fc1"), (32, "fc2")):
        row = net.add("Relu", net.dense(row, before, 32), to=name)
    net.scores(row, 32)
    source = net.save(tmp_path / "vgg.onnx")
    message = refusal(source, "no pooling in front of its classifier")
    for candidate in ("fc2 (N, 32)", "fc1 (N, 32)", "flat (N, 384)", "map (N, 24, 4, 4)"):
        assert candidate in message
    for name, axes in (("map", (2, 3)), ("flat", ()), ("fc1", ()), ("fc2", ())):
        assert_wrapped(source, name, axes, features=name)


def test_of_two_poolings_one_behind_the_other_neither_is_guessed(tmp_path):
    net = Net()
    first = net.add("GlobalAveragePool", net.maps(), to="first")
    large = net.conv(net.add("Resize", first, "", net.hold([1, 1, 4, 4])), 24, 24, to="large")
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", large)), 24)
    source = net.save(tmp_path / "two.onnx")
    refusal(source, "2 poolings in front of its classifier")
    assert_wrapped(source, "first", (), features="first")
    assert_wrapped(source, "large", (2, 3), features="large")


def test_both_poolings_side_by_side_are_named_by_what_joins_them(tmp_path):
    net = Net()
    x = net.maps()
    both = net.add("Concat", net.add("GlobalAveragePool", x), net.add("GlobalMaxPool", x), axis=1, to="both")
    net.scores(net.add("Flatten", both), 48)
    source = net.save(tmp_path / "both.onnx")
    refusal(source, r"both \(N, 48, 1, 1\)")
    assert_wrapped(source, "both", (), features="both")


@pytest.mark.parametrize("expanded", [False, True])
def test_tokens_are_averaged_over_the_tokens(expanded, tmp_path):
    net = Net()
    patches = net.add("Reshape", net.conv("image", 3, 24, 8, 8), net.ints(0, 24, -1))
    tokens = net.add("Transpose", patches, perm=[0, 2, 1])
    if expanded:  # a class token for each image
        number = net.add("Gather", net.add("Shape", "image"), net.ints(0))
        shape = net.add("Concat", number, net.ints(1, 24), axis=0)
        tokens = net.add("Concat", net.add("Expand", net.random(1, 1, 24), shape), tokens, axis=1)
    tokens = net.add("LayerNormalization", tokens, net.random(24), net.random(24), axis=-1)
    scores = net.add(
        "MatMul", net.add("MatMul", tokens, net.random(24, 24)), net.add("Transpose", tokens, perm=[0, 2, 1])
    )
    attended = net.add("MatMul", net.add("Softmax", scores, axis=-1), tokens)
    tokens = net.add("Add", tokens, attended, to="tokens")
    net.scores(net.add("Gather", tokens, net.hold(0, dtype=np.int64), axis=1, to="first"), 24)
    source = net.save(tmp_path / "vit.onnx")
    n_tokens = 26 if expanded else 25
    refusal(source, rf"no pooling .*first \(N, 24\); tokens \(N, {n_tokens}, 24\)")
    backbone = assert_wrapped(source, "tokens", 1, features="tokens")
    assert backbone.layer("head").size == (24, n_tokens, 1)
    assert_wrapped(source, "first", (), features="first")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_either_order_of_the_channels_reaches_the_network(order, layout, tmp_path):
    if layout == "NHWC":
        net, x = from_nhwc()
        net.scores(net.reduce("ReduceMean", x, [2, 3]), 24)
    else:
        net = resnet()
    shape = ("N", 3, 32, 32) if layout == "NCHW" else ("N", 32, 32, 3)
    source = net.save(tmp_path / "order.onnx", shape)
    assert_wrapped(source, "map", (2, 3), layout=layout, order=order)
    (right,), (wrong,) = (run_original(source, ["map"], SMALL, layout, name) for name in (order, order[::-1]))
    assert np.abs(right - wrong).max() > 0.1 * np.abs(right).max()


@pytest.mark.parametrize("order", ["bgr", "GRB", ""])
def test_another_order_of_the_channels_is_refused(order, tmp_path):
    source = resnet().save(tmp_path / "order.onnx")
    with pytest.raises(InputError, match=f"channel_order='{order}': expected 'RGB' or 'BGR'"):
        wrap_backbone(source, tmp_path / "x.onnx", name="x", preprocess=SMALL, channel_order=order)
    assert list(tmp_path.iterdir()) == [source]


OURS = ("pixels", "pixels_float", "pixels_rgb", "pixels_planes", "pixels_centered", "pixel_mean", "pixel_channels")
OURS += ("features", "normalized", "network_pixels", "featx_head", "featx_pooled_0", "featx_x", "head", "stem")
OURS += ("network_shape_0", "network_features", "stage1", "featx_rows")


@pytest.mark.parametrize("image", ["pixels", "normalized", "network_normalized", "features"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_names_that_featx_uses_itself_do_no_harm(order, image, tmp_path):
    net = Net()
    x = net.add("Transpose", image, perm=[0, 3, 1, 2])
    x = net.conv(x, 3, 24, stride=4)
    for name in OURS:
        if name != image:
            x = net.add("LeakyRelu", x, alpha=0.9, to=name)
    pooled = net.add("GlobalAveragePool", net.add("Relu", net.conv(x, 24, 24), to="map"), to="scores_")
    net.scores(net.add("Reshape", pooled, net.ints(1, -1)), 24, to="output")
    source = net.save(tmp_path / "ours.onnx", (1, 32, 32, 3), inputs=[image], outputs=["output"])
    assert_wrapped(source, "map", (2, 3), layout="NHWC", order=order)
    name = "pixels" if image == "features" else "features"
    backbone = assert_wrapped(source, name, (2, 3), features=name, layout="NHWC", order=order)
    assert backbone.layer(name) is backbone.layer("head")


def test_a_second_output_is_left_out(tmp_path):
    net = Net()
    x = net.maps()
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", x)), 24)
    aside = net.add("GlobalAveragePool", net.conv("maxpool_2", 8, 10))
    net.add("Softmax", net.add("Flatten", aside), axis=1, to="aside")
    source = net.save(tmp_path / "inception.onnx", outputs=["scores", "aside"])
    backbone = assert_wrapped(source, "map", (2, 3))
    model = onnx.load(backbone.path)
    assert [value.name for value in model.graph.output] == ["scores"]
    assert not {"aside", aside} & {name for node in model.graph.node for name in node.output}


def test_a_label_in_front_of_the_scores_is_left_out(tmp_path):
    net = resnet()
    net.add("ArgMax", "scores", axis=1, to="label")
    source = net.save(tmp_path / "label.onnx", outputs=["label", "scores"])
    model = onnx.load(source)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, source)
    assert_wrapped(source, "map", (2, 3))


@pytest.mark.parametrize("outputs", [["embedding"], ["embedding", "scores"]])
def test_an_output_can_be_the_features(outputs, tmp_path):
    net = Net()
    x = net.dense(net.add("Flatten", net.add("GlobalAveragePool", net.maps())), 24, 16, to="embedding")
    net.scores(x, 16)
    source = net.save(tmp_path / "face.onnx", outputs=outputs)
    backbone = assert_wrapped(source, "map", (2, 3))
    assert [value.name for value in onnx.load(backbone.path).graph.output] == outputs[-1:]
    assert_wrapped(source, "embedding", (), features="embedding")


def test_a_shape_that_is_asked_of_the_input_hides_no_map(tmp_path):
    net = Net()
    pooled = net.add("GlobalAveragePool", net.maps())
    n = net.add("Gather", net.add("Shape", "image"), net.ints(0))
    net.scores(net.add("Reshape", pooled, net.add("Concat", n, net.ints(24), axis=0)), 24)
    assert_wrapped(net.save(tmp_path / "late.onnx"), "map", (2, 3))


def test_a_larger_batch_that_was_written_down_is_freed(tmp_path):
    net = Net()
    net.scores(net.add("Reshape", net.add("GlobalAveragePool", net.maps()), net.ints(4, 24)), 24)
    source = net.save(tmp_path / "four.onnx", (4, 3, 32, 32))
    backbone = wrapped(source)
    free = resnet().save(tmp_path / "free.onnx")
    (whole,) = run_original(free, ["map"])
    assert_near(FeatureExtractor(backbone.path, n_threads=1).transform(list(images(SMALL))), whole.mean((2, 3)))


def test_old_networks_of_zoos_are_taken(tmp_path):
    net = Net(9)
    x = net.conv("image", 3, 24, stride=4)
    stats = [net.hold(net.rng.uniform(0.5, 1.5, 24)) for _ in range(4)]
    x = net.add("Clip", net.add("BatchNormalization", x, *stats), min=0.0, max=6.0, to="relu6")
    pooled = net.add("Dropout", net.add("GlobalAveragePool", x), ratio=0.5)
    net.scores(net.add("Reshape", pooled, net.ints(1, -1)), 24)
    for ir_version in (3, 4):
        source = net.save(tmp_path / "mobilenet.onnx", (1, 3, 32, 32), ir_version=ir_version)
        if ir_version == 3:
            model = onnx.load(source)
            for t in model.graph.initializer:
                model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
            onnx.save(model, source)
        assert_wrapped(source, "relu6", (2, 3))


KINDS = [TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64, TensorProto.DOUBLE]


@pytest.mark.parametrize("kind", KINDS, ids=TensorProto.DataType.Name)
def test_images_of_another_type_are_refused(kind, tmp_path):
    net = Net()
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", net.maps(net.add("Cast", "image", into=1)))), 24)
    source = net.save(tmp_path / "kind.onnx", kind=kind)
    refusal(source, f"takes {TensorProto.DataType.Name(kind)}, expected FLOAT")


def test_tensors_of_float16_are_layers(tmp_path):
    net = Net()
    half = net.add("Relu", net.add("Cast", net.maps(), into=TensorProto.FLOAT16), to="half")
    pooled = net.add("Cast", net.add("GlobalAveragePool", half), into=TensorProto.FLOAT, to="pooled")
    net.scores(net.add("Flatten", pooled), 24)
    source = net.save(tmp_path / "half.onnx")
    backbone = wrap_backbone(source, tmp_path / "wrapped.onnx", preprocess=SMALL, name="small").backbone
    assert "half" in backbone.layer("head").aliases
    images = [np.full((40, 40, 3), 60 * i, np.uint8) for i in range(3)]
    half, exact = (
        FeatureExtractor(backbone.path, layer=layer, device="cpu").fit_transform(images) for layer in ("head", "map")
    )
    np.testing.assert_allclose(half, exact, atol=1e-3 * np.abs(exact).max())
    assert_wrapped(source, "map", (2, 3), features="map")


def test_two_inputs_are_refused(tmp_path):
    net = resnet()
    net.add("Add", "scores", "temperature", to="warm")
    source = net.save(tmp_path / "two.onnx", inputs=["image", "temperature"], outputs=["warm"])
    refusal(source, "expected one input, an image; it has image, temperature")


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        (("N", 3, 64, 64), "takes images of 64x64, not 32x32"),
        (("N", 3, 32, 48), "takes images of 32x48, not 32x32"),
        ((3, 32, 32), r"has the shape \[3, 32, 32\], expected \(N, 3, H, W\) or \(N, H, W, 3\)"),
        (("N", 1, 32, 32), r"has the shape \[0, 1, 32, 32\], expected"),
        (("N", "C", "H", "W"), "expected"),
        (None, "expected"),
    ],
)
def test_images_of_another_shape_are_refused(shape, match, tmp_path):
    refusal(resnet().save(tmp_path / "shape.onnx", shape), match)


def test_any_size_takes_the_canvas(tmp_path):
    source = resnet().save(tmp_path / "any.onnx", ("N", 3, "H", "W"))
    backbone = assert_wrapped(source, "map", (2, 3), preprocess=LARGE)
    assert backbone.layer("head").size == (24, 8, 8)


def test_a_backbone_is_not_wrapped_again(tmp_path):
    source = wrapped(resnet().save(tmp_path / "resnet.onnx")).path
    again = tmp_path / "again" / "backbone.onnx"
    again.parent.mkdir()
    again.write_bytes(source.read_bytes())
    refusal(again, "is already a backbone")


def test_a_loop_is_refused(tmp_path):
    net = Net()
    body = helper.make_graph([], "body", [], [])
    net.nodes.append(helper.make_node("Loop", ["", ""], ["looped"], body=body))
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", net.maps())), 24)
    refusal(net.save(tmp_path / "loop.onnx"), "operator Loop")


def test_weights_in_another_file_are_refused(tmp_path):
    source = resnet().save(tmp_path / "external.onnx")
    model = onnx.load(source)
    onnx.save(model, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    refusal(source, "keeps weights in other files")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08"])
def test_what_is_no_network_is_refused(content, tmp_path):
    source = tmp_path / "text.onnx"
    source.write_bytes(content)
    refusal(source, "ONNX model")


@pytest.mark.parametrize("name", ["nothing", "image", "add_7", "conv_6", "weight_0", ""])
def test_a_tensor_that_cannot_be_the_features_is_refused(name, tmp_path):
    source = resnet().save(tmp_path / "resnet.onnx")
    if name == "add_7":
        assert_wrapped(source, name, (2, 3), features=name)
    else:
        why = "not a tensor of floats that every path" if name == "conv_6" else "the class scores depend on no tensor"
        message = refusal(source, f"features={name}: {why}", features=name)
        assert "map (N, 24, 4, 4)" in message


def corrupt(monkeypatch, change):
    """Change the graph between its building and its comparison."""
    build = wrap.write_backbone

    def write(path, model, description):
        change(model.graph)
        build(path, model, description)

    monkeypatch.setattr(wrap, "write_backbone", write)


@pytest.mark.parametrize(("name", "what"), [("weight_1", "features"), ("weight_11", "logits")])
def test_a_weight_that_changed_on_the_way_is_found_out(name, what, tmp_path, monkeypatch):
    def halve(graph):
        tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.5), name))

    source = resnet(18).save(tmp_path / "resnet.onnx")
    corrupt(monkeypatch, halve)
    refusal(source, f"not written, the {what} differ")


def test_what_goes_wrong_in_the_making_is_told_of_the_file(tmp_path, monkeypatch):
    def fail(path, model, description):
        path.write_bytes(b"half of it")
        raise ValueError(f"{path}: went wrong\nand more")

    source = resnet().save(tmp_path / "resnet.onnx")
    monkeypatch.setattr(wrap, "write_backbone", fail)
    target = re.escape(str(tmp_path / "wrapped.onnx"))
    refusal(source, rf"cannot be made a backbone \({target}: went wrong\)$")


def test_an_absent_onnxruntime_is_told_as_that(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MissingDependencyError("onnxruntime is not installed")

    source = resnet().save(tmp_path / "resnet.onnx")
    monkeypatch.setattr(wrap, "run_graph", fail)
    with pytest.raises(MissingDependencyError):
        wrapped(source)
    assert list(tmp_path.iterdir()) == [source]


def test_channels_in_the_wrong_order_are_found_out(tmp_path, monkeypatch):
    normalize = wrap.normalize_inside
    monkeypatch.setattr(
        wrap, "normalize_inside", lambda graph, rules, order, layout: normalize(graph, rules, "RGB", layout)
    )
    source = resnet(18).save(tmp_path / "resnet.onnx")
    refusal(source, "not written, the features differ", channel_order="BGR")
    wrapped(source)


def test_a_network_passes_the_look_that_is_taken_at_it_before_and_after(looked_at, tmp_path):
    source = resnet(gate=True).save(tmp_path / "resnet.onnx")
    assert_wrapped(source, "map", (2, 3))
    assert len(list(looked_at.iterdir())) == 2


def test_rows_and_maps_with_the_channels_last_pass_the_look(looked_at, tmp_path):
    net, x = from_nhwc()
    turned = net.add("Transpose", x, perm=[0, 2, 3, 1], to="turned")
    net.scores(net.reduce("ReduceMean", turned, [1, 2], to="row"), 24)
    source = net.save(tmp_path / "tf.onnx", (1, 32, 32, 3))
    assert_wrapped(source, "turned", (1, 2), layout="NHWC")
    assert_wrapped(source, "row", (), features="row", layout="NHWC")


def test_what_does_not_pass_the_look_is_not_wrapped(looked_at, tmp_path):
    source = resnet().save(tmp_path / "cut.onnx")
    source.write_bytes(source.read_bytes()[:-200])
    refusal(source, "cannot be read as an ONNX model|malformed|cannot be run")
    assert not looked_at.exists()


def test_a_pooling_of_a_single_cell_is_not_taken_for_the_last(tmp_path):
    net = Net()
    cell = net.add("MaxPool", net.maps(), kernel_shape=[4, 4], to="cell")
    net.scores(net.add("Flatten", net.add("AveragePool", cell, kernel_shape=[1, 1])), 24)
    assert_wrapped(net.save(tmp_path / "vgg.onnx"), "cell", ())


def test_a_map_of_a_single_cell_is_taken_as_it_is(tmp_path):
    net = Net()
    cell = net.add("Relu", net.add("Conv", net.maps(), net.random(24, 24, 4, 4)), to="cell")
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", cell)), 24)
    assert_wrapped(net.save(tmp_path / "cell.onnx"), "cell", ())


def test_tensors_that_are_called_by_numbers_keep_their_names(tmp_path):
    net = resnet(11, x="0")
    names = {name: str(i) for i, node in enumerate(net.nodes, 100) for name in node.output}
    for node in net.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    source = net.save(tmp_path / "torch.onnx", (1, 3, 32, 32), inputs=["0"], outputs=[names["scores"]])
    backbone = assert_wrapped(source, names["map"], (2, 3))
    assert backbone.layer(names["map"]).name == "head"


def test_a_network_that_enlarges_its_image_has_no_layer_finer_than_a_pixel(tmp_path):
    net = Net(13)
    large = net.add("Resize", "image", "", net.hold([1, 1, 4, 4]), mode="linear")
    x = net.add("Relu", net.conv(large, 3, 8), to="fine")
    x = net.residual(net.add("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4]), 8, 24)
    net.scores(net.add("Flatten", net.add("GlobalAveragePool", x)), 24)
    backbone = assert_wrapped(net.save(tmp_path / "large.onnx"), x, (2, 3))
    assert [(layer.size, layer.stride) for layer in (backbone.layer("fine"), backbone.layer("head"))] == [
        ((8, 128, 128), 1),
        ((24, 16, 16), 2),
    ]


def join_a_token(net, x):
    token = net.hold(np.ones((1, 1, 24)))
    cells = net.add("Transpose", net.add("Reshape", x, net.ints(1, 24, -1)), perm=[0, 2, 1])
    return net.add("Flatten", net.add("Concat", token, cells, axis=1)), 408


def split_into_heads(net, x):
    heads = net.add("Reshape", x, net.ints(4, 6, 16))  # one image times four heads
    return net.add("Reshape", net.add("Mul", heads, net.hold(np.ones((4, 6, 16)))), net.ints(1, 384)), 384


def turn_images_into_columns(net, x):
    row = net.add("Reshape", net.add("Reshape", x, net.ints(4, 96)), net.ints(1, 384))
    column = net.add("MatMul", net.add("Transpose", row, perm=[1, 0]), net.hold(np.ones((1, 1))))
    return net.add("Transpose", column, perm=[1, 0]), 384


def gather_from_the_first(net, x):
    everything = net.add("Reshape", net.reduce("ReduceMean", x, [2, 3], keepdims=1), net.ints(-1))
    row = net.add("Gather", everything, net.hold(np.arange(24).reshape(1, 24), dtype=np.int64))
    return row, 24


UNFREE = {
    join_a_token: r"cannot be made a backbone \(onnxruntime .*\)",
    split_into_heads: r"cannot be made a backbone \(onnxruntime .*\)",
    turn_images_into_columns: r"its shapes cannot be inferred \(.*\)",
    gather_from_the_first: r"cannot be made a backbone \(12 images give 1 rows\)",
}


@pytest.mark.parametrize(("build", "why"), UNFREE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_batch_of_one_that_cannot_be_freed_is_refused(build, why, tmp_path):
    net = Net()
    row, width = build(net, net.maps())
    net.scores(net.add("Relu", row, to="row"), width)
    source = net.save(tmp_path / "one.onnx", (1, 3, 32, 32))
    refusal(source, f"{why}; it was exported for a batch of 1: export it for any", features="map")


def test_a_map_that_is_averaged_side_by_side_keeps_its_channels(tmp_path):
    net = Net()
    columns = net.add("ReduceMean", net.maps(), axes=[3], keepdims=0, to="columns")
    net.scores(net.add("ReduceMean", columns, axes=[2], keepdims=0), 24)
    source = net.save(tmp_path / "mobilenet.onnx")
    refusal(source, r"no pooling .*columns \(N, 24, 4\); map \(N, 24, 4, 4\)")
    assert assert_wrapped(source, "columns", 2, features="columns").layer("head").size == (24, 4, 1)


def test_cells_in_one_row_keep_their_channels(tmp_path):
    net, x = from_nhwc()
    cells = net.add("Reshape", x, net.ints(0, 24, -1), to="cells")
    turned = net.add("Transpose", cells, perm=[0, 2, 1], to="turned")
    net.scores(net.add("ReduceMean", turned, axes=[1], keepdims=0), 24)
    source = net.save(tmp_path / "cells.onnx", (1, 32, 32, 3))
    for name, axis in (("cells", 2), ("turned", 1)):
        backbone = assert_wrapped(source, name, axis, features=name, layout="NHWC")
        assert backbone.layer("head").size == (24, 16, 1)


@pytest.mark.parametrize("shape", [(24, 1), (1, 24), (1, 1, 24), (24, 1, 1), (24,)])
def test_a_row_of_any_shape_is_a_row(shape, tmp_path):
    net = Net()
    row = net.add("Flatten", net.add("Reshape", net.add("GlobalMaxPool", net.maps()), net.ints(0, *shape), to="row"))
    net.scores(row, 24)
    source = net.save(tmp_path / "row.onnx")
    backbone = assert_wrapped(source, "row", (), features="row")
    assert backbone.layer("head").size == (24, 1, 1)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("batch", ["N", 1])
def test_sizes_that_the_network_computes_hide_no_layer_and_no_cost(batch, opset, tmp_path):
    net = Net(opset)
    x = net.maps()
    width = net.add("Gather", net.add("Shape", x), net.ints(1))
    half = net.add("Div", width, net.ints(2))  # as torch.chunk is written
    y = net.add("Slice", x, net.ints(0), half, net.ints(1))
    joined = net.add("Concat", net.conv(y, 12, 12), net.add("Slice", x, half, width, net.ints(1)), axis=1, to="joined")
    pooled = net.add("GlobalAveragePool", net.add("Relu", net.conv(joined, 24, 24), to="last"))
    net.scores(net.add("Flatten", pooled), 24)
    backbone = assert_wrapped(net.save(tmp_path / "shuffle.onnx", (batch, 3, 32, 32)), "last", (2, 3))
    assert backbone.layer("joined").size == (24, 4, 4)
    weights = (
        64 * 3 * 9 * 4 * 8 + 16 * (8 * 24 * 9 + 24 * 24 * 9 + 8 * 24 + 24 * 24 * 9 + 12 * 12 * 9 + 24 * 24 * 9) + 240
    )
    assert backbone.gflops == round(weights / 1e9, 4)
