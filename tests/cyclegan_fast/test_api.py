"""Test `cyclegan_fast.load`, `train` and `evaluate`: they do what the commands do, to the same bits."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cyclegan_fast as cf
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.command import parse_training
from cyclegan_fast.config.keywords import training_settings
from cyclegan_fast.evaluate import main as evaluate_main
from cyclegan_fast.images.pixels import Pixels, to_pixels, to_signed
from cyclegan_fast.networks.norms import batch_norms
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.device import has_bfloat16
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.interruption import Stopped
from cyclegan_fast.train import main as train_main
from cyclegan_fast.training import session
from cyclegan_fast.translate import main as translate_main
from cyclegan_fast.translation.any_image import ImageTranslator
from cyclegan_fast.translation.translator import FunctionTranslator, NotFinite
from tests.conftest import MadeOnce
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.pictures import draw, photo, pixels_of
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
SIZES = [(48, 40), (45, 37), (3, 5), (1, 9)]
"""Widths and heights: one that networks take, and others that are padded, by more than their sides too."""
TINY_FLAGS = {"generator": "resnet_6", "ngf": 4, "ndf": 4, "load_size": 36, "crop_size": 32, "device": "cpu"}


@pytest.fixture(scope="session")
def trained(made_once: MadeOnce) -> Path:
    """Trains a tiny run of two steps through `cyclegan_fast.train`; returns a folder with the run and its data."""

    def make(root: Path) -> None:
        for index, name in enumerate(("trainA", "trainB", "testA", "testB")):
            (root / "dots" / name).mkdir(parents=True)
            for image in range(2):
                photo(48, seed=2 * index + image).save(root / "dots" / name / f"{image}.png")
        folder = cf.train(data=root / "dots", runs=str(root / "runs"), name="tiny", max_steps=2, **TINY_FLAGS)
        assert folder == root / "runs" / "tiny"

    return made_once("trained_by_the_api", make)


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "runs" / "tiny"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Writes weights whose translations show their input, as the original implementation does."""
    torch.save(to_original(make_generator(0).state_dict()), tmp_path / "latest_net_G.pth")
    return tmp_path / "latest_net_G.pth"


def by_the_command(path: Path, images: list[Path], out: Path, *flags: object) -> list[Pixels]:
    """Translate by `python -m cyclegan_fast.translate`, to PNG."""
    fixed = ["--checkpoint", path, "--out", out, "--format", "png", "--device", "cpu", "--no-contact-sheet"]
    assert translate_main([str(word) for word in [*images, *fixed, *flags]]) == 0
    return [pixels_of(out / f"{image.stem}.png") for image in images]


def drawn(folder: Path, sizes: list[tuple[int, int]] = SIZES, suffix: str = ".png") -> list[Path]:
    return [draw(folder / f"{seed}{suffix}", *size, seed=seed) for seed, size in enumerate(sizes)]


# --- load: the bits of the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_pictures_paths_and_arrays_of_any_size_translate_as_the_command_does(
    tmp_path: Path, run: Path, direction: Any
) -> None:
    images = drawn(tmp_path / "in")
    # Two of the images have one size when padded. Alone a convolution may sum up in another order than in a batch.
    expected = by_the_command(run, images, tmp_path / "out", "--direction", direction, "--batch-size", 1)
    translator = cf.load(run, direction, device="cpu")
    assert translator.direction == direction
    for path, pixels in zip(images, expected, strict=True):
        picture = translator(Image.open(path))
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), pixels)
        assert np.array_equal(np.asarray(translator(path)), pixels)
        assert np.array_equal(np.asarray(translator(str(path))), pixels)
        assert np.array_equal(translator(pixels_of(path)), pixels)
        assert pixels.shape == pixels_of(path).shape
    of_list = translator([Image.open(images[0]), *images[1:]])
    expected = by_the_command(run, images, tmp_path / "in batches", "--direction", direction)
    assert all(np.array_equal(np.asarray(one), pixels) for one, pixels in zip(of_list, expected, strict=True))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_batches_are_those_of_the_command(tmp_path: Path, weights: Path, batch_size: int | None) -> None:
    images = drawn(tmp_path / "in", [(30, 22)] * 5)
    flags = [] if batch_size is None else ["--batch-size", batch_size]
    expected = np.stack(by_the_command(weights, images, tmp_path / "out", *flags))
    assert expected.std() > 10, "a flat picture would prove nothing"
    translator = cf.load(weights, device="cpu", batch_size=batch_size)
    assert np.array_equal(translator(np.stack([pixels_of(path) for path in images])), expected)
    assert np.array_equal(np.stack(translator([pixels_of(path) for path in images])), expected)


