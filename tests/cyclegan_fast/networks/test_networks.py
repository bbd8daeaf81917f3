"""Networks equal the plain transcription, and have the figures that the paper and the contract state."""

import math
from collections import Counter
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.cases import plain_cyclegan
from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.config.options import Upsampling
from cyclegan_fast.networks import norms
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator

Network = ResnetGenerator | PatchDiscriminator


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def with_random_biases(network: nn.Module) -> nn.Module:
    """Biases are initialised to 0, which would hide where they are added."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0.0, 0.3)
    return network.double()


def assert_same_function(ours: Network, plain: nn.Module, image: Tensor) -> None:
    """Compares the output, and the gradients of the image and of every parameter that is trained."""
    ours.load_state_dict(from_original(plain.state_dict()))
    image.requires_grad_(True)
    outputs = ours(image), plain(image)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-11, atol=1e-12)
    cotangent = torch.randn_like(outputs[0])
    trained = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(outputs[0], [image, *trained.values()], cotangent)
    theirs = torch.autograd.grad(outputs[1], [image, *plain.parameters()], cotangent)
    expected = from_original(dict(zip((name for name, _ in plain.named_parameters()), theirs[1:], strict=True)))
    torch.testing.assert_close(found[0], theirs[0], rtol=1e-9, atol=1e-12)
    for name, gradient in zip(trained, found[1:], strict=True):
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-11 * scale, msg=name)


@pytest.mark.parametrize("blocks", [6, 9])
def test_generator_equals_the_plain_transcription_in_values_and_gradients(blocks: int) -> None:
    torch.manual_seed(blocks)
    plain = with_random_biases(plain_cyclegan.PlainGenerator(width=4, blocks=blocks))
    ours = ResnetGenerator(width=4, blocks=blocks, impl="reference").double()
    assert_same_function(ours, plain, torch.rand(2, 3, 24, 32, dtype=torch.float64) * 2 - 1)


class RepeatedAndConvolved(nn.Conv2d):
    """Doubles both sides as Odena et al. 2016 do: nearest neighbours, then a convolution that keeps the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.ReflectionPad2d(1)(nn.Upsample(scale_factor=2)(input)))


def test_a_generator_that_resizes_equals_the_plain_one_with_other_layers() -> None:
    torch.manual_seed(0)
    plain = plain_cyclegan.PlainGenerator(width=4, blocks=2)
    for place, channels in ((12, 16), (15, 8)):
        assert isinstance(plain.model[place], nn.ConvTranspose2d)
        plain.model[place] = RepeatedAndConvolved(channels, channels // 2)
    ours = ResnetGenerator(width=4, blocks=2, upsampling="resize", impl="reference").double()
    assert_same_function(ours, with_random_biases(plain), torch.rand(2, 3, 24, 32, dtype=torch.float64) * 2 - 1)


def test_resizing_leaves_no_grid() -> None:
    """Gives a layer a field of one colour, whose pixels a transposed convolution tells apart by their places."""
    torch.manual_seed(0)
    field = torch.randn(1, 16, 1, 1).expand(1, 16, 8, 8)
    grids = {}
    for upsampling in get_args(Upsampling):
        network = ResnetGenerator(width=4, blocks=1, upsampling=upsampling, impl="reference")
        doubled = network._doubled(0, field)[0, :, 3:-3, 3:-3]
        grids[upsampling] = doubled.std((1, 2)).max().item() / doubled.abs().max().item()
    assert grids["resize"] < 1e-6
    assert grids["transposed"] > 0.1


def test_discriminator_equals_the_plain_transcription_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    plain = with_random_biases(plain_cyclegan.PlainDiscriminator(width=4))
    ours = PatchDiscriminator(width=4, impl="reference").double()
    assert_same_function(ours, plain, torch.rand(2, 3, 40, 33, dtype=torch.float64) * 2 - 1)


def test_parameter_counts_are_those_of_the_original() -> None:
    with torch.device("meta"):
        assert parameter_count(ResnetGenerator()) == 11_378_179
        assert parameter_count(PatchDiscriminator()) == 2_764_737
        assert parameter_count(plain_cyclegan.PlainGenerator()) == 11_378_179
        assert parameter_count(plain_cyclegan.PlainDiscriminator()) == 2_764_737


@pytest.mark.parametrize(("upsampling", "billions"), [("transposed", 49.6), ("resize", 56.8)])
def test_a_generator_pass_at_256_takes_so_many_multiply_adds(upsampling: Upsampling, billions: float) -> None:
    with torch.device("meta"):
        generator = ResnetGenerator(upsampling=upsampling, impl="reference")
        image = torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(image)
    # A transposed convolution is counted by its input, as the contract does. Two operations are one multiply-add.
    assert counter.get_total_flops() / 2 == pytest.approx(billions * 1e9, rel=1e-3)


def test_the_discriminator_gives_30x30_scores_of_a_256x256_image() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    scores = PatchDiscriminator(width=2)(image)
    assert scores.shape == (2, 1, 30, 30)
    assert scores[0].std() > 0
    assert not torch.equal(scores[0], scores[1])


def field_of_score(discriminator: PatchDiscriminator, row: int, column: int) -> tuple[slice, slice]:
    """Rows and columns of a 128x128 image whose gradient of one score is not zero."""
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(image)[0, 0, row, column], image)
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    field = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    assert seen[field].all()
    return field


