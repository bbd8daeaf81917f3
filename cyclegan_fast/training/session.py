"""Opens what a training needs, trains to the end, and turns what goes wrong into errors that say what is kept."""

from collections.abc import Callable

import torch

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import Data, check_data, open_data
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.device import use_threads
from cyclegan_fast.system.distributed import Ranks, joined
from cyclegan_fast.system.errors import NonFiniteLoss, ReportedElsewhere, UserError
from cyclegan_fast.system.interruption import Interruption, Stopped
from cyclegan_fast.training.engine import check_cuda_graph
from cyclegan_fast.training.loop import Training
from cyclegan_fast.training.run_folder import RunFolder, completed, open_shared_run
from cyclegan_fast.training.trouble import kept, told_of_training
from kernels.dispatch import choose


def check_device(config: Config, device: torch.device) -> None:
    """Refuse what this device cannot do, an implementation of the operators for one, before anything is written."""
    check_cuda_graph(config, device)
    try:
        for operator in ("reflection_pad", "instance_norm", "residual_block"):
            choose(operator, config.networks.impl, torch.empty(0, device=device))
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error


def train(config: Config, origin: str) -> int:
    """Train the run that `config` describes to its end; returns the exit status."""
    use_threads(config.run.threads)
    with joined(config.run.device) as (ranks, device):
        check_device(config, device)
        check_data(config.data, paired=needs_pairs(config))
        config = completed(config, origin)
        opened = open_shared_run(config, ranks)
        if opened is None:
            return 0
        with opened as run:
            return train_in(run, config, device, ranks)


def train_in(
    run: RunFolder,
    config: Config,
    device: torch.device,
    ranks: Ranks,
    make: Callable[[Config, Data, RunFolder, torch.device, Ranks], Training] = Training,
) -> int:
    """Train in the run's folder; what goes wrong on the way becomes a UserError that says what is kept.

    Args:
        make: gives what trains.
    """
    data = open_data(
        config.data,
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

    with told_of_training(config, device, saved_step):
        begun.append(make(config, data, run, device, ranks))
        return train_to_the_end(begun[0])


def train_to_the_end(training: Training) -> int:
    """Train, save, and score the run; returns the exit status."""
    ranks = training.ranks
    with Interruption(after="this step", is_rank=ranks.count > 1, silent=not ranks.is_first) as interruption:
        try:
            finished = training.train(interruption)
            training.log.close()
            if ranks.is_first and finished:
                finished = score(training)
            if ranks.is_first and not finished:
                print(f"interrupted after step {training.log.step}; the same command {what_is_left(training)}")
        except UnreadableImage as error:
            if ranks.count == 1:  # others are in the middle of a step, and cannot save with this one
                try:
                    training.save()
                except NonFiniteLoss as unsaved:
                    raise UserError(f"{error}; {unsaved}; {kept(training.saved_step)}") from error
            raise UserError(f"{error}; step {training.saved_step} is saved, the same command continues") from error
        except (NonFiniteLoss, OSError) as error:
            diverged = isinstance(error, NonFiniteLoss)
            advice = "; a smaller --learning-rate or another --seed, with --name NEW, may help" if diverged else ""
            raise UserError(f"{error}; {kept(training.saved_step)}{advice}") from error
        finally:
            training.log.close()
            training.engine.close()
    # torchrun takes any other status for a death, and would start again what was asked to stop.
    return interruption.request.status if interruption.request and not finished and ranks.count == 1 else 0


def score(training: Training) -> bool:
    """Score a run whose steps are all done and saved, and print the table; False where it was asked to stop."""
    try:
        print(training.conclude())
    except Stopped:
        return False
    print(f"gallery: {training.run.path / 'index.html'}")
    return True


def what_is_left(training: Training) -> str:
    return "continues" if training.log.step < training.total_steps else "scores the run, whose steps are all done"


def needs_pairs(config: Config) -> bool:
    return METHODS[config.loss.method].needs_pairs


def check_same_images(data: Data, ranks: Ranks) -> None:
    """Raises UserError on every rank where one has other images than the first: they would drift apart unseen."""
    expected = ranks.from_first(lambda: data.training.fingerprint)
    differs = data.training.fingerprint != expected
    if ranks.any(differs):
        problem = f"process {ranks.index} reads other images than process 0: give all machines the same --data"
        raise UserError(problem) if differs else ReportedElsewhere(problem)
