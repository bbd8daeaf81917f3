"""Command lines in the original's spelling: what they are answered with, and that what the tables say can be run."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cyclegan_fast import train, translate
from cyclegan_fast.config import command as settings
from cyclegan_fast.config.options import Config
from cyclegan_fast.original_options import TEST, TRAIN, Option, markdown, refuse_original_options
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.conftest import TINY

PAGE = (Path(__file__).parents[2] / "docs" / "from-the-original.md").read_text()
SMALL = [*TINY, "--max-steps", "1"]

EXAMPLES: dict[str, tuple[str, str, Any]] = {
    "dataroot": ("maps", "data", Path("maps")),
    "name": ("x", "name", "x"),
    "checkpoints_dir": ("there", "runs", Path("there")),
    "gpu_ids": ("-1", "device", "cpu"),
    "model": ("pix2pix", "method", "pix2pix"),
    "input_nc": ("3", "channels_a", 3),
    "output_nc": ("3", "channels_b", 3),
    "ngf": ("3", "ngf", 3),
    "ndf": ("3", "ndf", 3),
    "netD": ("pixel", "discriminator", "pixel"),
    "netG": ("resnet_6blocks", "generator", "resnet_6"),
    "n_layers_D": ("2", "n_layers", 2),
    "norm": ("batch", "norm", "batch"),
    "init_type": ("orthogonal", "init_type", "orthogonal"),
    "init_gain": ("0.1", "init_gain", 0.1),
    "no_dropout": ("", "dropout", False),
    "serial_batches": ("", "serial", True),
    "num_threads": ("3", "workers", 3),
    "batch_size": ("2", "batch_size", 2),
    "load_size": ("300", "load_size", 300),
    "crop_size": ("28", "crop_size", 28),
    "max_dataset_size": ("3", "max_images", 3),
    "preprocess": ("crop", "preprocess", "crop"),
    "no_flip": ("", "flip", False),
    "display_freq": ("7", "sample_every", 7),
    "update_html_freq": ("7", "sample_every", 7),
    "print_freq": ("7", "report_every", 7),
    "save_latest_freq": ("7", "checkpoint_every", 7),
    "save_epoch_freq": ("7", "keep_every_epochs", 7),
    "n_epochs": ("7", "epochs", 7),
    "n_epochs_decay": ("7", "decay_epochs", 7),
    "beta1": ("0.4", "beta1", 0.4),
    "lr": ("0.001", "learning_rate", 0.001),
    "gan_mode": ("wgangp", "lambda_penalty", 0.0),
    "no_lsgan": ("", "gan_loss", "vanilla"),
    "pool_size": ("7", "pool_size", 7),
    "lr_policy": ("cosine", "learning_rate_policy", "cosine"),
    "lr_decay_iters": ("7", "step_epochs", 7),
    "lambda_A": ("7", "lambda_cycle_a", 7.0),
    "lambda_B": ("7", "lambda_cycle_b", 7.0),
    "lambda_identity": ("0.1", "lambda_identity", 0.1),
    "lambda_L1": ("7", "lambda_paired", 7.0),
}
"""A value of each option of train.py that has a counterpart, and the field that it sets."""

NEEDS = {
    "n_layers_D": ["--discriminator", "n_layers"],
    "lr_decay_iters": ["--learning-rate-policy", "step"],
    "lambda_L1": ["--method", "pix2pix"],
}


def in_original_spelling(option: Option, name: str, value: str) -> list[str]:
    return [f"--{name}", *([value] if option.value else [])]


def value_of(config: Config, field: str) -> Any:
    for section in fields(config):
        if hasattr(getattr(config, section.name), field):
            return getattr(getattr(config, section.name), field)
    raise KeyError(field)


def answered(arguments: list[str], options: tuple[Option, ...], program: str) -> list[str]:
    """Return the command that the answer names, without the program; the same arguments where they need no answer."""
    try:
        refuse_original_options(arguments, options, program)
    except UserError as error:
        command = str(error).split(f"Here the command is: {program}")[1]
        return shlex.split(command)
    return arguments


def test_every_option_with_a_counterpart_has_an_example() -> None:
    assert {option.names[0] for option in TRAIN if option.ours or option.values} == set(EXAMPLES)
    every = [name for option in TRAIN for name in option.names]
    assert len({*every}) == len(every)
    ours = {field.name for section in fields(Config()) for field in fields(getattr(Config(), section.name))}
    # None of our flags is taken for one of the original's that means something else.
    assert {option.names[0] for option in TRAIN if {*option.names} & ours and not option.is_ours} == set()


@pytest.mark.parametrize(
    "option", [option for option in TRAIN if option.names[0] in EXAMPLES], ids=lambda o: o.names[0]
)
def test_the_flags_of_the_answer_set_what_the_original_sets(option: Option) -> None:
    value, field, expected = EXAMPLES[option.names[0]]
    for name in option.names:
        own = answered([*NEEDS.get(option.names[0], []), *in_original_spelling(option, name, value)], TRAIN, "x")
        config, _ = settings.parse_training([*([] if "--data" in own else ["--data", "maps"]), *own])
        assert value_of(config, field) == expected, own
        if not option.value:
            continue
        assert answered([*NEEDS.get(option.names[0], []), f"--{name}={value}"], TRAIN, "x") in (
            own,
            [*NEEDS.get(option.names[0], []), f"--{name}={value}"],
        )


@pytest.mark.parametrize(
    ("value", "flags"),
    [(value, flags) for option in TRAIN for value, flags in option.values.items() if flags],
)
def test_every_value_that_is_spelled_otherwise_is_taken_here(value: str, flags: str) -> None:
    config, _ = settings.parse_training(["--data", "maps", *shlex.split(flags)])
    flag, own, *_ = shlex.split(flags)
    assert str(value_of(config, flag.removeprefix("--").replace("-", "_"))) == own


def test_a_command_in_the_originals_spelling_is_answered_with_ours(capfd: pytest.CaptureFixture[str]) -> None:
    theirs = (
        "--dataroot ./maps --name x --model pix2pix --netG unet_128 --direction BtoA --n-epochs=5 --no_flip --seed 3"
    )
    assert train.main(theirs.split()) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    for part in (
        "--dataroot ./maps is --data ./maps",
        "--direction is not needed: every method trains both directions",
        "Here the command is: python -m cyclegan_fast.train --data ./maps --name x --method pix2pix "
        "--generator unet_128 --epochs 5 --no_flip --seed 3\n",
    ):
        assert part in said, part
    assert "--name x is" not in said
    assert translate.main(["--dataroot", "my photos", "--name", "x", "--direction", "AtoB", "--no_dropout"]) == 2
    said = capfd.readouterr().err
    assert (
        "Here the command is: python -m cyclegan_fast.translate 'my photos' --checkpoint runs/x --direction a2b\n"
        in said
    )
    assert "--no_dropout is not needed: read from the file of weights" in said


@pytest.mark.parametrize(("epoch", "run"), [("120", "'runs/my x@120'"), ("latest", "'runs/my x'")])
def test_an_epoch_of_the_original_becomes_a_part_of_the_runs_name(epoch: str, run: str) -> None:
    theirs = ["--epoch", epoch, "--dataroot", "photos", "--name", "my x"]
    with pytest.raises(UserError) as refused:
        refuse_original_options(theirs, TEST, "translate")
    own = str(refused.value).partition("Here the command is: ")[2]
    assert shlex.split(own) == ["translate", "photos", "--checkpoint", *shlex.split(run)]
    config, _ = settings.parse_training(["--data", "maps", *answered(["--save_epoch_freq", "5"], TRAIN, "x")])
    assert config.run.keep_every_epochs == 5


def test_flags_of_ours_are_not_taken_for_the_originals() -> None:
    refuse_original_options(["photos", "--direction", "a2b", "--batch-size", "2", "--out", "x"], TEST, "x")
    refuse_original_options(["--data", "x", "--epochs", "3", "--lambda-cycle", "3", "--batch_size", "2"], TRAIN, "x")


# --- the tables of the page ------------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    section = PAGE.split("## Coming from the original")[1]
    assert markdown(TRAIN) in section
    assert markdown(TEST) in section


def commands(section: str) -> list[str]:
    """Return what stands in a table as `train ...` or `translate ...`."""
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [found for line in rows for found in re.findall(r"`((?:train|translate) .*?)`", line)]


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trains a run of one step, to translate with."""
    monkeypatch.chdir(tmp_path)
    assert train.main(["--data", str(folder), "--name", "x", *SMALL, "--norm", "batch"]) == 0
    return folder


