"""Steps are compared by what they do to the weights, not by their losses alone."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from bench.cases.plain_cyclegan import PLAIN_FLOAT32, PlainNetworkSize
from bench.cases.training_step import Steps, agreement_at
from bench.cases.whole_step_graph import IN_A_GRAPH
from bench.measure.limits import dtypes
from cyclegan_fast.config.options import Config
from cyclegan_fast.training.update.descent import Descent
from tests.slow import slow_but

CPU = torch.device("cpu")
SIDE = 32
NARROW = PlainNetworkSize(16, 6)


def nobody(name: str) -> bool:
    return False


@pytest.mark.parametrize("dtype", slow_but(["torch.float32"], {str(dtype): dtype for dtype in dtypes(CPU)}))
def test_plain_pytorch_and_ours_go_the_same_way(dtype: torch.dtype) -> None:
    contest = Steps(SIDE, 1, CPU, dtype, nobody, NARROW).contest()
    assert set(contest.contenders) == {PLAIN_FLOAT32, "ours" if dtype == torch.float32 else "ours --amp"}
    assert not contest.wrong


def test_a_step_that_does_not_descend_is_found() -> None:
    steps = Steps(SIDE, 1, CPU, torch.float32, nobody, NARROW)
    with (
        mock.patch.object(Descent, "update", return_value=None),
        pytest.raises(Exception, match=r"ours: its weights go another way: the cosine with plain PyTorch's is 0\.00"),
    ):
        steps.contest()


@pytest.mark.slow
def test_an_opponent_that_does_not_descend_is_named_without_a_time() -> None:
    steps = Steps(SIDE, 1, CPU, torch.float32, lambda name: "checkpoint" in name, NARROW)
    whole = steps.ours

    def broken(config: Config | None = None) -> object:
        step = whole(config)
        if config is not None and config.networks.checkpoint_blocks:
            step.update = lambda: {name: torch.tensor(float("nan")) for name in "abcdefgh"}
        return step

    with mock.patch.object(steps, "ours", broken):
        contest = steps.contest()
    assert list(contest.wrong) == ["ours --checkpoint-blocks"]
    assert contest.wrong["ours --checkpoint-blocks"].startswith("a loss of step 1 is nan where plain PyTorch has")


@pytest.mark.parametrize(
    ("batch", "memory_bytes", "without", "graphs"),
    [
        (1, 24e9, "nothing", ["", ", torch.compile default", ", torch.compile max-autotune"]),
        (1, 24e9, "max-autotune", ["", ", torch.compile default"]),
        (16, 141e9, "nothing", [", torch.compile max-autotune"]),
        (16, 141e9, "max-autotune", [", torch.compile default"]),
        (16, 80e9, "nothing", []),
    ],
)
def test_graphs_of_a_whole_step_are_as_many_as_the_memory_holds(
    batch: int, memory_bytes: float, without: str, graphs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(SIDE, batch, CPU, torch.bfloat16, lambda name: without not in name, PlainNetworkSize(4, 6))
    steps.device = torch.device("cuda")
    properties = SimpleNamespace(total_memory=memory_bytes)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr("bench.cases.training_step.streams_of", lambda config, device: 2)
    names = [name for name, _ in steps._makers()]
    first = next((number for number, name in enumerate(names) if name.endswith(IN_A_GRAPH)), len(names))
    # Behind ours: one that breaks off may not let PyTorch record another.
    assert names[first:] == [f"stock autocast, bfloat16{each} {IN_A_GRAPH}" for each in graphs]
    assert "ours --amp" in names[:first]


def test_losses_of_few_scores_may_differ_by_more() -> None:
    assert [agreement_at(side) for side in (256, 64, 32)] == [0.05, 0.05, 0.15]
