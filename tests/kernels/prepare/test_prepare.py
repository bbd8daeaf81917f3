"""`python -m kernels.prepare` fills the cache in which Triton looks at a launch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast.kernels import triton_language
from cyclegan_fast.kernels.prepare.__main__ import main

FLAGS = (
    *("--preset", "paper256", "--amp", "--generator", "resnet_6", "--ngf", "8", "--ndf", "8"),
    *("--crop-size", "64", "--load-size", "70"),
)


def run(cache: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(cache.parent / "site"), str(Path.cwd())])
    result = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment | {"TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_who_launches_finds_what_was_prepared_in_another_process(tmp_path: Path) -> None:
    # What a library prints in the processes that compile is taken for no answer of theirs.
    cache = tmp_path / "cache"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import sys\n"
        "if {'cyclegan_fast.kernels.prepare.workers', '--multiprocessing-fork'} & {*sys.orig_argv}: print(17)"
    )
    script = "tests.kernels.prepare.prepare_twice"
    listed = re.fullmatch(
        r"(\d+) listed, 0 otherwise than traced, (\d+) missing, 0 files, 0 compiled; (.*)\n",
        run(cache, script, "lists", *FLAGS),
    )
    assert listed
    assert int(listed[1]) == int(listed[2]) > 10
    assert "num_warps" in listed[3]
    prepared = run(cache, "kernels.prepare", "--sm", "90", *FLAGS)
    counts = re.match(
        r"sm_90, planned for NVIDIA H200, bfloat16: (\d+) kernels, 0 there already, (\d+) compiled", prepared
    )
    assert counts, prepared
    assert int(counts[1]) == int(counts[2]) > int(listed[1])  # those of translations, too
    assert run(cache, script, "finds", *FLAGS) == f"{listed[1]} found, 0 compiled\n"
    again = run(cache, "cyclegan_fast.kernels.prepare", "--sm", "90", *FLAGS)
    assert f"{counts[1]} kernels, {counts[1]} there already, 0 compiled" in again


@pytest.mark.parametrize(
    ("flags", "interpreted", "message"),
    [
        ((), False, "error: there is no GPU here: say with --sm which one to compile for, such as --sm 90"),
        (("--sm", "90"), True, "unset TRITON_INTERPRET"),
        (("--sm", "90", "--preset", "paper256", "--crop-size", "62"), False, "crop_size must be a multiple of 4"),
    ],
)
def test_what_cannot_be_prepared_is_refused(
    flags: tuple[str, ...],
    interpreted: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(triton_language, "INTERPRETED", interpreted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(list(flags)) == 2
    assert message in capsys.readouterr().err
