"""Computes one update of generators and discriminators (Zhu et al. 2017, section 3.3; docs/contract.md).

The method says what is computed, see `methods/base.py`; this says in which order, alike for all methods. The
generators' loss is a sum of two, one for each direction: G_A(A) with all that is computed from it, and G_B(B). The
directions are computed one after the other, which holds the activations of one of them only; or at the same time, on
two streams of a GPU, or on a CPU whose cores small images leave idle; or with `--paired` as one, by networks that are
two at once (`networks/paired.py`).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import RankStepState, StepState
from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.methods.base import (
    BOTH_DIRECTIONS,
    DIRECTION_NETWORKS,
    DirectionBatch,
    Judgement,
    LossesByName,
)
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.device import memory_format
from cyclegan_fast.system.distributed import ALONE, Ranks
from cyclegan_fast.training.update.choice import directions_of, stream_pair_of, updates_directly
from cyclegan_fast.training.update.decisions import Decisions
from cyclegan_fast.training.update.descent import Descent
from cyclegan_fast.training.update.direct_update import DirectUpdate
from cyclegan_fast.training.update.direction_streams import DirectionStreams, StreamPair
from cyclegan_fast.training.update.image_pool import ImagePool, StackedImagePool
from cyclegan_fast.training.update.moving_averages import MovingAverages
from cyclegan_fast.training.update.paired_networks import PairedNetworks
from cyclegan_fast.training.update.passes import Learned, PartOfBatch, StepPasses, StepPhase, Translation
from cyclegan_fast.training.update.second_stream import SecondStream
from cyclegan_fast.training.update.step_parts import StepParts
from cyclegan_fast.training.update.working_networks import WorkingNetworks


class TrainingStep:
    """Updates a model once a call; holds the optimisers, the loss scalers and the image pools.

    Args:
        model: on the device that training runs on, in the precision that weights are kept in; its method says what is
            computed.
        config: the losses, the optimiser and the size of the pools are read from it.
        dtype: the precision that convolutions and fused operators compute in. Statistics and losses are wide, weights
            and Adam's moments have the model's precision; float16 scales its losses, with one scaler per optimiser.
        random_source: decides about the pools; by default seeded from `config.run.seed` and the rank.
        ranks: the processes that take part in each update, each with a batch and with pools of its own.
        directions: computes the two directions; by default as the configuration and the device have it.
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        dtype: torch.dtype,
        random_source: random.Random | None = None,
        ranks: Ranks = ALONE,
        directions: StepParts | None = None,
    ) -> None:
        self.model = model
        self.method = model.method
        self.config = config
        self.dtype = dtype
        self.ranks = ranks
        self.device = next(model.parameters()).device
        # The layout is set once here, so that the library does not change it at every convolution.
        model.to(memory_format=memory_format(self.device, dtype))  # type: ignore[call-overload]  # absent from the stubs
        ranks.share(list(model.parameters()))
        self.networks = PairedNetworks(model, dtype) if config.run.paired else WorkingNetworks(model, dtype)
        self.averages = MovingAverages(model, config.optimizer.ema)
        self.passes = StepPasses(config, self.method, self.networks)
        # The first rank's draws are those of a run alone.
        self.random_source = random_source or random.Random(
            config.run.seed if ranks.is_first else f"{config.run.seed} on rank {ranks.index}"
        )
        # Draws whole tensors: the mixes of a gradient penalty, latent codes.
        self.tensor_random = torch.Generator().manual_seed(config.run.seed + ranks.index)
        # Images of various shapes stay in lists, which the host exchanges.
        self.has_stacked_pools = config.data.preprocess in CROPPING
        new_pool = partial(StackedImagePool, impl=config.networks.impl) if self.has_stacked_pools else ImagePool
        self.pool_A, self.pool_B = (new_pool(config.loss.pool_size, self.random_source) for _ in DIRECTION_NETWORKS)
        self.learning_rate = torch.tensor(
            config.optimizer.learning_rate,
            device=self.device,
            dtype=torch.float64 if self.device.type == "cpu" else torch.float32,
        )
        self.generators, self.discriminators = (
            self._descent(names) for names in (self.method.generators, self.method.discriminators)
        )
        self.networks.are_kept = self.generators.is_direct
        self.steps_taken = 0
        self._directions = directions or directions_of(config, self.device, dtype, scaled=dtype == torch.float16)
        if directions is None and (pair := stream_pair_of(config, self.device)):
            self.take_streams(pair)

    def _descent(self, names: tuple[str, ...]) -> Descent:
        scaled = self.dtype == torch.float16
        is_direct = self.networks.are_copies and updates_directly(self.config, self.model, self.ranks, scaled=scaled)
        return Descent(
            {name: self.networks.originals[name] for name in names},
            self.learning_rate,
            self.config.optimizer.beta1,
            copied=self.networks.are_copies,
            scaled=scaled,
            ranks=self.ranks,
            direct=self._direct_update if is_direct else None,
        )

    def _direct_update(self, optimizer: torch.optim.Adam) -> DirectUpdate:
        return DirectUpdate(optimizer, self.networks.copies(self.networks.by_name), self.config.networks.impl)

    @property
    def phase(self) -> StepPhase:
        """Return what makes a context around each phase of a step, for measurements; assign another one to measure."""
        return self.passes.phase

    @phase.setter
    def phase(self, phase: StepPhase) -> None:
        self.passes.phase = phase

    @property
    def directions_at_once(self) -> int:
        """Return how many directions are computed at once, in threads or on streams."""
        return self._directions.count

    def take_streams(self, pair: StreamPair) -> None:
        """Compute on two streams from the next step on: a direction each, or what `second_stream.py` divides."""
        if self.config.run.paired:
            self.passes.second_stream = SecondStream(pair)
        else:
            self._directions = DirectionStreams(pair)

    def leave_streams(self) -> bool:
        """Compute on one stream from the next step on; returns whether it were two until then."""
        has_two = isinstance(self._directions, DirectionStreams) or self.passes.second_stream is not None
        if has_two:
            self._directions, self.passes.second_stream = StepParts(), None
        return has_two

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set Adam's step size of both sides, from the next update on."""
        self.learning_rate.fill_(learning_rate)

    def __call__(self, real_A: Tensor, real_B: Tensor) -> LossesByName:
        """Update the networks by a batch of each domain, [N, C, H, W] in [-1, 1]; returns the losses by name, detached.

        The batch goes through in `config.optimizer.accumulate` parts. The losses are means over all of it.
        """
        decisions = self.draw(len(real_A))
        return self.update(real_A, real_B, decisions.to(self.device) if self.has_stacked_pools else decisions)

    def draw(self, images: int) -> Decisions:
        """Begin a step of so many images of each domain: draw its random decisions, always in the same order.

        Nothing waits for the device. Call it once before each `update`.
        """
        self.steps_taken += 1
        self.networks.refresh_kept()
        self.averages.begin_step(self.steps_taken)
        pool_B = self.pool_B.decide(images)
        pool_A = self.pool_A.decide(images)
        mixes = None
        if self.config.loss.has_penalty:
            mixes = torch.rand(len(self.method.judged), images, 1, 1, 1, generator=self.tensor_random)
        channels = self.method.latent_channels
        latents = torch.randn(images, channels, generator=self.tensor_random) if channels else None
        return Decisions(pool_A, pool_B, mixes, latents)

    def update(self, real_A: Tensor, real_B: Tensor, decisions: Decisions) -> LossesByName:
        """Compute a step from images and decisions that are on the device; a CUDA graph can hold it."""
        self.networks.refresh(self.networks.by_name)
        parts = self._parts_of(real_A, real_B, decisions.latents)
        self.generators.forget_gradients()
        self.discriminators.forget_gradients()
        in_order = self._discriminators_first if self.method.discriminators_first else self._generators_first
        losses = in_order(parts, decisions)
        if self.config.optimizer.ema:
            with self.phase("G update"):
                self.averages.update()
        self.networks.know_versions()
        losses = _one_number_each(losses)
        return {name: losses[name] for name in self.method.losses}

    def _generators_first(self, parts: list[PartOfBatch], decisions: Decisions) -> LossesByName:
        """Train both sides on the networks as the step found them (Zhu et al. 2017): they may overlap."""
        losses: LossesByName = {}
        is_beside = self.passes.second_stream is not None and bool(self.method.judged) and len(parts) == 1
        if is_beside:
            self._train_beside(parts, decisions, losses)
        else:
            shown = self._learn_all(parts, losses)
            # Ranks exchange the generators' gradients while the discriminators compute.
            self.generators.begin_average()
            if self.method.judged:
                self._judge_all(parts, shown, decisions, losses)
                self.discriminators.begin_average()
        with self.phase("G update"):
            self.generators.update()
        if self.method.judged and not is_beside:
            self._update_discriminators()
        return losses

    def _learn_all(self, parts: list[PartOfBatch], losses: LossesByName) -> list[list[Tensor]]:
        """Differentiate the generators' losses; returns their translations, of B and of A, for each part."""
        self.networks.freeze_discriminators(True)
        shown: list[list[Tensor]] = []
        for part in parts:
            of_part = []
            for images, learned in self._directions.map(self._generate, part):
                of_part.append(images)
                self._gather(self.generators, learned, losses)
                del learned  # and gradients that were added up, before the other direction is computed
            shown.append(of_part)
        self.networks.freeze_discriminators(False)
        return shown

    def _train_beside(self, parts: list[PartOfBatch], decisions: Decisions, losses: LossesByName) -> None:
        """Train the discriminators on the second stream, beside the generators' backward pass."""
        ((part,),) = parts
        self.networks.freeze_discriminators(True)
        made = self.passes.translate(part)
        shown = made.shown.detach()

        def judge() -> None:
            # What is differentiated by was settled when the generators' losses were computed.
            self.networks.freeze_discriminators(False)
            self._judge_all(parts, [[shown]], decisions, losses)
            self.discriminators.begin_average()
            if not self.discriminators.is_direct:
                self._update_discriminators()

        def update_most(learned: Learned, is_late: Callable[[Tensor], bool]) -> None:
            # The backward pass, which is through, went through the discriminators as they were.
            self._update_discriminators()
            self._gather(self.generators, learned, losses)
            with self.phase("G update"):
                self.generators.update(is_late)

        if self.generators.is_direct:
            self.passes.learn(part, made, self.generators.scaler, judge, update_most)
            return
        learned = self.passes.learn(part, made, self.generators.scaler, judge)
        self._gather(self.generators, learned, losses)
        self.generators.begin_average()

    def _update_discriminators(self) -> None:
        with self.phase("D update"):
            self.discriminators.update()

    def _discriminators_first(self, parts: list[PartOfBatch], decisions: Decisions) -> LossesByName:
        """Train the discriminators, and then the generators by what these say of the same translations.

        Between the two the translations of all parts wait, with what the backward pass needs of them.
        """
        losses: LossesByName = {}
        made = [list(self._directions.map(self.passes.translate, part)) for part in parts]
        self.networks.freeze_discriminators(False)
        self._judge_all(parts, [[one.shown.detach() for one in of_part] for of_part in made], decisions, losses)
        self.discriminators.begin_average()
        self._update_discriminators()
        self.networks.refresh(self.method.discriminators)

        self.networks.freeze_discriminators(True)
        for part, of_part in zip(parts, made, strict=True):
            pairs = list(zip(part, of_part, strict=True))
            for learned in self._directions.map(lambda pair: self.passes.learn(*pair, self.generators.scaler), pairs):
                self._gather(self.generators, learned, losses)
        self.networks.freeze_discriminators(False)
        self.generators.begin_average()
        with self.phase("G update"):
            self.generators.update()
        return losses

    def _parts_of(self, real_A: Tensor, real_B: Tensor, latents: Tensor | None) -> list[PartOfBatch]:
        """Cut a batch into the parts that are in memory by themselves, each in both directions, or in both as one."""
        count = self.config.optimizer.accumulate
        parts_A = real_A.chunk(count)  # of a short batch there are fewer
        codes = [None] * len(parts_A) if latents is None else latents.chunk(count)
        a2b, b2a = DIRECTION_NETWORKS
        parts: list[PartOfBatch] = []
        for part_A, part_B, code in zip(parts_A, real_B.chunk(count), codes, strict=True):
            share = len(part_A) / len(real_A)
            if self.config.run.paired:
                images, targets = torch.cat([part_A, part_B], 1), torch.cat([part_B, part_A], 1)
                batch = DirectionBatch(images, targets, images.to(self.dtype), targets.to(self.dtype))
                parts.append((Translation(BOTH_DIRECTIONS, batch, share),))
                continue
            low_A, low_B = part_A.to(self.dtype), part_B.to(self.dtype)
            there = Translation(a2b, DirectionBatch(part_A, part_B, low_A, low_B, code), share)
            back = Translation(b2a, DirectionBatch(part_B, part_A, low_B, low_A, code), share)
            parts.append((there, back))
        return parts

    def _generate(self, part: Translation) -> tuple[Tensor, Learned]:
        """Translate part of a batch and learn from it; returns also what the discriminator is shown of it."""
        made = self.passes.translate(part)
        return made.shown.detach(), self.passes.learn(part, made, self.generators.scaler)

    def _judge_all(
        self, parts: list[PartOfBatch], shown: list[list[Tensor]], decisions: Decisions, losses: LossesByName
    ) -> None:
        """Differentiate the discriminators' losses on real images and on what the pools return for generated ones."""
        with self.phase("pool"):
            # A `cat` of one tensor would copy it.
            in_order = [torch.cat(them) if len(them) > 1 else them[0] for them in zip(*shown, strict=True)]
            shown_B, shown_A = in_order[0].chunk(2, 1) if self.config.run.paired else in_order
            pooled_B = self.pool_B.exchange(shown_B, decisions.pool_B).chunk(len(parts))
            pooled_A = self.pool_A.exchange(shown_A, decisions.pool_A).chunk(len(parts))
        mixes = [None] * len(parts) if decisions.mixes is None else decisions.mixes.chunk(len(parts), dim=1)
        for part, of_A, of_B, mix in zip(parts, pooled_A, pooled_B, mixes, strict=True):
            judgements = self._judgements(part, of_A, of_B)
            of_judgements = [None] * len(judgements) if mix is None else list(mix)
            work = [(one, its, part[0].share) for one, its in zip(judgements, of_judgements, strict=True)]
            for learned in self._directions.map(lambda one: self.passes.judge(*one, self.discriminators.scaler), work):
                self._gather(self.discriminators, learned, losses)

    def _judgements(self, part: PartOfBatch, shown_A: Tensor, shown_B: Tensor) -> list[Judgement]:
        if self.config.run.paired:
            both = part[0].batch
            shown = torch.cat([shown_B, shown_A], 1)
            return [Judgement(BOTH_DIRECTIONS.judge, both.low_targets, shown, BOTH_DIRECTIONS.directions)]
        there, back = part
        return self.method.judgements(there.batch.low, back.batch.low, shown_A, shown_B)

    def _gather(self, descent: Descent, learned: Learned, losses: LossesByName) -> None:
        for working, found in learned.gradients.items():
            for name, of_network in self.networks.shared_out(working, found):
                descent.add(name, of_network)
        for name, loss in learned.losses.items():
            losses[name] = losses[name] + loss if name in losses else loss

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """Surround the recording of `update` in a CUDA graph.

        What changes from step to step is 0 meanwhile: a recording that took it from here would be noticed.
        """
        learning_rate = float(self.learning_rate)
        with self.generators.capturable(), self.discriminators.capturable(), self.averages.standing_still():
            try:
                self.set_learning_rate(0.0)
                yield
            finally:
                self.set_learning_rate(learning_rate)

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Surround an `update` that must not be left out for an overflow."""
        with self.generators.calm(), self.discriminators.calm():
            yield

    def written(self) -> dict[str, list[Tensor]]:
        """Return the tensors that `update` writes and the next one reads, in named groups; only after one `update`."""
        found = self.networks.written() | self.averages.written()
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

    def state_dict(self) -> StepState:
        """Return what the next step needs besides the networks and all ranks have alike: plain values and tensors."""
        return {
            "generators": self.generators.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "steps_taken": self.steps_taken,
        }

    def load_state_dict(self, state: StepState) -> None:
        """Continue from what `state_dict` returned."""
        self.generators.load_state_dict(state["generators"])
        self.discriminators.load_state_dict(state["discriminators"])
        self.steps_taken = state["steps_taken"]

    def rank_state_dict(self) -> RankStepState:
        """Return what each rank has of its own: the pools and the random states."""
        version, words, gauss = self.random_source.getstate()
        return {
            "pool_A": self.pool_A.state_dict(),
            "pool_B": self.pool_B.state_dict(),
            "pool_random": [version, list(words), gauss],
            "penalty_random": self.tensor_random.get_state(),
        }

    def load_rank_state_dict(self, state: RankStepState) -> None:
        """Continue from what `rank_state_dict` returned."""
        version, words, gauss = state["pool_random"]
        self.random_source.setstate((version, tuple(words), gauss))
        self.tensor_random.set_state(state["penalty_random"])
        self.pool_A.load_state_dict(state["pool_A"], self.device)
        self.pool_B.load_state_dict(state["pool_B"], self.device)


def _one_number_each(losses: LossesByName) -> LossesByName:
    """Return losses of one number each: of "cycle_AB", which has two, "cycle_A" and "cycle_B"."""
    found: LossesByName = {}
    for name, loss in losses.items():
        kind, _, suffix = name.rpartition("_")
        found |= (
            {f"{kind}_{one}": number for one, number in zip(suffix, loss, strict=True)} if loss.dim() else {name: loss}
        )
    return found
