"""Holds one update, and twenty, against `bench.cases.plain_cyclegan`, which shares no code with what is tested."""

import io
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from bench.cases.plain_cyclegan import PlainCycleGAN
from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    GanLoss,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    Preprocess,
    RunConfig,
)
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.training.schedule import linear_factor
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.direction_streams import DirectionStreams
from cyclegan_fast.training.update.direction_threads import LARGEST_SIDE_IN_THREADS
from cyclegan_fast.training.update.step_parts import StepParts
from tests.cyclegan_fast.stream_watch import PretendStreams
from tests.slow import slow_but

LEARNING_RATE = 2e-4
TINY = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="reference")
NETWORKS = ("G_A", "G_B", "D_A", "D_B")
BATCH_OF_ONE = ((1, 24, 24), (1, 24, 24))

Weights = dict[str, Tensor]  # "G_A.stem.weight", ... in our names
Shape = tuple[int, int, int]  # N, H, W


def images(
    shapes: tuple[Shape, Shape], generator: torch.Generator, channels: tuple[int, int] = (3, 3)
) -> tuple[Tensor, Tensor]:
    """Return a batch of each domain, float32 numbers in [-1, 1], so that every precision sees the same images."""
    real_A, real_B = (
        torch.rand(n, c, h, w, generator=generator) * 2 - 1 for (n, h, w), c in zip(shapes, channels, strict=True)
    )
    return real_A, real_B


def in_our_names(networks: dict[str, nn.Module], *, gradients: bool = False) -> Weights:
    """Parameters, or their gradients with 0 for None, of the plain networks."""
    found: Weights = {}
    for name, network in networks.items():
        state = {key: p.detach() for key, p in network.named_parameters()}
        if gradients:
            parameters = dict(network.named_parameters())
            state = {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in parameters.items()}
        found |= {f"{name}.{key}": value for key, value in from_original(state).items()}
    return found


def our_weights(model: Model) -> Weights:
    return {name: p.detach() for name, p in model.named_parameters() if name.split(".")[0] in NETWORKS}


def our_gradients(model: Model) -> Weights:
    parameters = {name: p for name, p in model.named_parameters() if name.split(".")[0] in NETWORKS}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}


def build(
    plain: PlainCycleGAN,
    config: Config,
    dtype: torch.dtype,
    source: random.Random,
    directions: StepParts | None = None,
) -> TrainingStep:
    """Our step from the plain one's weights, kept in float64 where the plain one's are."""
    model = Model(config).to(next(plain.G_A.parameters()).dtype)
    for name, network in plain.networks().items():
        state = from_original(network.state_dict())
        model.get_submodule(name).load_state_dict(state)
        if config.optimizer.ema and name in ("G_A", "G_B"):
            model.get_submodule(f"{name}_ema").load_state_dict(state)
    return TrainingStep(model, config, dtype, source, directions=directions)


def widened(plain: PlainCycleGAN) -> PlainCycleGAN:
    """Return the same weights in float64, without a step taken."""
    exact = PlainCycleGAN(ngf=TINY.ngf, ndf=TINY.ndf, blocks=TINY.blocks, dtype=torch.float64)
    for name, network in plain.networks().items():
        exact.networks()[name].load_state_dict(network.state_dict())
    return exact


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over largest value of one tensor; 0 where both are 0 throughout."""
    difference = (found - expected).abs().max().item()
    return 0.0 if difference == 0 else difference / expected.abs().max().item()


# --- float64: the same mathematics ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Options that must not change the mathematics, and those that both sides have."""

    shapes: tuple[tuple[Shape, Shape], ...] = (
        BATCH_OF_ONE,
    )  # of A and B, step by step, from the start again at the end
    pool_size: int = 2
    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    ema: float = 0.0
    decays: bool = False
    channels_last: bool = False
    accumulate: int = 1
    checkpoint_blocks: bool = False
    preprocess: Preprocess = "resize_and_crop"
    crop_size: int = 256
    streams: bool = False
    compile: bool = False
    paired: bool = False
    channels: tuple[int, int] = (3, 3)


