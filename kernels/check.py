"""`python -m kernels.check`: do the kernels work on this GPU, and how fast are they?

Everything that the networks launch is compiled first, in all cores. Then every operator runs forward and backward, in
each dtype, at one image and at two, against float64 and against PyTorch; once more from a CUDA graph, which must give
the same bits; and is timed from one. Without a GPU the same list runs in Triton's interpreter, on small networks, where
times would mean nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checking.accuracy import allowed_error, relative_error, unwritten_is_nan
from .checking.ahead import compile_ahead
from .checking.case import OTHER_CHANNELS, SMALL, NetworkSize, OperatorCase
from .checking.cases import kernel_cases
from .checking.specialisations import image_launches, network_launches
from .checking.timing import copy_gbps, recorded_graph, seconds_of
from .dispatch import TRITON_DTYPES
from .gpus import gpu_of
from .launching import Grid, launch_kernel, launching_with, run_in_interpreter
from .triton_language import INTERPRETED

_BATCHES = (1, 2)
"""batches of N and of 2N images: a generator sees both domains at once, a discriminator real and generated images"""
_SECONDS = 60.0
_SHARE_OF_COMPILING = 0.6
"""the share of the time in which kernels are compiled ahead; cases compile the rest, one after the other"""


@dataclass(frozen=True)
class CaseResult:
    """Holds the figures of one case; times are measured on a GPU only."""

    operator: str
    place: str
    dtype: str
    batch: int
    error: float
    """the largest error among its results, relative to the size of the exact result"""
    share_of_allowed: float
    """that error over the error that is allowed for it"""
    launches: int
    """number of kernels of this project that it launches"""
    microseconds: float | None
    gbps: float | None
    """bandwidth in 10^9 bytes a second, of the bytes that must move: each input read once, each result written once"""
    failure: str = ""
    """a sentence that says what is wrong; empty where nothing is"""


# --- one case --------------------------------------------------------------------------------------------------------


def run_case(case: OperatorCase, device: torch.device) -> CaseResult:
    """Run one case and return its figures; raises what running it without a graph raises."""
    torch.manual_seed(0)
    seconds = None
    with _without_tf32():
        prepared = case.prepare(device)
        exact, native = (prepared.plain(dtype) for dtype in (torch.float64, case.dtype))
        with unwritten_is_nan(), _counted() as launches:
            found = prepared.run()
        errors = [relative_error(one, other) for one, other in zip(found, exact, strict=True)]
        allowed = [
            allowed_error(relative_error(one, other), case.dtype, case.margin)
            for one, other in zip(native, exact, strict=True)
        ]
        share = max(error / bound for error, bound in zip(errors, allowed, strict=True))
        failure = "" if share <= 1 else f"is off by {max(errors):.2g} of its size, {share:.3g} times what is allowed"
        if device.type == "cuda":
            in_graph, seconds = _in_a_graph(prepared.run, found)
            failure = failure or in_graph
    moved = sum(t.numel() * t.element_size() for t in (*prepared.inputs, *found))
    return CaseResult(
        case.operator,
        case.place,
        _name(case.dtype),
        case.batch,
        max(errors),
        share,
        len(launches),
        None if seconds is None else 1e6 * seconds,
        None if seconds is None else moved / seconds / 1e9,
        failure and f"{_described(case)} {failure}",
    )


def _in_a_graph(run: Callable[[], list[Tensor]], found: list[Tensor]) -> tuple[str, float | None]:
    """Run from a CUDA graph; return what is wrong with it, or an empty text, and the seconds of one run."""
    current = torch.cuda.current_stream()
    try:
        # This chooses the library's deterministic algorithms, as for `found`: others may give other bits each time.
        with unwritten_is_nan():
            graph, recorded = recorded_graph(run, 1)
        graph.replay()
        if not all(map(torch.equal, found, recorded)):
            return "gives other bits from a CUDA graph than without one", None
        return "", None if INTERPRETED else seconds_of(run)
    except RuntimeError as error:
        torch.cuda.set_stream(current)  # a recording that breaks off leaves its own stream current
        return f"cannot be recorded or replayed: {_first_line(error)}", None


def _described(case: OperatorCase) -> str:
    return f"{case.operator}, {case.place}, {_name(case.dtype)}, batch {case.batch},"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute float32 convolutions in float32, this package's and the library's, and not in TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _counted() -> Iterator[list[str]]:
    launches: list[str] = []

    def launcher(kernel: object, grid: Grid, arguments: dict[str, object], options: dict[str, object]) -> None:
        launches.append(str(kernel))
        launch_kernel(kernel, grid, arguments, options)

    with launching_with(launcher):
        yield launches


# --- all of them -----------------------------------------------------------------------------------------------------


def run_all(chosen: Sequence[OperatorCase], device: torch.device, until_s: float) -> tuple[list[CaseResult], list[str]]:
    """Run case after case until `time.monotonic()` is `until_s`; returns results, and a sentence for each failure."""
    results: list[CaseResult] = []
    failures: list[str] = []
    for number, case in enumerate(chosen):
        if time.monotonic() > until_s:
            failures.append(f"{len(chosen) - number} of {len(chosen)} cases were not run in time: give more --seconds")
            break
        _progress("checked", number, len(chosen), _described(case))
        try:
            results.append(run_case(case, device))
        except Exception as error:  # whatever a compiler, a launch or the GPU raises is this command's finding
            failures.append(f"{_described(case)} does not run: {_first_line(error)}")
            if not _is_usable(device):
                failures.append("the GPU takes no more work from this process: the cases behind it were not run")
                break
    _progress("checked", len(chosen), len(chosen), "")
    return results, failures + [result.failure for result in results if result.failure]


def _is_usable(device: torch.device) -> bool:
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _progress(what: str, done: int, total: int, now: str) -> None:
    """Draw a progress bar that the next one overwrites; does nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        filled = 30 * done // max(1, total)
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {what} {done} of {total} {now}"
        print(f"\r{bar[:110]:<110}\r", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _compile_for_networks(device: torch.device, until_s: float) -> list[str]:
    """Compile the networks' kernels in all cores; return a sentence for each variant that does not compile or load."""
    with _without_tf32():
        gpu = gpu_of(torch.empty(0, device=device))
        wanted = network_launches(gpu, TRITON_DTYPES, _BATCHES)
        wanted += image_launches(gpu, OTHER_CHANNELS, (torch.bfloat16,))
    began, through = time.monotonic(), 0

    def done(number: int, total: int) -> None:
        nonlocal through
        through = number
        _progress("compiled", number, total, "")

    failures = compile_ahead(wanted, None, done, until_s)
    print(f"{through} of {len(wanted)} variants compiled and loaded in {time.monotonic() - began:.0f} s", flush=True)
    return [f"{one.name} {one.dtype} {one.flags} does not compile: {why}" for one, why in failures.items()]


def _table(results: Sequence[CaseResult], copy: float | None) -> str:
    """Return a Markdown table, a row for each operator, place and dtype; numbers of N and of 2N images."""
    rows: dict[tuple[str, str, str], list[CaseResult]] = {}
    for result in results:
        rows.setdefault((result.operator, result.place, result.dtype), []).append(result)
    lines = [
        "| operator | place | dtype | error | of what is allowed | launches | us | GB/s | of copy speed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for names, of_batches in rows.items():
        cells = [
            *names,
            f"{max(r.error for r in of_batches):.1e}",
            f"{max(r.share_of_allowed for r in of_batches):.2f}",
            _listed([str(r.launches) for r in of_batches]),
            _listed(["-" if r.microseconds is None else f"{r.microseconds:.1f}" for r in of_batches]),
            _listed(["-" if r.gbps is None else f"{r.gbps:.0f}" for r in of_batches]),
            _listed(["-" if r.gbps is None or not copy else f"{r.gbps / copy:.2f}" for r in of_batches]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _listed(cells: list[str]) -> str:
    return cells[0] if len(set(cells)) == 1 else ", ".join(cells)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if torch.cuda.is_available():
        return check_kernels(torch.device("cuda", torch.cuda.current_device()), options)
    statuses: list[int] = []
    status = run_in_interpreter(
        f"{__package__}.check", arguments, lambda: statuses.append(check_kernels(torch.device("cpu"), options))
    )
    return max([status, *statuses])


def check_kernels(device: torch.device, options: argparse.Namespace) -> int:
    """Check the kernels on `device`; returns the exit status."""
    until_s = time.monotonic() + (options.seconds or (_SECONDS if device.type == "cuda" else float("inf")))
    failures: list[str] = []
    copy = None
    print(_headline(device), flush=True)
    if options.out:  # a folder that cannot be written is noticed before the work
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"error: --out {options.out} cannot be a folder: {error.strerror}; give another", file=sys.stderr)
            return 2
    if device.type == "cuda" and not INTERPRETED:
        now = time.monotonic()
        failures += _compile_for_networks(device, now + _SHARE_OF_COMPILING * (until_s - now))
        copy = copy_gbps(device)
        print(f"the device's own copy moves {copy:.0f} GB/s", flush=True)
    size = SMALL if INTERPRETED else NetworkSize()
    results, wrong = run_all(list(kernel_cases(size, TRITON_DTYPES, _BATCHES)), device, until_s)
    failures += wrong
    text = f"{_table(results, copy)}\n\n{_closing(results, failures)}"
    print(f"\n{text}")
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.out:
        lines = [_headline(device), "", text, *(f"\n- {failure}" for failure in failures)]
        (options.out / "check.md").write_text("\n".join(lines) + "\n")
        found = {"device": _headline(device), "copy_gbps": copy, "failures": failures}
        everything = found | {"results": [asdict(result) for result in results]}
        (options.out / "check.json").write_text(json.dumps(everything, indent=1))
    return int(bool(failures))


def _headline(device: torch.device) -> str:
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    small = f", in Triton's interpreter, images of {SMALL.side} pixels: times mean nothing" if INTERPRETED else ""
    return f"{where}, PyTorch {torch.__version__}{small}"


def _closing(results: Sequence[CaseResult], failures: Sequence[str]) -> str:
    worst = max((r.share_of_allowed for r in results), default=0.0)
    return (
        f"{len(results)} cases, each of one image and of two (listed apart where they differ); the largest error is "
        f"{worst:.2f} of what is allowed; {len(failures)} failures. Operands that fit into the cache may be read from "
        "there: their GB/s can exceed the copy's."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.check",
        description=" ".join((__doc__ or "").partition("?\n\n")[2].split()),
        epilog="The status is 0, or 1 where a sentence on standard error says what is wrong, or 2 without Triton.",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write check.md and check.json there")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"no case begins after so long; default: {_SECONDS:.0f} on a GPU, no limit elsewhere",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
