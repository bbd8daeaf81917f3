"""Sums of gradients in one buffer, and moving averages: their values, and how few operators they take."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast.config.options import Config, NetworkConfig, OptimizerConfig
from cyclegan_fast.kernels.traffic import CountingOperators
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.update.flat_gradients import ALIGNMENT, FlatGradients
from cyclegan_fast.training.update.moving_averages import MovingAverages

SHAPES = {"G_A": [(4, 3, 7, 7), (5, 4, 3, 3), (3,)], "G_B": [(1, 5, 4, 4), (33,)]}


def parameters_of(shapes: dict[str, list[tuple[int, ...]]], dtype: torch.dtype) -> dict[str, list[nn.Parameter]]:
    def parameter(shape: tuple[int, ...]) -> nn.Parameter:
        values = torch.zeros(shape, dtype=dtype)
        return nn.Parameter(values.to(memory_format=torch.channels_last) if len(shape) == 4 else values)

    return {name: [parameter(shape) for shape in of_network] for name, of_network in shapes.items()}


def gradients_of(parameters: list[nn.Parameter], dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty_like(p, dtype=dtype).copy_(torch.randn(p.shape, generator=generator)) for p in parameters]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gradients_are_added_in_the_parameters_precision(dtype: torch.dtype) -> None:
    parameters = parameters_of(SHAPES, torch.float32)
    flat = FlatGradients(parameters)
    flat.become_gradients()
    added = {name: [gradients_of(of_it, dtype, seed) for seed in range(3)] for name, of_it in parameters.items()}
    for name, (first, *others) in added.items():
        flat.write(name, gradients_of(parameters[name], dtype, 9))  # of the step before
        flat.write(name, first)
        for gradients in others:
            flat.add(name, gradients)
    for name, of_network in parameters.items():
        for number, parameter in enumerate(of_network):
            assert parameter.grad is not None
            expected = torch.zeros(parameter.shape)
            for gradients in added[name]:
                expected += gradients[number].float()
            assert torch.equal(parameter.grad, expected)
            assert parameter.grad.stride() == parameter.stride()
            assert parameter.grad.storage_offset() % ALIGNMENT == 0
            assert parameter.grad.untyped_storage().data_ptr() == flat.everything.untyped_storage().data_ptr()


@pytest.mark.parametrize(("dtype", "launches"), [(torch.bfloat16, 2), (torch.float32, 1)])
def test_a_network_is_added_by_so_many_operators(
    dtype: torch.dtype, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts a list whose layouts agree as one launch, as it is on a GPU up to 64 tensors; one a parameter is 3.

    New memory is NaN, none of which may reach what lies between the places.
    """
    parameters = parameters_of(SHAPES, torch.float32)
    flat = FlatGradients(parameters)
    gradients = gradients_of(parameters["G_A"], dtype, 0)
    flat.write("G_A", gradients)
    new = torch.full_like(flat._parts["G_A"], torch.nan)
    monkeypatch.setattr(torch, "empty_like", lambda _: new)
    with CountingOperators() as counting, _AlikeLists():
        flat.add("G_A", gradients)
    assert counting.traffic.launches == launches
    assert flat.everything.isfinite().all()


NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here")


class _AlikeLists(TorchDispatchMode):
    """Asserts what PyTorch's kernels over lists of tensors ask for: equal strides across the lists."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):  # type: ignore[no-untyped-def]  # torch's
        if "_foreach_" in operator.__name__ or "_fused_" in operator.__name__:
            for one, other in zip(arguments[0], arguments[1], strict=True):
                assert one.stride() == other.stride()
        return operator(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", torch.float32),
        ("cpu", torch.float64),
        pytest.param("cuda", torch.float32, marks=[pytest.mark.gpu, NEEDS_A_GPU]),
    ],
)
def test_averages_move_by_the_weight_of_the_step(device: str, dtype: torch.dtype) -> None:
    networks = NetworkConfig(generator="resnet_6", ngf=4, ndf=4)
    torch.manual_seed(0)
    model = Model(Config(networks=networks, optimizer=OptimizerConfig(ema=0.9))).to(device, dtype)
    averages = MovingAverages(model, 0.9)
    average, network = model.get_submodule("G_A_ema"), model.get_submodule("G_A")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    before = [parameter.detach().double().clone() for parameter in average.parameters()]
    newest = [parameter.detach().double().clone() for parameter in network.parameters()]
    averages.begin_step(3)  # a short history: (1 + 3) / (10 + 3)
    with CountingOperators() as counting, _AlikeLists():
        averages.update()
    assert counting.traffic.launches == 2  # one a generator
    for old, new, moved in zip(before, newest, average.parameters(), strict=True):
        torch.testing.assert_close(
            moved.double(), old * (4 / 13) + new * (9 / 13), rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6
        )
    assert all(torch.equal(p.double(), new) for p, new in zip(network.parameters(), newest, strict=True))
    kept = [parameter.detach().clone() for parameter in average.parameters()]
    with averages.standing_still():
        averages.update()
    assert all(torch.equal(one, other) for one, other in zip(kept, average.parameters(), strict=True))
