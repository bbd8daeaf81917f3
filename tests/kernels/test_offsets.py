"""Offsets inside an image have 32 bits until the image needs 64; the batch always has 64."""

import sys

import pytest
import torch

from cyclegan_fast.kernels import conv2d_reflect, instance_norm, reflection_pad
from cyclegan_fast.kernels.layout import needs_wide_offsets
from tests.kernels.conftest import DEVICE

USERS = ("norm.forward", "norm.backward", "reflection_pad", "conv2d")


def test_an_image_of_2_to_the_31_elements_needs_wide_offsets_and_a_batch_of_small_ones_does_not() -> None:
    def activations(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    assert not needs_wide_offsets(activations(1, 64, 5792, 5792))  # 64 * 5792^2 is 2^31 - 3 * 2^18
    assert needs_wide_offsets(activations(1, 64, 5800, 5800))
    assert needs_wide_offsets(activations(1, 64, 8, 8), activations(1, 64, 5800, 5800))
    assert not needs_wide_offsets(activations(300, 64, 512, 512))
    assert needs_wide_offsets(activations(1, 64, 5790, 5800).contiguous(memory_format=torch.channels_last))
    assert needs_wide_offsets(activations(1, 64, 5000, 12000)[:, :, :, :5800])


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [True, False])
def test_wide_offsets_find_the_same_elements(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def everything() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 12, 11, generator=generator).to(DEVICE, memory_format=layout).requires_grad_()
        weight = torch.randn(4, 3, 3, 3, generator=generator).to(DEVICE).requires_grad_()
        y = instance_norm(x, activation="leaky_relu", residual=x.flip(2), pad=2, impl="triton")
        convolved, _ = conv2d_reflect(y, weight, impl="triton")
        padded = reflection_pad(convolved, 3, impl="triton")
        gradients = torch.autograd.grad((padded * padded.detach().flip(3)).sum(), [x, weight])
        return [y, convolved, padded, *gradients]

    narrow = everything()
    for user in USERS:
        monkeypatch.setattr(sys.modules[f"cyclegan_fast.kernels.{user}"], "needs_wide_offsets", lambda *tensors: True)
    for one, other in zip(narrow, everything(), strict=True):
        assert torch.equal(one, other)
