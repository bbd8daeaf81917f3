"""Results as `bench.measure.records` holds them, made up: of a GPU with everything and of a CPU with a little."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.cases import counts
from bench.measure.limits import Limits
from bench.measure.machine import Stamp
from bench.measure.records import Comparison, RecordedRun, Timing, path_for, written
from bench.measure.timing import Spread
from cyclegan_fast.kernels.checking.sites import NormSite, all_sites

GPU, CPU = "NVIDIA H100 80GB HBM3", "AMD EPYC, 2 threads, AVX512 bf16"
LIMITS = {
    GPU: Limits(2950.0, {"float32": 390.0, "float16": 720.0, "bfloat16": 740.0}),
    CPU: Limits(20.1, {"float32": 0.452, "bfloat16": 0.926}),
}


def stamp(device: str = CPU, date: str = "2026-11-27T10:00:00+00:00", commit: str = "1234567") -> Stamp:
    on_gpu = device == GPU
    return Stamp(
        device=device,
        date=date,
        commit=commit,
        project="0.1.0",
        torch="2.13.0",
        triton="3.7.0" if on_gpu else "none",
        cuda="13.0" if on_gpu else "none",
        driver="580.95" if on_gpu else "none",
        python="3.12.3",
        threads=16 if on_gpu else 2,
        clocks="1980 MHz, 2619 MHz, 1980 MHz, 41, 120.00 W" if on_gpu else "2596.000 MHz",
    )


def spread(median: float) -> Spread:
    """Return a spread of two percent to both sides of the median."""
    return Spread(median, 0.98 * median, 1.02 * median)


def comparison(times_ms: Mapping[str, float], ours: str = "ours", **fields: object) -> Comparison:
    """Return a comparison with those medians, the first contender being plain; `fields` replace what it has."""
    made = Comparison(
        subject="operators",
        case="after up 1, forward",
        shape="1x128x128x128",
        dtype="bfloat16",
        batch=1,
        side=256,
        moved_bytes=8 << 20,
        operations=15 << 20,
        limit_ms=0.5,
        ours=ours,
        plain=next(iter(times_ms)),
        rounds=15,
        again=Spread(1.0, 0.99, 1.015),
        contenders={name: Timing(spread(ms), spread(ms / times_ms[ours])) for name, ms in times_ms.items()},
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # names of fields are checked by replace itself


def with_peaks(made: Comparison, peaks_gib: Mapping[str, float]) -> Comparison:
    contenders = {name: replace(timing, peak_gib=peaks_gib.get(name)) for name, timing in made.contenders.items()}
    return replace(made, contenders=contenders)


def operators(device: str, dtypes: Sequence[str], batches: Sequence[int]) -> list[Comparison]:
    """Every site both ways, in the order in which `bench.cases.operators` measures them."""
    return [
        _operator(site, number, direction, device, dtype, batch)
        for batch in batches
        for dtype in dtypes
        for number, site in enumerate(all_sites(256))
        for direction in ("forward", "backward")
    ]


def _operator(site: NormSite, number: int, direction: str, device: str, dtype: str, batch: int) -> Comparison:
    count = counts.norm_forward_workload if direction == "forward" else counts.norm_backward_workload
    work = count(site, batch, getattr(torch, dtype))
    limit_ms = 1e3 * LIMITS[device].seconds(work.moved_bytes, work.operations, dtype)
    ours = limit_ms / (0.62 + 0.03 * number) + (0.004 if device == GPU else 0.1)
    times = {
        "plain PyTorch": ours * (4.1 - 0.1 * number),
        "plain PyTorch, channels last": ours * (3.0 + 0.2 * number),
        "torch.compile default": ours * (0.9 + 0.12 * number),
        "torch.compile max-autotune-no-cudagraphs": ours * (1.5 + 0.02 * number),
        "ours": ours,
    }
    return comparison(
        times,
        case=f"{site.name}, {direction}",
        shape="x".join(map(str, site.shape(batch))),
        dtype=dtype,
        batch=batch,
        moved_bytes=work.moved_bytes,
        operations=work.operations,
        limit_ms=limit_ms,
    )


def step(batch: int, side: int, unit_ms: float, limit_ms: float, subject: str = "step") -> Comparison:
    times = {
        "plain PyTorch, float32": 5.3,
        "stock autocast, bfloat16": 3.0,
        "stock autocast, bfloat16, torch.compile default": 2.6,
        "stock autocast, bfloat16, torch.compile reduce-overhead": 2.1,
        "ours --amp": 1.25,
        "ours --amp --checkpoint-blocks": 1.6,
        "ours --amp --cuda-graph off": 1.9,
    }
    made = comparison(
        {name: unit_ms * time for name, time in times.items()},
        ours="ours --amp",
        subject=subject,
        case="training step",
        shape=f"{batch}x3x{side}x{side}",
        batch=batch,
        side=side,
        operations=int(1.89e12 * batch * side**2 / 256**2),
        limit_ms=limit_ms,
        refused={"ours --amp --compile": "does not run: InductorError: CppCompileError: C++ | <stdin>"},
    )
    return with_peaks(made, {"plain PyTorch, float32": 3.4 * batch, "ours --amp": 1.1 * batch})


def scaling(
    exponents: Mapping[str, tuple[float, float]],
    batches: Sequence[int] = (1, 2, 4, 8, 16),
    sides: Sequence[int] = (128, 256, 512, 1024),
    fixed_side: int = 256,
    case: str = "training step",
) -> list[Comparison]:
    """Power laws: by contender, the first of whom is ours, the exponent over the batch and the one over the side."""
    ours = next(iter(exponents))
    made = []
    for batch, side in [(batch, fixed_side) for batch in batches] + [(1, side) for side in sides if side != fixed_side]:
        times = {
            name: (2.0 + index) * batch**over_batch * (side / fixed_side) ** (2 * over_side)
            for index, (name, (over_batch, over_side)) in enumerate(exponents.items())
        }
        each = comparison(
            times,
            ours=ours,
            subject="scaling",
            case=case,
            shape=f"{batch}x3x{side}x{side}",
            batch=batch,
            side=side,
            limit_ms=0.8 * times[ours],
        )
        made.append(
            with_peaks(
                each,
                {
                    name: (0.5 + 0.1 * index) * batch * (side / fixed_side) ** 2 + 0.4
                    for index, name in enumerate(times)
                },
            )
        )
    return made


def other_subjects() -> list[Comparison]:
    generator = {"plain PyTorch": 9.0, "torch.compile default": 5.0, "ours": 4.0, "ours, launched one by one": 6.0}
    images = {"as the original, DataLoader, 2 workers": 5.0, "ours, memory, 2 workers": 1.2}
    return [
        comparison(generator, subject="networks", case="generator, forward", shape="1x3x256x256"),
        comparison(
            images,
            ours="ours, memory, 2 workers",
            subject="data",
            case="JPEG of 320x320 to a batch on the device",
            shape="1x3x256x256",
            dtype="float32",
            moved_bytes=0,
            operations=0,
            limit_ms=None,
        ),
        comparison(
            {"plain PyTorch, tiny tensor": 0.02, "ours": 0.05},
            subject="host time",
            case="fused norm, training, launches 1",
            shape="1x16x4x4",
            dtype="float32",
            moved_bytes=0,
            operations=0,
            limit_ms=None,
        ),
    ]


def gpu_run() -> RecordedRun:
    """Return a run with everything that a GPU gives."""
    growth = {"ours --amp": (0.85, 0.93), "stock autocast, bfloat16": (0.7, 0.9), "plain PyTorch, float32": (0.95, 1.0)}
    comparisons = [
        *operators(GPU, ("float32", "float16", "bfloat16"), (1, 16)),
        step(1, 256, 4.0, 2.6),
        step(16, 256, 50.0, 41.0),
        *other_subjects(),
        *scaling(growth),
    ]
    return RecordedRun(stamp(GPU), LIMITS[GPU], comparisons)


def cpu_run() -> RecordedRun:
    growth = {"ours": (0.98, 1.02), "plain PyTorch": (1.0, 1.07)}
    comparisons = [
        *(each for each in operators(CPU, ("bfloat16",), (1,)) if each.case.startswith(("after up 2", "blocks, sec"))),
        step(1, 128, 500.0, 510.0),
        *scaling(growth, fixed_side=128, batches=(1, 2, 4), case="generator, forward and backward"),
    ]
    return RecordedRun(stamp(CPU), LIMITS[CPU], comparisons)


def store(folder: Path, *runs: RecordedRun) -> None:
    """Each device's runs in its file, in the order in which they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for device in {run.stamp.device for run in runs}:
        path_for(device, folder).write_text(written(run for run in runs if run.stamp.device == device))
