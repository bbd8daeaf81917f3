"""Networks of other projects, accelerated, compute what they computed: by plain operators, and on Triton."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.cases.others import (
    AttentionGenerator,
    ContrastiveGenerator,
    GlobalGenerator,
    PixelwiseDiscriminator,
    SegmentationUNet,
    SkipUNet,
    StyleNetwork,
)
from bench.cases.plain_cyclegan import PlainDiscriminator, PlainGenerator
from cyclegan_fast.kernels.checking.accuracy import allowed_error, relative_error
from tests.kernels.acceleration.comparison import accelerated_copy, assert_equal, report_of, results_and_gradients
from tests.kernels.conftest import DEVICE

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "ResNet": (lambda: PlainGenerator(width=4, blocks=2), 16, 9),
    "PatchGAN": (lambda: PlainDiscriminator(width=4), 48, 3),
    "U-Net": (lambda: SkipUNet(4, downs=5), 64, 7),
    "1x1 discriminator": (lambda: PixelwiseDiscriminator(4), 16, 1),
    "CUT": (lambda: ContrastiveGenerator(4, blocks=1), 16, 7),
    "pix2pixHD": (lambda: GlobalGenerator(4, downs=2, blocks=1), 16, 7),
    "U-GAT-IT": (lambda: AttentionGenerator(4, blocks=1), 16, 5),
    "Johnson": (lambda: StyleNetwork(4, False, blocks=1), 16, 7),
    "nnU-Net": (lambda: SegmentationUNet(4, False, stages=3), 16, 10),
}
"""a small network, the side of its images, and how many norms are fused"""
GRADIENT_MARGIN = 2.0
"""Which inputs of ReLUs round to the other side of 0 is chance, and one gradient of the other side outweighs the
rounding of many others: pooled over a network's parameters, the ratio of two errors is between 0.3 and 1.8 here.
Gradients of the operators by themselves are held to 1.25 by tests/kernels/test_accuracy.py, on inputs clear of 0."""
QUICK_ON_TRITON = ("1x1 discriminator",)


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    make, side, _ = NETWORKS[name]
    torch.manual_seed(0)
    network = make().to(DEVICE, dtype)
    return network, torch.randn(2, 3, side, side).to(DEVICE, dtype)


@pytest.mark.parametrize("lying", ["NCHW", "channels last"])
@pytest.mark.parametrize("name", NETWORKS)
def test_in_float64_a_network_is_what_it_was(name: str, lying: str) -> None:
    written, images = made(name, torch.float64)
    found = accelerated_copy(written)
    assert len(report_of(found).norms) == NETWORKS[name][2]
    if lying == "channels last":
        # PyTorch's own norms give wrong gradients for some layouts: the yardstick is computed in NCHW.
        results, gradients = results_and_gradients(found, [images.contiguous(memory_format=torch.channels_last)])
        expected, expected_gradients = results_and_gradients(written, [images])
        for result, other in zip(results, expected, strict=True):
            assert relative_error(result, other) <= 1e-12
        assert relative_error(gradients["input 0"], expected_gradients["input 0"]) <= 1e-11
    else:
        assert_equal(found, written, [images])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK_ON_TRITON else pytest.mark.slow) for name in NETWORKS]
)
def test_on_triton_a_network_errs_hardly_more_than_by_pytorchs_operators(name: str, dtype: torch.dtype) -> None:
    written, images = made(name, dtype)
    exact, exact_gradients = results_and_gradients(copy.deepcopy(written).double(), [images.double()])
    native, native_gradients = results_and_gradients(written, [images])
    found, gradients = results_and_gradients(accelerated_copy(written, "triton"), [images])
    for result, other, wide in zip(found, native, exact, strict=True):
        assert result.dtype == dtype
        assert relative_error(result, wide) <= allowed_error(relative_error(other, wide), dtype)
    allowed = allowed_error(pooled_error(native_gradients, exact_gradients), dtype, GRADIENT_MARGIN)
    assert pooled_error(gradients, exact_gradients) <= allowed


def pooled_error(gradients: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Return the root mean square of all parameters' relative errors, without those that have no influence.

    Of one bias of four numbers the error is a matter of chance.
    """
    largest = max(float(gradient.norm()) for gradient in exact.values())
    errors = [
        relative_error(gradients[name], gradient) ** 2
        for name, gradient in exact.items()
        if float(gradient.norm()) > 1e-6 * largest
    ]
    return float((sum(errors) / len(errors)) ** 0.5)


def test_norms_with_trained_parameters_are_left_alone() -> None:
    for network in (StyleNetwork(4), SegmentationUNet(4)):
        strides = [parameter.stride() for parameter in network.parameters()]
        found = accelerated_copy(network, device="cuda")
        assert type(found) is type(network)
        assert [parameter.stride() for parameter in found.parameters()] == strides
        assert "affine parameters" in str(report_of(found))


def test_layers_of_a_network_that_decides_while_it_runs_give_the_same_features() -> None:
    written, images = made("CUT", torch.float64)
    found = accelerated_copy(written)
    assert "control flow" in str(report_of(found))
    layers = (0, 4, 8, 12, 16)
    with torch.no_grad():
        _, features = found(images, layers)
        _, expected = written(images, layers)
        alone = found(images, layers, encode_only=True)
    for feature, again, other in zip(features, alone, expected, strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(again, other, rtol=1e-11, atol=1e-11)
