"""Sentences that every command shares: which commands there are, the version, and numbers with their nouns."""

import importlib
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cyclegan_fast.__main__ import main
from cyclegan_fast.commands import COMMANDS
from cyclegan_fast.system import progress
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.words import alternatives, counted, listed, percent
from cyclegan_fast.version import __version__

ROOT = Path(__file__).parents[3]


def modules_of_commands() -> set[str]:
    """Return the name of every module of the two packages that ends in a call of main."""
    found = set()
    for path in [*(ROOT / "cyclegan_fast").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        if "__main__" in path.read_text().partition("if __name__ ==")[2]:
            found.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found - {"cyclegan_fast.__main__"}


def test_all_commands_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert {command.module for command in COMMANDS.values()} == modules_of_commands()
    assert main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        words = ["python", "-m", "cyclegan_fast", name, *command.purpose.split()]
        assert sum(line.split() == words for line in lines) == 1
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = importlib.import_module(COMMANDS[name].module).main(["--version"])
    except SystemExit as ended:
        status = ended.code
    assert (status, capsys.readouterr().out) == (0, f"cyclegan-fast {__version__}\n")


def test_a_misspelt_command_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in {"trian": "train", "sample_photos": "sample-photos", "Evaluate": "evaluate"}.items():
        assert main([typed, "photos"]) == 2
        assert f"did you mean python -m cyclegan_fast {meant}?" in capsys.readouterr().err
    assert main(["nothing"]) == 2
    assert "python -m cyclegan_fast lists the commands" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cyclegan-fast {__version__}\n"


def called(*arguments: str, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command of all commands in a process, by its module or by an installed script."""
    program = [str(script)] if script else [sys.executable, "-m", "cyclegan_fast"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*program, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_a_command_runs_by_its_name_and_calls_itself_so(tmp_path: Path) -> None:
    script = tmp_path / "cyclegan-fast"  # as pip makes it
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom cyclegan_fast.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    for program, given in {"cyclegan-fast": script, "python -m cyclegan_fast": None}.items():
        asked = called("sample-photos", "--help", script=given)
        assert (asked.returncode, asked.stdout.splitlines()[0]) == (
            0,
            f"usage: {program} sample-photos [-h] PATH [--side INT] [--count INT]",
        )
    wrote = called("sample-photos", str(tmp_path / "data"), "--side", "8", "--count", "2", script=script)
    assert wrote.returncode == 0, wrote.stderr
    assert len(list((tmp_path / "data" / "trainA").iterdir())) == 2
    refused = called("sample-photos", str(tmp_path / "data"), "--side", "0", script=script)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_a_shell_completes_commands_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:  # tyro ends the process
        main(["--tyro-print-completion", "bash"])
    assert not ended.value.code
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    for words, expected in {
        "t": "to-onnx train translate triton-repository",
        "train --am": "--amp --amp-dtype",
    }.items():
        program = f"""source {tmp_path}/completion
COMP_WORDS=(cyclegan-fast {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="${{COMP_WORDS[*]}}"
$(complete -p cyclegan-fast | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo "${{COMPREPLY[@]}}" """
        shell = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        found = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=os.environ | shell)
        assert found.stdout.strip() == expected, found.stderr
    assert main(["--tyro-print-completion", "fish"]) == 2
    assert capsys.readouterr().err == "error: --tyro-print-completion takes one of bash, zsh, tcsh, got fish\n"


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("image",), "2 images"),
        (1, ("process", "processes"), "1 process"),
        (2, ("process", "processes"), "2 processes"),
    ],
)
def test_numbers_agree_with_their_nouns(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected


def test_what_the_encoding_of_standard_output_lacks_is_printed_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))

    def command() -> int:
        print("caf\xe9 \udce9")
        assert written.getvalue() == b"caf\\xe9 \\udce9\n", "a line is sent when it is printed"
        return 0

    assert run_command(command) == 0


BARS = """
import sys, time
from cyclegan_fast.system import progress
from cyclegan_fast.system.progress import progress_bar, waiting

progress.FIRST_LINE_S = float(sys.argv[1])
for _ in progress_bar(range(30), desc="reading", unit=" images"):
    time.sleep(0.01)
with waiting("loading"):
    time.sleep(2.3)
bar = progress_bar(desc="training", unit=" steps", total=100)
for _ in range(3):
    time.sleep(0.2)
    bar.update()
    bar.set_postfix_str("losses: G_A 0.31", refresh=False)
bar.close()
"""


def started(first_line_s: float, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BARS, str(first_line_s)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert not output
    assert "\r" not in errors
    return errors.splitlines()


def test_bars_are_lines_in_a_log_file_and_only_of_what_takes_long() -> None:
    of_a_slow_command, of_a_quick_one, of_another_rank = started(0.15), started(60.0), started(0.15, RANK="1")
    lines = lines_of(of_a_slow_command)
    assert lines[0].startswith("reading:")
    assert " images/s" in lines[0]
    assert len([line for line in lines if line.startswith("reading:")]) <= 4
    assert [line for line in lines if line.startswith("loading: 00:0")]
    assert "steps/s, losses: G_A 0.31]" in lines[-1]
    assert lines[-1].startswith("training:   3%")
    assert lines_of(of_a_quick_one) == []
    assert lines_of(of_another_rank) == [], "of several processes the first one speaks"


def test_a_bar_in_a_log_file_counts_each_item_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    for _ in progress.progress_bar(range(300), desc="reading", unit=" images", leave=False):
        time.sleep(0.0005)
    lines = written.getvalue().splitlines()
    assert 2 <= len(lines) <= 8
    assert all(re.search(r" \d+/300 ", line) for line in lines), lines


def test_names_are_joined_as_a_sentence_has_them() -> None:
    assert [alternatives(names) for names in (["1"], ["1", "2"], ["1", "2", "4"])] == ["1", "1 or 2", "1, 2 or 4"]
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(1, 1, "100 %"), (999, 1000, "100 %"), (1, 8, "12 %"), (3, 25000, "0.012 %"), (0, 7, "0 %")],
)
def test_shares_are_plain_numbers(part: int, whole: int, said: str) -> None:
    assert percent(part, whole) == said
