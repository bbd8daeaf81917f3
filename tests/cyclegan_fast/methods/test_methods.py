"""Methods of the paper's comparison have the papers' losses, and gradients reach what they should."""

import io
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan_fast import evaluate, train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    LossConfig,
    MethodName,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
    reason_against_pixels,
)
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.methods.base import DIRECTION_NETWORKS, DirectionBatch
from cyclegan_fast.methods.cogan import LATENT, CoGan, LatentSearch
from cyclegan_fast.methods.feature_loss.objective import FeatureLoss
from cyclegan_fast.methods.feature_loss.rotation import RotationTraining
from cyclegan_fast.methods.model import Model
from cyclegan_fast.methods.registry import method_of
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.translation import trained
from tests.cyclegan_fast.conftest import TINY
from tests.slow import slow_but

SIDE = 32
BASE = Config(
    data=DataConfig(load_size=SIDE, crop_size=SIDE, batch_size=2),
    networks=NetworkConfig(generator="resnet_6", ngf=2, ndf=2, impl="reference"),
    loss=LossConfig(lambda_identity=0),
)


def without(base: Config, **changes: Any) -> Config:
    return replace(base, loss=replace(base.loss, **changes))


def of_channels(of_A: int, of_B: int) -> Config:
    return replace(BASE, data=replace(BASE.data, channels_a=of_A, channels_b=of_B))


CASES: dict[str, Config] = {
    "simgan": of_method(BASE, "simgan"),
    "feature-loss": of_method(BASE, "feature-loss"),
    "bigan": of_method(BASE, "bigan"),
    "cogan": of_method(BASE, "cogan"),
    "pix2pix": of_method(BASE, "pix2pix"),
    "cycle alone": without(BASE, lambda_gan=0.0),
    "GAN alone": without(BASE, lambda_cycle=0.0),
    "GAN + cycle from A": without(BASE, cycle_from="A"),
    "GAN + cycle from B": without(BASE, cycle_from="B"),
    "GAN + identity, twice the GAN": without(BASE, lambda_identity=0.5, lambda_gan=2.0),
    "cycles of two weights": without(BASE, lambda_identity=0.5, lambda_cycle_a=4.0, lambda_cycle_b=7.0),
    "one cycle of weight 0": without(BASE, lambda_identity=0.5, lambda_cycle_b=0.0),
}
OF_CHANNELS: dict[str, Config] = {
    "bigan of 1 and 3 channels": of_method(of_channels(1, 3), "bigan"),
    "cogan of 6 and 1 channels": of_method(of_channels(6, 1), "cogan"),
    "pix2pix of 4 and 2 channels": of_method(of_channels(4, 2), "pix2pix"),
    "no identity of 1 and 3 channels": without(of_channels(1, 3), lambda_identity=0.5),
}
EVERY = {**CASES, **OF_CHANNELS}


