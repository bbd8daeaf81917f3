"""`python -m kernels.check`: do the kernels work on this GPU, and how fast are they?

Everything that the networks launch is compiled first, in all cores. Then every operator runs forward and backward, in
each dtype, at one image and at two, against float64 and against PyTorch; once more from a CUDA graph, which must give
the same bits; and is timed from one. Without a GPU the same list runs in Triton's interpreter, on small networks, where
times would mean nothing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from kernels.checking.accuracy import allowed_error, relative_error, unwritten_is_nan
from kernels.checking.ahead import compile_ahead
from kernels.checking.cases import SMALL, Case, Size, cases
from kernels.checking.specialisations import DTYPES, network_launches
from kernels.gpus import gpu_of
from kernels.launching import Grid, launch_kernel, launching_with, run_in_interpreter
from kernels.triton_language import INTERPRETED

BATCHES = (1, 2)
"""A batch of N, and of 2N: a generator sees images of both domains at once, a discriminator real and generated ones"""
SECONDS = 60.0
COPIED_BYTES = 1 << 30
SHORTEST_S = 3e-4
"""of what is timed at once"""
TURNS = 7
PAUSE_CYCLES = 1_000_000
"""of the GPU's clock, half a millisecond, in which a graph's launch is done with"""
SHARE_OF_COMPILING = 0.6
"""of the time: cases compile what is left, one after the other"""


@dataclass(frozen=True)
class Result:
    """What one case came to; times are of a GPU only."""

    operator: str
    place: str
    dtype: str
    batch: int
    error: float
    """the largest among its results, relative to the exact one's size"""
    share_of_allowed: float
    """that error over what is allowed there"""
    launches: int
    """of kernels of this project"""
    microseconds: float | None
    gbps: float | None
    """10^9 bytes a second that must move: each input read once, each result written once"""
    failure: str = ""
    """a sentence where it is wrong"""


# --- one case --------------------------------------------------------------------------------------------------------


