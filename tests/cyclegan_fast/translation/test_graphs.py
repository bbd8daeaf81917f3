"""Translations that are recorded and replayed, on the CPU by `OperatorRecorder`, against those that are not."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.cuda_graph import Outputs
from cyclegan_fast.translation.graphs import MOST_GRAPHS, GraphedNetwork, graphed
from tests.cyclegan_fast.operator_recorder import OperatorRecorder

BYTES_OF_A_GRAPH = 100


def generator() -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=4, blocks=1).eval().requires_grad_(False)


def images(count: int, seed: int, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Recorder(OperatorRecorder):
    """Pretends that each recording takes memory of the device."""

    def __init__(self) -> None:
        super().__init__(list)
        self.bytes = 0
        self.of_next = BYTES_OF_A_GRAPH

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        self.bytes += self.of_next
        return super().record(function)


def wrapped(network: nn.Module, most_bytes: int = 10**9, tell: Callable[[str], None] = pytest.fail) -> GraphedNetwork:
    recorder = Recorder()
    return GraphedNetwork(network, recorder, most_bytes, lambda: recorder.bytes, tell)


def recorded(network: GraphedNetwork) -> int:
    assert isinstance(network.recorder, Recorder)
    return network.recorder.recorded


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_the_first_two_are_eager_and_all_have_the_same_bits() -> None:
    plain = generator()
    network = wrapped(generator())
    kept = []
    for call in range(5):
        kept.append(network(images(2, call)))
        assert recorded(network) == (call >= 1)
    for call, found in enumerate(kept):  # none was overwritten by a later replay
        assert torch.equal(found, plain(images(2, call)))


def test_inference_mode_and_no_grad_share_a_recording() -> None:
    plain, network = generator(), wrapped(generator())
    for call in range(3):
        with torch.inference_mode():
            assert torch.equal(network(images(1, call)), plain(images(1, call)))
    assert torch.equal(network(images(1, 9)), plain(images(1, 9)))
    assert recorded(network) == 1


def see(network: GraphedNetwork, counts: Iterable[int]) -> None:
    for count in counts:
        network(images(count, count))


def test_of_many_shapes_those_used_last_are_kept() -> None:
    network = wrapped(generator())
    counts = range(1, MOST_GRAPHS + 1)
    see(network, [count for count in counts for _ in range(2)])
    assert (network.graphs, recorded(network)) == (MOST_GRAPHS, MOST_GRAPHS)
    see(network, [1])  # now the batch of 2 was used the longest ago
    see(network, [MOST_GRAPHS + 1] * 2)
    assert (network.graphs, recorded(network)) == (MOST_GRAPHS, MOST_GRAPHS + 1)
    see(network, [1, *counts[2:]])
    assert recorded(network) == MOST_GRAPHS + 1
    see(network, [2])
    assert (network.graphs, recorded(network)) == (MOST_GRAPHS, MOST_GRAPHS + 2)


def test_graphs_keep_within_their_memory() -> None:
    network = wrapped(generator(), most_bytes=2 * BYTES_OF_A_GRAPH)
    see(network, [1, 1, 2, 2, 3, 3])
    assert (network.graphs, recorded(network)) == (2, 3)
    assert isinstance(network.recorder, Recorder)
    network.recorder.of_next = 2 * BYTES_OF_A_GRAPH + 1
    see(network, [4] * 5)
    assert (network.graphs, recorded(network)) == (2, 4)  # recorded once, found too large, and left at that


def test_images_that_all_differ_in_size_are_never_recorded_nor_remembered_without_end() -> None:
    network = wrapped(nn.Identity())
    for side in range(1, 300):
        network(images(1, 0, side))
    assert recorded(network) == 0
    assert len(network._shapes) <= 64


class FailsInGraphs(nn.Module):
    """Asks the host for a value, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class Drifts(nn.Module):
    """Computes on the host what a graph then holds on to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("network", "reason"), [(FailsInGraphs(), "cannot be recorded"), (Drifts(), "differs from what it is")]
)
def test_what_cannot_be_recorded_goes_on_eagerly_and_says_so_once(network: nn.Module, reason: str) -> None:
    told: list[str] = []
    graphs = wrapped(network, tell=told.append)
    for call in range(4):
        x = images(1, call)
        found = graphs(x)
        factor = x.sum().item() if isinstance(network, FailsInGraphs) else getattr(network, "calls")  # noqa: B009
        if call != 1:
            assert torch.equal(found, x * factor)
    assert len(told) == 1
    assert told[0].startswith("translating without CUDA graphs: ")
    assert reason in told[0]
    assert graphs.graphs == 0


def test_images_that_are_not_finite_are_compared_as_well() -> None:
    network = wrapped(nn.Identity())
    x = torch.full((1, 3, 4, 4), float("nan"))
    for _ in range(3):
        assert network(x).isnan().all()
    assert network.graphs == 1


def test_threads_get_their_own_results() -> None:
    plain, network = generator(), wrapped(generator())
    wanted = {seed: plain(images(1 + seed % 3, seed)) for seed in range(60)}

    def translate(seed: int) -> bool:
        with torch.no_grad():
            return torch.equal(network(images(1 + seed % 3, seed)), wanted[seed])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(translate, wanted))
    assert network.graphs == 3


def test_weights_that_move_take_the_graphs_with_them() -> None:
    network = wrapped(generator())
    see(network, [1, 1])
    network.to(torch.float64)
    assert network.graphs == 0
    x = images(1, 1).double()
    assert torch.equal(network(x), generator().double()(x))


def test_weights_that_are_exchanged_take_the_graphs_with_them() -> None:
    plain, network = generator(), wrapped(generator())
    see(network, [1] * 3)
    for module in (plain, network.network):
        assert isinstance(module, ResnetGenerator)
        exchanged = torch.ones_like(module.stem.weight) / 9
        module.load_state_dict({**module.state_dict(), "stem.weight": exchanged}, assign=True)
    for call in range(3):
        assert torch.equal(network(images(1, call)), plain(images(1, call)))
    assert recorded(network) == 2


def test_a_recording_that_does_not_fit_concerns_its_shape_alone() -> None:
    class Large(Recorder):
        def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
            if function()["translated"].size(0) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(function)

    recorder = Large()
    network = GraphedNetwork(generator(), recorder, 10**9, lambda: recorder.bytes, pytest.fail)
    see(network, [3] * 4 + [1] * 3)
    assert (network.graphs, recorder.recorded) == (1, 1)
    assert torch.equal(network(images(3, 0)), generator()(images(3, 0)))


def test_a_warm_up_that_does_not_fit_beside_graphs_takes_their_memory() -> None:
    class Full(Recorder):
        is_full = False

        def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
            if network.graphs and self.is_full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().warm_up(function)

    recorder = Full()
    network = GraphedNetwork(generator(), recorder, 10**9, lambda: recorder.bytes, pytest.fail)
    see(network, [1, 1, 1])
    recorder.is_full = True
    see(network, [2, 2])
    assert recorder.recorded == 2
    assert torch.equal(network(images(2, 0)), generator()(images(2, 0)))


def test_who_wants_gradients_gets_them() -> None:
    network = wrapped(nn.Conv2d(3, 3, 1))
    for _ in range(3):
        with torch.enable_grad():
            assert network(images(1, 1)).requires_grad
    assert recorded(network) == 0


def test_memory_that_does_not_suffice_beside_graphs_is_taken_from_them() -> None:
    class Full(nn.Module):
        is_full = False

        def forward(self, x: Tensor) -> Tensor:
            if self.is_full and graphs.graphs:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x * 2

    network = Full()
    graphs = wrapped(network)
    see(graphs, [1, 1])
    network.is_full = True
    assert torch.equal(graphs(images(2, 0)), 2 * images(2, 0))
    assert graphs.graphs == 0


def test_on_a_cpu_nothing_is_wrapped() -> None:
    network = generator()
    assert graphed(network, torch.device("cpu"), pytest.fail) is network
