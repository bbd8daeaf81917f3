"""Test that every command that takes weights, and Python, take a checkpoint that a run keeps by its name, RUN@120."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import cyclegan_fast as cf
from cyclegan_fast import translate
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig
from cyclegan_fast.evaluate import main as evaluate_main
from export.source import load_sources
from tests.cyclegan_fast.checkpoints import checkpoint_of
from tests.cyclegan_fast.pictures import photo, pixels_of

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT: dict[str, list[str]] = {"5": ["epoch_0005.pt"], "best": ["best.pt"], "10": ["epoch_0010.pt"], "latest": []}
"""The checkpoints that are written one after another, and the names under which each is kept."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a run `runs/my@run` whose checkpoints have weights of their own, and test images; goes to its folder."""
    data = tmp_path / "data"
    for index, name in enumerate(("testA", "testB")):
        (data / name).mkdir(parents=True)
        photo(32, seed=index).save(data / name / "0.png")
    config = Config(
        data=DataConfig(data=data, load_size=36, crop_size=32),
        networks=NetworkConfig(generator="resnet_6", ngf=4, ndf=4, init_gain=0.2),
    )
    run = tmp_path / "runs" / "my@run"
    for step, names in enumerate(KEPT.values()):
        torch.manual_seed(step)
        checkpoint.save(run, checkpoint_of(config, {}, step=step), keep_as=names)
    monkeypatch.chdir(tmp_path)
    return Path("runs/my@run")


def called(main: object, *words: object) -> None:
    assert callable(main)
    assert main([str(word) for word in words]) == 0


def test_a_name_gives_every_command_the_checkpoint_that_is_kept(run: Path) -> None:
    """Holds pictures, scores and what is exported against those of the same file, given by its path."""
    digests: list[Sequence[int]] = []
    for which, (name, *_) in {**KEPT, "latest": ["last.pt"]}.items():
        file, named, out = run / "checkpoints" / name, f"{run}@{which}", Path(f"out-{which}")
        picture = Path("data/testA/0.png")
        for place, checkpoint_name in (("named", named), ("file", file)):
            called(translate.main, picture, "--checkpoint", checkpoint_name, "--out", out / place, "--format", "png")
        pixels = pixels_of(out / "named" / "0.png")
        assert np.array_equal(pixels, pixels_of(out / "file" / "0.png"))
        assert np.array_equal(pixels, cf.load(named)(pixels_of(picture)))
        digests.append(pixels.tobytes())

        kept = "" if which == "latest" else which
        called(evaluate_main, "--checkpoint", named, "--metrics", "reconstruction")
        found = json.loads((run / "evaluation" / kept / "evaluation.json").read_text())
        assert found["checkpoint"] == str(file)

        (source,) = load_sources(Path(named), "a2b", [])
        assert source.name == f"my@run{f'@{kept}' if kept else ''}-a2b"
        assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len({*digests}) == len(KEPT)


def test_an_epoch_that_is_not_kept_is_one_line(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert translate.main(["data/testA", "--checkpoint", f"{run}@7", "--out", "out"]) == 2
    assert capfd.readouterr().err == (
        "error: runs/my@run keeps no checkpoint @7, but @latest, @best, @5, @10; --keep-every-epochs N of the training "
        "keeps more\n"
    )
    assert not Path("out").exists()
