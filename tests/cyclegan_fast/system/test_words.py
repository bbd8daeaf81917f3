"""Sentences that every command shares: which commands there are, the version, and numbers with their nouns."""

import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_fast.__main__ import COMMANDS, main
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.words import counted
from cyclegan_fast.version import __version__

ROOT = Path(__file__).parents[3]


def commands_there_are() -> set[str]:
    """Every file of the two packages that ends in a call of main, as a user calls it."""
    found = set()
    for path in [*(ROOT / "cyclegan_fast").rglob("*.py"), *(ROOT / "export").glob("*.py")]:
        if "__main__" in path.read_text().partition("if __name__ ==")[2]:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            found.add(f"python export/{path.name}" if path.parts[-2] == "export" else f"python -m {module}")
    return found - {"python -m cyclegan_fast"}


def test_all_commands_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(COMMANDS) == commands_there_are()
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command, purpose in COMMANDS.items():
        assert sum(line.split() == [*command.split(), *purpose.split()] for line in lines) == 1
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_its_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = name.split()[-1]
    module = place.removesuffix(".py").replace("/", ".")
    module += ".__main__" if module.endswith("experiments") else ""
    try:
        status = importlib.import_module(module).main(["--version"])
    except SystemExit as ended:
        status = ended.code
    assert (status, capsys.readouterr().out) == (0, f"cyclegan-fast {__version__}\n")


def test_a_command_in_the_place_of_its_module_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["translate", "photos"]) == 2
    assert "did you mean python -m cyclegan_fast.translate?" in capsys.readouterr().err
    assert main(["nothing"]) == 2
    assert "python -m cyclegan_fast lists the commands" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cyclegan-fast {__version__}\n"


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
