"""Trains by the command on an NVIDIA GPU."""

import itertools
from pathlib import Path

import pytest
import torch

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.batch import signed_windows
from cyclegan_fast.images.pixels import to_signed

# python -m bench.gpu runs where what the training command needs is not installed.
sample_photos, train, data, test_train = (
    pytest.importorskip(module)
    for module in (
        "cyclegan_fast.sample_photos",
        "cyclegan_fast.train",
        "cyclegan_fast.data.training_images",
        "tests.cyclegan_fast.training.test_train",
    )
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here"),
]


@pytest.mark.parametrize(
    "flags", [[], ["--amp"], ["--amp", "--amp-dtype", "float16"]], ids=["float32", "amp", "float16"]
)
def test_an_interrupted_deterministic_run_ends_with_the_bits_of_the_undisturbed_one(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "7"])
    flags = [*flags, "--device", "cuda", "--deterministic"]
    assert train.main(test_train.command(tmp_path / "data", tmp_path, "whole", *flags)) == 0
    with monkeypatch.context() as patch:
        test_train.interrupt_at(13, patch)
        assert train.main(test_train.command(tmp_path / "data", tmp_path, "stopped", *flags)) == 130
    assert train.main(test_train.command(tmp_path / "data", tmp_path, "stopped", *flags)) == 0
    test_train.assert_same_state(
        test_train.final_state(tmp_path / "stopped"), test_train.final_state(tmp_path / "whole")
    )


def test_a_graph_cuts_images_out_of_pinned_batches() -> None:
    opened = data.open_data(DataConfig(load_size=36, crop_size=32, batch_size=3, workers=2), seed=0, pin=True)
    device = torch.device("cuda")
    first, *others = itertools.islice(opened.training.epoch(1), 4)
    first.to(device)  # loads the kernels, which no capture may
    assert first.pixels_A.is_pinned()
    assert first.crops_A.is_pinned()
    pixels, crops = first.pixels_A.to(device), first.crops_A.to(device)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the loader's threads pin memory meanwhile
        captured = signed_windows(pixels, crops, *first.size_A)
    for batch in others:
        pixels.copy_(batch.pixels_A, non_blocking=True)
        crops.copy_(batch.crops_A, non_blocking=True)
        graph.replay()
        windows = [
            image[top : top + 32, left : left + 32].flip(1) if mirrored else image[top : top + 32, left : left + 32]
            for image, (top, left, mirrored) in zip(batch.pixels_A, batch.crops_A.tolist(), strict=True)
        ]
        assert torch.equal(captured, to_signed(torch.stack(windows).to(device)))
        assert torch.equal(captured, batch.to(device)[0])
