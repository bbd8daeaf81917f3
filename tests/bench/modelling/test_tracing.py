"""Traced steps have the launches, bytes and operations that one counts by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.modelling.nodes import StepNode
from bench.modelling.tracing import StepTracer, trace_step
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.kernels import instance_norm
from cyclegan_fast.kernels.gpus import GPUS, planning_for
from cyclegan_fast.methods.model import Model

GPU = GPUS[90]
LOW = torch.bfloat16


def image(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=LOW, device="meta").contiguous(memory_format=torch.channels_last)


def traced(run: Callable[[], object]) -> list[StepNode]:
    with planning_for(GPU), StepTracer(GPU) as tracer:
        run()
    return tracer.nodes


def names(nodes: list[StepNode]) -> list[str]:
    return [node.name for node in nodes]


def test_a_tiny_network_launches_what_one_counts_by_hand() -> None:
    x = image(1, 8, 16, 16)
    convolution = nn.Conv2d(8, 16, 3, device="meta", dtype=LOW).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run() -> None:
        y = nn.functional.leaky_relu(convolution(x), 0.2)
        loss = instance_norm(y, activation="relu", impl="triton").mean()
        torch.autograd.grad(loss, list(convolution.parameters()))

    nodes = traced(run)
    forward = ["convolution", "add bias", "leaky_relu", "instance_norm_on_chip", "mean"]
    backward = ["ones_like", "div", "instance_norm_backward_on_chip", "leaky_relu_backward"]  # x needs no gradient
    assert names(nodes) == [*forward, *backward, "wgrad", "bias gradient"]
    # A pixel of y, 14x14 of them, takes 3x3 pixels of 8 channels for each of 16.
    assert [node.operations for node in nodes if node.operations] == [2 * 14 * 14 * 16 * 8 * 9] * 2


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradients_are_products_of_known_size(stride: int) -> None:
    x, weight = image(2, 64, 32, 32).requires_grad_(), image(128, 64, 3, 3).requires_grad_()
    side = 32 // stride

    def run() -> None:
        y = nn.functional.conv2d(x, weight, stride=stride, padding=1)
        torch.autograd.grad(y, [x, weight], torch.empty_like(y))

    forward, dgrad, wgrad = traced(run)
    pixels = 2 * side * side
    assert {node.operations for node in (forward, dgrad, wgrad)} == {2 * pixels * 128 * 64 * 9}
    products = [node.product for node in (forward, dgrad, wgrad)]
    expected = [(pixels, 128, 64 * 9), (2 * 32 * 32, 64, 128 * 9 // stride**2), (128, 64 * 9, pixels)]
    assert [(p.rows, p.columns, p.depth) for p in products if p] == expected
    x_bytes, weight_bytes, y_bytes = 2 * 64 * 32 * 32 * 2, 128 * 64 * 9 * 2, pixels * 128 * 2
    moved = [(node.read_bytes, node.written_bytes) for node in (forward, dgrad, wgrad)]
    assert moved == [
        (x_bytes + weight_bytes, y_bytes),
        (y_bytes + weight_bytes, x_bytes),
        (y_bytes + x_bytes, weight_bytes),
    ]


def test_a_transposed_convolution_is_the_gradient_of_one_that_strides() -> None:
    x, weight = image(1, 128, 16, 16).requires_grad_(), image(128, 64, 3, 3).requires_grad_()

    def run() -> None:
        y = nn.functional.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
        torch.autograd.grad(y, [x, weight], torch.empty_like(y))

    nodes = traced(run)
    assert {node.operations for node in nodes} == {2 * 16 * 16 * 128 * 64 * 9}
    products = [node.product for node in nodes]
    expected = [(32 * 32, 64, 128 * 9 // 4), (16 * 16, 128, 64 * 9), (128, 64 * 9, 16 * 16)]
    assert [(p.rows, p.columns, p.depth) for p in products if p] == expected


def test_a_convolution_with_groups_is_that_many_products() -> None:
    """Expects a group's product to be that of the convolution which has its channels alone; 3 of them fill up 8."""
    x, weight = image(1, 128, 32, 32).requires_grad_(), image(6, 64, 3, 3).requires_grad_()

    def run() -> None:
        y = nn.functional.conv2d(x, weight, padding=1, groups=2)
        torch.autograd.grad(y, [x, weight], torch.empty_like(y))

    nodes = traced(run)
    pixels = 32 * 32
    assert {node.operations for node in nodes} == {2 * pixels * 2 * 3 * 64 * 9}
    products = [node.product for node in nodes]
    expected = [(pixels, 3, 64 * 9, 2), (pixels, 64, 8 * 9, 2), (3, 64 * 9, pixels, 2)]
    assert [(p.rows, p.columns, p.depth, p.groups) for p in products if p] == expected


