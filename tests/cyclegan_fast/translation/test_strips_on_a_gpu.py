"""Translation in strips on an NVIDIA GPU, against the fused kernels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cyclegan_fast.translations import at_once, in_strips, joined, make_generator, picture


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_strips_on_a_gpu(tmp_path: Path, dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the fused kernels; cuDNN may take another algorithm for another height."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, image, device = make_generator(0, blocks=2), picture(64, 96), torch.device("cuda")
    actual = joined(in_strips(network, 10, 96, tmp_path, dtype, device), image)
    assert np.abs(actual - at_once(network, image, dtype, device)).max() <= most