def test_each_score_sees_a_patch_of_70x70_pixels_and_the_next_one_lies_8_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The statistics of a norm see the whole plane: without them what is left is the geometry of the convolutions.
    def activation_only(x: Tensor, *, activation: str, negative_slope: float, **_: object) -> Tensor:
        return F.leaky_relu(x, negative_slope)

    monkeypatch.setattr(norms, "instance_norm", activation_only)
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=2).double()
    for parameter in discriminator.parameters():
        parameter.data.abs_()  # nothing cancels
    rows, columns = field_of_score(discriminator, 6, 7)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (70, 70)
    next_rows, next_columns = field_of_score(discriminator, 7, 7)
    assert next_rows.start - rows.start == 8
    assert next_columns == columns


@pytest.mark.parametrize(
    ("network", "added"),
    [
        (ResnetGenerator(width=3, blocks=6), {"head.bias"}),
        (PatchDiscriminator(width=3), {"layers.0.bias", "layers.4.bias"}),
    ],
    ids=["generator", "discriminator"],
)
def test_a_bias_in_front_of_a_norm_is_kept_but_neither_trained_nor_added(network: Network, added: set[str]) -> None:
    torch.manual_seed(0)
    biases = {name: p for name, p in network.named_parameters() if name.endswith("bias")}
    weights = {name for name, _ in network.named_parameters()} - set(biases)
    assert {name for name, bias in biases.items() if bias.requires_grad} == added
    assert {name.replace("weight", "bias") for name in weights} == set(biases)  # each convolution owns one
    assert set(network.state_dict()) == weights | set(biases)

    image = torch.rand(1, 3, 32, 32) * 2 - 1
    before = network(image)
    for name, bias in biases.items():
        with torch.no_grad():
            bias.add_(1.0)
        assert torch.equal(network(image), before) == (name not in added), name
        with torch.no_grad():
            bias.zero_()


@pytest.mark.parametrize(("height", "width"), [(32, 30), (30, 32), (33, 32), (6, 6)])
def test_sides_that_are_no_multiple_of_4_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 4, got {height}x{width}"):
        ResnetGenerator(width=2, blocks=6)(torch.zeros(1, 3, height, width))


def test_networks_without_channels_or_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 and 9"):
        ResnetGenerator(width=0)
    with pytest.raises(ValueError, match="got 64 and 0"):
        ResnetGenerator(blocks=0)
    with pytest.raises(ValueError, match="width must be positive, got -1"):
        PatchDiscriminator(width=-1)


@pytest.mark.parametrize("make", [lambda: ResnetGenerator(width=16), lambda: PatchDiscriminator(width=16)])
def test_weights_start_normal_with_deviation_0_02_and_biases_at_zero(make: type[Network]) -> None:
    torch.manual_seed(0)
    network = make()
    weights = []
    for name, parameter in network.named_parameters():
        values = parameter.detach().double().flatten()
        if name.endswith("bias"):
            assert not values.any(), name
            continue
        weights.append(values)
        # Five standard errors of the mean and of the deviation of a normal sample.
        assert abs(values.mean().item()) < 5 * 0.02 / math.sqrt(len(values)), name
        assert abs(values.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * len(values)), name
    beyond_two_deviations = (torch.cat(weights).abs() > 0.04).double().mean().item()
    assert beyond_two_deviations == pytest.approx(0.0455, abs=0.002)  # 0 for a uniform law of the same deviation


@pytest.mark.parametrize(
    ("strict", "blocks"), [(False, 9), pytest.param(True, 2, marks=pytest.mark.slow)], ids=["not strict", "strict"]
)
def test_an_exported_generator_is_the_paper_s_layers_and_nothing_else(strict: bool, blocks: int) -> None:
    """Finds no slices of padded buffers, and takes any batch and sides that are multiples of 4, traced or not."""
    torch.manual_seed(0)
    generator = ResnetGenerator(width=4, blocks=blocks)
    height, width = (4 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    exported = torch.export.export(
        generator,
        (torch.zeros(2, 3, 32, 24),),
        dynamic_shapes={"image": {0: torch.export.Dim("batch"), 2: height, 3: width}},
        strict=strict,
    )
    layers = Counter(str(node.target).split(".")[1] for node in exported.graph.nodes if node.op == "call_function")
    assert layers == {
        "conv2d": 4 + 2 * blocks,
        "conv_transpose2d": 2,
        "instance_norm": 5 + 2 * blocks,
        "relu": 5 + blocks,
        "pad": 2 + 2 * blocks,
        "add": blocks,
        "tanh": 1,
    }
    image = torch.rand(3, 3, 20, 36) * 2 - 1
    # Rounding only: on a CPU the first and last convolution sum in another order than the exported ones.
    torch.testing.assert_close(exported.module()(image), generator(image), rtol=0, atol=1e-5)
