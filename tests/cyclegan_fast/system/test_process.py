"""Commands set up their process before PyTorch is imported, and importing the package leaves it alone."""

import ast
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from cyclegan_fast import evaluate, train, translate
from cyclegan_fast.runs import RESULTS
from cyclegan_fast.system import process
from cyclegan_fast.system.device import use_threads
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import WAITING, check_threads, release_free_memory, set_up_process
from tests.cyclegan_fast.conftest import TINY

ROOT = Path(__file__).parents[3]
SET = ("GOMP_SPINCOUNT", "LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
NOT_COMPUTING = {
    ROOT / "cyclegan_fast" / name
    for name in (
        "__main__.py",
        "download.py",
        "earth.py",
        "perceptual_study.py",
        "sample_photos.py",
        "stained_tissue.py",
        "street_scenes.py",
    )
}
COMMANDS = [
    path
    for folder in ("cyclegan_fast", "export")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if 'if __name__ == "__main__":\n    sys.exit(' in path.read_text() and path not in NOT_COMPUTING
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Gives an environment in which the user has set nothing; it is put back after the test."""
    for name in (*SET, *WAITING, "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone, too
        monkeypatch.delenv(name)
    return monkeypatch


def test_nothing_that_the_user_has_set_is_changed(environment: pytest.MonkeyPatch) -> None:
    set_up_process()
    assert [os.environ[name] for name in SET] == ["20000", "256", "256"]
    for name in (*WAITING, *SET):
        for other in SET:
            environment.delenv(other, raising=False)
        environment.setenv(name, "1")
        set_up_process()
        assert os.environ[name] == "1"
        assert ("GOMP_SPINCOUNT" in os.environ) == (name == "GOMP_SPINCOUNT" or name not in WAITING)
        environment.delenv(name)
    environment.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    environment.setenv("DNNL_PRIMITIVE_CACHE_CAPACITY", "7")
    set_up_process()
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_commands_set_it_before_they_import_anything_else(path: Path) -> None:
    first = ast.parse(path.read_text()).body[1]  # behind the docstring
    assert ast.unparse(first).splitlines() == [
        "if __name__ == '__main__':",
        "    from cyclegan_fast.system.process import set_up_process",
        "    set_up_process()",
    ]


def test_torch_finds_it_set(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Puts a module in PyTorch's place, which says what it finds, and ends the command."""
    (tmp_path / "torch.py").write_text(f"import os\nprint(*map(os.environ.get, {SET!r}))\nraise SystemExit(0)\n")
    found = subprocess.run(
        [sys.executable, "-m", "cyclegan_fast.train"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "20000 256 256\n"


IMPORTED = f"""
import json, os, sys
import cyclegan_fast.train, cyclegan_fast.translate, cyclegan_fast.evaluate, export.run

variables = sorted({{*os.environ}} & {{*{SET!r}}})
assert cyclegan_fast.train.main(sys.argv[1:]) == 0
large = sorted({{name for name in sys.modules if "." not in name}} | ({{"torch._dynamo"}} & {{*sys.modules}}))
print(json.dumps([variables, large]))
"""


def test_importing_the_package_sets_nothing_and_a_whole_training_needs_no_large_package(
    environment: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    """Holds that a start takes no longer than it must: each of these packages takes 0.7 to 3 seconds of a processor."""
    run = ["--data", str(folder), *TINY, "--runs", str(tmp_path), "--name", "x", "--device", "cpu", "--max-steps", "1"]
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED, *run],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "reconstructed" in ended.stdout, "it was scored, too"
    variables, packages = json.loads(ended.stdout.splitlines()[-1])
    assert variables == []
    assert not {"torch._dynamo", "pandas", "onnx"} & {*packages}  # torchmetrics brings matplotlib and SciPy
    assert {"torch", "tensorboard"} <= {*packages}


@pytest.mark.parametrize("threads", [0, -1, 5, 10**6])
def test_threads_that_there_are_no_processors_for_are_refused(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for right in (None, 1, 4):
        check_threads(right)
    with pytest.raises(UserError, match=f"--threads must be between 1 and 4, .*, got {threads}: leave it out"):
        check_threads(threads)


def test_torch_computes_with_the_threads_that_were_asked_for(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    for count in (1, os.cpu_count() or 1):
        use_threads(count)
        assert torch.get_num_threads() == count
        use_threads(None)
        assert torch.get_num_threads() == count


def test_a_run_says_its_threads_and_goes_on_with_others(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They change its results by rounding at the most."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    processors = os.cpu_count() or 1
    command = ["--data", str(folder), *TINY, "--runs", str(tmp_path), "--name", "x", "--device", "cpu"]
    assert train.main([*command, "--max-steps", "1", "--threads", str(processors)]) == 0
    torch.set_num_threads(1)
    trained = ["--checkpoint", str(tmp_path / "x"), "--device", "cpu", "--threads", str(processors)]
    assert translate.main([str(folder / "testA"), *trained, "--out", str(tmp_path / "out")]) == 0
    torch.set_num_threads(1)
    assert evaluate.main(trained) == 0
    words = f"CPU, {processors} thread{'' if processors == 1 else 's'} ("
    assert capsys.readouterr().out.count(words) == 3
    for file in (RESULTS, "evaluation/evaluation.json"):
        assert json.loads((tmp_path / "x" / file).read_text())["device"].startswith(words)
    (tmp_path / "x" / RESULTS).unlink()
    assert train.main([*command, "--max-steps", "1", "--threads", "1"]) == 0
    assert "CPU, 1 thread (" in capsys.readouterr().out
    trained[-1] = str(processors + 1)
    assert train.main([*command, "--name", "y", "--threads", trained[-1]]) == 2
    assert translate.main([str(folder / "testA"), *trained, "--out", str(tmp_path / "none")]) == 2
    assert evaluate.main(trained) == 2
    assert capsys.readouterr().err.count("error: --threads must be between 1 and") == 3
    assert not (tmp_path / "y").exists()


def test_freed_memory_goes_back_to_the_system() -> None:
    """64 MiB in pieces, of which every hundredth stays in use and keeps what lies before it."""

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    if process._malloc_trim() is None:
        pytest.skip("not with this C library")
    pieces = [bytes([1]) * 2**16 for _ in range(1024)]
    kept = pieces[::100]
    pieces.clear()
    before = resident_mib()
    release_free_memory()
    assert len(kept) == 11
    assert before - resident_mib() > 40
