"""Holds that every operation of a training that a fault can hit lies right behind a fault point, and what points do."""

import ast
import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from cyclegan_fast.system import fault_points, files
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import FAULT_POINTS, AskedFault, FaultKind
from tests.faults.harness_scenarios import SCENARIOS

ROOT = Path(__file__).parents[3]

HELPERS = {
    "replacing",
    "write_atomically",
    "write_encoded",
    "AppendedLines",
    "make_folder",
    "rename",
    "remove",
    "_contact",
}
"""Functions that cross the points themselves, under the name that they are given."""

COLLECTIVES = {
    *("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "all_to_all_single"),
    *("barrier", "broadcast", "broadcast_object_list", "destroy_process_group", "gather", "gather_object"),
    *("init_process_group", "irecv", "isend", "monitored_barrier", "new_group", "recv", "reduce", "reduce_scatter"),
    *("reduce_scatter_tensor", "scatter", "scatter_object_list", "send"),
}
METHODS = {
    *("hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text"),
    *("export_chrome_trace", "tofile", "truncate", "writelines"),
}
"""Lists what changes the disk, whatever object has it."""

FUNCTIONS = {
    "os": {
        *("fdatasync", "fsync", "ftruncate", "link", "makedirs", "mkdir", "open", "remove", "removedirs", "rename"),
        *("renames", "replace", "rmdir", "symlink", "sync", "truncate", "unlink", "write", "pwrite", "sendfile"),
    },
    "shutil": {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "rmtree"},
    "tempfile": {"NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkdtemp", "mkstemp"},
    "np": {"save", "savez", "savetxt"},
    "torch": {"save"},
    "dist": COLLECTIVES,
}

NOT_OF_A_TRAINING = {
    "api.py": "no training calls it",
    "baselines": "a command of its own",
    "checkpoint/hub.py": "fetches weights to begin with by the hub's client, and gives networks away",
    "checkpoint/original.py": "writes files of the original's for other commands",
    "checkpoint/published.py": "writes what is given away",
    "data/earth.py": "writes images for the command `earth`",
    "data/sample_photos.py": "writes images for the command `sample_photos`",
    "datasets": "writes data sets for commands of their own",
    "evaluation/fcn": "the network of the FCN score is trained by `evaluate fcn`",
    "evaluation/subject.py": "writes the results of `evaluate`",
    "evaluation/worst_and_best.py": "writes sheets of `evaluate`",
    "images/formats": "encodes samples into memory, for files that commands write and no training does",
    "images/scenes": "reads scenes, and opens no file to write",
    "kernels": "no part of the training stack: compiled kernels are made again where their cache is gone",
    "publishing": "writes what is given away",
    "translation": "a command of its own; a training translates in memory",
}
"""Modules that a training imports, and none of whose writes are its own."""

OURS = ("checkpoint", "self", "self.state", "training")
"""Lists what has a method `save` of ours, which is looked into where it stands."""

EXCUSED = {
    ("data/image_folder.py", "_decode_all", "write"): "`PixelCache.write`, which has its own points",
    ("methods/feature_loss/rotation.py", "write_features", "mkdir"): "a training's is its run's folder, which is there",
    ("system/command_line.py", "refused_in_one_line", "write"): "prints what tyro said",
    ("system/progress.py", "write", "write"): "prints beside a progress bar",
    ("training/update/descent.py", "add", "write"): "writes into a tensor",
    ("checkpoint/files.py", "to_bytes", "torch.save"): "writes into memory",
    ("images/files.py", "encoded", "save"): "encodes into memory",
    ("system/files.py", "replacing", "unlink"): "cleans up after another fault; a second one would have to strike",
    ("system/files.py", "replacing", "os.open"): "opens a folder for reading, to bring its names to the disk",
    ("system/files.py", "write_whole", "write"): "half of it is in the point, the whole right behind",
    ("data/pixel_cache.py", "write", "write"): "the index, right behind the pixels and of one piece with them",
    ("training/trackers/on_tensorboard.py", "_utf8_path", "*"): "is called by `Tracking`, behind its points",
}
"""Operations that need no point of their own: by file, function, and what they are."""


# --- the list is complete -------------------------------------------------------------------------------------------


@cache
def modules_of_a_training() -> list[Path]:
    """Return the files of `cyclegan_fast` that the command of a training imports, directly or not, lazily too."""
    found: dict[str, Path] = {}
    waiting = ["cyclegan_fast.train"]
    while waiting:
        name = waiting.pop()
        path = ROOT / name.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if name in found or not file.exists() or not name.startswith("cyclegan_fast"):
            continue
        found[name] = file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    folder = ROOT / "cyclegan_fast"
    trackers = sorted((folder / "training" / "trackers").glob("on_*.py"))  # are imported by their names
    names = {file.relative_to(folder).as_posix(): file for file in [*found.values(), *trackers]}
    return [file for name, file in sorted(names.items()) if not _is_left_out(name)]


def _is_left_out(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}/") for other in NOT_OF_A_TRAINING)


def operation(call: ast.Call) -> str | None:
    """Return what a call does that a fault can hit, "os.fsync" for instance; None where it is nothing of the kind."""
    function = call.func
    if isinstance(function, ast.Name):
        return "open" if function.id == "open" and _writes(call, 1) else None
    if not isinstance(function, ast.Attribute):
        return None
    name, owner = function.attr, function.value.id if isinstance(function.value, ast.Name) else None
    if owner in FUNCTIONS:
        return f"{owner}.{name}" if name in FUNCTIONS[owner] else None
    if name in METHODS or (name == "write" and owner != "tqdm"):
        return name
    if name == "open" and owner != "Image" and _writes(call, 0):  # Pillow's only reads
        return name
    if name == "save" and ast.unparse(function.value) not in OURS:  # Pillow's, and PyTorch's
        return name
    return name if name == "replace" and len(call.args) == 1 else None  # Path.replace: str.replace takes two


def _writes(call: ast.Call, place: int) -> bool:
    """Tell whether a call of `open`, whose mode stands at that place, opens a file for writing."""
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[place : place + 1]
    return any(not isinstance(mode, ast.Constant) or bool({*"wax+"} & {*str(mode.value)}) for mode in modes)


def events(node: ast.AST, function: str = "") -> Iterator[tuple[int, int, str, str]]:
    """Yield line, column, function and kind ("point", or the operation) of the calls in a module."""
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call):
            called = child.func
            name = called.id if isinstance(called, ast.Name) else None
            if name in ("fault_point", "_contact"):
                yield child.lineno, child.col_offset, inner, "point"
            elif kind := operation(child):
                yield child.lineno, child.col_offset, inner, kind
        yield from events(child, inner)


