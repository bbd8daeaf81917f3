"""Every number that an option of any command can have is declared with a range, and both sides of it are held."""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest

from cyclegan_fast.baselines.gatys import GatysCommand
from cyclegan_fast.config.command import TrainingCommand, parse_training
from cyclegan_fast.config.keywords import training_settings
from cyclegan_fast.config.options import Config
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.datasets.authors import DownloadCommand
from cyclegan_fast.demo import DemoCommand
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.earth import EarthCommand
from cyclegan_fast.evaluation.command import EvaluateCommand
from cyclegan_fast.evaluation.fcn.command import EvaluateFcnCommand
from cyclegan_fast.evaluation.fcn.segmentation import SegmentationTraining
from cyclegan_fast.experiments.plan import PlanSettings, Tables
from cyclegan_fast.methods.feature_loss.rotation import RotationTraining
from cyclegan_fast.sample_photos import SamplePhotosCommand
from cyclegan_fast.stained_tissue import StainedTissueCommand
from cyclegan_fast.street_scenes import StreetScenesCommand
from cyclegan_fast.study.analysis import Analyse
from cyclegan_fast.study.format import SessionSettings
from cyclegan_fast.study.page import Make
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import Range, declarations
from cyclegan_fast.translation.command import TranslateCommand
from cyclegan_fast.translation.plan import ImageOptions
from export.browser.page import PageOptions
from export.options import ExportOptions
from export.run import RunCommand
from export.serve import ServeCommand
from export.serving.service_options import BatchOptions, ServingLimits
from export.serving.triton_repository import TritonOptions, TritonRepositoryCommand
from export.to_formats import ToFormatsCommand
from export.to_onnx import ToOnnxCommand
from export.trt import ShapeOptions, TrtCommand
from export.verify import VerifyCommand
from export.web import WebCommand

ROOT = Path(__file__).parents[1]
OUT = Path("out")
IMAGES = ImageOptions(("x.png",), OUT)
COMMANDS = (
    Analyse((Path("results"),)),
    DemoCommand(DemoLimits()),
    DownloadCommand(),
    EarthCommand(OUT),
    EvaluateCommand(),
    EvaluateFcnCommand(),
    GatysCommand(("x.png",), OUT, style=(Path("style.png"),)),
    Make(Path("real"), ("fake",), OUT),
    RunCommand(IMAGES),
    SamplePhotosCommand(OUT),
    ServeCommand((Path("x.onnx"),), ServingLimits(), BatchOptions()),
    StainedTissueCommand(OUT),
    StreetScenesCommand(OUT),
    Tables(Path("data"), OUT, PlanSettings()),
    ToFormatsCommand(),
    ToOnnxCommand(ExportOptions()),
    TrainingCommand(Config(), "paper256"),
    TranslateCommand(IMAGES),
    TritonRepositoryCommand((Path("x.onnx"),), TritonOptions()),
    TrtCommand(ExportOptions(), ShapeOptions()),
    VerifyCommand(),
    WebCommand(PageOptions()),
)
"""One valid value of every class that a command line is parsed into."""
ALL = (*COMMANDS, SegmentationTraining(), RotationTraining(), SessionSettings(1, 1, 1, 1, paired=False))
HUGE = (10**30, 10**5000)


def _sections(options: Any) -> Iterator[Any]:
    """Yield a dataclass, and the dataclasses in its fields."""
    yield options
    for field in fields(options):
        if is_dataclass(value := getattr(options, field.name)):
            yield from _sections(value)


SECTIONS = list({type(section): section for options in ALL for section in _sections(options)}.values())


def _numbers(declaration: Any, limits: Range | None = None) -> Iterator[tuple[type, Range | None]]:
    """Yield the kinds of number in a declaration, each with its range."""
    kind, *extras = get_args(declaration) if get_origin(declaration) is Annotated else (declaration,)
    limits = next((extra for extra in extras if isinstance(extra, Range)), limits)
    if kind in (int, float):
        yield kind, limits
    for part in get_args(kind) if get_origin(declaration) is not Annotated else ([kind] if get_args(kind) else []):
        yield from _numbers(part, limits)


def _fields_of_numbers() -> Iterator[tuple[Any, str, type, Range]]:
    for section in SECTIONS:
        for name, declaration in declarations(type(section)).items():
            for kind, limits in _numbers(declaration):
                assert limits is not None, f"{type(section).__name__}.{name} has no range: Annotated[int, Range(1, 9)]"
                yield section, name, kind, limits


def _outside(kind: type, limits: Range) -> list[Any]:
    """Return the numbers just outside of a range, and what no number is in it."""
    found: list[Any] = [*HUGE, -(10**30), "1", True] if kind is int else [math.inf, -math.inf, math.nan, "1"]
    if limits.least is not None:
        found.append(limits.least - 1 if kind is int else math.nextafter(limits.least, -math.inf))
    if limits.most is not None:
        found.append(limits.most + 1 if kind is int else math.nextafter(limits.most, math.inf))
    found += [kind(bound) for bound in (limits.above, limits.below) if bound is not None]
    return [*found, limits.least + 1] if limits.multiple > 1 and limits.least is not None else found


