"""Make a backbone of an ONNX classifier from another program; needs no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from featx._files import write_whole
from featx._validation import check_choice
from featx.backbones.catalogue import own_file, pulled_dir, verdicts_dir
from featx.backbones.download import download, file_digest, is_reference
from featx.backbones.file import COMMON_LAYERS, BackboneDescription, Layer, load_model, read_backbone, require_images
from featx.backbones.graph import ancestors, tap
from featx.backbones.sandbox import inspect_file
from featx.errors import BackboneError, MissingDependencyError, first_line
from featx.images.preprocess import Preprocess
from featx.images.reference import real_images
from featx.recipes.build import normalize_inside, write_backbone
from featx.recipes.classifier import Classifier, clean_classifier
from featx.recipes.layers import count_parameters, name_stages, stride_of, view_as_map
from featx.recipes.network import strip
from featx.recipes.verify import Conversion, measure_difference, run_logits
from featx.session import Session, run_graph

__all__ = ["describe_tensor", "find_features", "find_layers", "wrap_backbone", "wrap_network"]

Pixels = npt.NDArray[np.uint8]
_POOLING_OPERATORS = ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax")


def wrap_backbone(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    preprocess: Preprocess,
    name: str | None = None,
    channel_order: str = "RGB",
    features: str | None = None,
    license: str = "unknown",
) -> Conversion:
    """Make a backbone of a float ONNX classifier, and compare the two on real images.

    Parameters
    ----------
    source : str or path
        A classifier with one float32 input, (N, 3, H, W) or (N, H, W, 3): a file, a hub name
        (``hf:owner/name/file.onnx``) or an https address.
    output : str, path or None
        The file; None writes ``NAME.onnx`` to the user's folder, where `open_backbone` finds it by name.
    preprocess : Preprocess
        The preprocessing of the classifier's training, which its file does not hold.
    name : str or None
        The backbone's name; None takes the name of the file.
    channel_order : {"RGB", "BGR"}
        Order of the channels that the classifier takes; mean and std stay in RGB order.
    features : str or None
        The tensor that becomes the layer ``head``: a map, a row, or tokens (N, T, C).
        None takes the input of the last average pooling before the classifier.
    license : str
        SPDX identifier of the weights.

    Returns
    -------
    Conversion
        The new backbone, and the differences of its features and class scores from the classifier's.

    Raises
    ------
    BackboneError
        The file is no such classifier, its features cannot be found (the message lists the
        candidates), or the backbone would differ.

    Examples
    --------
    >>> from featx.images.preprocess import Preprocess
    >>> from featx.recipes import wrap_backbone
    >>> imagenet = Preprocess(224, 224, 256, "bilinear", (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    >>> wrap_backbone("resnet50.onnx", preprocess=imagenet)  # doctest: +SKIP
    """
    check_choice("channel_order", channel_order, ("RGB", "BGR"))
    origin = os.fspath(source)
    plain = Path(origin.partition("#")[0] if is_reference(origin) else origin)
    path = download(origin, pulled_dir()) if is_reference(origin) else plain
    inspect_file(path, verdicts_dir())
    description = BackboneDescription(
        name=name or plain.stem,
        preprocess=preprocess,
        license=license,
        source=origin if is_reference(origin) else plain.name,
        recipe={"wrapped_sha256": file_digest(path), "onnx": onnx.__version__},
    )
    return wrap_network(
        path,
        output or own_file(plain.stem),
        description,
        lambda classifier: find_layers(classifier, preprocess, features),
        channel_order,
    )


def wrap_network(
    path: Path,
    output: str | os.PathLike[str],
    description: BackboneDescription,
    find: Callable[[Classifier], list[Layer]],
    channel_order: str = "RGB",
) -> Conversion:
    """Write the backbone file of an inspected network, if it computes the same on real images.

    ``find`` lists the layers of the cleaned network; the layer ``head`` is compared, and so are the class scores.
    """
    original = load_model(path)
    preprocess = require_images(description)
    classifier = clean_classifier(original, path, preprocess)
    layers = find(classifier)
    (head,) = (layer for layer in layers if layer.name == "head")
    with write_whole(output) as scratch:
        try:
            model = classifier.model
            description = replace(
                description,
                layers=tuple(replace(layer, tensor=_view_layer(classifier, layer)) for layer in layers),
                parameters=count_parameters(model),
                gflops=round(classifier.gflops, 4),
            )
            strip(model)
            normalize_inside(model.graph, preprocess, channel_order, classifier.layout)
            write_backbone(scratch, model, description)
            backbone = read_backbone(scratch)
            pixels = real_images(preprocess)
            references = _run_original(original, classifier, head, preprocess, channel_order, pixels)
            rows = [Session(tap(backbone, "head", "flatten", False), "cpu").run(pixels), run_logits(backbone, pixels)]
            if short := [len(values) for values in rows if len(values) != len(pixels)]:
                raise BackboneError(f"{len(pixels)} images give {short[0]} rows")
            differences = tuple(
                measure_difference(part, reference.reshape(len(pixels), -1), values.reshape(len(pixels), -1))
                for part, reference, values in zip(("features", "logits"), references, rows, strict=True)
            )
        except MissingDependencyError:
            raise
        except Exception as error:  # errors of onnx's checker, of onnxruntime, or of reading the new file
            why = first_line(error).replace(os.fspath(scratch), os.fspath(output))
            raise BackboneError(f"{path}: cannot be made a backbone ({why}){classifier.advice}") from error
        if wrong := [one for one in differences if not one.is_close(backbone.precision)]:
            raise BackboneError(f"{output}: not written, the {wrong[0].name} differ from those of {path}: {wrong[0]}")
    return Conversion(replace(backbone, path=Path(output)), differences)


def find_layers(classifier: Classifier, preprocess: Preprocess, features: str | None) -> list[Layer]:
    """List the maps before the features, and the features as the layer ``head``.

    ``features`` is the original name of a tensor; None searches for the input of the last pooling.
    """
    graph = classifier.model.graph
    if features is None:
        head = find_features(classifier)
    else:
        head = classifier.renamed.get(features, features)
        _refuse_tensor(classifier, head, features)
    before = {name for node in ancestors(graph, {head}) for name in node.output}
    canvas = (preprocess.height, preprocess.width)
    padded = {name for node in graph.node if node.op_type == "Pad" for name in node.output}  # a map and its margins
    layers = []
    for name in classifier.live:
        if name in before and name != head and name not in padded and classifier.is_map(name):
            channels, height, _ = classifier.shapes[name][1:]
            if channels > 3 or height < preprocess.height:  # otherwise it is still the image
                layers.append(describe_tensor(classifier, name, canvas))
    return name_stages([*layers, describe_tensor(classifier, head, canvas)], {})


def describe_tensor(classifier: Classifier, tensor: str, canvas: tuple[int, int]) -> Layer:
    """Describe a tensor of a network as a layer; raise BackboneError if the place of its channels is unknown."""
    size = classifier.size(tensor)
    if size is None:
        raise BackboneError(
            f"{classifier.path}: features={classifier.original_name(tensor)}: has 4 dimensions, "
            f"and it is unknown which holds the channels; {_list_candidates(classifier)}"
        )
    name = classifier.original_name(tensor)
    stride = max(1, stride_of(canvas[1], size[2])) if size[2] > 1 else max(canvas)
    aliases = () if name in COMMON_LAYERS else (name,)
    return Layer(name, aliases, tensor, *size, stride)


def _refuse_tensor(classifier: Classifier, tensor: str, features: str) -> None:
    """Raise unless the tensor that ``features`` names can be a layer."""
    graph = classifier.model.graph
    if tensor not in {name for node in graph.node for name in node.output}:
        why = "the class scores depend on no tensor of this name"
    elif tensor not in classifier.live and tensor != graph.output[0].name:
        why = "not a tensor of floats that every path to the class scores passes through"
    elif not classifier.is_known(tensor):
        why = "not a tensor of 2 to 4 dimensions of known size, of which the first counts the images"
    else:
        return
    raise BackboneError(f"{classifier.path}: features={features}: {why}; {_list_candidates(classifier)}")


def find_features(classifier: Classifier) -> str:
    """Find the only pooling of a whole map that weights follow; return its input if it averages, else its output."""
    producers = {name: node for node in classifier.model.graph.node for name in node.output}
    pooled = {
        tensor: producers[tensor].input[0]
        for tensor in classifier.live
        if _pools_whole_map(classifier, producers[tensor]) and _has_weights_after(classifier.model.graph, tensor)
    }
    tensors = [tensor for tensor, before in pooled.items() if not classifier.is_row(before)] or list(pooled)
    if len(tensors) != 1:
        what = f"{len(tensors)} poolings" if tensors else "no pooling"
        raise BackboneError(
            f"{classifier.path}: {what} in front of its classifier; set features=TENSOR; {_list_candidates(classifier)}"
        )
    (tensor,) = tensors
    before = pooled[tensor]
    return before if _averages(classifier, producers[tensor]) else tensor


def _pools_whole_map(classifier: Classifier, node: onnx.NodeProto) -> bool:
    if node.op_type not in _POOLING_OPERATORS or not all(map(classifier.is_known, (node.input[0], node.output[0]))):
        return False
    return len(classifier.shapes[node.input[0]]) == 4 and classifier.is_row(node.output[0])


def _averages(classifier: Classifier, node: onnx.NodeProto) -> bool:
    """Return True if a pooling computes the mean of each channel over the whole map."""
    size = classifier.size(node.input[0])
    if node.op_type == "AveragePool":
        window = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        return size is not None and window.get("kernel_shape") == [*size[1:]] and not any(window.get("pads", []))
    if node.op_type in ("GlobalAveragePool", "ReduceMean"):
        return size is not None and classifier.size(node.output[0]) == (size[0], 1, 1)
    return False


def _has_weights_after(graph: onnx.GraphProto, tensor: str) -> bool:
    reached = {tensor}
    for node in graph.node:
        if reached.intersection(node.input):
            if node.op_type in ("Gemm", "MatMul", "Conv"):
                return True
            reached.update(node.output)
    return False


def _list_candidates(classifier: Classifier) -> str:
    """List the last tensors that can be features, for an error message."""
    names = [name for name in classifier.live if classifier.is_known(name)][-12:]
    texts = (
        f"{classifier.original_name(name)} (N, {', '.join(map(str, classifier.shapes[name][1:]))})"
        for name in reversed(names)
    )
    return f"candidates, the last first: {'; '.join(texts) or 'none'}"


def _view_layer(classifier: Classifier, layer: Layer) -> str:
    """Return the float32 tensor that holds a layer as a map with the channels first, adding nodes that make it."""
    tensor = _view_map(classifier, layer)
    if layer.tensor not in classifier.halves:
        return tensor
    name = f"featx_{layer.name}_float32"
    classifier.model.graph.node.append(helper.make_node("Cast", [tensor], [name], to=TensorProto.FLOAT))
    return name


def _view_map(classifier: Classifier, layer: Layer) -> str:
    if classifier.is_map(layer.tensor):
        return layer.tensor
    shape, name = classifier.shapes[layer.tensor], f"featx_{layer.name}"
    in_order = classifier.is_row(layer.tensor) or classifier.layouts.get(layer.tensor) == "NCHW"
    if len(shape) == 4 and not in_order:
        nodes = [helper.make_node("Transpose", [layer.tensor], [name], perm=[0, 3, 1, 2])]
    else:
        nodes = view_as_map(replace(layer, name=name), [0, *layer.size] if in_order else shape)
    classifier.model.graph.node.extend(nodes)
    return name


def _run_original(
    original: onnx.ModelProto,
    classifier: Classifier,
    head: Layer,
    preprocess: Preprocess,
    channel_order: str,
    pixels: Pixels,
) -> list[npt.NDArray[Any]]:
    """Run the original file on images that numpy normalised, one at a time.

    A file exported for a batch gets copies of the image.
    """
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    images = (pixels.astype(np.float32) - mean) / std
    if channel_order == "BGR":
        images = images[:, ::-1]
    if classifier.layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    tensor = classifier.original_name(head.tensor)
    outputs = [tensor, classifier.original_output]
    if tensor not in {value.name for value in model.graph.output}:
        kind = TensorProto.FLOAT16 if head.tensor in classifier.halves else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(tensor, kind, None))
    content = model.SerializeToString()
    batch = classifier.batch or 1
    runs = [
        run_graph(content, {classifier.original_input: np.repeat(image[None], batch, axis=0)}, outputs)
        for image in images
    ]
    rows, scores = (np.concatenate([part[: len(part) // batch] for part in parts]) for parts in zip(*runs, strict=True))
    if classifier.layouts.get(head.tensor) != "NCHW":
        rows = np.moveaxis(rows, -1, 1)
    return [rows, scores]
