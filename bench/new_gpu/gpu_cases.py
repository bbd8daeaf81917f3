"""Lists what `bench.gpu` measures, in the order of importance: a phase may end after any case."""

from collections.abc import Iterator
from functools import partial

from bench.cases import networks, operators, scaling, training_step, translation
from bench.measure.contest import Case
from bench.new_gpu.phases import PhaseTask
from bench.tuning.trials import batches_of_a_step


def gpu_step_cases(task: PhaseTask) -> Iterator[Case]:
    """Yield steps without contenders that need a compiler, then with them; at last with modes that may take minutes.

    A phase that ends in the middle of a case leaves no trace of it.
    """

    def without_compiler(name: str) -> bool:
        return "compile" not in name and "checkpoint" not in name

    def quick_to_start(name: str) -> bool:
        return "max-autotune" not in name and "--compile" not in name

    def everybody(name: str) -> bool:
        return True

    def nobody(name: str) -> bool:
        return False

    def in_precisions(batch: int, wants: training_step.Wants) -> list[Case]:
        """Return the cases of a batch, the lowest precision first."""
        extent = task.extent
        found = training_step.training_step_cases(
            extent.side, batch, task.device, wants, size=extent.size, agreement=extent.agreement
        )
        return list(found)[::-1]

    small, large = task.extent.batches
    if task.tiny:
        yield from in_precisions(small, nobody)
        return
    yield from in_precisions(small, without_compiler)[:1]
    if task.quick:
        return
    yield from in_precisions(large, without_compiler)[:1]
    yield from in_precisions(small, quick_to_start)[:1]
    yield from in_precisions(small, without_compiler)[1:]
    yield from in_precisions(large, quick_to_start)[:1]
    yield from in_precisions(large, without_compiler)[1:]
    yield from in_precisions(small, everybody)[:1]


def gpu_operator_cases(task: PhaseTask) -> Iterator[Case]:
    """Yield every site against eager PyTorch, then with compilers, which take seconds a site, and other libraries."""
    *others, _ = task.dtypes
    low, side, sites = [task.lowest], task.extent.side, task.extent.sites
    batches = task.extent.batches
    # A step launches its networks on its batch and on twice as many images.
    launched = list(dict.fromkeys([*batches, *(images for batch in batches for images in batches_of_a_step(batch))]))
    if task.tiny:
        launched = [*batches]
    alone = partial(operators.operator_cases, with_compile=False, with_others=False)
    yield from alone(sites, low, launched, task.device, side)
    if task.quick or task.tiny:
        return
    by_importance = sorted(sites, key=lambda site: -site.times)
    yield from operators.operator_cases(by_importance, low, launched, task.device, side)
    yield from operators.operator_cases(sites, others, launched, task.device, side)


def gpu_network_cases(task: PhaseTask) -> Iterator[Case]:
    kinds: tuple[networks.Kind, ...] = ("generator", "discriminator")
    passes: tuple[networks.Pass, ...] = ("forward and backward", "forward")
    *others, lowest = task.dtypes
    low = [lowest]
    small, large = task.extent.batches
    cases = partial(networks.network_cases, side=task.extent.side, device=task.device, size=task.extent.size)
    yield from cases(kinds, passes, low, [small], with_compile=False)
    if task.quick or task.tiny:
        return
    yield from cases(kinds[:1], passes, low, [small])
    yield from cases(kinds, passes, low, [large], with_compile=False)
    yield from cases(kinds, passes, others[:1], [small, large], with_compile=False)


def gpu_scaling_cases(task: PhaseTask) -> Iterator[Case]:
    extent = task.extent
    return scaling.scaling_cases(
        task.lowest,
        task.device,
        batches=extent.scaling_batches,
        sides=extent.scaling_sides,
        side_of_batches=extent.side,
        size=extent.size,
        agreement=extent.agreement,
    )


def gpu_translation_cases(task: PhaseTask) -> Iterator[Case]:
    return translation.translation_cases(task.lowest, task.extent.side, task.device, task.extent.size)
