"""Gives commands random flags, hostile configurations and Python's values: they do one step, or say in a line why not.

The flags and their types are read from the declarations of options, so that a new option is among them.
"""

import math
import random
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

import cyclegan_fast as cf
from cyclegan_fast.config.command import TrainingCommand
from cyclegan_fast.config.options import Config
from cyclegan_fast.evaluation.command import EvaluateCommand
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import Range, declarations
from cyclegan_fast.translation.command import TranslateCommand
from cyclegan_fast.translation.plan import ImageOptions
from export.options import ExportOptions
from export.run import RunCommand
from export.to_onnx import ToOnnxCommand
from tests.faults.harness import EXCUSE, TINY, Campaign, Ended, Tally, limited, photos_in, run, trained

MEMORY = 10 << 30  # bytes of address space: that of a machine on which what is far too large fails at once
LIMIT_S = 100
FIXED = ("max_steps", "config", "init_from", "out", "checkpoint", "compile", "cuda_graph")
"""Fields that stay: without them a command would have no end, or nothing to do, or take long for its own reasons."""

LONG = "feature-loss"  # which trains a network for minutes before its first step
NUMBERS = ("0", "-1", "3.5", "1e3", "nan", "inf", "-inf", "1e400", "", "x", "9" * 30, "9" * 5000, "0x10", "٣", "None")
TEXTS = ("", " ", "-", "..", "a/b", "x" * 300, "x" * 5000, "a\nb", "\udcff", "ä", "\x1b[31m", "%s{0}", "CON", "nowhere")
PLACES = (*TEXTS, "/dev/null", "/dev/full/x", "/proc/self", ".", "junk.pt")
DEEP = 900

CONFIGURATIONS = {
    "an integer of 5,000 digits": "run: {seed: " + "9" * 5000 + "}",
    "a float of 400 digits": "optimizer: {learning_rate: 1" + "0" * 400 + "}",
    "infinite": "data: {cache_gib: .inf}",
    "not a number": "loss: {lambda_cycle: .nan}",
    "nested lists": "[" * DEEP,
    "nested mappings": "{a: " * DEEP + "1" + "}" * DEEP,
    "nested in a value": "run: {name: " + "[" * 60 + "]" * 60 + "}",
    "nested by lines": "\n".join(" " * depth + "a:" for depth in range(DEEP)),
    "references upon references": "a: &a [x]\n" + "".join(f"b{i}: &a [*a, *a, *a, *a, *a, *a]\n" for i in range(30)),
    "references in a value": "data:\n  data: &a [x]\n" + "".join(f"  {n}: &a [*a, *a, *a, *a]\n" for n in "abcdefghij"),
    "itself": "run: &a\n  name: *a",
    "itself as a list": "evaluation: {metrics: &a [*a]}",
    "itself merged": "run: &a\n  <<: *a",
    "a command": "!!python/object/apply:os.system [exit]",
    "a command in a value": "run: {name: !!python/name:os.system ''}",
    "a null character": 'run: {runs: "a\\0b"}',
    "a null character in a name": 'run: {name: "a\\0b"}',
    "half a character": 'run: {name: "\\ud800"}',
    "half a character in a path": 'data: {cache_dir: "\\udcff\\ud800", cache_gib: 0}',
    "control characters": "a: \x07",
    "bytes": "run: {name: !!binary aGVsbG8=}",
    "a date": "run: {name: 2026-11-30}",
    "no date": "run: {name: 2026-13-45}",
    "a set": "evaluation: {metrics: !!set {truth}}",
    "true as a number": "run: {seed: true}",
    "text as a number": "optimizer: {learning_rate: 1e-4}",
    "a number as a name": "run: {name: 7}",
    "a number as a key": "1: {2: 3}",
    "a list as a key": "? [1, 2]\n: 3",
    "nothing as a section": "data:",
    "a list as a section": "data: [1]",
    "two documents": "data: {}\n---\nrun: {}",
    "an open list": "data: [1,",
    "a tab": "data:\n\tflip: true",
    "text": "hello",
    "nothing": " \n",
    "another name": "run: {speed: 11}",
    "other choices": "loss: {gan_loss: {a: b}}",
    "a whole one": "run: {seed: 3}",
}


