"""Translation in strips: the same numbers as the whole image at once, in bounded memory, and nothing left behind."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.measure.live_memory import live_memory
from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.networks.norms import batch_norms, use_running_statistics
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translate import main
from cyclegan_fast.translation.on_device import TorchTranslator
from cyclegan_fast.translation.strips.resnet import TiledTranslator
from cyclegan_fast.translation.strips.rows import Statistics
from cyclegan_fast.translation.strips.scratch_file import ScratchFile
from cyclegan_fast.translation.translator import NotFinite
from tests.cyclegan_fast.pictures import draw, names, pixels_of
from tests.cyclegan_fast.translations import at_once, in_strips, joined, make_generator, picture

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[4]
CPU = torch.device("cpu")
ALL = 10**6  # more rows than any image here has


# --- the same numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 40), (52, 12), (68, 44)])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, ALL])
def test_strips_equal_the_image_at_once(tmp_path: Path, height: int, width: int, rows: int) -> None:
    network, image = make_generator(0, blocks=2), picture(height, width)
    expected = at_once(network, image)
    assert expected.std() > 0.1, "a flat picture would prove nothing"
    assert np.abs(joined(in_strips(network, rows, width, tmp_path), image) - expected).max() <= 1e-4


@pytest.mark.parametrize("rows", [1, 2, 3, 7, ALL])
@pytest.mark.parametrize(("norm", "upsampling"), [("none", "transposed"), ("none", "resize"), ("instance", "resize")])
def test_other_generators_go_in_strips(tmp_path: Path, norm: Norm, upsampling: Upsampling, rows: int) -> None:
    network, image = make_generator(0, blocks=2, norm=norm, upsampling=upsampling), picture(52, 44)
    expected = at_once(network, image)
    assert expected.std() > 0.1, "a flat picture would prove nothing"
    assert np.abs(joined(in_strips(network, rows, 44, tmp_path), image) - expected).max() <= 1e-4


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms parameters and running statistics that are not those of new ones."""
    draws = torch.Generator().manual_seed(seed)
    for norm in batch_norms(network):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            values.data = torch.rand(values.shape, generator=draws) + 0.5
    return network


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("rows", [2, 7])
def test_batch_norm_goes_in_strips(tmp_path: Path, rows: int, running: bool) -> None:
    network, image = make_generator(0, blocks=2, norm="batch"), picture(52, 44)
    with_statistics(network)
    if running:
        use_running_statistics(network, "it")
    expected = at_once(network, image)
    assert expected.std() > 0.1, "a flat picture would prove nothing"
    assert np.abs(joined(in_strips(network, rows, 44, tmp_path), image) - expected).max() <= 1e-4


def test_nine_blocks_and_two_images(tmp_path: Path) -> None:
    network = make_generator(1, blocks=9)
    images = np.stack([picture(40, 56, seed) for seed in (1, 2)])
    translator = in_strips(network, 5, 56, tmp_path)
    for image in images:
        assert np.abs(joined(translator, image) - at_once(network, image)).max() <= 1e-4
    expected = TorchTranslator(network, CPU, torch.float32)(images)
    assert np.abs(translator(images).astype(int) - expected).max() <= 1
    assert np.abs(expected[0].astype(int) - expected[1]).max() > 10


def test_parts_translated_one_by_one_would_show(tmp_path: Path) -> None:
    """Shows that the tests above can fail: statistics of a part instead of the whole differ by far more than 1e-4."""
    network, image = make_generator(0, blocks=2), picture(64, 64)
    parts = np.concatenate([at_once(network, half) for half in (image[:32], image[32:])], 1)
    assert np.abs(parts - at_once(network, image)).mean() > 0.05


@pytest.mark.parametrize("rows", [1, 6, ALL])
def test_bfloat16_is_rounded_where_the_network_rounds(tmp_path: Path, rows: int) -> None:
    network, image = make_generator(0, blocks=2), picture(48, 64)
    wide = at_once(network, image)
    expected = at_once(network, image, torch.bfloat16)
    actual = joined(in_strips(network, rows, 64, tmp_path, torch.bfloat16), image)
    assert np.array_equal(actual, torch.from_numpy(actual).bfloat16().float().numpy())
    # A rounding that falls to the other side moves a value by 2^-8 of itself; most fall as the network's do. Float32
    # is further off than that, so that strips computed in float32 would not pass.
    error = np.abs(actual - expected)
    assert error.max() <= 0.05
    assert error.mean() < 0.5 * np.abs(wide - expected).mean()


def test_statistics_of_strips_are_those_of_the_whole() -> None:
    """Takes a mean of 300 standard deviations, where E[x^2] - E[x]^2 in float32 has no correct digit."""
    whole = torch.randn((1, 3, 50, 40), generator=torch.Generator().manual_seed(0)) * 2 + 600
    statistics = Statistics()
    for strip in torch.split(whole, [1, 30, 7, 12], dim=2):
        statistics.add(strip)
    exact = whole.double()
    mean, scale = statistics.scale()
    assert torch.allclose(mean.double(), exact.mean((0, 2, 3), keepdim=True), rtol=1e-6)
    expected = (exact.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).rsqrt()
    assert torch.allclose(scale.double(), expected, rtol=1e-5)
    squares = whole.square().mean((0, 2, 3)) - whole.mean((0, 2, 3)).square()
    assert not torch.allclose((squares + 1e-5).rsqrt().double(), expected.flatten(), rtol=1e-3)