def checked(case: Case, device: torch.device) -> Result:
    """Run one case; raises what running it without a graph raises."""
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
    return Result(
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
    """What is wrong with a graph of the run, if anything, and the seconds of a run in one."""
    current = torch.cuda.current_stream()
    try:
        # The library's deterministic algorithms, as for `found`: others may give other bits each time.
        with unwritten_is_nan():
            graph, recorded = _recorded(run, 1)
        graph.replay()
        if not all(map(torch.equal, found, recorded)):
            return "gives other bits from a CUDA graph than without one", None
        return "", None if INTERPRETED else _seconds(run)
    except RuntimeError as error:
        torch.cuda.set_stream(current)  # a recording that breaks off leaves its own
        return f"cannot be recorded or replayed: {_first_line(error)}", None


def _described(case: Case) -> str:
    return f"{case.operator}, {case.place}, {_name(case.dtype)}, batch {case.batch},"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Let float32 convolutions be float32, ours and the library's."""
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


def _recorded(run: Callable[[], list[Tensor]], repeats: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A CUDA graph of so many runs, and the results of the last."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up for a stream at its first use
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(repeats):
            results = run()
    return graph, results


def _seconds(run: Callable[[], list[Tensor]]) -> float:
    """The median time of one run, launched by a CUDA graph that holds several."""
    graph, _ = _recorded(run, 1)
    graph.replay()
    repeats = max(1, min(50, int(SHORTEST_S / max(_replayed(graph), 1e-6))))
    graph, _ = _recorded(run, repeats)
    graph.replay()
    return statistics.median(_replayed(graph) for _ in range(TURNS)) / repeats


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    """Seconds of the device: its launch is over when the pause is."""
    torch.cuda.synchronize()
    torch.cuda._sleep(PAUSE_CYCLES)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    began.record()
    graph.replay()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def copy_gbps(device: torch.device) -> float:
    """Return what the device's own copy moves, 10^9 bytes read and written a second, of a tensor beyond any cache."""
    source = torch.empty(COPIED_BYTES // 4, device=device).normal_()
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _seconds(lambda: [target.copy_(source)]) / 1e9


# --- all of them -----------------------------------------------------------------------------------------------------


def run_all(chosen: Sequence[Case], device: torch.device, until_s: float) -> tuple[list[Result], list[str]]:
    """Run case after case until `time.monotonic()` is `until_s`; returns results, and a sentence for each failure."""
    results: list[Result] = []
    failures: list[str] = []
    for number, case in enumerate(chosen):
        if time.monotonic() > until_s:
            failures.append(f"{len(chosen) - number} of {len(chosen)} cases were not run in time: give more --seconds")
            break
        _progress("checked", number, len(chosen), _described(case))
        try:
            results.append(checked(case, device))
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
    """A bar on a terminal that the next one overwrites; nothing elsewhere."""
    if sys.stderr.isatty():
        filled = 30 * done // max(1, total)
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {what} {done} of {total} {now}"
        print(f"\r{bar[:110]:<110}\r", end="\n" if done == total else "", file=sys.stderr, flush=True)


def compiled_ahead(device: torch.device, until_s: float) -> list[str]:
    """Compile in all cores; returns a sentence for each variant that does not compile or load."""
    with _without_tf32():
        wanted = network_launches(gpu_of(torch.empty(0, device=device)), DTYPES, BATCHES)
    began, through = time.monotonic(), 0

    def done(number: int, total: int) -> None:
        nonlocal through
        through = number
        _progress("compiled", number, total, "")

    failures = compile_ahead(wanted, None, done, until_s)
    print(f"{through} of {len(wanted)} variants compiled and loaded in {time.monotonic() - began:.0f} s", flush=True)
    return [f"{one.name} {one.dtype} {one.flags} does not compile: {why}" for one, why in failures.items()]


def table(results: Sequence[Result], copy: float | None) -> str:
    """Return a Markdown table, a row for each operator, place and dtype; numbers of N and of 2N images."""
    rows: dict[tuple[str, str, str], list[Result]] = {}
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
        return check(torch.device("cuda", torch.cuda.current_device()), options)
    statuses: list[int] = []
    status = run_in_interpreter(
        "kernels.check", arguments, lambda: statuses.append(check(torch.device("cpu"), options))
    )
    return max([status, *statuses])


def check(device: torch.device, options: argparse.Namespace) -> int:
    """Check the kernels on `device`; returns the exit status."""
    until_s = time.monotonic() + (options.seconds or (SECONDS if device.type == "cuda" else float("inf")))
    failures: list[str] = []
    copy = None
    print(_headline(device), flush=True)
    if options.out:  # what cannot be written is seen before the work
        options.out.mkdir(parents=True, exist_ok=True)
    if device.type == "cuda" and not INTERPRETED:
        now = time.monotonic()
        failures += compiled_ahead(device, now + SHARE_OF_COMPILING * (until_s - now))
        copy = copy_gbps(device)
        print(f"the device's own copy moves {copy:.0f} GB/s", flush=True)
    size = SMALL if INTERPRETED else Size()
    results, wrong = run_all(list(cases(size, DTYPES, BATCHES)), device, until_s)
    failures += wrong
    text = f"{table(results, copy)}\n\n{_closing(results, failures)}"
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


def _closing(results: Sequence[Result], failures: Sequence[str]) -> str:
    worst = max((r.share_of_allowed for r in results), default=0.0)
    return (
        f"{len(results)} cases, each of one image and of two (listed apart where they differ); the largest error is "
        f"{worst:.2f} of what is allowed; {len(failures)} failures. Operands that fit into the cache may be read from "
        "there: their GB/s can exceed the copy's."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.check",
        description=" ".join((__doc__ or "").partition("?\n\n")[2].split()),
        epilog="The status is 0, or 1 where a sentence on standard error says what is wrong, or 2 without Triton.",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write check.md and check.json there")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"no case begins after so long; default: {SECONDS:.0f} on a GPU, no limit elsewhere",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