def unguarded(file: Path) -> list[str]:
    """Return the operations of a file before which, in their function, no point comes, or another operation does."""
    name = file.relative_to(ROOT / "cyclegan_fast").as_posix()
    found, guarded_in = [], None
    for line, _, function, kind in sorted(events(ast.parse(file.read_text(encoding="utf-8")))):
        if kind == "point":
            guarded_in = function
        elif not {(name, function, kind), (name, function, "*")} & EXCUSED.keys():
            if guarded_in != function:
                found.append(f"{name}:{line}: {kind} in {function}")
            guarded_in = None
    return found


def test_every_write_and_every_collective_of_a_training_lies_right_behind_a_fault_point() -> None:
    assert len(modules_of_a_training()) > 100
    assert [place for file in modules_of_a_training() for place in unguarded(file)] == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(path):\n    path.unlink()",
        "def f(path):\n    fault_point('metrics', 'before_sync')\n    os.fsync(1)\n    os.fsync(2)",
        "def f(path):\n    fault_point('metrics', 'before_sync')\ndef g(path):\n    path.replace(other)",
        "def f(path):\n    with open(path, 'a') as file:\n        pass",
        "def f(path):\n    dist.all_reduce(values)",
        "def f(image, path):\n    image.save(path)",
    ],
)
def test_what_has_no_point_is_found(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cyclegan_fast").mkdir()
    (tmp_path / "cyclegan_fast" / "new.py").write_text(source)
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert unguarded(tmp_path / "cyclegan_fast" / "new.py")


def test_what_is_excused_is_there() -> None:
    for name, function, kind in EXCUSED:
        path = ROOT / "cyclegan_fast" / name
        there = {(inner, of) for _, _, inner, of in events(ast.parse(path.read_text(encoding="utf-8")))}
        assert {(function, kind)} <= there or (kind == "*" and function in {inner for inner, _ in there}), name
    for name in NOT_OF_A_TRAINING:
        assert (ROOT / "cyclegan_fast" / name).exists(), name


def named_points() -> set[str]:
    """Return the names, and beginnings of names, that the code gives to points and to the helpers that cross them."""
    found = set()
    for file in modules_of_a_training():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = getattr(node, "func", None)
            if isinstance(called, ast.Name) and called.id in HELPERS | {"fault_point"}:
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                words = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                found.add(".".join(["ranks", *words] if called.id == "_contact" else words))
    return found - {""}


def test_the_list_has_the_points_of_the_code_and_no_others() -> None:
    named, heads = named_points(), {point.partition(".")[0] for point in FAULT_POINTS}
    for name in named:
        head, _, moment = name.partition(".")
        # A moment alone is a helper's, and what it is of comes from the helper's caller.
        assert name in FAULT_POINTS or head in heads or any(point.endswith(f".{head}") for point in FAULT_POINTS), name
        assert not moment or name in FAULT_POINTS, name
    assert heads == {name.partition(".")[0] for name in named} & heads


def test_every_point_is_hit_in_one_scenario() -> None:
    hit = [point for scenario in SCENARIOS.values() for point in scenario.points]
    assert sorted(hit) == sorted(FAULT_POINTS)


# --- what a point does ----------------------------------------------------------------------------------------------


def status_of(function: Callable[[], object]) -> int:
    """Return how a process ends that calls a function: its status, or the negative number of a signal."""
    process = os.fork()
    if not process:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Asks for a fault in this process."""
    return lambda text: monkeypatch.setattr(fault_points, "ASKED_FAULT", AskedFault.of(text))


def test_nothing_strikes_without_the_variable(tmp_path: Path) -> None:
    assert fault_points.ASKED_FAULT is None
    files.write_atomically(tmp_path / "results.json", b"{}", "results")
    assert (tmp_path / "results.json").read_bytes() == b"{}"


@pytest.mark.parametrize("kind", [FaultKind.FULL, FaultKind.FAILING])
@pytest.mark.parametrize("moment", [*fault_points.MOMENTS_OF_WHOLE_FILES])
def test_an_error_leaves_a_file_as_it_was_or_whole(
    kind: FaultKind, moment: str, ask: Callable[[str], None], tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"before")
    ask(f"results.{moment} {kind} 2")
    files.write_atomically(path, b"before", "results")  # the first crossing
    reason = os.strerror(getattr(errno, kind))
    with pytest.raises(UserError, match=f"could not write .*results.json: {reason}; what was saved before is unharmed"):
        files.write_atomically(path, b"and after", "results")
    assert path.read_bytes() == (b"and after" if moment == "after_rename" else b"before")
    assert list(tmp_path.iterdir()) == [path]
    files.write_atomically(path, b"later", "results")  # it strikes once
    assert path.read_bytes() == b"later"


@pytest.mark.parametrize("moment", [*fault_points.MOMENTS_OF_WHOLE_FILES])
def test_a_kill_leaves_a_file_as_it_was_or_whole(moment: str, ask: Callable[[str], None], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"before")
    ask(f"results.{moment} kill")
    assert status_of(lambda: files.write_atomically(path, b"and after", "results")) == -signal.SIGKILL
    assert path.read_bytes() == (b"and after" if moment == "after_rename" else b"before")
    partial = files.temporary_beside(path)
    assert partial.exists() == (moment in ("mid_write", "before_sync", "before_commit"))
    if moment == "mid_write":
        assert partial.read_bytes() == b"and "


def test_a_fault_in_a_line_leaves_half_of_it_and_names_the_file(ask: Callable[[str], None], tmp_path: Path) -> None:
    ask("metrics.mid_write ENOSPC 2")
    lines = files.AppendedLines(tmp_path / "metrics.jsonl", "metrics")
    lines.append("1234567")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics.jsonl'"):
        lines.append("abcdefg")
    lines.close()
    assert (tmp_path / "metrics.jsonl").read_text() == "1234567\nabcd"


def test_a_fault_of_a_rank_spares_the_others(ask: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    ask("ranks.before_allreduce kill 1 rank 1")
    monkeypatch.setenv("RANK", "0")
    fault_points.fault_point("ranks", "before_allreduce")
    monkeypatch.setenv("RANK", "1")
    assert status_of(lambda: fault_points.fault_point("ranks", "before_allreduce")) == -signal.SIGKILL


def test_a_process_that_torchrun_started_again_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fault_points.FAULT_VARIABLE, "ranks.before_allreduce kill 3")
    assert AskedFault.in_environment() == AskedFault("ranks.before_allreduce", FaultKind.KILL, 3)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert AskedFault.in_environment() is None


@pytest.mark.parametrize("text", ["metrics.before_lunch kill", "ranks.before_allreduce EIO", "metrics.mid_write flood"])
def test_a_fault_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no fault in"):
        AskedFault.of(text)


# --- the page of promises ------------------------------------------------------------------------------------------


def test_the_page_of_promises_has_every_point() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    listed = [f"{of}.{moment}" for of, moments in rows for moment in re.findall(r"\w+", moments)]
    assert sorted(listed) == sorted(FAULT_POINTS)
