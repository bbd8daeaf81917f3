"""The training command on an NVIDIA GPU."""

from pathlib import Path

import pytest
import torch

from cyclegan_fast import sample_photos, train
from tests.cyclegan_fast.test_train import assert_same_state, command, final_state, interrupt_at

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
    assert train.main(command(tmp_path / "data", tmp_path, "whole", *flags)) == 0
    with monkeypatch.context() as patch:
        interrupt_at(13, patch)
        assert train.main(command(tmp_path / "data", tmp_path, "stopped", *flags)) == 130
    assert train.main(command(tmp_path / "data", tmp_path, "stopped", *flags)) == 0
    assert_same_state(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))
