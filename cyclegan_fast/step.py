"""One update of both generators and both discriminators (Zhu et al. 2017, section 3.3; the contract in README.md).

Names follow the original implementation: G_A maps A to B, G_B maps B to A, D_A judges B, D_B judges A.
"""

import copy
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cyclegan_fast.config import Config
from cyclegan_fast.image_pool import ImagePool
from cyclegan_fast.losses import cycle_loss, discriminator_loss, generator_loss, gradient_penalty, identity_loss
from cyclegan_fast.networks import PatchDiscriminator, ResnetGenerator

Weights = dict[str, Tensor]

GENERATORS = ("G_A", "G_B")
DISCRIMINATORS = ("D_A", "D_B")
EMA_GENERATORS = ("G_A_ema", "G_B_ema")


def learning_rate_factor(epoch: int, epochs: int, decay_epochs: int) -> float:
    """Share of the initial learning rate in `epoch`, counted from 1: constant, then linear towards zero."""
    return 1.0 - max(0, epoch - epochs) / (decay_epochs + 1)


class CycleGAN(nn.Module):
    """The four networks, and moving averages of the generators where `config.optimizer.ema` asks for them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        networks = config.networks
        # The gradient penalty needs second derivatives, which only the plain operators have.
        discriminator_impl = "reference" if config.loss.gan_loss == "wgan-gp" else networks.impl
        self.G_A, self.G_B = (
            ResnetGenerator(
                width=networks.ngf,
                blocks=networks.blocks,
                impl=networks.impl,
                checkpoint_blocks=networks.checkpoint_blocks,
            )
            for _ in GENERATORS
        )
        self.D_A = PatchDiscriminator(width=networks.ndf, impl=discriminator_impl)
        self.D_B = PatchDiscriminator(width=networks.ndf, impl=discriminator_impl)
        if config.optimizer.ema:
            self.G_A_ema = copy.deepcopy(self.G_A).requires_grad_(False)
            self.G_B_ema = copy.deepcopy(self.G_B).requires_grad_(False)

    def trainable(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The parameters that an optimiser of these networks owns, in a fixed order."""
        return [p for name in names for p in self.get_submodule(name).parameters() if p.requires_grad]

    def translator(self, direction: str) -> ResnetGenerator:
        """The generator to translate with, "a2b" or "b2a": the moving average where there is one."""
        name = {"a2b": "G_A", "b2a": "G_B"}[direction]
        network = getattr(self, f"{name}_ema", None) or self.get_submodule(name)
        assert isinstance(network, ResnetGenerator)
        return network


@dataclass(frozen=True)
class GeneratorPass:
    """What the forward pass of both generators yields, each [N, 3, H, W]; identities are None where not asked for."""

    fake_B: Tensor
    fake_A: Tensor
    rec_A: Tensor
    rec_B: Tensor
    idt_A: Tensor | None  # G_A(B), near B
    idt_B: Tensor | None  # G_B(A), near A