# --- memory --------------------------------------------------------------------------------------------------------

PEAKS = """
import os, sys
from pathlib import Path
import numpy as np, torch
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.translation.strips.resnet import TiledTranslator
from cyclegan_fast.translation.on_device import TorchTranslator

torch.set_num_threads(1)
network, device = ResnetGenerator(width=8, blocks=1), torch.device("cpu")
for translator in (
    TiledTranslator(network, device, torch.float32, Path(sys.argv[1]), 4 * 2**20),
    TorchTranslator(network, device, torch.float32),
):
    for height in map(int, sys.argv[2:]):
        if process := os.fork():
            assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
            continue
        translator(np.random.default_rng(0).integers(0, 256, (1, height, 512, 3), dtype=np.uint8))
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print("peak", int(status["VmHWM"].split()[0]), flush=True)
        os._exit(0)
"""


def peaks_mib(heights: list[int], scratch: Path) -> list[float]:
    """Return the peaks of processes that translate an image of 512 columns in strips, then of others at once.

    Each begins with the memory of one that has only imported what they need.
    """
    command = [sys.executable, "-c", PEAKS, str(scratch), *map(str, heights)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return [int(line.split()[1]) / 1024 for line in ended.stdout.splitlines() if line.startswith("peak")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what the peak of a process was")
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    images_mib = 6 * 512 * (1536 - 384) / 2**20  # an image and its translation, in memory either way
    small_in_strips, large_in_strips, small, large = peaks_mib([384, 1536], tmp_path)
    assert large_in_strips - small_in_strips < images_mib + 4
    assert large - small > 10 * images_mib


def tensors_of_strips(upsampling: Upsampling, scratch: Path) -> tuple[int, TiledTranslator]:
    """Return the most bytes of tensors that are alive in strips of 10 rows of 128 pixels, and who translated them."""
    network = ResnetGenerator(width=16, blocks=1, upsampling=upsampling).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    translator = in_strips(network, 10, 128, scratch)
    with live_memory("cpu") as memory:
        for _ in translator.strips(picture(96, 128)):
            pass
    return memory.peak, translator


def test_strips_that_repeat_pixels_have_a_budget_for_twice_the_tensors(tmp_path: Path) -> None:
    """Counts tensors alone, and leaves a quarter of the budget to what convolutions take inside themselves."""
    (transposed, usual), (resized, repeating) = (tensors_of_strips(one, tmp_path) for one in get_args(Upsampling))
    assert repeating.budget_bytes == 2 * usual.budget_bytes
    assert transposed < 0.75 * usual.budget_bytes < usual.budget_bytes < resized < 0.75 * repeating.budget_bytes


# --- the disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gives the size of every scratch file when it was closed; it never shrinks."""
    seen: list[int] = []
    leave = ScratchFile.__exit__

    def record(self: ScratchFile, *error: object) -> None:
        seen.append(os.fstat(self._file.fileno()).st_size)
        leave(self, *error)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(ScratchFile, "__exit__", record)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 16, ALL])