def test_amp_is_the_commands(tmp_path: Path, weights: Path) -> None:
    (image,) = drawn(tmp_path / "in", [(30, 22)])
    (expected,) = by_the_command(weights, [image], tmp_path / "out", "--amp")
    if has_bfloat16(torch.device("cpu")):
        assert "bfloat16" in repr(translator := cf.load(weights, device=torch.device("cpu"), amp=True))
        assert not np.array_equal(expected, cf.load(weights, device="cpu")(pixels_of(image)))
    else:
        with pytest.warns(UserWarning, match="--amp changes nothing"):
            translator = cf.load(weights, device="cpu", amp=True)
    assert np.array_equal(translator(pixels_of(image)), expected)


def test_a_cameras_orientation_transparency_and_16_bits_are_read_as_the_command_reads_them(
    tmp_path: Path, weights: Path
) -> None:
    folder = tmp_path / "in"
    base = Image.open(drawn(folder, [(30, 22)])[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(folder / "turned.jpg", exif=exif)
    layer = base.copy()
    layer.putalpha(base.convert("L"))
    layer.save(folder / "layer.png")
    base.convert("P").save(folder / "palette.png")
    Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 250).save(folder / "deep.png")
    images = [folder / name for name in ("turned.jpg", "layer.png", "palette.png", "deep.png")]
    expected = by_the_command(weights, images, tmp_path / "out", "--batch-size", 1)
    translator = cf.load(weights, device="cpu")
    for path, pixels in zip(images, expected, strict=True):
        assert np.array_equal(np.asarray(translator(Image.open(path))), pixels), path
        assert np.array_equal(np.asarray(translator(path)), pixels), path
    assert translator(Image.open(images[0])).size == (22, 30)


@pytest.mark.parametrize("shape", [(3, 3, 24, 32), (3, 21, 30), (2, 3, 5, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_tensors_keep_their_type_and_shape_and_round_to_what_arrays_give(
    weights: Path, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape[:-3], *shape[-2:], 3), np.uint8)
    batch = to_signed(torch.from_numpy(pixels.reshape(-1, *pixels.shape[-3:])))
    translator = cf.load(weights, device="cpu")
    images = batch.reshape(shape).to(dtype).requires_grad_()
    translated = translator(images)
    assert (translated.dtype, translated.shape) == (dtype, images.shape)
    assert not translated.requires_grad
    assert not translated.is_inference()
    if dtype != torch.float16:
        found = to_pixels(translated.reshape(batch.shape)).reshape(pixels.shape)
        assert np.array_equal(found, translator(pixels))
        assert not bool((translated == ((translated + 1) * 127.5).round() / 127.5 - 1).all()), "it is rounded"
    if shape == (3, 3, 24, 32) and dtype == torch.float32:
        with torch.no_grad():
            assert torch.equal(translated, make_generator(0)(batch))


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True])
def test_another_process_translates_to_the_bits_of_the_commands_process(
    tmp_path: Path, weights: Path, amp: bool
) -> None:
    """Starts both as users do: with their own threads, and with what the command sets in front of PyTorch."""
    images = drawn(tmp_path / "in", [(256, 256), (256, 256), (201, 303), (64, 48)])
    command = ["-m", "cyclegan_fast.translate", *map(str, images), "--checkpoint", str(weights), "--out", "theirs"]
    code = (
        "import sys, cyclegan_fast as cf\n"
        f"for path, picture in zip(sys.argv[2:], cf.load(sys.argv[1], amp={amp})(sys.argv[2:])):\n"
        "    picture.save('ours/' + path.rpartition('/')[2])\n"
    )
    (tmp_path / "ours").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(ROOT)
    for arguments in ([*command, *(["--amp"] if amp else [])], ["-c", code, str(weights), *map(str, images)]):
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, check=True)
    for path in images:
        assert np.array_equal(*(pixels_of(tmp_path / folder / path.name) for folder in ("ours", "theirs"))), path


def test_nothing_in_a_batch_gives_nothing(weights: Path) -> None:
    translator = cf.load(weights, device="cpu")
    assert translator(np.empty((0, 9, 8, 3), np.uint8)).shape == (0, 9, 8, 3)
    assert translator(torch.empty(0, 3, 9, 8)).shape == (0, 3, 9, 8)
    assert translator([]) == []


