"""Test what stands behind the demo's page, which needs no Gradio: checkpoints, translations, limits, examples."""

import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from cyclegan_fast.checkpoint.files import save
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.demo import main
from cyclegan_fast.demonstration.archive import ARCHIVE, write_archive
from cyclegan_fast.demonstration.examples import write_examples
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.demonstration.server import listening_socket, set_up_gradio
from cyclegan_fast.demonstration.shown_run import WEIGHTS
from cyclegan_fast.demonstration.wording import said_of
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from tests.conftest import MadeOnce
from tests.cyclegan_fast.checkpoints import NARROW, checkpoint_of
from tests.cyclegan_fast.demonstration.shown import by_translate, make_run, on_cpu, shown
from tests.cyclegan_fast.pictures import draw, pixels_of
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(made_once: MadeOnce) -> Path:
    def make(root: Path) -> None:
        make_run(root)

    return made_once("run_of_the_demo", make) / "runs" / "shown"


@pytest.mark.parametrize(("checkpoint", "direction"), [("latest", "a2b"), ("best", "b2a"), ("1", "a2b")])
def test_a_translation_has_the_bits_of_the_command(tmp_path: Path, run: Path, checkpoint: str, direction: str) -> None:
    image = draw(tmp_path / "in" / "odd.png", 45, 37)
    (expected,) = by_translate(f"{run}@{checkpoint}", [image], tmp_path / "out", direction)
    assert expected.std() > 10, "a flat picture would prove nothing"
    made = shown(run).translate(image, checkpoint, direction, 1024)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(made.after), expected)
    assert np.array_equal(np.asarray(made.before), pixels_of(image))
    assert made.description.startswith(f"{run}@{checkpoint}, {direction}, CPU")
    assert made.notes == ()


def test_checkpoints_are_those_that_the_run_keeps_and_one_generator_is_loaded_at_a_time(
    tmp_path: Path, run: Path
) -> None:
    image = draw(tmp_path / "x.png")
    demo = shown(run)
    assert demo.checkpoints() == ["latest", "best", "1"]
    made = [demo.translate(image, *choice, None).after for choice in (("1", "a2b"), ("best", "a2b"), ("1", "b2a"))]
    assert len({picture.tobytes() for picture in made}) == 3
    held = demo._loaded
    assert demo.translate(image, "1", "b2a", None).after.tobytes() == made[2].tobytes()
    assert demo._loaded is held
    assert held is not None
    demo.close()
    with pytest.raises(UserError, match="closed"):
        held.translator(image)


def test_a_run_that_is_trained_on_is_loaded_anew(tmp_path: Path) -> None:
    run, image = make_run(tmp_path), draw(tmp_path / "x.png")
    demo = shown(run)
    before = demo.translate(image, "latest", "a2b", None).after
    config = Config(networks=NARROW)
    save(run, checkpoint_of(config, {"G_A": make_generator(77)}, step=4), keep_as=["epoch_0004.pt"])
    assert demo.checkpoints() == ["latest", "best", "4", "1"]
    after = demo.translate(image, "latest", "a2b", None).after
    assert after.tobytes() == on_cpu(run, "a2b")(image).tobytes() != before.tobytes()


def test_a_checkpoint_may_be_named_and_one_that_went_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    demo = shown(Path(f"{run}@1"))
    assert demo.first_checkpoint == "1"
    assert demo.checkpoints() == ["latest", "best", "1"]
    (run / "checkpoints" / "best.pt").unlink()
    with pytest.raises(UserError, match="keeps no checkpoint best any more"):
        demo.translate(draw(tmp_path / "x.png"), "best", "a2b", None)


def test_weights_of_one_generator_know_one_way(tmp_path: Path) -> None:
    weights, image = tmp_path / "latest_net_G.pth", draw(tmp_path / "x.png")
    torch.save(to_original(make_generator(0).state_dict()), weights)
    demo = shown(weights)
    assert (demo.run, demo.checkpoints(), demo.directions) == (None, [WEIGHTS], ())
    made = demo.translate(image, WEIGHTS, "a2b", None).after
    assert made.tobytes() == on_cpu(weights, "a2b")(image).tobytes()


