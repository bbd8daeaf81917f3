"""Graphs of generators are those that PyTorch's exporter traces, node by node; test_to_onnx.py compares values."""

import warnings
from typing import Any

import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.networks.resnet import ResnetGenerator
from export.graphs.folding import without_norms
from export.graphs.generator import generator_graph
from export.graphs.interface import INPUT, OUTPUT

Node = tuple[str, dict[str, Any], list[Any]]


def nodes_of(model: ModelProto) -> list[Node]:
    """Return each node's operator, its attributes, and of each input the number of the node that made it, or values."""
    known: dict[str, Any] = {
        tensor.name: (numpy_helper.to_array(tensor).shape, numpy_helper.to_array(tensor).tobytes())
        for tensor in model.graph.initializer
    }
    nodes: list[Node] = []
    for number, node in enumerate(model.graph.node):
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        nodes.append((node.op_type, attributes, [known.get(name, name) for name in node.input]))
        known[node.output[0]] = number
    return nodes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "upsampling"),
    [
        ("instance", "transposed"),
        ("batch", "resize"),
        ("folded", "transposed"),
    ],
)
def test_a_graph_is_the_one_that_pytorchs_exporter_traces(norm: Norm | str, upsampling: Upsampling) -> None:
    torch.manual_seed(0)
    if norm == "folded":
        network = without_norms(4, 2, upsampling)
    else:
        network = ResnetGenerator(width=4, blocks=2, norm=norm, upsampling=upsampling).eval()  # type: ignore[arg-type]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)  # the exporter leaves out a bias that is zero, and merges equal weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on torchvision, and on old names
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 3, 16, 16),),
            dynamo=True,
            opset_version=20,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    ours, traced = nodes_of(generator_graph(network)), nodes_of(program.model_proto)
    assert [operator for operator, *_ in ours] == [operator for operator, *_ in traced]
    for (operator, attributes, inputs), (_, theirs, their_inputs) in zip(ours, traced, strict=True):
        assert inputs == their_inputs
        left_out = {name: value for name, value in theirs.items() if name not in attributes}
        assert left_out.items() <= DEFAULTS.items(), operator
        assert attributes == {name: theirs[name] for name in attributes}, operator


DEFAULTS = {
    "auto_pad": b"NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "antialias": 0,
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
    "keep_aspect_ratio_policy": b"stretch",
}
"""Holds the values that ONNX gives to attributes which a node leaves out."""