CASES = {
    "batch of 1, pool of 2": Case(),
    "batch of 2, pool of 2": Case(shapes=(((2, 24, 24), (2, 24, 24)),)),
    "batch of 2, pool of 50": Case(shapes=(((2, 24, 28), (2, 24, 28)),), pool_size=50),
    "no pool": Case(pool_size=0),
    "A and B of different sizes": Case(shapes=(((2, 24, 24), (2, 32, 24)),), pool_size=3),
    "every image of its own size": Case(
        shapes=(((1, 24, 32), (1, 24, 24)), ((1, 28, 24), (1, 28, 24))), preprocess="none"
    ),
    "no identity loss": Case(lambda_identity=0.0),
    "other loss weights": Case(lambda_cycle=3.0, lambda_identity=0.1),
    "moving average": Case(ema=0.99),
    "learning rate that decays": Case(decays=True),
    "batch of 4 in two parts": Case(shapes=(((4, 24, 24), (4, 24, 24)),), pool_size=3, accumulate=2),
    "batch of 4 one by one, then a short one": Case(
        shapes=(((4, 24, 24), (4, 24, 24)), ((3, 24, 24), (3, 24, 24))), accumulate=4
    ),
    "batch of 3 in unequal parts": Case(shapes=(((3, 24, 24), (3, 24, 24)),), accumulate=2),
    "blocks computed again": Case(checkpoint_blocks=True),
    "both directions at once": Case(crop_size=64, ema=0.5),
    "both directions at once, batch of 3 in unequal parts": Case(
        shapes=(((3, 24, 24), (3, 24, 24)),), accumulate=2, crop_size=64
    ),
    "two streams": Case(shapes=(((2, 24, 24), (2, 24, 24)),), ema=0.5, accumulate=2, streams=True),
    "paired, batch of 1": Case(paired=True),
    "paired, batch of 3 in unequal parts": Case(
        shapes=(((3, 24, 28), (3, 24, 28)),), accumulate=2, ema=0.5, pool_size=50, paired=True
    ),
    "paired, no identity loss": Case(lambda_identity=0.0, decays=True, paired=True),
    "paired, small crops": Case(crop_size=64, paired=True),
    "paired, channels last, blocks computed again": Case(
        shapes=(((2, 24, 24), (2, 24, 24)),), channels_last=True, checkpoint_blocks=True, paired=True
    ),
    "paired, compiled": Case(compile=True, paired=True),
    "1 and 3 channels": Case(shapes=(((2, 24, 24), (2, 28, 24)),), channels=(1, 3), ema=0.5),
    "6 and 1 channels": Case(channels=(6, 1)),
    "13 and 3 channels, channels last, in two parts": Case(
        shapes=(((2, 24, 24), (2, 24, 24)),), channels=(13, 3), channels_last=True, accumulate=2
    ),
    "paired, 4 channels": Case(channels=(4, 4), paired=True),
    "paired, 1 channel, channels last": Case(channels=(1, 1), channels_last=True, paired=True),
    "compiled": Case(shapes=(((2, 24, 24), (2, 24, 24)), ((1, 24, 24), (1, 24, 24))), compile=True),
    "channels last, everything on": Case(
        shapes=(((2, 24, 24), (2, 24, 24)),),
        ema=0.5,
        decays=True,
        channels_last=True,
        accumulate=2,
        checkpoint_blocks=True,
    ),
}


