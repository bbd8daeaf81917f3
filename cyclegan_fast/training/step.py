"""One update of generators and discriminators (Zhu et al. 2017, section 3.3; docs/contract.md).

What is computed is the method's to say, see method.py; how, is said here, alike for all of them. The generators' loss
is a sum of two, one for each direction: G_A(A) with all that is computed from it, and G_B(B). The directions are
computed one after the other, which holds the activations of one of them only; or, on a CPU whose cores small images
leave idle, at the same time.
"""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.methods.base import DIRECTIONS, Direction, Judgement, Losses, Network, Source, Translated
from cyclegan_fast.methods.losses import discriminator_loss, gradient_penalty
from cyclegan_fast.methods.model import Model, average_of
from cyclegan_fast.networks.norms import share_statistics
from cyclegan_fast.system.device import memory_format, ready_to_copy
from cyclegan_fast.system.distributed import ALONE, Ranks
from cyclegan_fast.training.descent import Descent
from cyclegan_fast.training.image_pool import ImagePool, StackedImagePool

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_SIDE_IN_THREADS = 128
"""Pixels. On a CPU both directions at once measured faster in float32 at 64 and no faster at 256 (bench/results/LOG.md,
2026-11-25); where in between it turns was not measured. In bfloat16, channels last, it is slower (2026-11-26)."""


@dataclass(frozen=True)
class Decisions:
    """What is drawn on the host for one step.

    pool_A, pool_B: what `ImagePool.decide` drew for the fakes of each domain, int64 [2, N].
    mixes: of the gradient penalty for each judgement, float32 [J, N, 1, 1, 1]; None where there is none.
    latents: normal, float32 [N, C], of a method that has a latent code.
    """

    pool_A: Tensor
    pool_B: Tensor
    mixes: Tensor | None = None
    latents: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What was drawn, by the fields' names."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, device: torch.device) -> "Decisions":
        """Return the same on a device, without the host's waiting for the copies."""
        return Decisions(
            **{
                name: ready_to_copy(drawn, device).to(device, non_blocking=True)
                for name, drawn in self.tensors().items()
            }
        )


@dataclass(frozen=True)
class PartOfStep:
    """What one backward pass leaves: its losses, and gradients by the network's name."""

    losses: Losses
    gradients: dict[str, list[Tensor]]


@dataclass(frozen=True)
class Work:
    """One direction's share of a step: part of a batch."""

    direction: Direction
    source: Source
    share: float


Parts = list[tuple[Work, Work]]
"""The parts of a batch that are in memory by themselves, each in both directions."""


