"""Networks and training steps on the Triton operators err as little from float64 as those on plain operators."""

import io
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Config, LossConfig, NetworkConfig
from cyclegan_fast.kernels import Impl, plans as launch
from cyclegan_fast.kernels.checking.accuracy import FLOORS, relative_error, unwritten_is_nan
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks import resnet as networks
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.training.step import TrainingStep
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import sample
from tests.slow import slow_but

Network = ResnetGenerator | UnetGenerator | PatchDiscriminator

NETWORKS: dict[str, Callable[[int, Impl], Network]] = {
    "generator": lambda width, impl: ResnetGenerator(width=width, blocks=2, impl=impl),
    "u-net": lambda width, impl: UnetGenerator(width=width, halvings=5, impl=impl),
    "discriminator": lambda width, impl: PatchDiscriminator(width=width, impl=impl),
}


def build(name: str, impl: Impl, dtype: torch.dtype = torch.float32, *, seed: int = 0, width: int = 4) -> Network:
    """Weights ten times the initial ones, so that no activation is lost in the norm's eps; biases too."""
    torch.manual_seed(seed)
    network = NETWORKS[name](width, impl)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.2)
    network.to(DEVICE, torch.float32)
    return network.to(dtype)


def results(network: Network, image: Tensor, memory_format: torch.memory_format) -> dict[str, Tensor]:
    """Return the output, the gradient of the image, and of each layer its weight's and bias's gradients in a row."""
    network = network.to(memory_format=memory_format)  # type: ignore[call-overload]  # absent from torch's stubs
    image = image.detach().contiguous(memory_format=memory_format).requires_grad_(True)
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    y = network(image)
    cotangent = sample(*y.shape, seed=7).to(image.dtype).contiguous(memory_format=memory_format)
    d_image, *gradients = torch.autograd.grad(y, [image, *trained.values()], cotangent)
    layers: dict[str, list[Tensor]] = defaultdict(list)
    for name, gradient in zip(trained, gradients, strict=True):
        layers[name.rpartition(".")[0]].append(gradient.flatten())
    return {"output": y, "image": d_image} | {name: torch.cat(parts) for name, parts in layers.items()}


def plain_results(network: Network, image: Tensor) -> dict[str, Tensor]:
    # PyTorch's own instance norm has wrong gradients channels last at batch 1 on the CPU, see `operands.wide`.
    return results(network, image, torch.contiguous_format)


@dataclass(frozen=True)
class Draws:
    """Networks of `width` on images of these shapes (N, H, W), each with its own weights."""

    width: int
    shapes: tuple[tuple[int, int, int], ...]


SMALL = Draws(4, ((1, 16, 16), (2, 16, 24), (1, 32, 20), (2, 20, 16), (1, 24, 32)))
# In float16 one ReLU in some thousand turns over. A small generator has none in one draw and one in the next, and errs
# by 0.003 or by 0.05; here there are some in every draw.
LARGER = Draws(8, ((2, 32, 32), (1, 32, 24), (2, 24, 32)))
JUDGED = Draws(4, ((1, 32, 32), (2, 24, 40), (1, 32, 24), (2, 24, 24), (1, 40, 32)))
NESTED = Draws(2, ((1, 32, 32), (2, 32, 64), (1, 64, 32), (2, 32, 32), (1, 32, 64)))
DRAWS = {
    ("generator", torch.float32): SMALL,
    ("generator", torch.bfloat16): SMALL,
    ("generator", torch.float16): LARGER,
    **{("u-net", dtype): NESTED for dtype in FLOORS},
    **{("discriminator", dtype): JUDGED for dtype in FLOORS},
}


QUICK = ("generator, torch.float32", "u-net, torch.bfloat16", "discriminator, torch.float16")


@pytest.mark.parametrize("drawn", slow_but(QUICK, {f"{name}, {dtype}": (name, dtype) for name, dtype in DRAWS}))
def test_a_network_errs_at_most_twice_as_much_from_float64_as_on_plain_operators(
    drawn: tuple[str, torch.dtype],
) -> None:
    """Output, gradient of the image and gradient of each layer by itself, over several draws.

    Where plain PyTorch errs by less than an operator's floor, by luck with its few draws, the floor counts.
    In 16 bits a gradient jumps, by ten times what it errs elsewhere, where a ReLU's input is rounded to the other side
    of 0: ours in some draws, PyTorch's in some, and in which ones is for each GPU to say. What is wrong is wrong in
    every draw, so our best one is held to their median; in float32, where nothing jumps, our median is.
    A layer's weight and bias together, because three numbers alone may be off by nothing at all by luck.
    """
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)  # relative: ours, plain PyTorch's
    name, dtype = drawn
    draws = DRAWS[drawn]
    for seed, (batch, height, width) in enumerate(draws.shapes):
        options = {"seed": seed, "width": draws.width}
        fused, plain = (build(name, impl, dtype, **options) for impl in ("triton", "reference"))
        exact = build(name, "reference", torch.float64, **options)
        exact.load_state_dict(fused.state_dict())  # the rounded weights
        image = sample(batch, 3, height, width, seed=seed).clamp(-1, 1).to(dtype)
        found, rounded = results(fused, image, torch.channels_last), plain_results(plain, image)
        for key, value in plain_results(exact, image.double()).items():
            assert found[key].dtype == dtype
            assert rounded[key].isfinite().all()
            errors[key].append((relative_error(found[key], value), relative_error(rounded[key], value)))
    for key, pairs in errors.items():
        ours, theirs = zip(*pairs, strict=True)
        ours_off, plain_off = median(ours) if dtype == torch.float32 else min(ours), median(theirs)
        assert ours_off <= 2 * max(plain_off, FLOORS[dtype]), (key, ours_off, plain_off)