# --- random values of a declared type --------------------------------------------------------------------------------


def _flags_of(options: type) -> dict[str, Any]:
    """Return the declarations of a command's flags by name, those of its sections among them."""
    found: dict[str, Any] = {}
    for name, declaration in declarations(options).items():
        kind = get_args(declaration)[0] if hasattr(declaration, "__metadata__") else declaration
        found |= _flags_of(kind) if is_dataclass(kind) else {name: declaration}
    return {name: declaration for name, declaration in found.items() if name not in (*FIXED, "images", "content")}


def _parts(declaration: Any) -> list[Any]:
    """Return a declaration and all that it is made of."""
    extras = getattr(declaration, "__metadata__", ())
    return [declaration, *extras, *(part for inner in get_args(declaration) for part in _parts(inner))]


def _value(declaration: Any, r: random.Random) -> str:
    """Return a value for a flag: half of the time one that may be right."""
    parts = _parts(declaration)
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part) if choice != LONG]
    if choices:
        return r.choice([*choices, *choices, "bogus", ""])
    ranges = [part for part in parts if isinstance(part, Range)]
    if ranges and r.random() < 0.5:
        ends = [end for end in (ranges[0].least, ranges[0].most) if end is not None]
        return str(r.choice([*ends, 1, 2, 32]))
    return r.choice(NUMBERS if ranges else PLACES if Path in parts else TEXTS)


def _given(options: type, r: random.Random) -> dict[str, str | None]:
    """Return random flags and their values; None for a switch."""
    flags = _flags_of(options)
    chosen = r.sample(sorted(flags), min(len(flags), r.choice([1, 1, 1, 2, 2, 3, 5])))
    switches = {name for name in chosen if flags[name] is bool}
    return {name: None if name in switches else _value(flags[name], r) for name in chosen}


def _as_flags(given: dict[str, str | None]) -> list[str]:
    return [
        part
        for name, value in given.items()
        for part in ([f"--{name.replace('_', '-')}"] if value is None else [f"--{name.replace('_', '-')}={value}"])
    ]


# --- commands --------------------------------------------------------------------------------------------------------


def _training_flags(work: Path, but: Sequence[str] = ()) -> list[str]:
    """Return the flags of a training of one step, but those that are given otherwise."""
    flags = ["--data", str(photos_in(work)), *TINY, "--runs", str(work / "runs"), "--name", "one"]
    flags[flags.index("--max-steps") + 1] = "1"
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [part for pair in pairs if pair[0] not in but for part in pair]


def _train(work: Path, r: random.Random) -> tuple[str, list[str]]:
    given = _as_flags(_given(TrainingCommand, r))
    named = {flag.partition("=")[0] for flag in given} | (
        {"--preset"} if any("--task" in flag for flag in given) else set()
    )
    return "cyclegan_fast.train", [*_training_flags(work, [*named]), *given]


def _train_from_file(work: Path, r: random.Random) -> tuple[str, list[str]]:
    text = CONFIGURATIONS[r.choice([*CONFIGURATIONS])]
    content = bytearray(text.encode("utf-8", "surrogateescape"))
    if r.random() < 0.2:
        content[r.randrange(len(content))] = r.randrange(256)
    file = work / "hostile.yaml"
    file.write_bytes(content)
    without = [f"--{name.replace('_', '-')}" for name in ("preset", "name", "runs", "cache_gib") if name in text]
    return "cyclegan_fast.train", [*_training_flags(work, ["--preset", *without]), "--config", str(file)]


def _train_from_python(work: Path, r: random.Random) -> tuple[str, list[str]]:
    return __name__, [str(work), str(r.randrange(10**9))]


def _translate(work: Path, r: random.Random) -> tuple[str, list[str]]:
    checkpoint = _a_run(work)
    given = _as_flags(_given(r.choice([TranslateCommand, ImageOptions]), r))
    base = ["--checkpoint", str(checkpoint), "--out", str(work / "out"), "--overwrite"]
    return "cyclegan_fast.translate", [str(photos_in(work) / "testA"), *base, *given]