def _inside(kind: type, limits: Range) -> list[Any]:
    """Return the numbers at the two ends of a range."""
    found: list[Any] = [bound for bound in (limits.least, limits.most) if bound is not None]
    found += [math.nextafter(limits.above, math.inf)] if limits.above is not None else []
    return found + ([math.nextafter(limits.below, -math.inf)] if limits.below is not None else [])


def _documented() -> Iterator[tuple[str, str, str]]:
    """Yield the name of each class of options, a field and its help, which is the string below it."""
    for folder in ("cyclegan_fast", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for field, text in (
                    zip(node.body, node.body[1:], strict=False) if isinstance(node, ast.ClassDef) else ()
                ):
                    if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                        yield node.name, ast.unparse(field.target), ast.unparse(text.value)


def _changed(section: Any, name: str, value: Any) -> str:
    """Return what a section says to another value of a field; "" where it takes it."""
    changed = (value,) if isinstance(getattr(section, name), tuple) else value
    try:
        replace(section, **{name: changed})
    except ValueError as error:
        return str(error)
    return ""


def test_every_command_line_is_among_these() -> None:
    parsed = set()
    for folder in ("cyclegan_fast", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "parse_command":
                    parsed.add(ast.unparse(node.args[0]))
    chooses = {"StudyCommand"}  # one of two commands, by its name alone
    assert parsed == {type(command).__name__ for command in COMMANDS} - {"TrainingCommand"} | chooses


def test_every_number_has_a_range_that_ends_on_both_sides() -> None:
    counted = list(_fields_of_numbers())
    assert len(counted) > 80
    for section, name, _, limits in counted:
        ends = (limits.least is None) != (limits.above is None) and (limits.most is None) != (limits.below is None)
        assert ends, f"{type(section).__name__}.{name}: {limits}"


def test_help_that_says_the_largest_number_says_what_is_declared() -> None:
    most = {(type(section).__name__, name): limits.most for section, name, _, limits in _fields_of_numbers()}
    told = {
        (section, name): int(found[1])
        for section, name, text in _documented()
        if (section, name) in most and (found := re.search(r"(\d+) at most", text))
    }
    assert ("NetworkConfig", "ngf") in told
    assert told == {key: most[key] for key in told}


def test_both_sides_of_each_range_are_held() -> None:
    for section, name, kind, limits in _fields_of_numbers():
        where = f"{type(section).__name__}.{name}"
        for value in _outside(kind, limits):
            said = _changed(section, name, value)
            assert said.replace("-", "_").lstrip("_").startswith(f"{name} must be a"), f"{where}: {said}"
            assert len(said) < 200
            assert "\n" not in said
        for value in _inside(kind, limits):  # another rule may refuse it, such as that of two sizes
            assert f"{limits}, got" not in _changed(section, name, value), f"{where}: {value}"


def test_every_text_is_one_that_files_can_be_called() -> None:
    tried = 0
    for section in SECTIONS:
        for name, declaration in declarations(type(section)).items():
            kinds = {declaration, *get_args(declaration)}
            for kind in kinds & {str, Path}:
                tried += 1
                for text in ("a\0b", "\ud800"):
                    said = _changed(section, name, kind(text))
                    assert "is no text" in said, f"{type(section).__name__}.{name} takes {text!r}: {said}"
    assert tried > 40


@pytest.mark.parametrize("section", [field.name for field in fields(Config)])
def test_files_and_python_are_checked_as_flags_are(section: str) -> None:
    options = getattr(Config(), section)
    for name, declaration in declarations(type(options)).items():
        for kind, limits in _numbers(declaration):
            for value in _outside(kind, limits or Range()):
                given = [value] if isinstance(getattr(options, name), tuple) else value
                said = _changed(options, name, value)
                with pytest.raises(UserError) as by_file:
                    from_dict({section: {name: given}}, "x.yaml")
                with pytest.raises(UserError) as by_python:
                    training_settings({name: given})
                assert str(by_file.value) == f"x.yaml: {said}"
                assert str(by_python.value) == f"train: {said}"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--cache-gib inf", "cache_gib must be a number from 0 to 10^6, got inf"),
        (f"--pool-size {10**30}", "pool_size must be a whole number from 0 to 10^6, got 1" + "0" * 30),
        (
            f"--load-size {10**30} --method simgan",
            "load_size must be a whole number from 24 to 65536, got 1" + "0" * 30,
        ),
        ("--load-size 1000000", "load_size must be a whole number from 24 to 65536, got 1000000"),
        ("--batch-size 100000000", "batch_size must be a whole number from 1 to 65536, got 100000000"),
        ("--ngf 2048", "ngf must be a whole number from 1 to 1024, got 2048"),
        ("--workers 5000", "workers must be a whole number from 0 to 256, got 5000"),
        ("--name \udcff", r"name must be a plain folder name of 255 bytes at most, got '\udcff'"),
        (f"--seed {'9' * 5000}", "a flag has a number of more than 4300 digits, which Python does not read"),
        ("--preset tiny", "argument --preset: invalid choice: 'tiny' (choose from "),
        ("--crop-size 1.5", "argument --crop-size/--crop_size: invalid int value: '1.5'"),
        ("--ema nan", "ema must be a number at least 0 and below 1, got nan"),
    ],
)
def test_a_flag_is_refused_in_one_line(flag: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as refused:
        parse_training(flag.split())
    assert str(refused.value).startswith(said)
    assert capsys.readouterr() == ("", "")