def test_the_plain_generator_has_one_gradient_in_every_memory_format() -> None:
    """Covers batch 1, where PyTorch's instance norm differs: it trains on a CPU, and kernels are held to it."""
    image = sample(1, 3, 16, 20)
    expected = plain_results(build("generator", "reference"), image)
    found = results(build("generator", "reference"), image, torch.channels_last)
    for key, value in expected.items():
        assert relative_error(found[key], value) < 1e-5, key


@pytest.mark.slow
def test_planes_in_pieces_give_a_generator_the_results_of_planes_on_chip() -> None:
    """Runs every site in two phases over pieces of a plane, as large sites do, and image by image.

    Planes of 16 channels and their multiples are held on chip, narrower ones are not.
    """
    image = sample(2, 3, 20, 16)
    expected = results(build("generator", "triton", width=16), image, torch.channels_last)
    with launch.forcing(launch.NormPlan("two_phase", 16, 16, 4, 48, 1)):
        found = results(build("generator", "triton", width=16), image, torch.channels_last)
    for key, value in expected.items():
        assert relative_error(found[key], value) < 1e-5, key


# --- training -------------------------------------------------------------------------------------------------------


STEPS = 6
"""Each gives one error of a kind for each network, and of a residual block's layers for each block. A ReLU's input that
crosses zero by rounding, on whichever side, makes it several times as large, so that the median of few is luck."""


def small_step(impl: Impl, dtype: torch.dtype) -> TrainingStep:
    """Return a step of two blocks instead of six, for which Triton's interpreter has the patience."""
    config = Config(networks=NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl=impl), loss=LossConfig(pool_size=2))
    torch.manual_seed(0)
    model = Model(config)
    model.G_A, model.G_B = (ResnetGenerator(width=4, blocks=2, impl=impl) for _ in range(2))
    return TrainingStep(model.to(DEVICE, dtype), config, dtype, random.Random(0))


@pytest.mark.slow
def test_steps_of_training_each_err_at_most_twice_as_much_as_on_plain_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each from the state of the plain path, because training amplifies rounding; see the numeric contract."""
    # PyTorch's own convolutions on both sides: the last one by columns, as on a CPU otherwise, errs less.
    monkeypatch.setattr(networks, "go_by_columns", lambda image, impl: False)
    plain, ours, exact = (
        small_step("reference", torch.float32),
        small_step("triton", torch.float32),
        small_step("reference", torch.float64),
    )
    # Convolutions round differently in the two formats, by as much as a factor of two on CPUs with AVX-512.
    for step in (plain, ours):
        step.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)  # relative: ours, plain PyTorch's
    for number in range(STEPS):
        file = io.BytesIO()
        torch.save({"model": plain.model.state_dict(), "step": plain.state_dict()}, file)
        for step in (ours, exact):
            file.seek(0)
            state = torch.load(file, weights_only=True)
            step.model.load_state_dict(state["model"])
            step.load_state_dict(state["step"])
        real_A, real_B = (sample(1, 3, 24, 24, seed=10 * number + domain).clamp(-1, 1).detach() for domain in (0, 1))
        exact_losses = exact(real_A.double(), real_B.double())
        plain_losses = plain(real_A, real_B)
        for name, loss in ours(real_A, real_B).items():
            ours_off, plain_off = (abs(x.item() / exact_losses[name].item() - 1) for x in (loss, plain_losses[name]))
            assert ours_off <= 1e-5, (number, name)
            errors[f"loss {name[:-2]}"].append((ours_off, plain_off))
        gradients = {name: p.grad for name, p in exact.model.named_parameters() if p.requires_grad}
        for name, gradient in gradients.items():
            found, rounded = ours.model.get_parameter(name).grad, plain.model.get_parameter(name).grad
            assert gradient is not None
            assert found is not None
            assert rounded is not None
            assert rounded.isfinite().all()
            kind = re.sub(r"blocks\.\d", "blocks", f"{name[0]}{name[3:]}")  # "G.head.bias" of G_A and G_B alike
            errors[kind].append((relative_error(found, gradient), relative_error(rounded, gradient)))
    ratios: dict[str, dict[str, float]] = defaultdict(dict)  # by network, or of losses; then by weight
    for name, pairs in errors.items():
        ours_off, plain_off = (median(column) for column in zip(*pairs, strict=True))
        ratios[name[0]][name] = ours_off / max(plain_off, FLOORS[torch.float32])
    print({name: round(ratio, 2) for of in ratios.values() for name, ratio in of.items()})
    for name, of in ratios.items():
        # All gradients of a network carry the rounding of what lies behind them: they err together, and one may be the
        # unluckiest of twenty on some processor.
        assert median(of.values()) <= 2, (name, of)
        assert max(of.values()) <= 3, (name, of)


# --- files, and memory that nobody wrote ----------------------------------------------------------------------------


@pytest.mark.parametrize(("saved_by", "loaded_by"), [("triton", "reference"), ("reference", "triton")])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_of_weights_serves_both_implementations(name: str, saved_by: Impl, loaded_by: Impl) -> None:
    network, other = build(name, saved_by, seed=1), build(name, loaded_by, seed=2)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    image = sample(1, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(other(image), network(image)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_no_result_holds_memory_that_nobody_wrote(name: str) -> None:
    # The smallest images whose planes have a pixel of their own behind every pad.
    image = sample(2, 3, *{"generator": (20, 16), "u-net": (32, 32), "discriminator": (28, 24)}[name])
    with unwritten_is_nan():
        assert torch.empty(3, device=DEVICE).isnan().all()
        found = results(build(name, "triton"), image, torch.channels_last)
    for key, value in found.items():
        assert value.isfinite().all(), key
    for key, value in results(build(name, "triton"), image, torch.channels_last).items():
        assert torch.equal(found[key], value), key
