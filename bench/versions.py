"""`python -m bench.versions`: run the tests with every supported pair of PyTorch and Triton under every Python.

Each combination gets a virtual environment of its own, which is kept for the next time. PyTorch's builds for CUDA need
some 3 GB of NVIDIA's libraries; environments with the same PyTorch share one copy of them. A release that is not
supported yet is tried with `--pairs TORCH/TRITON`, before the bounds in pyproject.toml are lifted.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.environments import (
    REPOSITORY,
    Environment,
    Pair,
    Runner,
    StepFailed,
    make_environment,
    project_requirements,
    run_logged,
)
from bench.reporting.markdown import markdown_table

PYTHONS = ("3.11", "3.12", "3.13")
PAIRS = (Pair("2.11.0", "3.6.0"), Pair("2.13.0", "3.7.1"), Pair("2.14.1", "3.8.0"))


@dataclass(frozen=True)
class Check:
    """Describes a command in an environment, and how its last lines are read."""

    name: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    """the arguments with --quick"""
    summary: re.Pattern[str]


def _tests(folder: str, *quick: str) -> Check:
    files = tuple(f"{folder}/{name}.py" for name in quick)
    summary = re.compile(r"^=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s", re.MULTILINE)
    return Check(folder, ("-m", "pytest", folder), ("-m", "pytest", *files), summary)


COMPILE = ("-m", "kernels.aot")
CHECKS = (
    _tests("tests/kernels", "test_operators", "test_compile", "test_aot"),
    _tests("tests/cyclegan_fast", "training/test_step", "networks/test_networks"),
    Check(
        "kernels.aot", (*COMPILE, "--all"), COMPILE, re.compile(r"^(\d+ variants) compiled in \d+ s(, \d+ .*)$", re.M)
    ),
)


@dataclass
class EnvironmentResult:
    """Holds what was found in one environment."""

    environment: Environment
    passed: bool = True
    cells: dict[str, str] = field(default_factory=dict)
    """the cells of the table, by column"""


def run_checks(
    row: EnvironmentResult, checks: Iterable[Check], run: Runner, *, jobs: int, quick: bool
) -> Iterator[str]:
    """Run the checks and fill the row; yields lines of progress."""
    in_processes = {
        "pytest": ("-n", str(jobs), "--dist", "loadfile", "--max-worker-restart", "0", "-m", ""),  # slow ones too
        "kernels.aot": ("--processes", str(jobs)),
    }
    for check in checks:
        arguments = check.quick if quick else check.arguments
        command = [str(row.environment.executable), *arguments, *in_processes[arguments[1]]]
        log_path = row.environment.log(check.name)
        yield f"{check.name}, output in {log_path}"
        began = time.monotonic()
        with open(log_path, "w") as log:
            # In a common cache, kernels that another Python has compiled would be found and not compiled anew.
            status = run(command, log, {"TRITON_CACHE_DIR": str(row.environment.kernels)})
        found = check.summary.findall(log_path.read_text())
        text = "".join(found[-1]) if found else "no result"
        if status:
            row.passed = False
            text += f", **status {status}**"
        row.cells[check.name] = f"{text}, {time.monotonic() - began:.0f} s"
        yield f"{check.name}: {row.cells[check.name]}"


def examine(
    row: EnvironmentResult, requirements: Sequence[str], checks: Iterable[Check], run: Runner, *, jobs: int, quick: bool
) -> Iterator[str]:
    """Make an environment, run its checks and fill its row; yields lines of progress."""
    row.cells["numpy"] = "not installed"
    yield f"installing, output in {row.environment.log('install')}"
    try:
        made = make_environment(row.environment, requirements, run)
    except StepFailed as error:
        row.passed = False
        yield f"not installed: {error}"
        return
    row.cells["numpy"] = row.environment.version_of("numpy")
    row.cells["installed"] = f"{row.environment.size_gb():.1f} GB"
    yield f"{'installed' if made else 'was complete'}, {row.cells['installed']}"
    yield from run_checks(row, checks, run, jobs=jobs, quick=quick)


def _table(rows: Iterable[EnvironmentResult]) -> str:
    """Return a Markdown table with a row for each environment."""
    columns = ["numpy", *(check.name for check in CHECKS), "installed"]
    lines: list[list[str]] = []
    for row in rows:
        pair = row.environment.pair
        torch = row.environment.version_of("torch") if "installed" in row.cells else pair.torch
        cells = [row.environment.python, torch, pair.triton, *(row.cells.get(column, "not run") for column in columns)]
        lines.append(cells)
    return markdown_table(["Python", "torch", "triton", *columns], lines)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.versions",
        description=f"Run {', '.join(check.name for check in CHECKS)} with every supported pair of PyTorch and Triton "
        "under every Python, and print a Markdown table. " + __doc__.partition("\n\n")[2],
        epilog="Output of each step goes to FOLDER/logs, progress to stderr, the table to stdout, also after an "
        "interruption. An environment is made anew when pyproject.toml asks for other packages; remove it to take "
        "their newest releases. The status is 1 where a check is red or was not run.",
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cyclegan-fast" / "versions"
    made.add_argument(
        "--environments", type=Path, default=cache, metavar="FOLDER", help="where they are kept (default: %(default)s)"
    )
    pairs = " ".join(map(str, PAIRS))
    made.add_argument(
        "--pairs", type=Pair.parse, nargs="+", default=PAIRS, metavar="TORCH/TRITON", help=f"(default: {pairs})"
    )
    made.add_argument(
        "--pythons", nargs="+", default=PYTHONS, metavar="X.Y", help=f"found on PATH (default: {' '.join(PYTHONS)})"
    )
    names = [check.name for check in CHECKS]
    made.add_argument(
        "--checks", nargs="+", default=names, choices=names, metavar="CHECK", help=f"(default: {' '.join(names)})"
    )
    made.add_argument("--quick", action="store_true", help="the tests that a release breaks first, and fewer kernels")
    made.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of a check (default: %(default)s)")
    return made


def main(arguments: list[str] | None = None, run: Runner = run_logged) -> int:
    options = _parser().parse_args(arguments)
    home: Path = options.environments.resolve()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    requirements = project_requirements((REPOSITORY / "pyproject.toml").read_text())
    checks = [check for check in CHECKS if check.name in options.checks]
    wanted = [Environment(home, python, pair) for pair in options.pairs for python in options.pythons]
    rows: list[EnvironmentResult] = []
    complete = True
    try:
        for number, environment in enumerate(wanted, 1):
            print(f"[{number}/{len(wanted)}] {environment.name}", file=sys.stderr, flush=True)
            rows.append(EnvironmentResult(environment))
            for line in examine(rows[-1], requirements, checks, run, jobs=options.jobs, quick=options.quick):
                print(f"      {line}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        complete = False
        print("interrupted; environments that are complete are used again", file=sys.stderr)
    print(_table(rows))
    return 0 if complete and all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
