"""Replayed from one recording, a step of plain PyTorch trains as the launched one does, or is refused."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bench.cases.plain_cyclegan import PlainCycleGAN, PlainImagePool, PlainNetworkSize
from bench.cases.training_step import Steps
from bench.cases.whole_step_graph import NotRecorded, RecordedPool, WholeStepGraph
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.training.cuda_graph import WARM_UP, Outputs
from tests.cyclegan_fast.operator_recorder import OperatorRecorder

CPU = torch.device("cpu")
SIDE, POOL = 32, 2
STEPS = WARM_UP + 4
"""Some are launched, the others replayed: from the third step on the pools return earlier images."""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "batch"), [(3, 1), (3, 4), (2, 5), (50, 2), (0, 2)])
def test_a_recorded_pool_returns_what_a_pool_returns(size: int, batch: int, layout: torch.memory_format) -> None:
    plain, recorded = PlainImagePool(size, random.Random(7)), RecordedPool(size, random.Random(7))
    earlier = 0
    for _ in range(40):
        images = torch.randn(batch, 3, 4, 5).contiguous(memory_format=layout)
        recorded.choice = recorded.decide(batch)
        wanted, found = plain.query(images), recorded.query(images)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        assert found.is_contiguous(memory_format=layout)
        earlier += not torch.equal(found, images)
    assert bool(earlier) is (size > 0)
    assert plain.random_source.getstate() == recorded.random_source.getstate()


def networks(*, recordable_adam: bool = True) -> PlainCycleGAN:
    torch.manual_seed(0)
    return PlainCycleGAN(
        ngf=4, ndf=4, blocks=1, pool_size=POOL, random_source=random.Random(3), recordable_adam=recordable_adam
    )


def test_adam_that_can_be_recorded_is_adam() -> None:
    plain, recordable = networks(recordable_adam=False), networks()
    images = batches()[0].to(CPU)
    before = weights(plain)
    for each in (plain, recordable):
        each.update(*images)
    for name, expected in weights(plain).items():
        for start, one, other in zip(before[name], weights(recordable)[name], expected, strict=True):
            torch.testing.assert_close(one - start, other - start, rtol=1e-3, atol=1e-7)


def batches() -> list[Batch]:
    torch.manual_seed(1)
    corners = torch.zeros(2, 3, dtype=torch.int64)
    pixels = torch.randint(0, 256, (STEPS, 2, 2, SIDE, SIDE, 3), dtype=torch.uint8)
    return [Batch(of_A, of_B, corners, corners, (SIDE, SIDE), (SIDE, SIDE)) for of_A, of_B in pixels]


def weights(plain: PlainCycleGAN) -> dict[str, list[Tensor]]:
    return {
        name: [each.detach().clone() for each in network.parameters()] for name, network in plain.networks().items()
    }


class Recorder(OperatorRecorder):
    """Records a step of `plain`; while it does, gradients of the weights of `network` go through `changed`."""

    def __init__(
        self, plain: PlainCycleGAN, network: str = "G_A", changed: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(lambda: written(plain))
        self.weights, self.changed = [*plain.networks()[network].parameters()], changed

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        hooks = [each.register_hook(self.changed) for each in self.weights] if self.changed else []
        try:
            return super().record(function)
        finally:
            for hook in hooks:
                hook.remove()


def written(plain: PlainCycleGAN) -> list[Tensor]:
    optimizers = (plain.generator_optimizer, plain.discriminator_optimizer)
    of_adam = [each for optimizer in optimizers for state in optimizer.state.values() for each in state.values()]
    parameters = [each.detach() for network in plain.networks().values() for each in network.parameters()]
    pools = [pool for pool in (plain.pool_A, plain.pool_B) if isinstance(pool, RecordedPool)]
    return [*parameters, *of_adam, *(pool.kept for pool in pools if pool.kept is not None)]


def test_a_replayed_step_trains_as_the_launched_one() -> None:
    launched, replayed = networks(), networks()
    recorder = Recorder(replayed)
    graph = WholeStepGraph(replayed, CPU, recorder)
    path = [weights(replayed)]
    for batch in batches():
        wanted = launched.update(*batch.to(CPU))
        found = graph(batch)
        torch.testing.assert_close(found, wanted)
        path.append(weights(replayed))
    assert recorder.recorded == 1
    for name, expected in weights(launched).items():
        for one, other in zip(path[-1][name], expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        # Each step moved them, the replayed ones too.
        for before, after in pairwise(path):
            assert all(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True) if a.dim() == 4)


@pytest.mark.parametrize(
    "changed",
    [pytest.param(lambda g: g.flip(0), id="of another place"), pytest.param(lambda g: -g, id="turned round")],
)
def test_a_replay_with_other_gradients_is_refused(changed: Callable[[Tensor], Tensor]) -> None:
    """Losses do not know of a gradient that was overwritten; weights do."""
    plain = networks()
    graph = WholeStepGraph(plain, CPU, Recorder(plain, "G_A", changed))
    *launched, first_replayed = batches()[: WARM_UP + 1]
    for batch in launched:
        graph(batch)
    with pytest.raises(NotRecorded, match=r"replayed, a step differs from what it is \(the weights of G_A end"):
        graph(first_replayed)


def test_a_step_that_waits_for_the_host_is_refused() -> None:
    plain = networks()
    update = plain.update

    def waiting(real_A: Tensor, real_B: Tensor) -> Outputs:
        assert real_A.sum().item() < 1e9
        return update(real_A, real_B)

    plain.update = waiting  # type: ignore[method-assign]
    graph = WholeStepGraph(plain, CPU, Recorder(plain))
    *launched, first_replayed = batches()[: WARM_UP + 1]
    for batch in launched:
        graph(batch)
    with pytest.raises(NotRecorded, match="cannot be recorded"):
        graph(first_replayed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here")
def test_a_gpu_replays_what_it_launches() -> None:
    """Its own comparison accepts the graph, which then trains on: its losses stay near those of launched steps."""
    steps = Steps(SIDE, 1, torch.device("cuda"), torch.float32, lambda name: False, PlainNetworkSize(4, 6))
    launched, replayed = steps.plain(), steps.recorded_plain(None)
    for _ in range(STEPS):
        wanted, found = launched(), replayed()
    torch.testing.assert_close(found, wanted, rtol=0.2, atol=0.02)