@pytest.mark.slow
def test_every_command_of_the_table_of_differences_runs(run: Path) -> None:
    found = commands(PAGE.split("## Differences from the original")[1].split("\n## ")[0])
    assert len(found) > 7
    for number, (command, *flags) in enumerate(map(shlex.split, found)):
        if command == "train":
            assert train.main(["--data", str(run), "--name", f"run{number}", *SMALL, *flags]) == 0, flags
        else:
            arguments = [str(run / "testA"), "--checkpoint", "runs/x", "--out", f"out{number}", *flags]
            assert translate.main(arguments) == 0, flags


GROUPS = {
    "cyclegan": set(EXAMPLES) - {"dataroot", "name", "checkpoints_dir", "model", "gan_mode", "lr_policy", "lambda_L1"},
    "pix2pix": {"model", "lambda_L1", "netG", "lr_policy"},
    "wgan-gp": {"gan_mode", "checkpoints_dir"},
}
"""All options of train.py with a counterpart, in commands that can have them all."""


@pytest.mark.parametrize("group", GROUPS)
def test_every_flag_of_the_migration_table_runs(group: str, folder: Path, tmp_path: Path) -> None:
    assert set.union(*GROUPS.values()) | {"dataroot", "name"} == set(EXAMPLES)
    for alone in ("4.png", "5.png"):
        (folder / "trainA" / alone).unlink()  # the others have partners
    theirs = ["--dataroot", str(folder), "--name", "x"]
    for option in TRAIN:
        name = option.names[0]
        if name in GROUPS[group]:
            value = str(tmp_path / "runs") if name == "checkpoints_dir" else EXAMPLES[name][0]
            value = {"netD": "n_layers"}.get(name, value)
            theirs += in_original_spelling(option, name, value)
    own = answered(theirs, TRAIN, "x")
    own += ["--learning-rate-policy", "step"] if "lr_decay_iters" in GROUPS[group] else []
    own += [] if "checkpoints_dir" in GROUPS[group] else ["--runs", str(tmp_path / "runs")]
    for flag, value in zip(SMALL[::2], SMALL[1::2], strict=True):
        own += [] if flag in own or flag.replace("-", "_").replace("__", "--") in own else [flag, value]
    assert train.main(own) == 0
    assert (tmp_path / "runs" / "x" / "results.json").exists()


def test_every_flag_of_the_table_of_translations_runs(run: Path, tmp_path: Path) -> None:
    theirs = ["--dataroot", str(run / "testA"), "--name", "x", "--results_dir", "out", "--direction", "BtoA"]
    theirs += [
        "--gpu_ids",
        "-1",
        "--epoch",
        "latest",
        "--load_size",
        "32",
        "--batch_size",
        "2",
        "--eval",
        "--num_test",
        "5",
        "--model",
        "test",
    ]
    own = answered(theirs, TEST, "x")
    given = {option.names[0] for option in TEST if f"--{option.names[0]}" in theirs}
    assert given >= {option.names[0] for option in TEST if option.ours or option.values}
    assert translate.main(own) == 0
    assert len([*(tmp_path / "out").glob("*.png")]) >= 2
