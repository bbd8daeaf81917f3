"""Translations on a GPU: graphs and overlapping batches give the bits of eager launches, and take less of the host."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.translation.any_image import ImageTranslator
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.graphs import GRAPHS_VARIABLE, MOST_GRAPHS, GraphedNetwork
from cyclegan_fast.translation.on_gpu import CudaTranslator
from cyclegan_fast.translation.plan import ImageOptions, plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here"),
]


def resnet() -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=8, blocks=2)


def batch_norm() -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=8, blocks=2, norm="batch")


def unet() -> UnetGenerator:
    torch.manual_seed(0)
    return UnetGenerator(width=4, halvings=5)


def translator(
    make: Callable[[], ResnetGenerator | UnetGenerator] = resnet, tell: Callable[[str], None] = pytest.fail
) -> CudaTranslator:
    return CudaTranslator(make(), torch.device("cuda"), torch.float32, tell)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> CudaTranslator:
    with monkeypatch.context() as patch:
        patch.setenv(GRAPHS_VARIABLE, "off")
        found = translator()
    assert not isinstance(found.network, GraphedNetwork)
    return found


def pixels(count: int, seed: int, side: int = 32) -> Pixels:
    drawn: Pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return drawn


def graphs(of: CudaTranslator) -> int:
    assert isinstance(of.network, GraphedNetwork)
    return of.network.graphs


@pytest.mark.parametrize("make", [resnet, batch_norm, unet])
def test_graphs_give_the_bits_of_eager_launches(
    make: Callable[[], ResnetGenerator | UnetGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = translator(make)
    with monkeypatch.context() as patch:
        patch.setenv(GRAPHS_VARIABLE, "off")
        plain = translator(make)
    shapes = [(1, 32), (2, 32), (1, 64)]
    for call, (count, side) in enumerate(islice(cycle(shapes), 12)):
        assert np.array_equal(recorded(pixels(count, call, side)), plain(pixels(count, call, side)))
    assert graphs(recorded) == len(shapes)
    tensors = torch.from_numpy(pixels(2, 5).transpose(0, 3, 1, 2)).cuda().float() / 127.5 - 1
    for _ in range(3):
        assert torch.equal(recorded.translate_tensor(tensors), plain.translate_tensor(tensors))


def test_a_batch_may_begin_before_the_last_has_ended(eager: CudaTranslator) -> None:
    recorded = translator()
    begun = [recorded.begin(pixels(2, seed)) for seed in range(8)]
    for seed in reversed(range(8)):  # in any order
        assert np.array_equal(begun[seed](), eager(pixels(2, seed)))


def test_graphs_come_and_go(eager: CudaTranslator) -> None:
    recorded = translator()
    for count in range(1, MOST_GRAPHS + 4):
        for seed in range(3):
            assert np.array_equal(recorded(pixels(count, seed)), eager(pixels(count, seed)))
    assert graphs(recorded) == MOST_GRAPHS
    for seed in range(3):  # the batch of 1 had to go
        assert np.array_equal(recorded(pixels(1, seed)), eager(pixels(1, seed)))
    recorded.close()
    assert graphs(recorded) == 0


def test_threads_on_streams_of_their_own_share_a_translator(eager: CudaTranslator) -> None:
    recorded = translator()
    wanted = {seed: eager(pixels(1 + seed % 3, seed)) for seed in range(30)}

    def translate(seed: int) -> bool:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return np.array_equal(recorded(pixels(1 + seed % 3, seed)), wanted[seed])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(translate, wanted))
    assert graphs(recorded) == 3


def test_a_translator_of_any_image_closes_over_graphs(eager: CudaTranslator) -> None:
    inner = translator()
    with ImageTranslator(
        inner, tensors=inner.translate_tensor, direction=None, description="x", close=inner.close
    ) as outer:
        for seed in range(4):
            assert np.array_equal(outer(pixels(1, seed)[0]), eager(pixels(1, seed))[0])
        assert graphs(inner) == 1
    assert graphs(inner) == 0


def test_a_folder_of_mixed_sizes_is_that_of_eager_launches(eager: CudaTranslator, tmp_path: Path) -> None:
    for number in range(24):
        Image.fromarray(pixels(1, number, 32 + 32 * (number // 8 % 2))[0]).save(tmp_path / f"{number:02}.png")
    for name, of in (("recorded", translator()), ("eager", eager)):
        options = ImageOptions((str(tmp_path / "*.png"),), tmp_path / name, format="png", batch_size=2)
        summary = translate_images(of, plan(options, []), options, None)
        assert summary.translated == 24
    for written in (tmp_path / "eager").glob("*.png"):
        assert written.read_bytes() == (tmp_path / "recorded" / written.name).read_bytes()


def test_a_graph_takes_less_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def deep() -> ResnetGenerator:
        return ResnetGenerator(width=8, blocks=9)

    recorded = translator(deep)
    monkeypatch.setenv(GRAPHS_VARIABLE, "off")
    eager = translator(deep)

    def host_s(of: CudaTranslator) -> float:
        for seed in range(4):
            of(pixels(1, seed))
        torch.cuda.synchronize()
        times = []
        for seed in range(20):
            start = time.perf_counter()
            finish = of.begin(pixels(1, seed))
            times.append(time.perf_counter() - start)
            finish()
        return sorted(times)[len(times) // 2]

    assert host_s(recorded) < 0.7 * host_s(eager)
