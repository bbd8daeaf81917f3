"""Contests report no time of a contender that computes something else."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.cases import networks, operators
from bench.measure.agreement import ALLOWED, Disagreement, errors
from bench.measure.contest import Case, Contest, measure_case
from bench.measure.limits import Limits
from bench.measure.timing import Contender, Race
from bench.reporting.terminal import comparison_text
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.checking.sites import NormSite, all_sites
from cyclegan_fast.kernels.triton_language import INTERPRETED

CPU = torch.device("cpu")
LIMITS = Limits(copy_gbps=1.0, matrix_tflops={"float32": 1e-3, "bfloat16": 1e-3})
X = torch.linspace(1, 2, 1000)


def case(**contenders: Callable[[], Tensor]) -> Case:
    def operator_contest() -> Contest:
        return Contest(
            {name: Contender([call]) for name, call in contenders.items()}, "ours", "plain", [X.double() * 2], 1e-5
        )

    return Case("operators", "doubling", "1000", "float32", 1, 0, 8_000_000, 1000, operator_contest)


def three_rounds(race: Race) -> None:
    race.run(3)


def test_a_wrong_opponent_is_named_without_a_time() -> None:
    found = measure_case(
        case(plain=lambda: X * 2, ours=lambda: X + X, wrong=lambda: X * 2.001, other_shape=lambda: X[:-1] * 2),
        CPU,
        LIMITS,
        three_rounds,
    )
    assert set(found.contenders) == {"plain", "ours"}
    assert found.refused["wrong"] == "off by 0.0005 of its size, 1e-05 is allowed"
    assert found.refused["other_shape"] == "off by inf of its size, 1e-05 is allowed"
    assert "wrong" in comparison_text(found)
    assert found.rounds == 3


def test_absent_opponents_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = case(plain=lambda: X * 2, ours=lambda: X + X)
    contest = replace(made.make(), absent={"theirs": "not installed"})
    found = measure_case(replace(made, make=lambda: contest), CPU, LIMITS, three_rounds)
    assert found.absent == {"theirs": "not installed"}
    assert found.contenders["ours"].kernels_ms is None
    assert "absent: not installed" in comparison_text(found)


@pytest.mark.parametrize("name", ["ours", "plain"])
def test_nothing_is_reported_where_ours_or_plain_pytorch_is_wrong(name: str) -> None:
    calls = {"plain": lambda: X * 2, "ours": lambda: X * 2} | {name: lambda: X * 2.1}
    driven: list[Race] = []
    with pytest.raises(Disagreement, match=f"{name} is off by 0.05 of its size, 1e-05 is allowed: nothing is reported"):
        measure_case(case(**calls), CPU, LIMITS, driven.append)
    assert not driven


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_wrong(value: float) -> None:
    assert relative_error(torch.full((3,), value), torch.ones(3)) == math.inf


def test_every_tensor_counts_and_none_may_be_missing() -> None:
    exact = [torch.ones(4), 2 * torch.ones(4)]
    found = errors({"right": exact, "one off": [exact[0], exact[1] * 1.5], "one missing": exact[:1]}, exact)
    assert found == {"right": 0.0, "one off": pytest.approx(0.5), "one missing": math.inf}


def test_an_opponent_that_does_not_run_is_named_and_ours_raises() -> None:
    def fails() -> Tensor:
        raise torch.OutOfMemoryError("too much\nof it")

    found = measure_case(case(plain=lambda: X * 2, ours=lambda: X * 2, large=fails), CPU, LIMITS, three_rounds)
    assert found.refused == {"large": "does not run: OutOfMemoryError: too much"}
    with pytest.raises(torch.OutOfMemoryError):
        measure_case(case(plain=lambda: X * 2, ours=fails), CPU, LIMITS, three_rounds)


def test_the_limit_is_the_larger_of_moving_and_computing() -> None:
    assert LIMITS.seconds(8_000_000, 1000, "float32") == pytest.approx(8e-3)
    assert LIMITS.seconds(8, 5_000_000, "float32") == pytest.approx(5e-3)
    found = measure_case(case(plain=lambda: X * 2, ours=lambda: X * 2), CPU, LIMITS, three_rounds)
    assert found.limit_ms == pytest.approx(8)
    assert found.of_limit("ours") == pytest.approx(8 / found.contenders["ours"].ms.median)


SMALL = [
    site for site in all_sites(32) if site.name in ("blocks, second half", "last block, second half", "after up 2")
]


@pytest.mark.skipif(not INTERPRETED, reason="on a CPU kernels run in Triton's interpreter")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("site", SMALL, ids=lambda site: site.name)
def test_the_kernels_compete_and_agree_as_they_do_on_a_gpu(site: NormSite, direction: operators.Direction) -> None:
    operator_contest = operators.operator_contest(
        site, direction, torch.float32, 1, device=CPU, impl="triton", with_compile=False, with_others=False
    )
    results = {name: contender.calls[0]() for name, contender in operator_contest.contenders.items()}
    found = errors(results, operator_contest.exact)
    assert len(operator_contest.exact) == (2 if direction == "backward" and site.residual and site.pad else 1)
    assert found["ours"] <= ALLOWED[torch.float32]
    assert found["plain PyTorch"] <= ALLOWED[torch.float32]
    assert not torch.equal(results["ours"][0], torch.zeros_like(results["ours"][0]))


def test_operands_of_large_sites_go_past_the_cache_and_small_ones_stay_in_it() -> None:
    cache = operators.CPU_CACHE_BYTES
    assert operators.operand_sets(cache // 8, CPU) == 1
    large = cache // 3
    assert (operators.operand_sets(large, CPU) - 1) * large >= 2 * cache
    assert operators.operand_sets(100 * cache, CPU) == 2


@pytest.mark.parametrize("what", ["forward", "forward and backward"])
def test_a_batch_is_what_its_images_are_one_by_one(what: networks.Pass) -> None:
    entrants = networks.Entrants("discriminator", what, torch.float64, 3, 32, CPU)
    together, one_by_one = entrants.plain(torch.float64)(), entrants.exact()
    assert len(together) == len(one_by_one) == (1 if what == "forward" else 7)
    assert errors({"together": together}, one_by_one)["together"] < 1e-12


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_networks_compete_with_the_same_weights(kind: networks.Kind) -> None:
    entrants = networks.Entrants(kind, "forward and backward", torch.float32, 1, 32, CPU)
    found = errors({"plain": entrants.plain(torch.float32)(), "ours": entrants.ours()()}, entrants.exact())
    assert found["plain"] < 0.02
    assert found["ours"] < 0.02
