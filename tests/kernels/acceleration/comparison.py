"""Compares an accelerated network with the same network as it was written."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cyclegan_fast.kernels import Impl, accelerate
from cyclegan_fast.kernels.acceleration import Acceleration
from cyclegan_fast.kernels.checking.accuracy import relative_error


def accelerated_copy(network: nn.Module, impl: Impl = "reference", **options: Any) -> nn.Module:
    return accelerate(copy.deepcopy(network), impl=impl, verbose=False, **options)


def report_of(network: nn.Module) -> Acceleration:
    report = network.acceleration
    assert isinstance(report, Acceleration)
    return report


def results_and_gradients(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the results, and the gradients of their product with fixed numbers by name, None being left out.

    Behind a norm the gradient of a sum of squares would vanish.
    """
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    results = [leaf for leaf in tree_leaves(network(*leaves)) if isinstance(leaf, Tensor)]
    network.zero_grad()
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) for y in results]
    torch.autograd.backward(results, cotangents)
    gradients = {f"input {index}": x.grad for index, x in enumerate(leaves)}
    gradients |= {name: parameter.grad for name, parameter in network.named_parameters()}
    return [result.detach() for result in results], {n: g for n, g in gradients.items() if g is not None}


def assert_equal(found: nn.Module, written: nn.Module, inputs: Sequence[Tensor], allowed: float = 1e-12) -> None:
    """Results, the layout of their memory, and gradients are those of the network as it was written.

    The gradient of a bias that an instance norm subtracts is zero, or noise.
    """
    results, gradients = results_and_gradients(found, inputs)
    expected, expected_gradients = results_and_gradients(written, inputs)
    is_last = inputs[0].dim() == 4 and not inputs[0].is_contiguous()
    for result, other in zip(results, expected, strict=True):
        assert result.dtype == other.dtype
        last = is_last and result.dim() == 4
        assert result.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert relative_error(result, other) <= allowed
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.norm()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        if float(gradient.norm()) <= 1e-11 * largest:
            assert name.endswith("bias")
            assert float(gradients[name].norm()) <= 1e-11 * largest
        else:
            assert relative_error(gradients[name], gradient) <= 10 * allowed, name