def _evaluate(work: Path, r: random.Random) -> tuple[str, list[str]]:
    given = _as_flags(_given(EvaluateCommand, r))
    return "cyclegan_fast.evaluate", ["--checkpoint", str(_a_run(work)), "--out", str(work / "scores"), *given]


def _export(work: Path, r: random.Random) -> tuple[str, list[str]]:
    if r.random() < 0.5:
        given = _as_flags(_given(r.choice([ToOnnxCommand, ExportOptions]), r))
        return "export.to_onnx", ["--checkpoint", str(_a_run(work)), "--out", str(work / "engines"), *given]
    given = _as_flags(_given(RunCommand, r))
    return "export.run", [str(photos_in(work) / "testA"), "--out", str(work / "out"), "--onnx", "junk.onnx", *given]


def _a_run(work: Path) -> Path:
    """Return the folder of a run of two steps, which is trained at the first call."""
    folder = work / "runs" / "trained"
    return folder if folder.exists() else trained(work, "trained", steps=2)


KINDS = (_train, _train, _train, _train_from_file, _train_from_file, _train_from_python, _translate, _evaluate, _export)


# --- Python's values -------------------------------------------------------------------------------------------------


def _values_of_python() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    deep: Any = 1
    for _ in range(5 * DEEP):
        deep = [deep]
    numbers = [0, -1, 1, 2, 10**30, 10**5000, 3.5, math.nan, math.inf, True, None, np.int64(3), np.float32(1), 1j]
    return [
        *numbers,
        *TEXTS,
        "a\0b",
        "\ud800",
        b"x",
        Path("a\0b"),
        Path("\ud800"),
        nested,
        deep,
        {},
        [1],
        object(),
        int,
    ]


def main(arguments: Sequence[str]) -> int:
    """Train from Python by flags of a random seed; return the status that a command has."""
    folder, seed = Path(arguments[0]), arguments[1]
    r = random.Random(seed)
    base = _training_flags(folder)
    flags: dict[str, Any] = {
        name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else value
        for name, value in zip(base[::2], base[1::2], strict=True)
    }
    flags["cache_gib"] = 0.1
    names = [name for name in _flags_of(Config) if name not in ("preset", "task")]
    flags |= {name: r.choice(_values_of_python()) for name in r.sample(names, r.choice([1, 1, 2]))}
    try:
        cf.train(**flags)
    except UserError as error:
        print(f"{EXCUSE} {error}", file=sys.stderr)
        return 2
    return 0


# --- the campaign ----------------------------------------------------------------------------------------------------


def _came_of(module: str, ended: Ended) -> tuple[str, bool]:
    """Return what came of a command in a few words, and whether that is a failure."""
    if not ended.acceptable:
        return f"{ended.kind}: {ended.last_line}", True
    said = ended.err.replace("\r", "\n").partition(EXCUSE)[2].strip()
    if ended.kind == "clear error" and len(said.splitlines()) > 1:
        return f"an error of several lines: {said!r}", True
    if ended.kind == "done" and module == "cyclegan_fast.train" and "gallery:" not in ended.out:
        return f"status 0 without a run: {ended.out[-200:]!r}", True
    return ended.kind, False


def hostile_options(tally: Tally, work: Path, count: int, r: random.Random) -> None:
    """Give commands `count` combinations of flags, files and values, one after another."""
    (work / "junk.pt").write_bytes(b"nothing")
    for number in range(count):
        module, arguments = KINDS[number % len(KINDS)](work, r)
        ended = run(module, arguments, work, timeout_s=LIMIT_S, prepare=limited(resource.RLIMIT_AS, MEMORY))
        came, failed = _came_of(module, ended)
        brief = [part if len(part) < 80 else f"{part[:80]}..." for part in arguments]
        tally.add(f"{module} {brief}", came, failed=failed)
        for folder in ("one", "two"):
            shutil.rmtree(work / "runs" / folder, ignore_errors=True)


CAMPAIGN = Campaign(hostile_options, full=400, few=18)
