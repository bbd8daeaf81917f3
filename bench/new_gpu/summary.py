"""Sums up what a run of `bench.gpu` found, in at most forty lines."""

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.measure.records import Comparison, RecordedRun, newest, path_for, read
from bench.new_gpu.parallel_tests import FAILURES, TESTS, WORKERS_LOG, read_results

LIMITS_FILE, LOG_FILE, TUNED_FILE, TRAINING_FILE, PROFILE_FILE, SUMMARY_FILE = (
    "limits.json",
    "log.txt",
    "tuned.json",
    "training.json",
    "profile.txt",
    "summary.txt",
)
CHECK_FILE = "check.json"
RUN_FILES = (
    CHECK_FILE,
    "check.md",
    TESTS,
    FAILURES,
    WORKERS_LOG,
    LIMITS_FILE,
    LOG_FILE,
    TUNED_FILE,
    TRAINING_FILE,
    PROFILE_FILE,
    SUMMARY_FILE,
)
"""The files that a run writes beside the results of the benchmarks; those of an earlier run are removed."""
CUT_SHORT = 3
"""The exit status of a phase whose time did not suffice."""
MOST_LINES = 40
MOST_FAILURES = 8
"""The most failures of a phase that are named."""
SUBJECTS_IN_FULL = ("step", "networks", "translation")


def summary(out: Path, statuses: dict[str, int], device: str, since: str = "") -> str:
    """Return the summary of the files that the folder `out` has, with its runs from the date `since` on."""
    comparisons = _comparisons(out, device, since)
    important = [each for each in comparisons if each.subject == "step"]
    others = [each for each in comparisons if each.subject in SUBJECTS_IN_FULL and each.subject != "step"]
    lines = [*_head(out, statuses, device), *_limits(out, device), *map(line_of, important), *_training(out)]
    lines += operators_lines(each for each in comparisons if each.subject == "operators")
    lines += [*_profile(out), *map(line_of, others)]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"... {len(lines) - MOST_LINES + 1} more in {out}"]
    return "\n".join(lines)


def _head(out: Path, statuses: dict[str, int], device: str) -> Iterator[str]:
    yield device
    words = {0: "done", CUT_SHORT: "cut short"}
    yield "phases: " + ", ".join(f"{name} {words.get(status, 'FAILED')}" for name, status in statuses.items())
    yield from _check(out)
    yield from _tests(out)


def _check(out: Path) -> Iterator[str]:
    """Yield what `kernels.check` found."""
    path = out / CHECK_FILE
    if not path.exists():
        return
    found = json.loads(path.read_text())
    failures = found["failures"]
    worst = max((result["share_of_allowed"] for result in found["results"]), default=0.0)
    yield f"check: {len(found['results'])} cases, errors up to {worst:.2f} of what is allowed, {len(failures)} failures"
    yield from _some(failures, "check.md")


def _tests(out: Path) -> Iterator[str]:
    if not (out / TESTS).exists():
        return
    results = read_results(out)
    yield f"tests: {results.described()}"
    yield from _some(results.failures(), FAILURES)


def _some(failures: Sequence[str], all_of_them: str) -> Iterator[str]:
    yield from (f"  {failure[:200]}" for failure in failures[:MOST_FAILURES])
    if len(failures) > MOST_FAILURES:
        yield f"  {len(failures) - MOST_FAILURES} more, see {all_of_them}"


def _runs(out: Path, device: str) -> list[RecordedRun]:
    path = path_for(device, out)
    return read(path) if path.exists() else []


def _comparisons(out: Path, device: str, since: str) -> list[Comparison]:
    runs = [run for run in _runs(out, device) if run.stamp.date >= since]
    return [comparison for _, comparison in newest(runs)]


def _limits(out: Path, device: str) -> Iterator[str]:
    for run in _runs(out, device)[-1:]:
        made = run.stamp
        yield (
            f"torch {made.torch}, triton {made.triton}, CUDA {made.cuda}, driver {made.driver}, commit {made.commit}; "
            f"{run.limits}"
        )


def line_of(comparison: Comparison) -> str:
    """Return a line: the time of ours, the best opponent's over it, and the share of the limit."""
    ours = comparison.contenders[comparison.ours]
    best, of_limit = comparison.best_opponent, comparison.of_limit(comparison.ours)
    cells = [f"{comparison.subject}: {comparison.case} {comparison.shape} {comparison.dtype}: {ours.ms.median:.3g} ms"]
    if best:
        cells.append(f"{comparison.contenders[best].ratio.median:.2f}x {best}")
    if not any("torch.compile" in name for name in comparison.contenders):
        cells.append("torch.compile not measured")
    if of_limit is not None:
        cells.append(f"{of_limit:.0%} of the limit")
    return ", ".join(cells)


def operators_lines(comparisons: Iterable[Comparison]) -> Iterator[str]:
    """Yield a line for each direction, precision and batch: the middle of all sites and the worst one."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        direction = comparison.case.rpartition(", ")[2]
        groups.setdefault(f"{direction}, {comparison.dtype}, batch {comparison.batch}", []).append(comparison)
    for group, members in groups.items():
        shares = {each.case: each.of_limit(each.ours) or 0.0 for each in members}
        ratios = [each.contenders[best].ratio.median for each in members if (best := each.best_opponent)]
        worst = min(shares, key=lambda case: shares[case])
        yield (
            f"norms {group}: {len(members)} sites, {statistics.geometric_mean(ratios):.2f}x the best opponent "
            f"({min(ratios):.2f} to {max(ratios):.2f}), {statistics.median(shares.values()):.0%} of the limit, least "
            f"{shares[worst]:.0%} {worst.rpartition(', ')[0]}"
        )


def _training(out: Path) -> Iterator[str]:
    path = out / TRAINING_FILE
    if path.exists():
        found = json.loads(path.read_text())
        yield (
            f"training, {found['setting']['steps']} steps: {found['speedup']:.2f}x plain float32; final losses "
            f"{found['of_ours']:.1%} apart, two seeds of plain PyTorch {found['between_seeds']:.1%}"
        )


def _profile(out: Path) -> Iterator[str]:
    path = out / PROFILE_FILE
    if path.exists():
        yield from path.read_text().splitlines()[:8]