def test_a_transposed_convolution_with_groups_is_that_many_products() -> None:
    x, weight = image(1, 128, 16, 16).requires_grad_(), image(128, 32, 3, 3).requires_grad_()

    def run() -> None:
        y = nn.functional.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1, groups=2)
        torch.autograd.grad(y, [x, weight], torch.empty_like(y))

    nodes = traced(run)
    assert {node.operations for node in nodes} == {2 * 16 * 16 * 128 * 32 * 9}
    products = [node.product for node in nodes]
    expected = [(32 * 32, 32, 64 * 9 // 4, 2), (16 * 16, 64, 32 * 9, 2), (64, 32 * 9, 16 * 16, 2)]
    assert [(p.rows, p.columns, p.depth, p.groups) for p in products if p] == expected


def test_three_channels_are_multiplied_as_eight_and_counted_as_three() -> None:
    x, weight = image(1, 3, 38, 38), image(64, 3, 7, 7)
    (node,) = traced(lambda: nn.functional.conv2d(x, weight))
    assert node.operations == 2 * 32 * 32 * 64 * 3 * 49
    assert node.product
    assert node.product.depth == 8 * 49


def test_a_norm_moves_the_bytes_that_one_counts_by_hand() -> None:
    """Expects two phases, in which x is read twice; the residual's gradient goes through memory between them."""
    x = image(1, 64, 256, 256).requires_grad_()
    residual = image(1, 64, 256, 256).requires_grad_()

    def run() -> None:
        y = instance_norm(x, residual=residual, pad=1, impl="triton")
        torch.autograd.grad(y, [x, residual], torch.empty_like(y))

    statistics, write, sums, gradient = traced(run)
    plane, padded, three = 64 * 256 * 256 * 2, 64 * 258 * 258 * 2, 3 * 64 * 4
    assert statistics.launch
    partials = statistics.launch.grid[0] * three
    assert (statistics.read_bytes, statistics.written_bytes) == (plane, partials)
    assert (write.read_bytes, write.written_bytes) == (2 * plane + partials, padded + three)
    assert sums.launch
    partials = sums.launch.grid[0] * 2 * 64 * 4
    assert (sums.read_bytes, sums.written_bytes) == (plane + padded + three, plane + partials)
    assert (gradient.read_bytes, gradient.written_bytes) == (2 * plane + three + partials, plane)
    assert [node.part for node in (statistics, write, sums, gradient)] == ["forward"] * 2 + ["backward"] * 2


def test_a_node_waits_for_what_it_reads_and_for_readers_of_what_it_overwrites() -> None:
    def run() -> None:
        x = torch.empty(8, device="meta").fill_(0)  # 0
        y = x + 1  # 1
        z = x * 2  # 2
        y + z  # 3
        x[:4].fill_(1)  # 4 waits for both readers of x
        x[4:].fill_(1)  # 5, too, and not for 4
        x.add_(y)  # 6

    nodes = traced(run)
    expected = [(), (0,), (0,), (1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 4, 5)]
    waiting = [set(node.depends_on) for node in nodes]
    assert all(set(needed) <= found for needed, found in zip(expected, waiting, strict=True))
    assert 4 not in waiting[5]
    assert 2 not in waiting[1]


def generator_operations(side: int, width: int, blocks: int) -> dict[str, int]:
    """Count a forward pass of one image by hand: pixels of the smaller side, channels, channels, taps."""
    half, quarter = (side // 2) ** 2, (side // 4) ** 2
    wide = half * 2 * width * width * 9 + quarter * 4 * width * 2 * width * 9
    block = 2 * quarter * (4 * width) ** 2 * 9
    ends = side**2 * width * 3 * 49
    return {"stem": 2 * ends, "rest": 2 * (2 * wide + blocks * block + ends)}


def discriminator_operations(side: int, width: int) -> dict[str, int]:
    rest = (
        (side // 4) ** 2 * width * 2 * width
        + (side // 8) ** 2 * 2 * width * 4 * width
        + (side // 8 - 1) ** 2 * 4 * width * 8 * width
        + (side // 8 - 2) ** 2 * 8 * width
    )
    return {"first": 2 * (side // 2) ** 2 * 3 * width * 16, "rest": 2 * rest * 16}


def step_operations(side: int, width: int, blocks: int) -> int:
    """Count a step of one image of each domain by hand.

    In each direction a generator translates two images, the source and for its identity loss the target, whose own
    gradients nobody wants; the other one translates one back, all gradients included. A discriminator judges one image
    for its gradient, and two, whose own gradients nobody wants, for its weights'.
    """
    generator, discriminator = generator_operations(side, width, blocks), discriminator_operations(side, width)
    of_direction = 2 * (2 * generator["stem"] + 3 * generator["rest"]) + 3 * sum(generator.values())
    of_direction += 2 * sum(discriminator.values())
    of_direction += 2 * (2 * discriminator["first"] + 3 * discriminator["rest"])
    return 2 * of_direction


def step_config(side: int, width: int, blocks: int, batch: int) -> Config:
    networks = NetworkConfig(generator="resnet_9" if blocks == 9 else "resnet_6", ngf=width, ndf=width, impl="triton")
    return Config(networks=networks, data=DataConfig(load_size=side, crop_size=side, batch_size=batch))


def test_a_step_computes_what_one_counts_by_hand() -> None:
    nodes = trace_step(step_config(32, 16, 6, 2), GPU)
    assert sum(node.operations for node in nodes) == 2 * step_operations(32, 16, 6)
    # Each generator computes two batches; the images that it begins with get no gradients.
    convolutions = [node for node in nodes if node.kind == "convolution" and node.network.startswith("G_")]
    passes = 4 * (1 + 2 + 12 + 2 + 1)
    assert len([node for node in convolutions if node.name == "convolution"]) == passes
    assert len([node for node in convolutions if node.name == "wgrad"]) == passes
    assert len([node for node in convolutions if node.name == "dgrad"]) == passes - 2
    # In each phase pixels are read by the networks that its name says.
    assert {node.network[:2] for node in nodes if node.kind == "norm" and node.phase == "D"} == {"D_"}
    assert all(node.network and node.layer for node in nodes if node.kind in ("convolution", "norm"))
    # Adam waits for everything that its gradients come from, and nothing waits for Adam but what follows it.
    adam = [index for index, node in enumerate(nodes) if node.kind == "update"]
    assert adam
    assert all(index > nodes.index(convolutions[-1]) for index in adam)


def test_moving_averages_are_a_launch_for_each_generator() -> None:
    config = step_config(32, 16, 6, 1)
    without = trace_step(config, GPU)
    averaged = trace_step(replace(config, optimizer=OptimizerConfig(ema=0.999)), GPU)
    assert len(averaged) == len(without) + 2
    launches = [node for node in averaged if node.name == "_fused_sgd_"]
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in Model(config).get_submodule("G_A").parameters())
    assert [(node.read_bytes, node.written_bytes) for node in launches] == [(8 * weights, 4 * weights)] * 2


def test_a_paired_step_has_half_of_the_launches_that_networks_make_and_as_many_operations() -> None:
    """Expects the blocks' operations of two generators in one launch; convolutions of images multiply zeros as well."""
    config = step_config(32, 16, 6, 2)
    apart, paired = (trace_step(replace(config, run=RunConfig(paired=paired)), GPU) for paired in (False, True))

    def inside(nodes: list[StepNode], kind: str) -> list[StepNode]:
        return [node for node in nodes if node.kind == kind]

    joined = 12  # gradients of blocks' weights on the way back, which are in those of the way there
    for kind, fewer in (("convolution", joined), ("norm", 0)):
        assert 2 * (len(inside(paired, kind)) + fewer) == len(inside(apart, kind))
    for kind in ("blocks", "layers.1", "layers.3"):
        of_both, of_each = (
            [node for node in inside(nodes, "convolution") if node.layer.startswith(kind)] for nodes in (paired, apart)
        )
        assert 2 * (len(of_both) + (joined if kind == "blocks" else 0)) == len(of_each)
        assert sum(node.operations for node in of_both) == sum(node.operations for node in of_each)
        assert all(node.product and node.product.groups == 2 for node in of_both)
    stem = [node for node in inside(paired, "convolution") if node.layer == "stem"]
    assert {node.product.groups for node in stem if node.product} == {1}
    assert {node.network for node in stem} == {"G_AB"}  # whose memory the way back has as well
    lists = [node for node in paired if node.name == "_foreach_copy_"]
    assert len(lists) == len([node for node in apart if node.name == "_foreach_copy_"])


def test_a_step_of_the_paper_takes_1_88_tflop_an_image() -> None:
    """Computes 1,879,217,012,736 operations; the trace at batch 1 and 16 has as many (bench.model prints them)."""
    assert step_operations(256, 64, 9) == 1_879_217_012_736