def features() -> nn.Module:
    """Some network of images, the same one each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3)).double().requires_grad_(False)


def step_of(config: Config, dtype: torch.dtype = torch.float64) -> TrainingStep:
    """Return a new step, the same each time."""
    torch.manual_seed(0)
    step = TrainingStep(Model(config).to(dtype), config, dtype, random.Random(0))
    if isinstance(step.method, FeatureLoss):
        step.method.features = features().to(dtype)
    return step


def images(seed: int = 1, count: int = 2, channels: tuple[int, int] = (3, 3)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A, B = (torch.rand(count, of, SIDE, SIDE, generator=generator).double() * 2 - 1 for of in channels)
    return A, B


# --- the equations, written out ------------------------------------------------------------------------------------

Networks = Callable[[str, Tensor], Tensor]  # a network by its name, and what it is given
Terms = tuple[dict[str, Tensor], dict[str, Tensor]]  # of the generators, and of the discriminators


def squared(scores: Tensor, label: float) -> Tensor:
    return ((scores - label) ** 2).mean()


def half(net: Networks, name: str, real: Tensor, fake: Tensor) -> Tensor:
    return (squared(net(name, real), 1) + squared(net(name, fake.detach()), 0)) / 2


def simgan(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
    """Shrivastava et al. 2017, eqs. 1 to 3, with least squares and the weight 10 of the authors of CycleGAN."""
    fake_b, fake_a = net("G_A", a), net("G_B", b)
    return {
        "G_A": squared(net("D_A", fake_b), 1),
        "G_B": squared(net("D_B", fake_a), 1),
        "pixel_A": 10 * (fake_b - a).abs().mean(),
        "pixel_B": 10 * (fake_a - b).abs().mean(),
    }, {"D_A": half(net, "D_A", b, fake_b), "D_B": half(net, "D_B", a, fake_a)}


def feature(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
    """Zhu et al. 2017, section 5.1.2; the L1 as a share of the image's own features, image by image."""
    phi, fake_b, fake_a = features(), net("G_A", a), net("G_B", b)

    def share(image: Tensor, translation: Tensor) -> Tensor:
        pairs = zip(phi(image), phi(translation), strict=True)
        return torch.stack([(y - x).abs().mean() / x.abs().mean() for x, y in pairs]).mean()

    return {
        "G_A": squared(net("D_A", fake_b), 1),
        "G_B": squared(net("D_B", fake_a), 1),
        "feature_A": 10 * share(a, fake_b),
        "feature_B": 10 * share(b, fake_a),
    }, {"D_A": half(net, "D_A", b, fake_b), "D_B": half(net, "D_B", a, fake_a)}