def test_larger_pictures_are_made_smaller_in_their_proportion(tmp_path: Path, run: Path) -> None:
    image = draw(tmp_path / "x.png", 80, 40)
    made = shown(run).translate(image, "latest", "a2b", 40)
    with Image.open(image) as opened:
        smaller = opened.resize((40, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(made.before), np.asarray(smaller))
    assert np.array_equal(np.asarray(made.after), np.asarray(on_cpu(run, "a2b")(smaller)))


def test_grey_runs_are_shown_in_grey(tmp_path: Path) -> None:
    data = DataConfig(data=tmp_path / "dots", load_size=36, crop_size=32, channels_a=1)
    config = Config(networks=NARROW, data=data)
    networks = {"G_A": make_generator(1, channels=(1, 3)), "G_B": make_generator(2, channels=(3, 1))}
    save(tmp_path / "run", checkpoint_of(config, networks, step=1))
    image = draw(tmp_path / "x.png")
    demo = shown(tmp_path / "run")
    made, back = (demo.translate(image, "latest", direction, None) for direction in ("a2b", "b2a"))
    assert (made.before.mode, made.after.mode, back.before.mode, back.after.mode) == ("L", "RGB", "RGB", "L")
    assert made.after.tobytes() == on_cpu(tmp_path / "run", "a2b")(image).tobytes()


def test_other_pixels_are_refused(tmp_path: Path) -> None:
    data = DataConfig(load_size=36, crop_size=32, channels_a=1, dtype_a="uint16", range_a=(0.0, 4095.0))
    config = Config(networks=NARROW, data=replace(data, data=tmp_path))
    networks = {"G_A": make_generator(1, channels=(1, 3)), "G_B": make_generator(2, channels=(3, 1))}
    save(tmp_path / "run", checkpoint_of(config, networks, step=1))
    with pytest.raises(UserError, match="1 channel, uint16, 0 to 4095, and the demo shows 8-bit RGB and grey"):
        shown(tmp_path / "run")


def test_what_is_no_picture_or_too_large_is_refused(tmp_path: Path, run: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    tifffile.imwrite(tmp_path / "scan.tif", np.zeros((8, 8), np.uint16))
    limits = DemoLimits(max_pixels=2000, max_translated_pixels=1000)
    demo = shown(run, limits)
    refused = {
        tmp_path / "text.png": "not an image",
        tmp_path / "scan.tif": "TIFF, volumes and arrays",
        draw(tmp_path / "large.png", 50, 41): "has 50x41 pixels, and this demo takes 2000 at most",
        draw(tmp_path / "medium.png", 40, 30): "at 40x30, 1200 pixels, and this demo translates 1000 at most",
    }
    for file, said in refused.items():
        with pytest.raises((UnreadableImage, UserError), match=said) as caught:
            demo.translate(file, "latest", "a2b", None)
        assert str(tmp_path) not in said_of(caught.value, file)
        assert said_of(caught.value, file).startswith(file.name)
    assert demo.translate(tmp_path / "medium.png", "latest", "a2b", 32).after.size == (32, 24)
    assert (50 * 40, 32 * 31) == (2000, 992)  # both bounds are reached, not passed
    demo.translate(draw(tmp_path / "just.png", 50, 40), "latest", "a2b", 32)


def test_no_visitor_is_told_of_a_fault_of_ours_as_if_it_were_theirs() -> None:
    with pytest.raises(ZeroDivisionError):
        said_of(ZeroDivisionError("x"), Path("x.png"))
    shortage = UserError("lower --batch-size")
    shortage.__cause__ = MemoryError()
    assert said_of(shortage, Path("a/x.png")) == "x.png: the memory does not suffice; choose a smaller longest side"


def test_a_batch_is_packed_and_what_cannot_be_read_is_left_out(tmp_path: Path, run: Path) -> None:
    files = [
        draw(tmp_path / folder / name, seed=seed)
        for seed, (folder, name) in enumerate([("a", "one.png"), ("b", "ONE.jpg"), ("a", "two.png")])
    ]
    (tmp_path / "text.png").write_text("no image")
    demo, out = shown(run), tmp_path / "out"
    out.mkdir()
    made = write_archive(
        [*files[:1], tmp_path / "text.png", *files[1:]], lambda file: demo.translate(file, "latest", "a2b", None), out
    )
    assert made.left_out == ["text.png: not an image"]
    assert [path.name for path in made.pictures] == ["one.png", "ONE 2.png", "two.png"]
    with zipfile.ZipFile(made.file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [path.name for path in made.pictures]
        for file, name in zip(files, archive.namelist(), strict=True):
            with archive.open(name) as packed, Image.open(packed) as picture:
                assert picture.tobytes() == on_cpu(run, "a2b")(file).tobytes()
    empty = write_archive([tmp_path / "text.png"], lambda file: demo.translate(file, "latest", "a2b", None), out)
    assert (empty.pictures, empty.file) == ([], out / ARCHIVE)


# --- examples --------------------------------------------------------------------------------------------------------


def test_examples_are_the_test_images_at_their_own_size(tmp_path: Path) -> None:
    run, notes = make_run(tmp_path), list[str]()
    (tmp_path / "dots" / "testA" / "1.png").write_text("damaged")
    files = write_examples(run, tmp_path / "examples", notes)
    assert {direction: len(paths) for direction, paths in files.items()} == {"a2b": 1, "b2a": 2}
    assert np.array_equal(pixels_of(files["b2a"][1]), pixels_of(tmp_path / "dots" / "testB" / "1.png"))
    assert len(notes) == 1
    assert re.fullmatch("left out an example: .*1.png: not an image", notes[0])


def test_examples_of_the_embedded_photographs_are_drawn(tmp_path: Path) -> None:
    run, notes = make_run(tmp_path, DataConfig(load_size=36, crop_size=32)), list[str]()
    files = write_examples(run, tmp_path / "examples", notes)
    assert notes == []
    assert {direction: len(paths) for direction, paths in files.items()} == {"a2b": 8, "b2a": 8}
    assert pixels_of(files["a2b"][0]).shape == (32, 32, 3)


def test_without_data_there_are_no_examples_but_a_note(tmp_path: Path) -> None:
    run, notes = make_run(tmp_path, DataConfig(data=tmp_path / "gone", load_size=36, crop_size=32)), list[str]()
    assert write_examples(run, tmp_path / "examples", notes) == {}
    assert len(notes) == 2
    assert all("gone, which is not there any more" in note for note in notes)
    assert write_examples(None, tmp_path / "none", notes) == {}
    assert "do not say what they were trained on" in notes[-1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_missing_gradio_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main([str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the demo needs Gradio, which cannot be imported")
    assert said.endswith("pip install 'cyclegan-fast[demo]'\n")
    assert said.count("\n") == 1
    with pytest.raises(UserError, match="needs Gradio"):
        set_up_gradio(tmp_path)


def test_a_port_that_is_taken_and_a_host_that_is_none_are_told() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port} .*give another --port"):
            listening_socket("127.0.0.1", port).__enter__()
    with pytest.raises(UserError, match="--host no host is no address of this machine"):
        listening_socket("no host", 0).__enter__()


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"latest_net_G|no checkpoint|holds no"):
        shown(tmp_path)