def test_the_disk_needed_is_known_beforehand(
    tmp_path: Path, peaks: list[int], rows: int, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    network, image = make_generator(0, blocks=3), picture(72, 48)
    first_halving: list[Tensor] = []
    network.down[0].register_forward_hook(lambda module, inputs, output: first_halving.append(output))
    at_once(network, image, dtype)
    translator = in_strips(network, rows, 48, tmp_path, dtype)
    translator(image[None])
    assert peaks == [translator.scratch_bytes(72, 48)]
    assert peaks == [first_halving[0].numel() * dtype.itemsize]
    assert f"translating 48x72 in strips needs {peaks[0] / 2**30:.3g} GiB" in capsys.readouterr().out


def test_too_little_disk_is_refused_before_anything_is_written(
    tmp_path: Path, peaks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, image = make_generator(0), picture(64, 64)
    translator = TiledTranslator(network, CPU, torch.float32, tmp_path)
    needed = 64 * 64 // 2 * 4 * 4  # half of the pixels, 4 channels of 4 bytes

    def leave_free(count_bytes: int) -> None:
        usage = SimpleNamespace(free=count_bytes)
        monkeypatch.setattr("cyclegan_fast.translation.strips.scratch_file.shutil.disk_usage", lambda folder: usage)

    leave_free(needed)
    translator(image[None])
    assert peaks == [needed]
    leave_free(needed - 1)
    with pytest.raises(UserError, match=r"64x64 in strips needs 3.05e-05 GiB .* has 3.05e-05 GiB free: .* --scratch"):
        translator(image[None])
    assert len(peaks) == 1, "no second file was opened"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (folder := tmp_path / "scratch").mkdir()
    return folder


def test_a_full_disk_gives_one_line_and_leaves_nothing(
    tmp_path: Path, weights: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Limits the size of files in the place of a disk, as in test_translate.py; the image needs 29 kB."""
    source = draw(tmp_path / "image.png", 64, 56)
    flags = ["--checkpoint", weights, "--out", tmp_path / "out", "--tile", "--scratch", scratch, "--device", "cpu"]
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
    try:
        assert main([str(source), *map(str, flags)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    said = capsys.readouterr().err
    assert said == f"error: no scratch file in {scratch}: File too large; give another folder by --scratch\n"
    assert names(scratch) == set()
    assert names(tmp_path / "out") == set()


def test_the_file_has_no_name_while_it_is_used_and_is_closed_with_the_translation(
    tmp_path: Path, peaks: list[int]
) -> None:
    strips = in_strips(make_generator(0), 4, 32, tmp_path).strips(picture(32, 32))
    next(strips)
    assert peaks == []
    assert names(tmp_path) == set()
    strips.close()  # as Ctrl-C does
    assert len(peaks) == 1
    assert peaks[0] > 0


KILLED = """
import sys, time
from cyclegan_fast.translation.strips import scratch_file
from cyclegan_fast.translate import main

write = scratch_file.ScratchFile.write
def slowly(self, row):
    slot = write(self, row)
    print("written", flush=True)
    time.sleep(60)
scratch_file.ScratchFile.write = slowly
main(sys.argv[1:])
"""


def test_nothing_remains_after_kill_9(tmp_path: Path, weights: Path, scratch: Path) -> None:
    source = draw(tmp_path / "image.png", 64, 56)
    flags = ["--checkpoint", weights, "--out", tmp_path / "out", "--tile", "--scratch", scratch, "--device", "cpu"]
    command = [sys.executable, "-c", KILLED, str(source), *map(str, flags)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "written\n" for line in process.stdout), "it ended before it wrote"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert names(scratch) == set()
    assert names(tmp_path / "out") == set()


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["stem.weight", "blocks.1.conv2.weight", "head.bias"])
def test_translations_that_are_not_finite_are_named(tmp_path: Path, peaks: list[int], parameter: str) -> None:
    network = make_generator(0, blocks=2)
    translator = in_strips(network, 4, 16, tmp_path)
    images = np.stack([picture(16, 16, seed) for seed in range(2)])
    with torch.no_grad():
        values = network.get_parameter(parameter)
        values[(0,) * values.dim()] = float("nan")
    with pytest.raises(NotFinite) as raised:
        list(translator.strips(images[1], 1))
    assert raised.value.index == 1
    with pytest.raises(NotFinite) as raised:
        translator(images)
    assert raised.value.index == 0
    if parameter == "stem.weight":
        assert peaks == [0, 0], "known after the first pass, before anything is written"


def test_strips_too_large_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*operands: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    translator = in_strips(make_generator(0), 4, 16, tmp_path)
    monkeypatch.setattr("cyclegan_fast.translation.strips.rows.F.conv2d", refuse)
    with pytest.raises(UserError, match="4 rows of 16x24 at once do not fit the memory of cpu: give a smaller --size"):
        translator(picture(24, 16)[None])


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_the_same_picture(tmp_path: Path, weights: Path, scratch: Path) -> None:
    source = draw(tmp_path / "in" / "image.png", 75, 50)
    fixed = [str(source), "--checkpoint", str(weights), "--device", "cpu", "--no-contact-sheet"]
    for size, expected_shape in (([], (50, 75, 3)), (["--keep-size"], (50, 75, 3)), (["--size", "64"], (64, 64, 3))):
        flags = [*fixed, "--overwrite", *size]
        assert main([*flags, "--out", str(tmp_path / "strips"), "--tile", "--scratch", str(scratch)]) == 0
        assert main([*flags, *([] if size else ["--keep-size"]), "--out", str(tmp_path / "whole")]) == 0
        actual, expected = (pixels_of(tmp_path / out / "image.png").astype(int) for out in ("strips", "whole"))
        assert actual.shape == expected_shape
        assert expected.std() > 10
        assert np.abs(actual - expected).max() <= 1
    assert names(scratch) == set()


def test_flags_that_make_no_sense(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = draw(tmp_path / "image.png", 16, 16)
    fixed = [str(source), "--checkpoint", str(weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*fixed, "--scratch", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: --scratch is for the scratch files of --tile: give both or neither\n"
    nowhere = str(tmp_path / "nowhere")
    assert main([*fixed, "--tile", "--scratch", nowhere]) == 2
    assert f"error: --scratch {nowhere}: No such file or directory; give a folder" in capsys.readouterr().err
    assert main([*fixed, "--tile", "--scratch", str(source)]) == 2
    assert f"error: no scratch file in {source}: Not a directory; give another" in capsys.readouterr().err


def test_help_explains_strips(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())  # however it is wrapped and framed
    assert "--tile " in text
    assert "--scratch " in text
    assert "in strips without seams, through scratch files" in text
    assert "panorama.jpg --tile --scratch" in text
