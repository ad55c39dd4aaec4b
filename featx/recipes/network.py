"""Export a PyTorch network as a clean ONNX graph, with the names of the modules that made each value."""

from __future__ import annotations

import ast
from typing import Any

import onnx

from featx._optional import import_optional
from featx.errors import InputError

__all__ = ["export_network", "load_in_order", "strip"]

OPSET = 18


def export_network(network: Any, height: int, width: int) -> tuple[onnx.ModelProto, dict[str, list[str]]]:
    """Export a ``torch.nn.Module`` in evaluation mode, from normalised images to class scores.

    The canvas is fixed in the graph, since the exporter folds padding that depends on the size into numbers.

    Returns
    -------
    model : onnx.ModelProto
        Input ``normalized`` (N, 3, height, width), output ``logits``; no metadata.
    scopes : dict
        From each output tensor to the dotted names of the modules around its node, outermost first.
    """
    torch = import_optional("torch", "export")
    if network.training:
        raise InputError("the network is in training mode; call its eval() first")
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, height, width),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["normalized"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    module_names: dict[str, list[str]] = {}
    for node in model.graph.node:
        scopes = [prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"]
        names = ast.literal_eval(scopes[0])[1:-1] if scopes else []
        module_names.update((output, names) for output in node.output)
    strip(model)
    return model, module_names


def strip(model: onnx.ModelProto) -> None:
    """Remove names and descriptions, in which the exporter leaves file paths and code."""
    graph = model.graph
    for message in [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]:
        del message.metadata_props[:]
        message.doc_string = ""
    del graph.value_info[:], model.functions[:]
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
    model.producer_name, model.producer_version, graph.name = "featx", "", "backbone"


def load_in_order(network: Any, state: dict[str, Any]) -> None:
    """Load a state dict that has other names but the network's order of entries; raise InputError for another order."""
    renamed = {}
    for (name, expected), (other, value) in zip(network.state_dict().items(), state.items(), strict=True):
        if name.rpartition(".")[2] != other.rpartition(".")[2] or expected.shape != value.shape:
            raise InputError(f"got {other} {tuple(value.shape)}, expected {name} {tuple(expected.shape)}")
        renamed[name] = value
    network.load_state_dict(renamed)