def test_a_unet_gets_sides_that_it_can_halve(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UnetGenerator(width=4, halvings=5, norm="instance").eval()
    torch.save(to_original(network.state_dict()), tmp_path / "latest_net_G.pth")
    (image,) = drawn(tmp_path / "in", [(45, 37)])
    (expected,) = by_the_command(tmp_path / "latest_net_G.pth", [image], tmp_path / "out")
    assert np.array_equal(cf.load(tmp_path / "latest_net_G.pth", device="cpu")(pixels_of(image)), expected)


def test_one_generator_of_several_is_chosen_by_name_or_direction(tmp_path: Path) -> None:
    several = {
        f"netG_{name}": to_original(make_generator(seed).state_dict()) for seed, name in enumerate(("A2B", "B2A"))
    }
    torch.save(several, tmp_path / "both.pth")
    image = pixels_of(drawn(tmp_path, [(32, 24)])[0])
    translations = []
    for name, direction in (("netG_A2B", "a2b"), ("netG_B2A", "b2a")):
        chosen = cf.load(tmp_path / "both.pth", network=name, device="cpu")(image)
        with pytest.warns(UserWarning, match=name):
            named = cf.load(tmp_path / "both.pth", direction, device="cpu")(image)  # type: ignore[arg-type]
        assert np.array_equal(chosen, named)
        translations.append(chosen)
    assert not np.array_equal(*translations)


def test_running_statistics_are_the_commands(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UnetGenerator(width=4, halvings=5, norm="batch").train()
    network(torch.rand(2, 3, 32, 32))
    assert batch_norms(network)
    torch.save(to_original(network.state_dict()), tmp_path / "latest_net_G.pth")
    (image,) = drawn(tmp_path / "in", [(32, 32)])
    (expected,) = by_the_command(tmp_path / "latest_net_G.pth", [image], tmp_path / "out", "--running-statistics")
    own = cf.load(tmp_path / "latest_net_G.pth", device="cpu")
    running = cf.load(tmp_path / "latest_net_G.pth", device="cpu", running_statistics=True)
    assert np.array_equal(running(pixels_of(image)), expected)
    assert not np.array_equal(own(pixels_of(image)), expected)


def test_the_newest_run_is_the_default(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert "runs/tiny, a2b" in repr(cf.load(device="cpu"))
    assert "b2a" in repr(cf.load("runs/tiny/checkpoints/last.pt", "b2a", device="cpu"))


# --- load: threads, closing, errors ----------------------------------------------------------------------------------


def test_several_threads_may_call_it(weights: Path) -> None:
    translator = cf.load(weights, device="cpu")
    images = [np.random.default_rng(seed).integers(0, 256, (20 + seed, 24, 3), np.uint8) for seed in range(8)]
    expected = [translator(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = list(pool.map(translator, images))
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_threads_wait_for_one_another() -> None:
    """Calls a translator that only one thread at a time may call, as OpenVINO's, from eight."""
    inside: list[int] = []

    def translate(pixels: Pixels) -> Pixels:
        inside.append(1)
        assert len(inside) == 1
        os.sched_yield()
        inside.pop()
        return 255 - pixels

    translator = ImageTranslator(
        FunctionTranslator(translate), tensors=None, direction=None, description="the negative"
    )
    image = np.zeros((8, 8, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        assert all(int(found.min()) == 255 for found in pool.map(translator, [image] * 200))


def test_it_is_closed_once_and_says_so() -> None:
    closed: list[int] = []
    with ImageTranslator(
        FunctionTranslator(lambda pixels: pixels),
        tensors=None,
        direction=None,
        description="nothing",
        close=lambda: closed.append(1),
    ) as translator:
        assert "closed" not in repr(translator)
        with pytest.raises(UserError, match="nothing takes 8-bit pixels only"):
            translator(torch.zeros(3, 8, 8))
    translator.close()
    assert closed == [1]
    assert "closed" in repr(translator)
    for images in (np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8)):
        with pytest.raises(UserError, match="the translator is closed"):
            translator(images)  # type: ignore[call-overload]


def test_an_image_that_is_not_finite_is_counted_from_the_first(tmp_path: Path) -> None:
    network = make_generator(0)
    with torch.no_grad():
        network.get_parameter("stem.weight").fill_(3e38)  # finite, and too large to compute with
    torch.save(to_original(network.state_dict()), tmp_path / "latest_net_G.pth")
    with pytest.raises(NotFinite):
        cf.load(tmp_path / "latest_net_G.pth", device="cpu")(np.zeros((8, 8, 3), np.uint8))

    def translate(pixels: Pixels) -> Pixels:
        if pixels.any():
            raise NotFinite(0)
        return pixels

    translator = ImageTranslator(
        FunctionTranslator(translate), tensors=None, direction=None, description="", batch_size=1
    )
    with pytest.raises(NotFinite) as caught:
        translator(np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 0, 1, 0)]))
    assert caught.value.index == 2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3)), r"got an array float64 \[8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"got an array uint8 \[8, 8\]"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"got an array uint8 \[8, 8, 4\]"),
        (np.zeros((0, 8, 3), np.uint8), r"got an array uint8 \[0, 8, 3\]"),
        (torch.zeros(8, 8, 3), r"got a tensor float32 \[8, 8, 3\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"got a tensor uint8 \[3, 8, 8\]"),
        (torch.tensor(0.5), r"got a tensor float32 \[\]"),
        (torch.full((3, 8, 8), 255.0), "one has the magnitude 255: .* images / 127.5 - 1"),
        (torch.full((3, 8, 8), float("nan")), "one has the magnitude nan"),
        (5, "a translator takes .*; got int"),
        ([np.zeros((8, 8, 3), np.uint8), None], "got NoneType"),
        (Image.new("F", (8, 8)), "the picture of mode F cannot be converted to 8 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused(weights: Path, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cf.load(weights, device="cpu")(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "hub:zebra"}, "hub:zebra is no name on the hub: it reads hub:owner/name"),
        ({"path": "engines/x.onnx"}, "no ONNX file engines/x.onnx"),
        ({"path": "engines/x.onnx", "device": "cuda:1"}, "device of an ONNX file must be auto, cpu or cuda"),
        ({"path": "engines/x.onnx", "network": "netG_A"}, "network and running_statistics are for what PyTorch runs"),
        (
            {"path": Path("engines/x.ENGINE")},
            "an engine runs on the CUDA device that it was built for, got device 'cpu'",
        ),
        ({"path": "nowhere"}, "nowhere"),
        ({"direction": "A2B"}, "direction must be one of a2b, b2a, got 'A2B'"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to 65536, got 0"),
        ({"batch_size": "4"}, "batch_size must be a whole number from 1 to 65536, got '4'"),
        ({"threads": "1"}, "--threads must be between 1 and"),
        ({"threads": 0}, "--threads must be between 1 and"),
        ({"running_statistics": True}, "has no batch norm"),
        ({"network": "netG_X"}, "netG_X"),
    ],
    ids=str,
)
def test_loading_what_is_not_there_is_refused(weights: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cf.load(**{"path": weights, "device": "cpu", **arguments})


# --- train -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ({}, []),
        ({"data": "folder"}, ["--data", "folder"]),
        (
            {"data": Path("folder"), "preset": "paper128", "amp": True},
            ["--data", "folder", "--preset", "paper128", "--amp"],
        ),
        (
            {"data": "folder", "method": "pix2pix", "crop_size": 128, "load_size": 140},
            ["--data", "folder", "--method", "pix2pix", "--crop-size", "128", "--load-size", "140"],
        ),
        (
            {"data": "folder", "task": "style-transfer", "learning_rate": 1, "metrics": ["truth", "lookup"]},
            ["--data", "folder", "--task", "style-transfer", "--learning-rate", "1", "--metrics", "truth", "lookup"],
        ),
        ({"preset": None, "name": "x", "range_a": (0, 4095)}, ["--name", "x", "--range-a", "0", "4095"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_keyword_arguments_mean_what_flags_mean(flags: dict[str, Any], arguments: list[str]) -> None:
    assert training_settings(flags) == parse_training(arguments)


def test_a_configurations_file_is_a_start(run: Path) -> None:
    flags = {"config": run / "config.yaml", "max_steps": 7}
    assert training_settings(flags) == parse_training(["--config", str(run / "config.yaml"), "--max-steps", "7"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batchsize": 1}, "train: unknown batchsize; did you mean batch_size"),
        ({"learning_ratio": 1}, "did you mean learning_rate"),
        ({"zzz": 1}, "train: unknown zzz; none is like it `python -m cyclegan_fast.train --help` lists all flags"),
        ({"learning_rate": -1}, "train: learning_rate must be a number above 0 and at most 1000, got -1"),
        ({"amp": 1}, "train: amp must be true or false, got 1"),
        ({"data": 5}, "train: data must be the path of a file or folder, got 5"),
        ({"config": 5}, "train: config must be text, got 5"),
        (
            {"crop_size": "64", "method": "pix2pix"},
            "train: crop_size must be a multiple of 4 from 24 to 65536, got '64'",
        ),
        ({"preset": "paper512"}, "train: preset must be one of demo, earth, paper128, paper256, got 'paper512'"),
        ({"method": "gan"}, "train: method must be one of .*, got 'gan'"),
        ({"preset": "demo", "task": "style-transfer"}, "--preset and --task all say what to start from"),
        ({"task": "style-transfer"}, "--task style-transfer needs --data FOLDER"),
        ({"amp_dtype": "float16"}, "amp_dtype float16 has no effect without --amp"),
    ],
    ids=str,
)
def test_training_of_flags_that_make_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        cf.train(**flags)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_training_that_was_asked_to_stop_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "train", lambda config, origin, callbacks: 143)
    with pytest.raises(KeyboardInterrupt) as caught:
        cf.train(runs=tmp_path)
    assert isinstance(caught.value, Stopped)
    assert caught.value.status == 143


def test_a_run_of_the_command_has_the_same_weights(tmp_path: Path, trained: Path, run: Path) -> None:
    flags = [*TINY, "--data", str(trained / "dots"), "--runs", str(tmp_path), "--name", "tiny", "--max-steps", "2"]
    assert train_main([*flags, "--device", "cpu"]) == 0
    ours, theirs = (torch.load(path / "checkpoints" / "last.pt")["model"] for path in (run, tmp_path / "tiny"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_scores_are_those_that_the_command_writes(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = cf.evaluate(run, out=str(tmp_path / "ours"), device="cpu", metrics=["reconstruction"], images=1)
    printed = capsys.readouterr().out
    flags = ["--checkpoint", str(run), "--device", "cpu", "--metrics", "reconstruction", "--images", "1"]
    assert evaluate_main([*flags, "--out", str(tmp_path / "theirs")]) == 0
    assert capsys.readouterr().out == printed.replace(str(tmp_path / "ours"), str(tmp_path / "theirs"))
    ours, theirs = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("ours", "theirs"))
    assert ours == theirs
    rows = {row["name"]: row for row in ours["rows"]}
    assert scores.keys() >= {"a2b.reconstruction.ssim", "b2a.reconstruction.psnr_db"}
    for name, value in scores.items():
        row, _, column = name.rpartition(".")
        assert rows[row][column] == value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metric": ["truth"]}, "evaluate: unknown metric; did you mean metrics"),
        ({"metrics": ["truths"]}, "evaluate: --metrics must be one of reconstruction, .*, got 'truths'"),
        ({"metrics": []}, "evaluate: --metrics needs one metric at least"),
        ({"images": -1}, "evaluate: --images must be a whole number from 0 to 10\\^9, got -1"),
        ({"checkpoint": "nowhere"}, "nowhere"),
    ],
    ids=str,
)
def test_an_evaluation_that_makes_no_sense_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cf.evaluate(**flags)


# --- the package -----------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, cyclegan_fast as cf\n"
        "assert not {'torch', 'numpy', 'PIL', 'tyro'} & {*sys.modules}, 'import is heavy'\n"
        "load = cf.load\n"
        "assert 'torch' not in sys.modules, 'load is heavy'\n"
        "for use in (lambda: cf.nothing, lambda: cf.evaluate(nonsense=1)):\n"
        "    try:\n        use()\n    except Exception as error:\n        print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = ended.stdout.splitlines()
    assert first == "module 'cyclegan_fast' has no attribute 'nothing'"
    assert second.startswith("evaluate: unknown nonsense")


@pytest.mark.parametrize("name", ["evaluate", "train"])
def test_a_commands_module_is_the_function_of_its_name(name: str) -> None:
    """They cannot be two: Python sets the package's attribute to the module once the command is imported."""
    module = sys.modules[f"cyclegan_fast.{name}"]
    assert getattr(cf, name) is module
    assert callable(module.main)
    function: Callable[..., object] = getattr(sys.modules["cyclegan_fast.api"], name)
    assert inspect.signature(module) == inspect.signature(function)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"{name}: unknown nonsense"):
        getattr(cf, name)(nonsense=1)