QUICK = (
    "batch of 1, pool of 2",
    "batch of 2, pool of 50",
    "no pool",
    "every image of its own size",
    "no identity loss",
    "learning rate that decays",
    "batch of 4 in two parts",
    "both directions at once",
    "two streams",
    "paired, batch of 3 in unequal parts",
    "1 and 3 channels",
)


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_twenty_steps_in_float64_give_the_plain_losses_and_weights(
    case: Case, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if case.compile:
        # Traced and differentiated ahead of time as for Inductor, whose C++ compiler would take minutes.
        torch.compiler.reset()
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    if case.crop_size <= LARGEST_SIDE_IN_THREADS:
        request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(2)
    torch.manual_seed(0)
    # Both sides draw pool decisions from one random.Random shared by their two pools, first the pool of fake_B (for
    # D_A), then that of fake_A (for D_B), so that sources of one seed make the same decisions.
    ours_source, plain_source = random.Random(3), random.Random(3)
    plain = PlainCycleGAN(
        ngf=TINY.ngf,
        ndf=TINY.ndf,
        blocks=TINY.blocks,
        lambda_cycle=case.lambda_cycle,
        lambda_identity=case.lambda_identity if len({*case.channels}) == 1 else 0.0,
        pool_size=case.pool_size,
        learning_rate=LEARNING_RATE,
        random_source=plain_source,
        dtype=torch.float64,
        channels=case.channels,
    )
    for network in plain.networks().values():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):  # the plain networks add those that ours leave out
                nn.init.normal_(parameter, 0.0, 0.1)
    config = Config(
        data=DataConfig(
            batch_size=case.accumulate,
            preprocess=case.preprocess,
            load_size=286,
            crop_size=case.crop_size,
            channels_a=case.channels[0],
            channels_b=case.channels[1],
        ),
        networks=replace(TINY, checkpoint_blocks=case.checkpoint_blocks),
        loss=LossConfig(lambda_cycle=case.lambda_cycle, lambda_identity=case.lambda_identity, pool_size=case.pool_size),
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, ema=case.ema, accumulate=case.accumulate),
        run=RunConfig(compile=case.compile, paired=case.paired),
    )
    directions = DirectionStreams(PretendStreams()) if case.streams else None
    step = build(plain, config, torch.float64, ours_source, directions)
    memory_format = torch.channels_last if case.channels_last else torch.contiguous_format
    step.model.to(memory_format=memory_format)  # type: ignore[call-overload]  # absent from torch's stubs

    at_once = case.crop_size <= LARGEST_SIDE_IN_THREADS or case.streams
    assert step.directions_at_once == (2 if at_once and not case.paired else 1)
    start = {name: weight.clone() for name, weight in our_weights(step.model).items()}
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for number, shapes in zip(range(20), cycle(case.shapes), strict=False):
        if case.decays:
            step.set_learning_rate(LEARNING_RATE * linear_factor(number + 1, 5, 15))
            plain.set_learning_rate(LEARNING_RATE * (1 if number < 5 else (20 - number) / 16))
        real_A, real_B = (x.double() for x in images(shapes, generator, case.channels))
        expected = plain.step(real_A, real_B)
        losses = step(real_A.to(memory_format=memory_format), real_B.to(memory_format=memory_format))
        assert set(losses) == set(expected)
        for name, loss in losses.items():
            assert loss.item() == pytest.approx(expected[name], rel=1e-9), (number, name)
            worst = max(worst, abs(loss.item() / expected[name] - 1))
        if number in (0, 19):
            weights = our_weights(step.model)
            for name, weight in in_our_names(plain.networks()).items():
                difference = relative_difference(weights[name], weight)
                assert difference <= 1e-9, (number, name)
                worst = max(worst, difference)
    print(f"worst relative difference of losses and weights over 20 steps: {worst:.1e}")
    assert ours_source.getstate() == plain_source.getstate()  # as many draws on both sides
    moved = {name for name, weight in our_weights(step.model).items() if not torch.equal(weight, start[name])}
    assert moved == {name for name, p in step.model.named_parameters() if p.requires_grad}


# --- float32 and bfloat16: no less exact than plain PyTorch ---------------------------------------------------------