def translate_with_identity(
    generator: nn.Module, weights: Weights, source: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """G(source) and, where `target` is given, G(target).

    Instance norm couples nothing across samples, so that images of one size go through in one batch; the results differ
    from two passes by rounding only.
    """
    if target is None:
        return functional_call(generator, weights, (source,)), None
    if source.shape[1:] == target.shape[1:]:
        both = functional_call(generator, weights, (torch.cat([source, target]),))
        return both[: len(source)], both[len(source) :]
    return functional_call(generator, weights, (source,)), functional_call(generator, weights, (target,))


class TrainingStep:
    """Owns the optimisers, the scalers and the image pools, and updates `model` once a call.

    Args:
        model: on the device that training runs on, in the precision that weights are kept in.
        config: losses, optimiser and pool size are read from it.
        dtype: what convolutions and fused operators compute in. Statistics and losses are wide, weights and Adam are
            the model's own; float16 scales its losses, one scaler for each optimiser.
        random_source: decides about the pools; by default seeded from `config.run.seed`.
    """

    def __init__(
        self, model: CycleGAN, config: Config, dtype: torch.dtype, random_source: random.Random | None = None
    ) -> None:
        self.model = model
        self.config = config
        self.dtype = dtype
        self.device = next(model.parameters()).device
        self.random_source = random_source or random.Random(config.run.seed)
        self.penalty_random = torch.Generator().manual_seed(config.run.seed)
        self.pool_A = ImagePool(config.loss.pool_size, self.random_source)
        self.pool_B = ImagePool(config.loss.pool_size, self.random_source)
        self.generator_optimizer = self._adam(GENERATORS)
        self.discriminator_optimizer = self._adam(DISCRIMINATORS)
        scaled = dtype == torch.float16
        self.generator_scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.discriminator_scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.steps_taken = 0

    def _adam(self, names: Iterable[str]) -> torch.optim.Adam:
        options = self.config.optimizer
        return torch.optim.Adam(
            self.model.trainable(names), lr=options.learning_rate, betas=(options.beta1, 0.999), fused=True
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

    def __call__(self, real_A: Tensor, real_B: Tensor) -> dict[str, Tensor]:
        """One update from a batch of each domain, [N, 3, H, W] in [-1, 1]; returns the losses by name, detached.

        The batch goes through in `config.optimizer.accumulate` parts. The losses are means over all of it.
        """
        weights = {name: self._working_weights(name) for name in (*GENERATORS, *DISCRIMINATORS)}
        parts = self.config.optimizer.accumulate
        reals = list(zip(real_A.chunk(parts), real_B.chunk(parts), strict=True))
        shares = [len(part_A) / len(real_A) for part_A, _ in reals]  # an epoch's last batch may be a short one
        fakes: list[tuple[Tensor, Tensor]] = []
        losses = self._descend(
            shares,
            (self._generator_losses(*part, weights, fakes) for part in reals),
            self.generator_optimizer,
            self.generator_scaler,
        )
        # The pools see the images of the whole batch in order, first those of B.
        fakes_A, fakes_B = (torch.cat(parts_of_one) for parts_of_one in zip(*fakes, strict=True))
        pooled_B = self.pool_B.query(fakes_B).chunk(parts)
        pooled_A = self.pool_A.query(fakes_A).chunk(parts)
        losses |= self._descend(
            shares,
            (
                self._discriminator_losses(*part, *fake, weights)
                for part, fake in zip(reals, zip(pooled_A, pooled_B, strict=True), strict=True)
            ),
            self.discriminator_optimizer,
            self.discriminator_scaler,
        )
        self.steps_taken += 1
        if self.config.optimizer.ema:
            self._update_moving_averages()
        return losses

    def _working_weights(self, name: str) -> Weights:
        """A network's weights in the working precision, cast once a step; gradients reach the originals.

        On a GPU they are laid out channels last here, once, and not by cuDNN at every convolution.
        """
        return {
            key: value.to(self.dtype, memory_format=torch.channels_last)
            if self.device.type == "cuda" and value.dim() == 4
            else value.to(self.dtype)
            for key, value in self.model.get_submodule(name).named_parameters()
        }

    def forward(self, real_A: Tensor, real_B: Tensor, weights: dict[str, Weights]) -> GeneratorPass:
        """All passes of both generators."""
        G_A, G_B = self.model.G_A, self.model.G_B
        real_A, real_B = real_A.to(self.dtype), real_B.to(self.dtype)
        wants_identity = self.config.loss.lambda_identity > 0
        fake_B, idt_A = translate_with_identity(G_A, weights["G_A"], real_A, real_B if wants_identity else None)
        fake_A, idt_B = translate_with_identity(G_B, weights["G_B"], real_B, real_A if wants_identity else None)
        rec_A = functional_call(G_B, weights["G_B"], (fake_B,))
        rec_B = functional_call(G_A, weights["G_A"], (fake_A,))
        return GeneratorPass(fake_B=fake_B, fake_A=fake_A, rec_A=rec_A, rec_B=rec_B, idt_A=idt_A, idt_B=idt_B)

    def _generator_losses(
        self, real_A: Tensor, real_B: Tensor, weights: dict[str, Weights], fakes: list[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses of both generators; the generated images, of A and of B, are added to `fakes`."""
        options = self.config.loss
        images = self.forward(real_A, real_B, weights)
        fakes.append((images.fake_A.detach(), images.fake_B.detach()))
        # Detached weights freeze the discriminators: gradients pass through them to the images only.
        frozen = {name: {key: w.detach() for key, w in weights[name].items()} for name in DISCRIMINATORS}
        losses = {
            "G_A": generator_loss(functional_call(self.model.D_A, frozen["D_A"], (images.fake_B,)), options.gan_loss),
            "G_B": generator_loss(functional_call(self.model.D_B, frozen["D_B"], (images.fake_A,)), options.gan_loss),
            # Against the images as they came, not as the working precision rounds them.
            "cycle_A": options.lambda_cycle * cycle_loss(images.rec_A, real_A),
            "cycle_B": options.lambda_cycle * cycle_loss(images.rec_B, real_B),
        }
        if images.idt_A is not None and images.idt_B is not None:
            weight = options.lambda_cycle * options.lambda_identity
            losses["idt_A"] = weight * identity_loss(images.idt_A, real_B)
            losses["idt_B"] = weight * identity_loss(images.idt_B, real_A)
        return losses

    def _discriminator_losses(
        self, real_A: Tensor, real_B: Tensor, pooled_A: Tensor, pooled_B: Tensor, weights: dict[str, Weights]
    ) -> dict[str, Tensor]:
        return {
            "D_A": self._discriminator_loss(self.model.D_A, weights["D_A"], real_B, pooled_B),
            "D_B": self._discriminator_loss(self.model.D_B, weights["D_B"], real_A, pooled_A),
        }

    def _discriminator_loss(self, network: nn.Module, weights: Weights, real: Tensor, fake: Tensor) -> Tensor:
        gan_loss = self.config.loss.gan_loss
        real = real.to(self.dtype)
        if real.shape[1:] == fake.shape[1:]:
            scores = functional_call(network, weights, (torch.cat([real, fake]),))
            real_score, fake_score = scores[: len(real)], scores[len(real) :]
        else:
            real_score, fake_score = (functional_call(network, weights, (x,)) for x in (real, fake))
        loss = discriminator_loss(real_score, fake_score, gan_loss)
        if gan_loss == "wgan-gp":
            mix = torch.rand(len(real), 1, 1, 1, generator=self.penalty_random).to(real)
            loss = loss + gradient_penalty(lambda x: functional_call(network, weights, (x,)), real, fake, mix)
        return loss

    def _descend(
        self,
        shares: Iterable[float],
        losses_of_parts: Iterable[dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> dict[str, Tensor]:
        """One update from the losses of a batch's parts, each a share of it and in memory by itself; their means."""
        means: dict[str, Tensor] = {}
        optimizer.zero_grad(set_to_none=True)
        for share, losses in zip(shares, losses_of_parts, strict=True):
            weighted = losses if share == 1 else {name: share * loss for name, loss in losses.items()}
            scaler.scale(sum_losses(weighted)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            for name, loss in weighted.items():
                means[name] = means[name] + loss.detach() if name in means else loss.detach()
        scaler.step(optimizer)
        scaler.update()
        return means

    @torch.no_grad()
    def _update_moving_averages(self) -> None:
        # A short history is averaged over its own length, so that the random initial weights do not linger.
        decay = min(self.config.optimizer.ema, (1 + self.steps_taken) / (10 + self.steps_taken))
        for name, average_name in zip(GENERATORS, EMA_GENERATORS, strict=True):
            averages: list[Tensor] = list(self.model.get_submodule(average_name).parameters())
            newest: list[Tensor] = list(self.model.get_submodule(name).parameters())
            torch._foreach_lerp_(averages, newest, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the networks that the next call depends on; loadable with `weights_only=True`."""
        version, words, gauss = self.random_source.getstate()
        return {
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "generator_scaler": self.generator_scaler.state_dict(),
            "discriminator_scaler": self.discriminator_scaler.state_dict(),
            "pool_A": self.pool_A.state_dict(),
            "pool_B": self.pool_B.state_dict(),
            "pool_random": [version, list(words), gauss],
            "penalty_random": self.penalty_random.get_state(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["pool_random"]
        self.random_source.setstate((version, tuple(words), gauss))
        self.penalty_random.set_state(state["penalty_random"])
        self.pool_A.load_state_dict(state["pool_A"], self.device)
        self.pool_B.load_state_dict(state["pool_B"], self.device)
        for name in ("generator_optimizer", "discriminator_optimizer", "generator_scaler", "discriminator_scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_taken = state["steps_taken"]


def sum_losses(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()
