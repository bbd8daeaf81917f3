"""Has the kernels of a training compiled into Triton's cache before its first step, in all cores, and says so.

Triton compiles a kernel at its first launch, one after the other. `python -m kernels.prepare` does the same ahead of
time, for a GPU that need not be there.
"""

import os
import time
from collections.abc import Callable, Sequence

import torch

from cyclegan_fast.config.command import parse_training
from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import TrainingImages
from cyclegan_fast.images.pixels import images_at_once
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.kernels.gpus import GPUS, Gpu, gpu_of
from cyclegan_fast.kernels.prepare.cache import always_compiles, cache_folder, not_in_cache, standing_in
from cyclegan_fast.kernels.prepare.workers import compile_in_workers
from cyclegan_fast.kernels.triton_language import INTERPRETED
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.device import first_line, name_of
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.first_use.launches import launched_by_training, launched_by_translation
from cyclegan_fast.training.samples import SAMPLE_COUNT

AHEAD = "paper256"
"""The preset that `kernels.prepare` prepares where it is told nothing: the paper's training."""


def prepare_training(
    config: Config,
    images: TrainingImages,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks,
    tell: Callable[[str], None],
) -> None:
    """Compile what the steps, samples and evaluations of a training will launch and Triton's cache does not have.

    One process of each machine compiles while the others wait. On a CPU, and with the plain operators, this does
    nothing.

    Args:
        tell: told once that kernels are compiled, and once where that did not help.
    """
    if not _compiles_kernels(config, device):
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        gpu = gpu_of(torch.empty(0, device=device))
        batches = {config.data.batch_size, *([short] if (short := images.images_in_last_batch) else [])}
        try:
            wanted = wanted_by_training(config, gpu, dtype, sorted(batches, reverse=True))
        except Exception as error:  # whatever does not run on tensors without memory may well run on a GPU
            tell(f"kernels are not compiled ahead ({first_line(error)}): each compiles at its first launch")
            wanted = []
        try:
            fill_cache(wanted, gpu.name, tell)
        except Exception as error:  # nothing that compiling ahead runs into may end a training
            tell(f"kernels are not compiled ahead ({first_line(error)}): each compiles at its first launch")
    ranks.any(False)  # the others wait here, and find in the cache what they launch


def _compiles_kernels(config: Config, device: torch.device) -> bool:
    """Tell whether Triton would compile the fused operators of this training on this device."""
    if device.type != "cuda" or INTERPRETED:
        return False
    return choose("instance_norm", config.networks.impl, torch.empty(0, device=device)) == "triton"


def wanted_by_training(config: Config, gpu: Gpu, dtype: torch.dtype, batches: Sequence[int]) -> list[Specialisation]:
    """Return the variants that a training launches, those of its steps first.

    Args:
        batches: the numbers of images of a domain that its steps take.
    """
    found: dict[Specialisation, None] = {}
    for count in batches:
        found |= dict.fromkeys(launched_by_training(config, gpu, dtype, count))
    # Samples and evaluations are translated in the precision that weights are kept in.
    at_once = images_at_once(config.data.crop_size, config.data.crop_size)
    by_samples = _by_translation(config, gpu, torch.float32, {at_once, min(at_once, SAMPLE_COUNT)})
    return list(found | dict.fromkeys(by_samples))


def _by_translation(config: Config, gpu: Gpu, dtype: torch.dtype, batches: set[int]) -> list[Specialisation]:
    if METHODS[config.loss.method].searches:  # its generators take a code, and a search has batches of its own
        return []
    return launched_by_translation(config, gpu, dtype, sorted(batches))


def fill_cache(wanted: Sequence[Specialisation], gpu: str, tell: Callable[[str], None]) -> None:
    """Compile what Triton's cache lacks for the GPU at hand, under a bar; say nothing where it has everything."""
    if always_compiles():
        return
    missing = not_in_cache(wanted)
    if not missing:
        return
    tell(
        f"compiling {counted(len(missing), 'kernel')} for {gpu}, once: {cache_folder()} keeps them "
        "(`python -m kernels.prepare` does it ahead of time)"
    )
    failures = _compiled_with_bar(missing, None)
    left = not_in_cache(missing)
    if left:
        reason = next(iter(failures.values()), "what was compiled is not what Triton looks for here")
        tell(f"{counted(len(left), 'kernel')} not compiled ahead ({reason}): each compiles at its first launch")


def _compiled_with_bar(missing: Sequence[Specialisation], processes: int | None) -> dict[Specialisation, str]:
    with progress_bar(desc="compiling kernels", unit=" kernels", total=len(missing), leave=False) as bar:
        return compile_in_workers(missing, processes, lambda: bar.update(1))


def prepare_ahead(flags: Sequence[str], capabilities: Sequence[int], processes: int | None) -> int:
    """Compile what trainings and translations will launch, with no GPU; print what was done; return the exit status.

    Args:
        flags: of the training, `AHEAD` where they do not say what to start from. Without --amp among them, both
            float32 and bfloat16 are prepared.
        capabilities: such as 90; the GPUs in `GPUS` stand for them. None means the GPU at hand, which must be there.
        processes: how many compile at a time; None for all cores.

    Raises UserError for flags that are not train's, and where there is nothing to compile for.
    """
    starts = ("--preset", "--task", "--config")
    given = any(flag.partition("=")[0] in starts for flag in flags)
    config, _ = parse_training([*flags] if given else ["--preset", AHEAD, *flags])
    if capabilities:
        gpus = [GPUS[capability] for capability in capabilities]
    elif torch.cuda.is_available():
        gpus = [gpu_of(torch.empty(0, device="cuda"))]
    else:
        raise UserError("there is no GPU here: say with --sm which one to compile for, such as --sm 90")
    low = torch.float16 if config.run.amp_dtype == "float16" else torch.bfloat16
    dtypes = [low] if config.run.amp else [torch.float32, low]
    status = 0
    for gpu in gpus:
        start = time.perf_counter()
        wanted = list(dict.fromkeys(one for dtype in dtypes for one in _wanted_ahead(config, gpu, dtype)))
        with standing_in(gpu.capability):
            missing = not_in_cache(wanted)
        failures = _compiled_with_bar(missing, processes)
        print(
            f"sm_{gpu.capability}, planned for {gpu.name}, {' and '.join(map(name_of, dtypes))}: "
            f"{counted(len(wanted), 'kernel')}, {len(wanted) - len(missing)} there already, "
            f"{len(missing) - len(failures)} compiled in {time.perf_counter() - start:.1f} s: {cache_folder()}"
        )
        for one, reason in failures.items():
            print(f"{one.name} {one.dtype} {one.flags} does not compile: {reason}")
        status = max(status, int(bool(failures)))
    return status


def _wanted_ahead(config: Config, gpu: Gpu, dtype: torch.dtype) -> list[Specialisation]:
    """Return what a training launches, and a translation of images of its crop size, one by one or a folder of them."""
    at_once = images_at_once(config.data.crop_size, config.data.crop_size)
    return [
        *wanted_by_training(config, gpu, dtype, [config.data.batch_size]),
        *_by_translation(config, gpu, dtype, {1, at_once}),
    ]