class TrainingStep:
    """Owns the optimisers, the scalers and the image pools, and updates `model` once a call.

    Args:
        model: on the device that training runs on, in the precision that weights are kept in; its method says what is
            computed.
        config: losses, optimiser and pool size are read from it.
        dtype: what convolutions and fused operators compute in. Statistics and losses are wide, weights and Adam are
            the model's own; float16 scales its losses, one scaler for each optimiser.
        random_source: decides about the pools; by default seeded from `config.run.seed` and the rank.
        ranks: who else takes part in each update, with a batch of its own and pools of its own.
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        dtype: torch.dtype,
        random_source: random.Random | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.method = model.method
        self.config = config
        self.dtype = dtype
        self.ranks = ranks
        self.device = next(model.parameters()).device
        self.has_copies = next(model.parameters()).dtype != dtype
        # Once, and not by the library at every convolution.
        model.to(memory_format=memory_format(self.device, dtype))  # type: ignore[call-overload]  # absent from the stubs
        ranks.share(list(model.parameters()))
        self.networks = self._working_networks()
        self.originals = {name: model.trainable([name]) for name in self.networks}
        # What gradients are taken by: the parameters of the networks that are computed with.
        self.leaves = {name: [p for p in n.parameters() if p.requires_grad] for name, n in self.networks.items()}
        self.forward: dict[str, Network] = {
            name: torch.compile(network, dynamic=False) if config.run.compile else network
            for name, network in self.networks.items()
        }
        # Where the translations of all parts wait for the discriminators, only their inputs do: each is made once more
        # in its backward pass (Chen et al. 2016, arXiv 1604.06174).
        waits = self.method.discriminators_first and config.optimizer.accumulate > 1
        self._forward_of_parts: dict[str, Network] = (
            {
                name: partial(checkpoint, network, use_reentrant=False, preserve_rng_state=config.networks.dropout)
                for name, network in self.forward.items()
            }
            if waits
            else self.forward
        )
        # The first rank's draws are those of a run alone.
        self.random_source = random_source or random.Random(
            config.run.seed if ranks.is_first else f"{config.run.seed} on rank {ranks.index}"
        )
        # Draws whole tensors: the mixes of a gradient penalty, latent codes.
        self.tensor_random = torch.Generator().manual_seed(config.run.seed + ranks.index)
        # Images of various shapes stay in lists, which the host exchanges.
        self.has_stacked_pools = config.data.preprocess in CROPPING
        pool_type = StackedImagePool if self.has_stacked_pools else ImagePool
        self.pool_A, self.pool_B = (pool_type(config.loss.pool_size, self.random_source) for _ in DIRECTIONS)
        self.learning_rate = torch.tensor(
            config.optimizer.learning_rate,
            device=self.device,
            dtype=torch.float32 if self.device.type == "cuda" else torch.float64,
        )
        self.average_weight = torch.zeros((), device=self.device, dtype=next(model.parameters()).dtype)
        self.generators, self.discriminators = (
            self._descent(names) for names in (self.method.generators, self.method.discriminators)
        )
        self.steps_taken = 0
        self.phase: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext()
        self._pool_of_threads = self._threads_of_directions()

    def _working_networks(self) -> dict[str, nn.Module]:
        """The networks that are differentiated: the model's own, or copies in the working precision.

        Copies gather the running statistics of batch norms in the model's own.
        """
        names = (*self.method.generators, *self.method.discriminators)
        networks = {name: self.model.get_submodule(name) for name in names}
        if not self.has_copies:
            return networks
        copies = {name: copy.deepcopy(network).to(self.dtype) for name, network in networks.items()}
        for name, network in networks.items():
            share_statistics(copies[name], network)
        return copies

    def _descent(self, names: tuple[str, ...]) -> Descent:
        return Descent(
            {name: self.originals[name] for name in names},
            self.learning_rate,
            self.config.optimizer.beta1,
            copied=self.has_copies,
            scaled=self.dtype == torch.float16,
            ranks=self.ranks,
        )

    def _threads_of_directions(self) -> ThreadPoolExecutor | None:
        """One thread for each direction, with half of the cores each, where that is faster than one after the other."""
        cores = torch.get_num_threads()
        if (
            self.device.type != "cpu"
            or self.dtype == torch.bfloat16
            or cores < len(DIRECTIONS)
            or not self.has_stacked_pools
            or self.config.data.crop_size > LARGEST_SIDE_IN_THREADS
            or self.config.run.compile
            or self.config.networks.dropout  # its draws would depend on which thread comes first
            or self.config.networks.norm == "batch"  # so would its running statistics
            or self.generators.scaler.is_enabled()  # so would its scale, which is made at first use
        ):
            return None
        return ThreadPoolExecutor(
            len(DIRECTIONS), "direction", initializer=lambda: torch.set_num_threads(cores // len(DIRECTIONS))
        )

    @property
    def threads(self) -> int:
        """How many directions are computed at once."""
        return len(DIRECTIONS) if self._pool_of_threads else 1

    def _in_both_directions(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        if self._pool_of_threads is None or len(items) == 1:  # one alone has all cores here
            return map(compute, items)
        return self._pool_of_threads.map(compute, items)

    def set_learning_rate(self, learning_rate: float) -> None:
        self.learning_rate.fill_(learning_rate)

    def __call__(self, real_A: Tensor, real_B: Tensor) -> Losses:
        """One update from a batch of each domain, [N, 3, H, W] in [-1, 1]; returns the losses by name, detached.

        The batch goes through in `config.optimizer.accumulate` parts. The losses are means over all of it.
        """
        decisions = self.draw(len(real_A))
        return self.update(real_A, real_B, decisions.to(self.device) if self.has_stacked_pools else decisions)

    def draw(self, images: int) -> Decisions:
        """Begin a step of so many images of each domain: what the host has to say for it, in the order of the contract.

        Nothing waits for the device. Call it once before each `update`.
        """
        self.steps_taken += 1
        if self.config.optimizer.ema:
            # A short history is averaged over its own length, so that the random initial weights do not linger.
            decay = min(self.config.optimizer.ema, (1 + self.steps_taken) / (10 + self.steps_taken))
            self.average_weight.fill_(1 - decay)
        pool_B = self.pool_B.decide(images)
        pool_A = self.pool_A.decide(images)
        mixes = None
        if self.config.loss.has_penalty:
            mixes = torch.rand(len(self.method.judged), images, 1, 1, 1, generator=self.tensor_random)
        channels = self.method.latent_channels
        latents = torch.randn(images, channels, generator=self.tensor_random) if channels else None
        return Decisions(pool_A, pool_B, mixes, latents)

    def update(self, real_A: Tensor, real_B: Tensor, decisions: Decisions) -> Losses:
        """The part of a step that the device computes; a CUDA graph can hold it. Everything is on the device."""
        self._refresh_copies(self.networks)
        parts = self._parts_of(real_A, real_B, decisions.latents)
        self.generators.forget_gradients()
        self.discriminators.forget_gradients()
        in_order = self._discriminators_first if self.method.discriminators_first else self._generators_first
        losses = in_order(parts, decisions)
        if self.config.optimizer.ema:
            with self.phase("G update"):
                self._update_moving_averages()
        return {name: losses[name] for name in self.method.losses}

    def _generators_first(self, parts: Parts, decisions: Decisions) -> Losses:
        """Both sides learn from the networks as the step found them (Zhu et al. 2017): they may overlap."""
        losses: Losses = {}
        self._set_discriminators(frozen=True)
        shown: list[list[Tensor]] = []  # of B and of A, for each part
        for works in parts:
            of_part = []
            for images, part in self._in_both_directions(self._generate, works):
                of_part.append(images)
                self._gather(self.generators, part, losses)
                del part  # and its gradients, before the other direction is computed
            shown.append(of_part)
        # Ranks exchange the generators' gradients while the discriminators compute.
        self.generators.begin_average()

        self._set_discriminators(frozen=False)
        if self.method.judged:
            self._judge_all(parts, shown, decisions, losses)
            self.discriminators.begin_average()

        with self.phase("G update"):
            self.generators.update()
        if self.method.judged:
            with self.phase("D update"):
                self.discriminators.update()
        return losses

    def _discriminators_first(self, parts: Parts, decisions: Decisions) -> Losses:
        """The generators learn from discriminators that this step trained already, on the same translations.

        Between the two the translations of all parts wait, with what the backward pass needs of them.
        """
        losses: Losses = {}
        made = [list(self._in_both_directions(self._translate, works)) for works in parts]
        self._set_discriminators(frozen=False)
        self._judge_all(parts, [[one.shown.detach() for one in of_part] for of_part in made], decisions, losses)
        self.discriminators.begin_average()
        with self.phase("D update"):
            self.discriminators.update()
        self._refresh_copies(self.method.discriminators)

        self._set_discriminators(frozen=True)
        for works, of_part in zip(parts, made, strict=True):
            for part in self._in_both_directions(self._learn, list(zip(works, of_part, strict=True))):
                self._gather(self.generators, part, losses)
        self._set_discriminators(frozen=False)
        self.generators.begin_average()
        with self.phase("G update"):
            self.generators.update()
        return losses

    @torch.no_grad()
    def _refresh_copies(self, names: Iterable[str]) -> None:
        """Cast the weights of these networks to the working precision, where that is not their own."""
        if not self.has_copies:
            return
        copies: list[Tensor] = [p for name in names for p in self.leaves[name]]
        originals: list[Tensor] = [p for name in names for p in self.originals[name]]
        torch._foreach_copy_(copies, originals)

    def _parts_of(self, real_A: Tensor, real_B: Tensor, latents: Tensor | None) -> Parts:
        """The batch in parts that are in memory by themselves, each in both directions."""
        count = self.config.optimizer.accumulate
        parts_A = real_A.chunk(count)  # of a short batch there are fewer
        codes = [None] * len(parts_A) if latents is None else latents.chunk(count)
        parts = []
        for part_A, part_B, code in zip(parts_A, real_B.chunk(count), codes, strict=True):
            share = len(part_A) / len(real_A)
            there, back = Source(part_A, part_B, self.dtype, code), Source(part_B, part_A, self.dtype, code)
            parts.append((Work(DIRECTIONS[0], there, share), Work(DIRECTIONS[1], back, share)))
        return parts

    def _set_discriminators(self, *, frozen: bool) -> None:
        """Gradients pass through frozen discriminators to the images only."""
        for name in self.method.discriminators:
            for leaf in self.leaves[name]:
                leaf.requires_grad_(not frozen)

    def _generate(self, work: Work) -> tuple[Tensor, PartOfStep]:
        """Translate part of a batch and learn from it; returns also what the discriminator is shown of it."""
        made = self._translate(work)
        return made.shown.detach(), self._learn((work, made))

    def _translate(self, work: Work) -> Translated:
        """Translate part of a batch in one direction."""
        with self.phase("G forward"):
            return self.method.translate(self._forward_of_parts, work.direction, work.source)

    def _learn(self, what: tuple[Work, Translated]) -> PartOfStep:
        """The generators' loss on what they made of part of a batch in one direction, forward and backward."""
        work, made = what
        with self.phase("G forward"):
            losses = self.method.generator_losses(self.forward, work.direction, work.source, made)
        with self.phase("G backward"):
            names = self.method.reached(work.direction)
            return self._differentiated(losses, work.share, names, self.generators.scaler)

    def _judge_all(self, parts: Parts, shown: list[list[Tensor]], decisions: Decisions, losses: Losses) -> None:
        """The discriminators' losses on real images and on what the pools hand out for the generated ones."""
        with self.phase("pool"):
            shown_B, shown_A = (torch.cat(of_parts) for of_parts in zip(*shown, strict=True))
            pooled_B = self.pool_B.exchange(shown_B, decisions.pool_B).chunk(len(parts))
            pooled_A = self.pool_A.exchange(shown_A, decisions.pool_A).chunk(len(parts))
        mixes = [None] * len(parts) if decisions.mixes is None else decisions.mixes.chunk(len(parts), dim=1)
        for (there, back), of_A, of_B, mix in zip(parts, pooled_A, pooled_B, mixes, strict=True):
            judgements = self.method.judgements(there.source.low, back.source.low, of_A, of_B)
            of_judgements = [None] * len(judgements) if mix is None else list(mix)
            work = [(one, its, there.share) for one, its in zip(judgements, of_judgements, strict=True)]
            for part in self._in_both_directions(self._judge, work):
                self._gather(self.discriminators, part, losses)

    def _judge(self, work: tuple[Judgement, Tensor | None, float]) -> PartOfStep:
        """A discriminator's loss on part of a batch of real and pooled images: forward and backward."""
        judgement, mix, share = work
        name, real, fake = judgement.name, judgement.real, judgement.fake
        network, gan_loss = self.method.judge(self.forward, name), self.config.loss.gan_loss
        with self.phase("D"):
            # Real and generated images have statistics of their own in a batch norm.
            if real.shape[1:] == fake.shape[1:] and self.config.networks.norm != "batch":
                scores = network(torch.cat([real, fake]))
                real_score, fake_score = scores[: len(real)], scores[len(real) :]
            elif self.method.discriminators_first:  # the authors' order: running statistics weigh the last one most
                fake_score, real_score = network(fake), network(real)
            else:
                real_score, fake_score = network(real), network(fake)
            loss = discriminator_loss(real_score, fake_score, gan_loss)
            if mix is not None:
                loss = loss + gradient_penalty(network, real, fake, mix.to(real), self.config.loss.lambda_penalty)
            return self._differentiated({name: loss}, share, self.method.judges(name), self.discriminators.scaler)

    def _differentiated(
        self, losses: Losses, share: float, names: tuple[str, ...], scaler: torch.amp.GradScaler
    ) -> PartOfStep:
        """The gradients of the losses' sum, a part's share of the step, by the leaves of these networks."""
        weighted = losses if share == 1 else {name: share * loss for name, loss in losses.items()}
        total = scaler.scale(torch.stack(list(weighted.values())).sum())
        found = iter(torch.autograd.grad(total, [leaf for name in names for leaf in self.leaves[name]]))
        gradients = {name: [next(found) for _ in self.leaves[name]] for name in names}
        return PartOfStep({name: loss.detach() for name, loss in weighted.items()}, gradients)

    def _gather(self, descent: Descent, part: PartOfStep, losses: Losses) -> None:
        for name, of_network in part.gradients.items():
            descent.add(name, of_network)
        for name, loss in part.losses.items():
            losses[name] = losses[name] + loss if name in losses else loss

    @torch.no_grad()
    def _update_moving_averages(self) -> None:
        for name in self.method.generators:
            average, network = self.model.get_submodule(average_of(name)), self.model.get_submodule(name)
            averages: list[Tensor] = list(average.parameters())
            newest: list[Tensor] = list(network.parameters())
            torch._foreach_lerp_(averages, newest, [self.average_weight] * len(newest))
            # Running statistics are averages already; PyTorch's AveragedModel keeps the newest ones, too.
            for kept, statistics in zip(average.buffers(), network.buffers(), strict=True):
                kept.copy_(statistics)

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """Surround the recording of `update` in a CUDA graph.

        What changes from step to step is 0 meanwhile: a recording that took it from here would be noticed.
        """
        learning_rate, average_weight = float(self.learning_rate), self.average_weight.clone()
        with self.generators.capturable(), self.discriminators.capturable():
            try:
                self.set_learning_rate(0.0)
                self.average_weight.zero_()
                yield
            finally:
                self.set_learning_rate(learning_rate)
                self.average_weight.copy_(average_weight)

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Surround an `update` that must not be left out for an overflow."""
        with self.generators.calm(), self.discriminators.calm():
            yield

    def written(self) -> dict[str, list[Tensor]]:
        """Return what `update` writes and the next one reads, by what it is called, after one update at least."""
        found: dict[str, list[Tensor]] = {}
        for name, network in self.networks.items():
            found[f"weights of {name}"] = list(self.originals[name])
            found |= _statistics(name, network)
        if self.config.optimizer.ema:
            for name in self.method.generators:
                average = self.model.get_submodule(average_of(name))
                found[f"averages of {name}"] = list(average.parameters())
                found |= _statistics(average_of(name), average)
        for descent, whose in ((self.generators, "generators"), (self.discriminators, "discriminators")):
            found |= {f"{what} of the {whose}": tensors for what, tensors in descent.written().items()}
        if self.has_stacked_pools:
            found |= {"images in pool A": self.pool_A.kept(), "images in pool B": self.pool_B.kept()}
        return {name: tensors for name, tensors in found.items() if tensors}

    def forget_interrupted_update(self) -> None:
        """Make ready for another try at an `update` that failed while it was recorded."""
        self.generators.forget_interrupted_update()
        self.discriminators.forget_interrupted_update()

    def check_loss_scales(self) -> None:
        """Raise NonFiniteLoss where gradients overflow step after step; waits for the device."""
        judged = self.method.judged
        self.generators.check_loss_scale([name for name in self.method.losses if name not in judged])
        if judged:
            self.discriminators.check_loss_scale(judged)

    def state_dict(self) -> dict[str, Any]:
        """What every rank has alike, besides the networks, and the next step depends on; plain values and tensors."""
        return {
            "generators": self.generators.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generators.load_state_dict(state["generators"])
        self.discriminators.load_state_dict(state["discriminators"])
        self.steps_taken = state["steps_taken"]

    def rank_state_dict(self) -> dict[str, Any]:
        """What each rank has of its own: the pools and the random states."""
        version, words, gauss = self.random_source.getstate()
        return {
            "pool_A": self.pool_A.state_dict(),
            "pool_B": self.pool_B.state_dict(),
            "pool_random": [version, list(words), gauss],
            "penalty_random": self.tensor_random.get_state(),
        }

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["pool_random"]
        self.random_source.setstate((version, tuple(words), gauss))
        self.tensor_random.set_state(state["penalty_random"])
        self.pool_A.load_state_dict(state["pool_A"], self.device)
        self.pool_B.load_state_dict(state["pool_B"], self.device)


def _statistics(name: str, network: nn.Module) -> dict[str, list[Tensor]]:
    """A network's running statistics, and how many batches they are of: beside these numbers those would not count."""
    buffers = list(network.buffers())
    return {
        f"statistics of {name}": [buffer for buffer in buffers if buffer.is_floating_point()],
        f"batches counted by {name}": [buffer for buffer in buffers if not buffer.is_floating_point()],
    }