def bigan(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
    """Dumoulin et al. 2017, eq. 2 with b for z: log D(a, G_A(a)) + log(1 - D(G_B(b), b)), as least squares."""
    of_a, of_b = torch.cat([a, net("G_A", a)], 1), torch.cat([net("G_B", b), b], 1)
    judged = half(net, "D", of_a.detach(), of_b)
    return {"G_A": squared(net("D", of_a), 0), "G_B": squared(net("D", of_b), 1)}, {"D": judged}


def cogan(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
    """Liu & Tuzel 2016, eq. 4, each adversarial term as least squares."""
    assert z is not None

    def judge(name: str, image: Tensor) -> Tensor:
        return net("D_shared", net(name, image))

    fake_b, fake_a = (net(name, net("G_shared", z)) for name in ("G_A", "G_B"))
    return {"G_A": squared(judge("D_A", fake_b), 1), "G_B": squared(judge("D_B", fake_a), 1)}, {
        "D_A": half(judge, "D_A", b, fake_b),
        "D_B": half(judge, "D_B", a, fake_a),
    }


def pix2pix(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
    """Isola et al. 2017, eqs. 1, 3 and 4 with lambda 100, as least squares, in both directions."""
    fake_b, fake_a = net("G_A", a), net("G_B", b)
    return {
        "G_A": squared(net("D_A", torch.cat([a, fake_b], 1)), 1),
        "G_B": squared(net("D_B", torch.cat([b, fake_a], 1)), 1),
        "paired_A": 100 * (fake_b - b).abs().mean(),
        "paired_B": 100 * (fake_a - a).abs().mean(),
    }, {
        "D_A": half(net, "D_A", torch.cat([a, b], 1), torch.cat([a, fake_b], 1)),
        "D_B": half(net, "D_B", torch.cat([b, a], 1), torch.cat([b, fake_a], 1)),
    }


def ablation(
    *kept: str, gan: float = 1.0, cycle_a: float = 10.0, cycle_b: float = 10.0
) -> Callable[[Networks, Tensor, Tensor, Tensor | None], Terms]:
    """Zhu et al. 2017, eq. 3 without some of its terms (section 5.1.4), and with a weight for each cycle.

    As the original weighs it, an identity loss goes with the cycle that begins with the same images.
    """

    def terms(net: Networks, a: Tensor, b: Tensor, z: Tensor | None) -> Terms:
        fake_b, fake_a = net("G_A", a), net("G_B", b)
        every = {
            "G_A": gan * squared(net("D_A", fake_b), 1),
            "G_B": gan * squared(net("D_B", fake_a), 1),
            "cycle_A": cycle_a * (net("G_B", fake_b) - a).abs().mean(),
            "cycle_B": cycle_b * (net("G_A", fake_a) - b).abs().mean(),
        }
        if "idt_A" in kept or "idt_B" in kept:
            every["idt_A"] = 0.5 * cycle_b * (net("G_A", b) - b).abs().mean()
            every["idt_B"] = 0.5 * cycle_a * (net("G_B", a) - a).abs().mean()
        judged = {"D_A": half(net, "D_A", b, fake_b), "D_B": half(net, "D_B", a, fake_a)} if "G_A" in kept else {}
        return {name: every[name] for name in every if name in kept}, judged

    return terms


EQUATIONS = {
    "simgan": simgan,
    "feature-loss": feature,
    "bigan": bigan,
    "cogan": cogan,
    "pix2pix": pix2pix,
    "cycle alone": ablation("cycle_A", "cycle_B"),
    "GAN alone": ablation("G_A", "G_B"),
    "GAN + cycle from A": ablation("G_A", "G_B", "cycle_A"),
    "GAN + cycle from B": ablation("G_A", "G_B", "cycle_B"),
    "GAN + identity, twice the GAN": ablation("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", gan=2.0),
    "cycles of two weights": ablation("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", cycle_a=4.0, cycle_b=7.0),
    "one cycle of weight 0": ablation("G_A", "G_B", "cycle_A", "idt_B"),
    "bigan of 1 and 3 channels": bigan,
    "cogan of 6 and 1 channels": cogan,
    "pix2pix of 4 and 2 channels": pix2pix,
    "no identity of 1 and 3 channels": ablation("G_A", "G_B", "cycle_A", "cycle_B"),
}


@pytest.mark.parametrize("case", EVERY)
def test_losses_and_gradients_are_those_of_the_papers_equations(case: str) -> None:
    step = step_of(EVERY[case])
    A, B = images(channels=EVERY[case].channels)
    decisions = step.draw(len(A))
    plain = step_of(EVERY[case]).model  # with weights of its own, which no step changes
    z = None if decisions.latents is None else decisions.latents.double()
    of_generators, of_discriminators = EQUATIONS[case](lambda name, x: plain.get_submodule(name)(x), A, B, z)

    losses = step.update(A, B, decisions)

    if step.method.discriminators_first:  # the generators' losses are those that the new ones give

        def net(name: str, x: Tensor) -> Tensor:
            return (plain if name.startswith("G") else step.model).get_submodule(name)(x)  # type: ignore[no-any-return]

        of_generators, _ = EQUATIONS[case](net, A, B, z)
    expected = {**of_generators, **of_discriminators}
    assert list(losses) == list(step.method.losses) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-10, atol=1e-12)
    sides = ((step.method.generators, of_generators), (step.method.discriminators, of_discriminators))
    for names, terms in sides:
        for name in names:
            parameters = [p for p in plain.get_submodule(name).parameters() if p.requires_grad]
            found = [p.grad for p in step.model.get_submodule(name).parameters() if p.requires_grad]
            if not terms:  # nothing judges: the discriminators stay as they were made
                assert found == [None] * len(found)
                continue
            total = torch.stack(list(terms.values())).sum()
            gradients = torch.autograd.grad(total, parameters, retain_graph=True)
            assert all(gradient.abs().max() > 0 for gradient in gradients)
            for mine, theirs in zip(found, gradients, strict=True):
                assert mine is not None
                torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_the_shared_layers_of_cogan_receive_the_gradients_of_both_domains() -> None:
    step = step_of(CASES["cogan"])
    A, B = images()
    decisions = step.draw(len(A))
    plain = step_of(CASES["cogan"]).model
    assert decisions.latents is not None
    of_generators, of_discriminators = cogan(
        lambda name, x: plain.get_submodule(name)(x), A, B, decisions.latents.double()
    )
    step.update(A, B, decisions)
    for shared, terms in (("G_shared", of_generators), ("D_shared", of_discriminators)):
        parameters = [p for p in plain.get_submodule(shared).parameters() if p.requires_grad]
        parts = [torch.autograd.grad(term, parameters, retain_graph=True) for term in terms.values()]
        assert all(gradient.abs().max() > 0 for part in parts for gradient in part)
        mine = [p.grad for p in step.model.get_submodule(shared).parameters() if p.requires_grad]
        for found, one, other in zip(mine, *parts, strict=True):
            torch.testing.assert_close(found, one + other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_add_up_to_the_whole(case: str) -> None:
    whole = step_of(CASES[case])
    parts = step_of(replace(CASES[case], optimizer=OptimizerConfig(accumulate=2)))
    for seed in range(2):
        A, B = images(seed)
        at_once, one_by_one = whole(A, B), parts(A, B)
        for name, loss in at_once.items():
            torch.testing.assert_close(one_by_one[name], loss, rtol=1e-9, atol=1e-12)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], weight, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "case", slow_but(["simgan", "bigan", "cogan", "pix2pix", "feature-loss", "cycle alone"], list(CASES)[:-2])
)
def test_each_side_lowers_its_objective_while_the_other_rests(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CASES[case], optimizer=OptimizerConfig(learning_rate=2e-3))
    A, B = images()
    for rests, moves in (("discriminators", "generators"), ("generators", "discriminators")):
        step = step_of(config, torch.float32)
        judged = step.method.judged
        if moves == "discriminators" and not judged:
            continue
        monkeypatch.setattr(getattr(step, rests), "update", lambda: None)
        totals = []
        for _ in range(40):
            step.tensor_random.manual_seed(0)  # CoGAN's codes, which are its problem here
            losses = step(A.float(), B.float())
            totals.append(sum(float(loss) for name, loss in losses.items() if (name in judged) == (moves[0] == "d")))
        assert totals[-1] < 0.9 * totals[0], (moves, totals[0], totals[-1])


@pytest.mark.slow
def test_pix2pix_learns_four_pairs_by_heart() -> None:
    """Photographs of two colours, and maps that show where the brighter one is: no generator can guess them."""
    config = of_method(
        replace(
            BASE,
            data=replace(BASE.data, batch_size=4),
            networks=replace(BASE.networks, ngf=8, ndf=4),
            optimizer=OptimizerConfig(learning_rate=2e-3),
        ),
        "pix2pix",
    )
    step = step_of(config, torch.float32)
    random_places = torch.rand(4, 1, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(2)) > 0.5
    places = random_places.repeat_interleave(8, 2).repeat_interleave(8, 3)
    colours = torch.tensor([[0.8, 0.2, -0.5], [-0.2, -0.6, 0.1], [-1, 1, 1], [1, -1, 0]])[:, :, None, None]
    A, B = torch.where(places, colours[0], colours[1]), torch.where(places, colours[2], colours[3])
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for index in range(120):
        last = {name: float(loss) / 100 for name, loss in step(A, B).items() if name.startswith("paired")}
        first = first or last
        if index == 80:
            step.set_learning_rate(3e-4)
    for name in ("paired_A", "paired_B"):
        assert first[name] > 0.4
        assert last[name] < 0.05, (name, first, last)


# --- CoGAN's search ------------------------------------------------------------------------------------------------


def test_the_latent_search_reduces_the_error_of_the_rendering() -> None:
    model = Model(of_method(replace(BASE, networks=replace(BASE.networks, ngf=8)), "cogan")).eval()
    networks = {name: model.get_submodule(name) for name in CoGan.generators}
    with torch.no_grad():
        codes = torch.randn(2, LATENT, generator=torch.Generator().manual_seed(77))
        trunk = networks["G_shared"](codes)
        # A new head renders hardly anything: an image that a code is to be found for must differ from others.
        for head in ("G_A", "G_B"):
            networks[head].get_submodule("last").get_parameter("weight").mul_(20)
        in_A, in_B = networks["G_B"](trunk), networks["G_A"](trunk)
        search = CoGan(of_method(BASE, "cogan")).translator(networks, "a2b")
        errors, distances = {}, {}
        for steps in (0, 100):
            search.steps = steps
            code = search.search(in_A)
            errors[steps] = float((networks["G_B"](networks["G_shared"](code)) - in_A).abs().mean())
            distances[steps] = float((search(in_A) - in_B).abs().mean())
    assert errors[100] < 0.5 * errors[0], errors
    assert distances[100] < 0.8 * distances[0], distances  # and so the rendering in the other domain comes nearer


def test_the_latent_search_takes_each_image_by_itself_and_leaves_no_trace() -> None:
    model = Model(CASES["cogan"]).eval()
    search = model.translator("b2a")
    assert isinstance(search, LatentSearch)
    search.steps = 20
    A, _ = images()
    before, state = {name: p.clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    with torch.no_grad():
        together = search(A.float())
    with torch.inference_mode():
        alone = torch.cat([search(image[None].float()) for image in A])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
    with pytest.raises(UserError, match="renders images of 32x32, not 24x24"):
        search(torch.zeros(1, 3, 24, 24))


@pytest.mark.parametrize("side", [24, 36, 64, 128, 256])
def test_cogan_renders_every_size_that_it_may_be_trained_at(side: int) -> None:
    config = replace(CASES["cogan"], data=DataConfig(load_size=side, crop_size=side))
    model = Model(config)
    with torch.no_grad():
        latent = torch.randn(2, LATENT, generator=torch.Generator().manual_seed(0))
        rendered = model.get_submodule("G_A")(model.get_submodule("G_shared")(latent))
    assert rendered.shape == (2, 3, side, side)
    assert not torch.allclose(rendered[0], rendered[1], atol=1e-4)  # two codes are two images


# --- the machinery is CycleGAN's -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EVERY)
def test_a_resumed_step_goes_on_as_if_nothing_had_happened(case: str) -> None:
    config = replace(EVERY[case], optimizer=OptimizerConfig(ema=0.5))
    steps = [step_of(config, torch.float32) for _ in range(2)]
    batches = [tuple(image.float() for image in images(seed, channels=config.channels)) for seed in range(3)]
    for batch in batches[:2]:
        steps[0](*batch)
    saved = io.BytesIO()
    state = {"model": steps[0].model.state_dict(), "all": steps[0].state_dict(), "own": steps[0].rank_state_dict()}
    torch.save(state, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    steps[1].model.load_state_dict(state["model"])
    steps[1].load_state_dict(state["all"])
    steps[1].load_rank_state_dict(state["own"])
    losses = [step(*batches[2]) for step in steps]
    for name in losses[0]:
        assert torch.equal(losses[0][name], losses[1][name]), name
    for name, value in steps[0].model.state_dict().items():
        assert torch.equal(value, steps[1].model.state_dict()[name]), name


@pytest.mark.parametrize("case", ["bigan", "cogan", "pix2pix", "simgan"])
def test_a_gradient_penalty_is_added_to_what_each_discriminator_judges(case: str) -> None:
    """Gulrajani et al. 2017, eq. 3, written out; discriminators that would be fused run on the plain operators."""
    config = without(replace(CASES[case], networks=replace(BASE.networks, impl="auto")), gan_loss="wgan-gp")
    A, B = images()
    step, plain = step_of(config), step_of(config)
    decisions = step.draw(2)
    assert decisions.mixes is not None
    losses = step.update(A, B, decisions)
    judged = step.method.judged
    assert len(decisions.mixes) == len(judged)

    shown: dict[str, Tensor] = {}
    with torch.no_grad():
        for direction in DIRECTION_NETWORKS:
            source, target = (A, B) if direction.suffix == "A" else (B, A)
            made = DirectionBatch(source, target, source, target, decisions.latents)
            shown[direction.suffix] = plain.method.translate(plain.passes.forward, direction, made).shown
    for judgement, mix in zip(plain.method.judgements(A, B, shown["B"], shown["A"]), decisions.mixes, strict=True):
        network = plain.method.judge(plain.passes.forward, judgement.name)
        mixed = (mix * judgement.real + (1 - mix) * judgement.fake).requires_grad_()
        (slope,) = torch.autograd.grad(network(mixed).sum(), mixed, create_graph=True)
        penalty = 10 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean() / 2
        expected = (network(judgement.fake).mean() - network(judgement.real).mean()) / 2 + penalty
        torch.testing.assert_close(losses[judgement.name], expected.detach(), rtol=1e-6, atol=1e-9)
    for name in step.method.discriminators:
        assert getattr(step.model.get_submodule(name), "impl", "reference") == "reference"


def test_without_its_penalty_wgan_gp_is_what_the_originals_cyclegan_has() -> None:
    """Gives the means of scores alone, on whichever operators and in any shapes; nothing is drawn for it."""
    config = without(BASE, gan_loss="wgan-gp", lambda_penalty=0.0)
    A, B = images()
    step, plain = step_of(config), step_of(config)
    decisions = step.draw(2)
    assert decisions.mixes is None
    losses = step.update(A, B, decisions)
    for name, real, fake in (("D_A", B, plain.passes.forward["G_A"](A)), ("D_B", A, plain.passes.forward["G_B"](B))):
        expected = 0.5 * (plain.passes.forward[name](fake).mean() - plain.passes.forward[name](real).mean())
        torch.testing.assert_close(losses[name], expected.detach(), rtol=1e-9, atol=1e-12)
    assert step.method.discriminator_impl == config.networks.impl
    replace(config, data=DataConfig(preprocess="none"))
    weighed, whole = (step_of(without(BASE, gan_loss="wgan-gp", lambda_penalty=weight)) for weight in (4.0, 10.0))
    penalties = [step(A, B)["D_A"] - losses["D_A"] for step in (weighed, whole)]
    torch.testing.assert_close(penalties[0] / penalties[1], torch.tensor(0.4).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lambda_penalty": 1.0}, "lambda_penalty is a weight of gan_loss wgan-gp: it has no effect on lsgan"),
        ({"lambda_cycle_a": -1.0}, "lambda_cycle_a must be a number from 0"),
        ({"method": "simgan", "lambda_cycle_b": 5.0}, "lambda_cycle_b is a weight of --method cyclegan"),
        ({"lambda_cycle_a": 0.0, "lambda_cycle_b": 0.0}, "with lambda_cycle 0 it must be 0 too"),
        ({"lambda_cycle_a": 0.0, "cycle_from": "A"}, "cycle_from A has no effect"),
        ({"method": "simgan", "lambda_cycle": 5.0}, "lambda_cycle is a weight of --method cyclegan"),
        ({"lambda_pixel": 1.0}, "lambda_pixel is a weight of --method simgan"),
        ({"method": "pix2pix", "lambda_feature": 1.0}, "lambda_feature is a weight of --method feature-loss"),
        ({"lambda_gan": 0.0, "lambda_cycle": 0.0, "lambda_identity": 0.0}, "cycle consistency alone"),
        ({"lambda_gan": 0.0, "cycle_from": "A"}, "cycle consistency alone"),
        ({"lambda_cycle": 0.0, "lambda_identity": 0.0, "cycle_from": "B"}, "cycle_from B has no effect"),
        ({"method": "simgan", "cycle_from": "A"}, "cycle_from A has no effect"),
        ({"method": "wgan"}, "method must be one of cyclegan, simgan"),
        ({"lambda_gan": -1.0}, "lambda_gan must be a number from 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**flags)


def test_a_method_brings_its_own_settings_and_drops_those_of_another() -> None:
    from_task = without(BASE, lambda_identity=0.0, lambda_cycle=3.0, pool_size=7)
    assert of_method(from_task, "cyclegan") is from_task
    paired = of_method(from_task, "pix2pix").loss
    assert (paired.method, paired.pool_size, paired.lambda_paired) == ("pix2pix", 0, 100.0)
    assert of_method(from_task, "simgan").loss.pool_size == 7
    assert of_method(of_method(from_task, "pix2pix"), "bigan").loss.pool_size == 50
    names: tuple[MethodName, ...] = ("simgan", "feature-loss", "bigan", "cogan", "pix2pix")
    for name in names:
        assert of_method(from_task, name).loss.lambda_cycle == 10.0


def test_what_cannot_work_together_is_refused() -> None:
    with pytest.raises(ValueError, match="cogan renders images of one size"):
        replace(CASES["cogan"], data=DataConfig(preprocess="none"))
    unet = replace(BASE.networks, generator="unet_128")
    with pytest.raises(ValueError, match="crop_size must be a multiple of 128"):
        replace(BASE, networks=unet)
    with pytest.raises(ValueError, match="a U-Net halves sides"):
        replace(BASE, networks=unet, data=DataConfig(preprocess="none", crop_size=128))
    with pytest.raises(ValueError, match="batch norm takes the statistics"):
        replace(
            BASE,
            networks=replace(unet, norm="batch"),
            data=DataConfig(load_size=128, crop_size=128, batch_size=2),
            optimizer=OptimizerConfig(accumulate=2),
        )
    penalised = replace(BASE, networks=replace(BASE.networks, norm="batch"))
    with pytest.raises(ValueError, match="the gradient penalty of wgan-gp is that of each image by itself"):
        without(penalised, gan_loss="wgan-gp")
    assert without(penalised, gan_loss="wgan-gp", lambda_penalty=0.0).loss.lambda_penalty == 0


@pytest.mark.parametrize(
    ("method", "paired", "data", "reason"),
    [
        ("simgan", False, {"channels_a": 1}, r"compares an image with its translation, and A has 1 channel, B 3: "),
        ("feature-loss", False, {"dtype_b": "uint16"}, r"a network that takes 8-bit RGB, and A or B is of others: "),
        ("cyclegan", True, {"channels_b": 6}, r"as one, and A has 3 channels, B 6: leave it out, or give channels_a"),
    ],
)
def test_what_the_pixels_of_a_domain_do_not_go_with_is_said(
    method: MethodName, paired: bool, data: dict[str, Any], reason: str
) -> None:
    """Before the data were read, only one domain may be known; then it is no reason yet, unless no other would do."""
    config = replace(of_method(BASE, method), run=RunConfig(paired=paired))
    if "dtype_b" not in data:
        known = replace(config, data=replace(config.data, **data))
        assert re.search(reason, str(reason_against_pixels(known)))
        data = {"channels_a": 3, "channels_b": 3} | data
    with pytest.raises(ValueError, match=reason):
        replace(config, data=replace(config.data, **data))
    alike = replace(config, data=replace(config.data, channels_a=3, channels_b=3, dtype_a="uint8"))
    assert reason_against_pixels(alike) is None


def test_a_left_out_identity_loss_is_said() -> None:
    method = method_of(OF_CHANNELS["no identity of 1 and 3 channels"])
    assert method.remark == (
        "the identity losses are left out: they give a generator images of its target domain, and those of A have 1 "
        "channel, those of B 3"
    )
    assert method_of(without(BASE, lambda_identity=0.5)).remark is None
    assert method_of(of_channels(1, 3)).remark is None


def test_moving_averages_follow_every_generator() -> None:
    step = step_of(replace(CASES["cogan"], optimizer=OptimizerConfig(ema=0.9)), torch.float32)
    A, B = (image.float() for image in images())
    start = {name: p.clone() for name, p in step.model.named_parameters()}
    step(A, B)
    weight = 1 - min(0.9, (1 + 1) / (10 + 1))
    for name in CoGan.generators:
        for key, average in step.model.get_submodule(f"{name}_ema").named_parameters():
            newest = step.model.get_submodule(name).get_parameter(key)
            expected = start[f"{name}.{key}"] + weight * (newest - start[f"{name}.{key}"])
            np.testing.assert_allclose(average.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-7)


# --- as commands ---------------------------------------------------------------------------------------------------


def run(data: Path, runs: Path, method: str, *flags: str) -> list[str]:
    return ["--data", str(data), "--runs", str(runs), "--name", method, "--method", method, *TINY, *flags]


@pytest.fixture
def short_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cyclegan_fast.methods.feature_loss.network.RotationTraining", partial(RotationTraining, steps=2)
    )


@pytest.mark.usefixtures("short_rotations")
def test_a_run_of_the_feature_loss_says_its_network_and_goes_on_with_no_other(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = run(folder, tmp_path / "runs", "feature-loss", "--max-steps", "4", "--checkpoint-every", "2")
    kept = tmp_path / "runs" / "feature-loss" / "features.pt"

    def broken(*_: object, **__: object) -> None:
        raise UserError("what stops a run before its first step")

    with monkeypatch.context() as patch:  # after the network was trained: the same command goes on
        patch.setattr("cyclegan_fast.training.loop.Training.train", broken)
        assert train.main(arguments) == 2
    written = kept.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("cyclegan_fast.training.records.Records.conclude", broken)
        assert train.main(arguments) == 2
    assert kept.stat().st_mtime_ns == written
    assert "note: relu4_2 of a small VGG of 16-32-64-128 channels" in capfd.readouterr().out
    other = [*arguments, "--feature-network", str(kept)]
    assert train.main(other) == 2
    assert "another configuration" in capfd.readouterr().err
    state = torch.load(kept, weights_only=True)
    weights = state["rotation_network"]
    weights[next(iter(weights))] += 1e-3
    torch.save(state, kept)
    assert train.main(arguments) == 2
    assert "had another network than there is now" in capfd.readouterr().err


@pytest.mark.slow
def test_a_cogan_is_evaluated_by_its_search_and_nothing_else_translates_with_it(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(run(folder, tmp_path / "runs", "cogan", "--max-steps", "2", "--ema", "0.5")) == 0
    path = tmp_path / "runs" / "cogan"
    assert evaluate.main(["--checkpoint", str(path), "--metrics", "reconstruction"]) == 0
    assert "reconstructed, G_B(G_A(A)) against A" in capfd.readouterr().out
    assert evaluate.main(["--checkpoint", str(path), "--size", "36"]) == 2
    assert "renders images of 32x32, not 36x36" in capfd.readouterr().err
    with pytest.raises(UserError, match="is a CoGAN, whose generators take a latent code"):
        trained.load_generator(path, "a2b", [])
    (translator, *_), _ = trained.load_translators(path, ("a2b", "b2a"), [])
    state = checkpoint.load(path / "checkpoints" / "last.pt")["model"]
    for name, network in (("G_shared", translator.trunk), ("G_B", translator.source), ("G_A", translator.target)):
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[f"{name}_ema.{key}"])


def test_pix2pix_with_its_own_networks_trains_from_pairs_and_translates(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = tmp_path / "facades" / "train"
    data.mkdir(parents=True)
    for index in range(3):
        pixels = random.integers(0, 256, (128, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{index}.png")
    flags = ["--generator", "unet_128", "--norm", "batch", "--dropout", "--ngf", "2", "--ndf", "2", "--max-steps", "2"]
    arguments = ["--data", str(data.parent), "--runs", str(tmp_path / "runs"), "--name", "x", "--method", "pix2pix"]
    assert train.main([*arguments, *flags, "--load-size", "128", "--crop-size", "128"]) == 0
    network = trained.load_generator(tmp_path / "runs" / "x", "b2a", []).network
    with torch.no_grad():
        one, two = (network.eval()(torch.zeros(1, 3, 128, 128)) for _ in range(2))
    assert torch.equal(one, two)