@pytest.mark.parametrize("paired", [False, True], ids=["", "paired"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16 against stock autocast"])
def test_one_step_errs_at_most_twice_as_much_from_float64_as_plain_pytorch(dtype: torch.dtype, paired: bool) -> None:
    """Each gradient tensor is held by itself, by its median error over eight seeds and both networks of its kind.

    The median, because the gradient jumps where a ReLU's input crosses zero: of 24 seeds one has an input of 3e-6 that
    float32 turns to -2e-7, and from there on an error of 3e-3 instead of 3e-6, on whichever side it happens.
    Many draws, because a bias of one to three numbers may be off by nothing at all by luck; for the same reason an
    error below one rounding unit of the dtype, relative to the gradient's own size, passes.
    """
    autocast_dtype = None if dtype == torch.float32 else dtype
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)  # relative: ours, plain PyTorch's
    for seed in range(8):
        torch.manual_seed(seed)
        plain = PlainCycleGAN(ngf=TINY.ngf, ndf=TINY.ndf, blocks=TINY.blocks, autocast_dtype=autocast_dtype)
        exact = widened(plain)
        step = build(plain, Config(networks=TINY, run=RunConfig(paired=paired)), dtype, random.Random(0))
        real_A, real_B = images(((1, 32, 32), (1, 32, 32)), torch.Generator().manual_seed(seed))

        exact_losses = exact.step(real_A.double(), real_B.double())
        plain_losses = plain.step(real_A, real_B)
        for name, loss in step(real_A, real_B).items():
            assert loss.dtype == torch.float32
            ours_off, plain_off = (abs(x / exact_losses[name] - 1) for x in (loss.item(), plain_losses[name]))
            if dtype == torch.float32:
                assert ours_off <= 1e-5, name
            errors[f"loss {name[:-2]}"].append((ours_off, plain_off))

        ours, theirs = our_gradients(step.model), in_our_names(plain.networks(), gradients=True)
        for name, gradient in in_our_names(exact.networks(), gradients=True).items():
            assert ours[name].dtype == torch.float32  # weights, and so their gradients, stay wide
            if not step.model.get_parameter(name).requires_grad:
                assert not ours[name].any()
                continue
            ours_off, plain_off = ((x - gradient).norm().item() for x in (ours[name].double(), theirs[name].double()))
            kind = f"{name[0]}{name[3:]}"  # "G.head.bias" of G_A and G_B alike
            errors[kind].append((ours_off / gradient.norm().item(), plain_off / gradient.norm().item()))

    for name, pairs in errors.items():
        ours_error, plain_error = (median(column) for column in zip(*pairs, strict=True))
        assert ours_error <= 2 * plain_error + torch.finfo(dtype).eps, (name, ours_error, plain_error)


# --- float16 --------------------------------------------------------------------------------------------------------


def float16_step(generator_scale: float, discriminator_scale: float) -> tuple[TrainingStep, PlainCycleGAN]:
    """Return a step whose scalers start at the given scales, and the same weights in float64."""
    torch.manual_seed(0)
    plain = PlainCycleGAN(ngf=TINY.ngf, ndf=TINY.ndf, blocks=TINY.blocks)
    step = build(plain, Config(networks=TINY), torch.float16, random.Random(0))
    step.generators.scaler = torch.amp.GradScaler("cpu", init_scale=generator_scale)
    step.discriminators.scaler = torch.amp.GradScaler("cpu", init_scale=discriminator_scale)
    return step, widened(plain)


@pytest.mark.parametrize("overflowing", ["G", "D"])
def test_an_overflow_in_float16_skips_that_optimisers_update_halves_its_scale_and_no_others(overflowing: str) -> None:
    scales = {"G": 256.0, "D": 256.0} | {overflowing: 2.0**40}
    step, _ = float16_step(scales["G"], scales["D"])
    before = {name: weight.clone() for name, weight in our_weights(step.model).items()}
    step(*images(BATCH_OF_ONE, torch.Generator().manual_seed(0)))
    for name, weight in our_weights(step.model).items():
        trained = step.model.get_parameter(name).requires_grad
        assert torch.equal(weight, before[name]) == (not trained or name.startswith(overflowing)), name
        assert weight.isfinite().all()
    halved = {"G": scales["G"], "D": scales["D"]} | {overflowing: 2.0**39}
    assert (step.generators.scaler.get_scale(), step.discriminators.scaler.get_scale()) == (halved["G"], halved["D"])
    optimizer = step.generators.optimizer if overflowing == "G" else step.discriminators.optimizer
    assert all(state["step"] == 0 for state in optimizer.state.values())  # Adam does not count a skipped update


def test_adam_receives_float16_gradients_without_the_loss_scale() -> None:
    step, exact = float16_step(16.0, 256.0)
    real_A, real_B = images(BATCH_OF_ONE, torch.Generator().manual_seed(0))
    exact.step(real_A.double(), real_B.double())
    step(real_A, real_B)
    expected = in_our_names(exact.networks(), gradients=True)
    for optimizer, names in (
        (step.generators.optimizer, ("G_A", "G_B")),
        (step.discriminators.optimizer, ("D_A", "D_B")),
    ):
        named = [(n, p) for n, p in step.model.named_parameters() if n.split(".")[0] in names and p.requires_grad]
        moments = torch.cat([optimizer.state[p]["exp_avg"].double().flatten() for _, p in named])
        gradients = torch.cat([expected[n].flatten() for n, _ in named])
        # After one update the first moment is (1 - beta1) times the gradient. Rounding alone is off by up to a tenth;
        # a scale left in would be off by a factor of 16.
        assert (moments / 0.5 - gradients).norm() < 0.25 * gradients.norm(), names


# --- the other adversarial losses -----------------------------------------------------------------------------------


def direct_penalty(network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """5 * mean over images of (|slope| - 1)^2, image by image."""
    terms = []
    for r, f, m in zip(real, fake, mix, strict=True):
        x = (f + m * (r - f)).detach()[None].requires_grad_(True)
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        terms.append((slope.pow(2).sum().sqrt() - 1) ** 2)
    return 5 * sum(terms, torch.zeros((), dtype=real.dtype)) / len(terms)


def direct_losses(
    plain: PlainCycleGAN, gan_loss: GanLoss, real_A: Tensor, real_B: Tensor, mixes: list[Tensor]
) -> dict[str, Tensor]:
    """Return all losses of a first step, whose pools return the new images, from their definitions."""

    def wants_real(score: Tensor) -> Tensor:
        if gan_loss == "vanilla":
            return -torch.sigmoid(score).log().mean()
        return -score.mean()

    def judges(network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        on_real: Tensor = network(real)
        on_fake: Tensor = network(fake.detach())
        if gan_loss == "vanilla":
            return 0.5 * (-torch.sigmoid(on_real).log().mean() - (1 - torch.sigmoid(on_fake)).log().mean())
        if gan_loss == "hinge":
            return 0.5 * ((1 - on_real).clamp(min=0).mean() + (1 + on_fake).clamp(min=0).mean())
        return 0.5 * (on_fake.mean() - on_real.mean()) + direct_penalty(network, real, fake, mix)

    fake_B: Tensor = plain.G_A(real_A)
    fake_A: Tensor = plain.G_B(real_B)
    return {
        "G_A": wants_real(plain.D_A(fake_B)),
        "G_B": wants_real(plain.D_B(fake_A)),
        "cycle_A": 10 * (plain.G_B(fake_B) - real_A).abs().mean(),
        "cycle_B": 10 * (plain.G_A(fake_A) - real_B).abs().mean(),
        "idt_A": 5 * (plain.G_A(real_B) - real_B).abs().mean(),
        "idt_B": 5 * (plain.G_B(real_A) - real_A).abs().mean(),
        "D_A": judges(plain.D_A, real_B, fake_B, mixes[0]),
        "D_B": judges(plain.D_B, real_A, fake_A, mixes[1]),
    }


@pytest.mark.parametrize("gan_loss", ["vanilla", "hinge", "wgan-gp"])
def test_a_step_with_another_adversarial_loss_has_the_losses_and_gradients_of_its_definition(gan_loss: GanLoss) -> None:
    torch.manual_seed(0)
    plain = PlainCycleGAN(ngf=TINY.ngf, ndf=TINY.ndf, blocks=TINY.blocks, dtype=torch.float64)
    config = replace(Config(networks=TINY), loss=LossConfig(gan_loss=gan_loss))
    step = build(plain, config, torch.float64, random.Random(0))
    real_A, real_B = (x.double() for x in images(((2, 24, 24), (2, 24, 24)), torch.Generator().manual_seed(0)))
    # The penalty's mixes are float32 numbers drawn from the run's seed, first D_A's, then D_B's.
    mix_source = torch.Generator().manual_seed(config.run.seed)
    mixes = [torch.rand(2, 1, 1, 1, generator=mix_source).double() for _ in range(2)]

    expected = direct_losses(plain, gan_loss, real_A, real_B, mixes)
    gradients: Weights = {}
    for side in ("G", "D"):  # what each optimiser descends on, and the networks it owns
        total = torch.stack([loss for name, loss in expected.items() if name.startswith("D") == (side == "D")]).sum()
        owned = {name: network for name, network in plain.networks().items() if name.startswith(side)}
        parameters = [p for network in owned.values() for p in network.parameters()]
        for p, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
            p.grad = gradient
        gradients |= in_our_names(owned, gradients=True)

    for name, loss in step(real_A, real_B).items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-10), name
    found = our_gradients(step.model)
    for name, gradient in gradients.items():
        if step.model.get_parameter(name).requires_grad:
            assert relative_difference(found[name], gradient) <= 1e-9, name


def test_discriminators_of_the_gradient_penalty_run_on_operators_with_second_derivatives() -> None:
    config = Config(networks=replace(TINY, impl="auto"), loss=LossConfig(gan_loss="wgan-gp"))
    model = Model(config)
    assert (model.D_A.impl, model.D_B.impl, model.G_A.impl) == ("reference", "reference", "auto")
    assert isinstance(model.D_A, PatchDiscriminator)
    assert Model(Config(networks=replace(TINY, impl="auto"))).D_A.impl == "auto"


# --- moving averages ------------------------------------------------------------------------------------------------


def test_moving_averages_follow_their_recursion_and_are_what_translates() -> None:
    torch.manual_seed(0)
    config = Config(networks=TINY, optimizer=OptimizerConfig(learning_rate=0.01, ema=0.3))
    model = Model(config).double()
    step = TrainingStep(model, config, torch.float64)
    generators = (model.G_A, model.G_B)
    expected = [[p.detach().clone() for p in network.parameters()] for network in generators]
    generator = torch.Generator().manual_seed(0)
    decays = []
    for number in range(1, 7):
        real_A, real_B = images(BATCH_OF_ONE, generator)
        step(real_A.double(), real_B.double())
        decays.append(min(0.3, (1 + number) / (10 + number)))
        for network, averages in zip(generators, expected, strict=True):
            for i, parameter in enumerate(network.parameters()):
                averages[i] = decays[-1] * averages[i] + (1 - decays[-1]) * parameter.detach()
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.3
    for direction, averages, network in zip(("a2b", "b2a"), expected, generators, strict=True):
        translator = model.translator(direction)
        assert translator is not network
        for found, average in zip(translator.parameters(), averages, strict=True):
            torch.testing.assert_close(found, average, rtol=1e-12, atol=1e-15)
            assert not found.requires_grad
    assert not torch.equal(model.translator("a2b").stem.weight, model.G_A.stem.weight)


def test_without_a_moving_average_the_generators_themselves_translate() -> None:
    model = Model(Config(networks=TINY))
    assert model.translator("a2b") is model.G_A
    assert model.translator("b2a") is model.G_B
    assert not [name for name, _ in model.named_parameters() if "ema" in name]


# --- continuing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gan_loss", ["lsgan", "wgan-gp"])
def test_a_saved_step_continues_bit_for_bit(gan_loss: GanLoss, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = Config(
        networks=TINY,
        loss=LossConfig(pool_size=2, gan_loss=gan_loss),
        optimizer=OptimizerConfig(ema=0.5),
    )
    step = TrainingStep(Model(config), config, dtype)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        step(*images(BATCH_OF_ONE, generator))
    file = io.BytesIO()
    torch.save({"model": step.model.state_dict(), "step": step.state_dict(), "rank": step.rank_state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = TrainingStep(Model(config), config, dtype, random.Random(99))
    resumed.model.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["step"])
    resumed.load_rank_state_dict(saved["rank"])
    assert resumed.steps_taken == 4
    for _ in range(3):
        batch = images(BATCH_OF_ONE, generator)
        losses, resumed_losses = step(*batch), resumed(*batch)
        assert all(torch.equal(losses[name], resumed_losses[name]) for name in losses)
    for name, weight in step.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


# --- memory ---------------------------------------------------------------------------------------------------------


def saved_bytes(generator: ResnetGenerator, image: Tensor) -> int:
    """Return what autograd keeps of one forward pass, each memory counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = generator(image)
        assert y.requires_grad
    return sum(kept.values())


def test_checkpointed_blocks_keep_their_inputs_only() -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    sizes = [
        saved_bytes(ResnetGenerator(width=8, blocks=9, impl="reference", checkpoint_blocks=checkpointed), image)
        for checkpointed in (False, True)
    ]
    one_activation = 32 * 16 * 16 * 4  # of a block
    assert sizes[0] - sizes[1] > 9 * 3 * one_activation


def test_checkpointed_blocks_compute_with_the_working_weights_and_give_the_same_bits() -> None:
    """Keeps weights wide beside bfloat16: computing a block again with them would give other gradients."""
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        config = Config(networks=replace(TINY, checkpoint_blocks=checkpointed))
        step = TrainingStep(Model(config), config, torch.bfloat16, random.Random(0))
        losses = step(*images(BATCH_OF_ONE, torch.Generator().manual_seed(0)))
        results.append([*losses.values(), *our_gradients(step.model).values()])
    for without, with_it in zip(*results, strict=True):
        assert torch.equal(without, with_it)
