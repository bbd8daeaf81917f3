"""Opens what a training works with, trains to the end, and turns what goes wrong into errors that say what is kept."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from tqdm import tqdm

from cyclegan_fast.config.options import CROPPING, Config, reason_against_pixels
from cyclegan_fast.data.known_pixels import with_known_pixels
from cyclegan_fast.data.training_images import Data, check_data, open_data
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.methods.base import Surroundings
from cyclegan_fast.methods.least_memory import check_memory
from cyclegan_fast.methods.model import Model
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.device import describe, name_of, remark_on_choice, set_determinism, use_threads, working_dtype
from cyclegan_fast.system.distributed import Ranks, joined
from cyclegan_fast.system.errors import NonFiniteLoss, ReportedElsewhere, UserError, printable, system_message
from cyclegan_fast.system.interruption import Interruption, Stopped
from cyclegan_fast.training.callbacks.callback import Callback, TrainingStart
from cyclegan_fast.training.callbacks.dispatch import Callbacks
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.extension import check_past
from cyclegan_fast.training.first_use.preparing import prepare_training
from cyclegan_fast.training.health.monitor import HealthMonitor, read_attempt
from cyclegan_fast.training.health.rollback import GoingBack, go_back
from cyclegan_fast.training.history.initial_weights import InitialWeights
from cyclegan_fast.training.history.rank_states import remark_on_ranks
from cyclegan_fast.training.history.shares import RankShares
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.loop import Training
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.run_folder import (
    ANOTHER,
    FinishedRun,
    RunFolder,
    completed,
    open_shared_run,
    raise_if_finished,
)
from cyclegan_fast.training.samples import SampleImages
from cyclegan_fast.training.state import TrainingState
from cyclegan_fast.training.step_profile import StepProfile
from cyclegan_fast.training.trackers.choice import open_trackers
from cyclegan_fast.training.trouble import told_of_training, what_is_kept
from cyclegan_fast.training.update.choice import check_gpu_options
from cyclegan_fast.training.validation import Evaluator


def check_device(config: Config, device: torch.device) -> None:
    """Raise UserError where this device cannot do what is asked of it; call it before anything is written."""
    check_gpu_options(config, device)
    try:
        for operator in ("reflection_pad", "instance_norm", "residual_block"):
            choose(operator, config.networks.impl, torch.empty(0, device=device))
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error


def train(config: Config, origin: str, callbacks: Sequence[Callback] = ()) -> int:
    """Train the run that `config` describes to its end; returns the exit status, 0 also where it was finished before.

    Args:
        origin: the preset or file that `config` comes from, for the name of a run that has none.
        callbacks: watch the training, on the first rank.
    """
    use_threads(config.run.threads)
    with joined(config.run.device) as (ranks, device):
        check_device(config, device)
        check_data(config.data, paired=needs_pairs(config))
        config = with_known_pixels(completed(config, origin), ranks, paired=needs_pairs(config))
        check_memory(config, device)
        watching = watching_callbacks(config, ranks, callbacks)
        if reason := reason_against_pixels(config):
            raise UserError(reason)
        try:
            with open_shared_run(config, ranks) as run:
                ending = train_in(run, config, device, ranks, watching)
        except FinishedRun as finished:
            if ranks.is_first:
                print(printable(str(finished)))
            return 0
    if ending.is_left_by_others:
        return Stopped(signal.SIGTERM).status
    # torchrun takes any other status than 0 for a death, and would start again what was asked to stop.
    return ending.request.status if ending.request and not ending.finished and not ranks.is_launched else 0


class Ending(NamedTuple):
    """Says how a training ended: whether the run is finished, and what asked it to stop, if anything did.

    is_left_by_others: whether only other machines were asked to stop. torchrun starts the ranks of this one again, with
    those that stay or come back.
    """

    finished: bool
    request: Stopped | None
    is_left_by_others: bool = False


def train_in(
    run: RunFolder,
    config: Config,
    device: torch.device,
    ranks: Ranks,
    callbacks: Callbacks,
    count_steps: Callable[[int], None] = lambda steps: None,
) -> Ending:
    """Train in the run's folder; what goes wrong on the way becomes a UserError that says what is kept.

    Args:
        callbacks: watch the training, see `watching_callbacks`.
        count_steps: called with the number of steps that earlier starts did, then with 1 after each step.
    """
    shares = RankShares.of(config, run.checkpoint, ranks.count)
    data = open_data(
        shares.settings(config, ranks).data,
        config.run.seed,
        paired=needs_pairs(config),
        rank=ranks.index,
        ranks=ranks.count,
        pin=device.type == "cuda",
    )
    check_same_images(data, ranks)
    begun: list[Training] = []

    def saved_step() -> int | None:
        return begun[0].saved_step if begun else run.step

    with _told_of_removal(begun), told_of_training(config, device, saved_step):
        while True:
            begun.append(open_training(config, data, run, device, ranks, shares, callbacks))
            begun[0].count_steps = count_steps
            try:
                return train_to_the_end(begun[0])
            except GoingBack as back:
                way_back = partial(go_back, run.path, config, back.trouble, begun.pop().records.best, back.alarms)
            # Outside of `except`, which keeps the networks of this attempt in memory.
            run = replace(run, checkpoint=ranks.from_first(way_back), warnings=[])
            data = replace(data, warnings=[])


@contextmanager
def _told_of_removal(begun: Sequence[Training]) -> Iterator[None]:
    """Say what is kept of a run whose folder was removed: what failed then does not know it, or says otherwise."""
    try:
        yield
    except (UserError, OSError):
        if begun:
            begun[0].records.run.raise_if_gone(begun[0].saved_step)
        raise


def watching_callbacks(config: Config, ranks: Ranks, callbacks: Sequence[Callback] = ()) -> Callbacks:
    """Return what watches a training, the trackers of --track before `callbacks`; nothing on all ranks but the first.

    Raises UserError where the package of a tracker is missing; call it before anything is written.
    """
    watching: list[Callback] = []
    ranks.from_first(lambda: watching.extend([*open_trackers(config.run.track, tell=tqdm.write), *callbacks]))
    return Callbacks(watching)


def open_training(
    config: Config,
    data: Data,
    run: RunFolder,
    device: torch.device,
    ranks: Ranks,
    shares: RankShares,
    callbacks: Callbacks,
) -> Training:
    """Make or restore all that a training works with, and print what there is to say before its first step.

    Where the run went back, seed and learning rate are those of its attempt. Raises UserError where the run cannot go
    on with these images, on this device, or with what the method prepared.
    """

    def tell(text: str) -> None:
        """Print beside the progress bar, once for all ranks."""
        if ranks.is_first:
            tqdm.write(text)

    saved = run.checkpoint
    attempt = read_attempt(run.path, saved, ranks)
    config = attempt.settings(config)
    own = shares.settings(config, ranks)
    health = HealthMonitor(config, run.path, attempt, ranks.is_first, tell)
    data.training.seed = config.run.seed
    dtype, remark = working_dtype(device, config.run.amp, config.run.amp_dtype)
    set_determinism(
        config.run.deterministic, sizes_repeat=config.data.preprocess in CROPPING, compiled=config.run.compile
    )
    state = TrainingState(config, data.training, device, dtype, ranks, shares)
    samples = SampleImages.of(data, config)
    evaluator = Evaluator(config, data, device, attempt.best(saved)) if ranks.is_first else None
    extended = changed = begun = others = None
    if saved:
        others = remark_on_ranks(saved, ranks, shares, config)
        changed = state.restore(saved, run.path, behind=attempt.behind(saved))
    everything = state.epochs.end_of(config.total_epochs)
    total_steps = min(everything, config.run.max_steps or everything)
    if saved:
        if run.step >= total_steps and not health.goes_back:
            raise_if_finished(run.path, saved, ranks)
        agreed = config.run.extend_from_here or attempt.behind(saved) > 0  # as to other images, see `restore`
        asked = replace(config, run=replace(config.run, extend_from_here=agreed))
        extended = check_past(asked, saved, state.epochs, run.path)
    elif config.networks.init_from:
        begun = state.begin_with(InitialWeights.shared(config.networks.init_from, ranks))
    if ranks.is_first:
        run.begin(config)
    chosen = remark_on_choice(config.run.device, device)
    prepared, description = prepare_method(state, run)
    said = (attempt.description(config), begun, others, changed, extended, chosen, remark, description)
    remarks = [*run.warnings, *data.warnings, *(text for text in said if text)]
    remarks += remarks_on_networks(config, state.model, ranks)
    if ranks.is_first:
        announce(state, run, total_steps, remarks)

    prepare_training(own, data.training, device, dtype, ranks, tell)
    engine = TrainingEngine(state.step, own, tell)
    log = RunLog(run.path, total_steps, saved["log"] if saved else None, scaled=dtype == torch.float16, ranks=ranks)
    measured = config.run.profile if ranks.is_first else 0
    profile = StepProfile(measured, device, run.path, state.step.directions_at_once, tell)
    state.step.phase = profile.phase
    return Training(
        config=config,
        images=data.training,
        state=state,
        engine=engine,
        log=log,
        records=Records(config, run, state, log, samples, evaluator, health, tell, callbacks),
        profile=profile,
        callbacks=callbacks,
        total_steps=total_steps,
        prepared=prepared,
        saved_step=log.step if saved else None,
    )


def prepare_method(state: TrainingState, run: RunFolder) -> tuple[str | None, str | None]:
    """Let the method get ready what its losses need of the data; returns its digest and what to tell the user of it.

    Raises UserError where a run had something else before.
    """
    images = state.images.images_A, state.images.images_B
    prepared = state.model.method.prepare(Surroundings(images, run.path, state.device, state.dtype, state.ranks))
    digest = prepared.digest if prepared else None
    before = run.checkpoint.get("prepared") if run.checkpoint else None
    if before not in (None, digest):
        raise UserError(
            f"the loss of {run.path} had another network than there is now ({prepared}): bring that one "
            f"back, or {ANOTHER}"
        )
    return digest, prepared.description if prepared else None


def remarks_on_networks(config: Config, model: Model, ranks: Ranks) -> list[str]:
    """Return what a user should know of norms and penalties: whose statistics they are, and which are slow."""
    norms, remarks = {config.networks.norm, config.networks.norm_of_discriminators}, []
    if ranks.count > 1 and "batch" in norms:
        remarks.append(
            "batch norm takes its statistics from each process's own images; the running ones that are kept are "
            "those of the first process"
        )
    if config.loss.method != "cogan":
        remarks += [
            f"norm {norm} runs on PyTorch's own operators: the fused ones are instance norm's"
            for norm in sorted(norms - {"instance"})
        ]
    if model.method.remark:
        remarks.append(model.method.remark)
    if config.loss.has_penalty and model.method.judged:
        remarks.append("wgan-gp needs second derivatives, so the discriminators run on the reference operators")
    return remarks


def announce(state: TrainingState, run: RunFolder, total_steps: int, remarks: list[str]) -> None:
    """Print what is trained on what, and the remarks."""
    images, ranks = state.images, state.ranks.count
    print(f"{images.counts}; {f'{ranks} times ' if ranks > 1 else ''}{describe(state.device)}; {name_of(state.dtype)}")
    print(printable(f"run: {run.path}, steps {run.step} to {total_steps}"))
    for remark in remarks:
        print(f"note: {printable(remark)}")


def train_to_the_end(training: Training) -> Ending:
    """Train, save, and score the run."""
    ranks, callbacks, finished, is_left = training.state.ranks, training.callbacks, False, False
    start = TrainingStart(training.records.run.path, training.config, training.log.step, training.total_steps)
    ranks.from_first(lambda: callbacks.on_start(start))
    with Interruption(after="this step", is_rank=ranks.is_launched, silent=not ranks.is_first) as interruption:
        try:
            is_trained = training.train(interruption)
            training.log.close()
            if is_trained:  # the others wait: a torchrun whose ranks are done would end the run for all
                finished = ranks.from_first(lambda: score(training, interruption))
            asked = ranks.by_node(not finished and interruption.requested)
            is_left = any(asked) and not asked[ranks.node]
            if ranks.is_first and not finished:
                reason = f" by a callback ({callbacks.reason})" if callbacks.reason else ""
                print(f"interrupted{reason} after step {training.log.step}; the same command {what_is_left(training)}")
        except UnreadableImage as error:
            if ranks.count == 1:  # others are in the middle of a step, and cannot save with this one
                try:
                    training.save()
                except NonFiniteLoss as unsaved:
                    raise UserError(f"{error}; {unsaved}; {what_is_kept(training.saved_step)}") from error
            raise UserError(f"{error}; step {training.saved_step} is saved, the same command continues") from error
        except (NonFiniteLoss, OSError) as error:
            diverged = isinstance(error, NonFiniteLoss)
            if diverged:
                training.records.health.not_finite(training.log.step, str(error))
            advice = "; a smaller --learning-rate or another --seed, with --name NEW, may help" if diverged else ""
            said = system_message(error) if isinstance(error, OSError) else str(error)
            raise UserError(f"{said}; {what_is_kept(training.saved_step)}{advice}") from error
        finally:
            training.log.close()
            training.engine.close()
            callbacks.on_end(finished)
    callbacks.raise_error()
    return Ending(finished, interruption.request, is_left)


def score(training: Training, interruption: Interruption) -> bool:
    """Score a run whose steps are all done and saved, and print the table; returns False where it was asked to stop."""
    try:
        print(training.records.conclude(interruption))
    except Stopped:
        return False
    print(f"gallery: {training.records.run.path / 'index.html'}")
    return True


def what_is_left(training: Training) -> str:
    """Say what the same command does next time."""
    return "continues" if training.log.step < training.total_steps else "scores the run, whose steps are all done"


def needs_pairs(config: Config) -> bool:
    """Tell whether the method learns from pairs of A and B."""
    return METHODS[config.loss.method].needs_pairs


def check_same_images(data: Data, ranks: Ranks) -> None:
    """Raise UserError on every rank where one has other images than the first: they would drift apart unseen."""
    expected = ranks.from_first(lambda: data.training.fingerprint)
    differs = data.training.fingerprint != expected
    if ranks.any(differs):
        problem = f"process {ranks.index} reads other images than process 0: give all machines the same --data"
        raise UserError(problem) if differs else ReportedElsewhere(problem)
