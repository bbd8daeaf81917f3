"""`bench.tune` takes the fastest plan that is right, and loses nothing that it had found. Times are made up."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench import tune
from bench.measure.limits import Limits
from bench.tuning import candidates, trials, tuned_table, tuner
from bench.tuning.candidates import plan_text
from bench.tuning.trials import exact_results
from bench.tuning.tuner import EVERYTHING, Tuned, Visit
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.sites import NormSite, Operands, generator_sites
from cyclegan_fast.kernels.gpus import Gpu, planning_for
from cyclegan_fast.kernels.plans import ConvPlan, NormPlan
from cyclegan_fast.kernels.triton_language import INTERPRETED
from tests.as_command import run_as_command

CPU = torch.device("cpu")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
NEEDS_INTERPRETER = pytest.mark.skipif(not INTERPRETED, reason="tiny shapes, for a GPU that is not there")

GPU = Gpu("A tuned GPU", 90, 132, 60 << 20, 4800, 6600)
SITE = NormSite("after a convolution", 16, 3, "relu", pad=1)
BLOCKS = [
    NormSite("first half", 16, 4, "relu", pad=1, remade=True, times=2),
    NormSite("second half", 16, 4, "none", pad=1, residual=True, feeds_block=True),
]
RULE = NormPlan("two_phase", 8, 16, 2, 16, 8)
FAST = NormPlan("two_phase", 16, 16, 2, 16, 8)
SLOW = NormPlan("on_chip", 32, 16, 2, 32, 8)
CONV_FAST, CONV_SLOW = ConvPlan(16, 16, 16, 4, 2), ConvPlan(32, 16, 16, 4, 2)


class MadeUpTimes:
    """Takes the place of `Race`: contenders take as long as a test says, or two seconds."""

    seconds_of: ClassVar[dict[str, float]] = {}
    clock_s: ClassVar[float] = 0.0

    def __init__(self, device: torch.device, contenders: dict[str, Any], ours: str) -> None:
        self.contenders = dict(contenders)

    def enter(self, name: str, contender: Any) -> None:
        self.contenders[name] = contender

    def leave(self, name: str) -> None:
        del self.contenders[name]

    def run(self, rounds: int) -> None:
        self.seconds = {name: [self.seconds_of.get(name, 2.0)] * rounds for name in self.contenders}
        MadeUpTimes.clock_s += sum(map(sum, self.seconds.values()))


@pytest.fixture
def made_up_times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds by plan, `described`; three plans for each norm, two for each convolution."""
    monkeypatch.setattr(MadeUpTimes, "seconds_of", {tuner.BUILT_IN: 1.0})
    monkeypatch.setattr(MadeUpTimes, "clock_s", 0.0)
    monkeypatch.setattr(tuner, "Race", MadeUpTimes)
    monkeypatch.setattr(tuner, "now", lambda: MadeUpTimes.clock_s)
    monkeypatch.setattr(trials, "norm_candidates", lambda *_: [RULE, FAST, SLOW])
    monkeypatch.setattr(trials, "conv_candidates", lambda *_: [CONV_FAST, CONV_SLOW])
    return MadeUpTimes.seconds_of


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Gives an empty folder, in which the tuned tables are looked for."""
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    launch.forget_tuned()
    yield tmp_path
    launch.forget_tuned()


def tuned(
    out: Path, sites: Sequence[NormSite] = (SITE,), *, until_s: float = math.inf, told: list[str] | None = None
) -> list[Tuned]:
    tell = [].append if told is None else told.append
    with planning_for(GPU):
        return list(tuned_table.tuning(CPU, sites, [torch.float32], [(1,)], until_s, out, tell))


def entries(out: Path) -> dict[str, Any]:
    return launch.read_tuned(launch.tuned_path(GPU.name, out))


FORWARD = launch.norm_key("forward", SITE.shape(1), SITE.pad, torch.float32)
BACKWARD = launch.norm_key("backward", SITE.shape(1), SITE.pad, torch.float32)
CONVOLUTION = launch.conv_key(BLOCKS[0].shape(1), 16, torch.float32)
EDGES = launch.edge_key(BLOCKS[0].shape(1), 16, torch.float32)


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [*BLOCKS, *generator_sites(width=2, side=16)[-3:]], ids=lambda site: site.name)
def test_exact_results_are_those_of_the_definition(site: NormSite) -> None:
    operands = site.operands(2, torch.float32, "cpu")
    x = operands.x.double()
    mean, rstd = x.mean((2, 3), keepdim=True), (x.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt()
    xhat = (x - mean) * rstd
    y = xhat.relu() if site.activation == "relu" else xhat
    h = operands.dy.double()
    # The adjoint of the padding: each padded pixel's gradient goes where its value came from.
    side, pad = site.side, site.pad
    source = [side - 1 - abs(side - 1 - abs(position - pad)) for position in range(side + 2 * pad)]
    padded = y[:, :, source][:, :, :, source]
    index = torch.tensor(source)
    h = torch.zeros(*h.shape[:2], side, h.size(3), dtype=h.dtype).index_add(2, index, h)
    h = torch.zeros(*h.shape[:3], side, dtype=h.dtype).index_add(3, index, h)
    if operands.skip is not None:
        h = h + operands.skip.double()
    g = h * (xhat > 0) if site.activation == "relu" else h
    dx = rstd * (g - g.mean((2, 3), keepdim=True) - xhat * (g * xhat).mean((2, 3), keepdim=True))
    expected = [dx, *([h] if site.residual else []), *([padded] if site.remade else [])]
    for found, wanted in zip(exact_results("backward", site, operands), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    if operands.residual is not None:
        padded = padded + operands.residual.double()[:, :, source][:, :, :, source]
    (found,) = exact_results("forward", site, operands)
    torch.testing.assert_close(found, padded)


Forward = Callable[[NormSite, Operands], tuple[Tensor, Tensor]]


def spoil(monkeypatch: pytest.MonkeyPatch, plan: NormPlan, spoiled: Callable[[Tensor], Tensor]) -> None:
    """Has the forward norm return something else where it runs by `plan`."""
    run = trials.run_forward

    def run_forward(site: NormSite, operands: Operands) -> tuple[Tensor, Tensor]:
        y, statistics = run(site, operands)
        return (spoiled(y) if launch.forced(NormPlan) == plan else y), statistics

    monkeypatch.setattr(trials, "run_forward", run_forward)


@NEEDS_INTERPRETER
@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (lambda y: y * 1.00001, r"wrong: off by 1e-05 of its size, 1.2e-06 is allowed"),
        (torch.empty_like, r"wrong: off by inf"),  # not written
        (lambda y: y[:, :, 1:], r"wrong: off by inf"),
        (lambda y: y + 1e-7 * torch.rand(()), r"wrong: its results differ between two launches"),
    ],
)
def test_a_wrong_plan_is_never_chosen_however_fast(
    spoiled: Callable[[Tensor], Tensor],
    reason: str,
    out: Path,
    made_up_times: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up_times |= {plan_text(FAST): 0.01, plan_text(SLOW): 0.9}
    spoil(monkeypatch, FAST, spoiled)
    told: list[str] = []
    forward, backward = sorted(tuned(out, told=told), key=lambda each: each.key, reverse=True)
    assert forward.best == SLOW
    assert backward.best == FAST
    assert list(forward.refused) == [plan_text(FAST)]
    assert reason in forward.refused[plan_text(FAST)]
    assert entries(out)[FORWARD]["variant"] == "on_chip"
    assert any(plan_text(FAST) in line and reason in line for line in told)


def failing(error: Exception) -> Callable[[Tensor], Tensor]:
    def fail(_: Tensor) -> Tensor:
        raise error

    return fail


@pytest.mark.slow
@NEEDS_INTERPRETER
def test_a_plan_that_does_not_run_is_reported_and_left_out(
    out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.runtime.errors import OutOfResources, PTXASError

    made_up_times |= {plan_text(FAST): 0.01, plan_text(SLOW): 0.9}
    errors = [
        OutOfResources(300000, 232448, "shared memory"),
        PTXASError("too many registers"),
        RuntimeError("Triton Error [CUDA]: too many blocks in cooperative launch\nand more"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ]
    for error in errors:
        told: list[str] = []
        with monkeypatch.context() as patch:
            spoil(patch, FAST, failing(error))
            forward = next(each for each in tuned(out, told=told) if each.key == FORWARD)
        assert forward.best == SLOW
        reason = f"does not run: {type(error).__name__}: {str(error).splitlines()[0]}"
        assert f"  {FORWARD}: {plan_text(FAST)}: {reason}" in told
    cooperative = NormPlan("cooperative", 16, 16, 4, 16, 1)
    monkeypatch.setattr(trials, "norm_candidates", lambda *_: [RULE, cooperative, SLOW])
    found = tuned(out)
    assert [each.best for each in found] == [SLOW, SLOW]
    assert all("cooperative variant waits" in each.refused[plan_text(cooperative)] for each in found)


@NEEDS_INTERPRETER
@pytest.mark.usefixtures("made_up_times")
@pytest.mark.parametrize("error", [TypeError("ours"), ValueError("ours"), AssertionError("ours")])
def test_a_mistake_of_ours_is_no_plan_that_does_not_run(
    error: Exception, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, FAST, failing(error))
    with pytest.raises(type(error), match="ours"):
        tuned(out)


@NEEDS_INTERPRETER
def test_a_key_whose_built_in_plan_fails_or_is_wrong_is_left_out(
    out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_times |= {plan_text(FAST): 0.5}
    for spoiled in (failing(RuntimeError("refused")), lambda y: y * 1.1):
        told: list[str] = []
        with monkeypatch.context() as patch:
            spoil(patch, RULE, spoiled)
            assert [each.key for each in tuned(out, told=told)] == [BACKWARD]
        assert any(line.startswith(f"{FORWARD}: left out: ") for line in told)
        assert list(entries(out)) == [BACKWARD]


@NEEDS_INTERPRETER
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_an_error_that_takes_the_gpu_away_ends_the_run_and_keeps_what_was_found(
    kind: type[Exception], out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_times |= {plan_text(FAST): 0.5}
    spoil(monkeypatch, SLOW, failing(kind("CUDA error: an illegal memory access was encountered")))
    with pytest.raises(tuner.DeviceLost, match=rf"{FORWARD}, on_chip .*illegal memory access.*cannot use the GPU"):
        tuned(out)
    assert list(entries(out)) == [BACKWARD]  # it moves more and came first


# --- what is written -------------------------------------------------------------------------------------------------


@NEEDS_INTERPRETER
def test_the_fastest_right_plan_is_written_and_used_by_this_process(out: Path, made_up_times: dict[str, float]) -> None:
    made_up_times |= {plan_text(FAST): 0.5, plan_text(SLOW): 0.7}

    def plan() -> NormPlan:
        return launch.norm_plan("forward", SITE.shape(1), SITE.pad, torch.float32, GPU)

    before = plan()
    found = tuned(out)
    assert plan() == launch.divided(FAST, "forward", SITE.shape(1), SITE.pad, torch.float32, GPU) != before
    assert launch.tuned_path(GPU.name) == out / "a_tuned_gpu.json"
    assert {each.key: (each.best, each.won) for each in found} == {BACKWARD: (FAST, True), FORWARD: (FAST, True)}
    forward = found[1]
    assert (forward.built_in_us, forward.best_us) == (1e6, 0.5e6)
    assert forward.ratio is not None
    assert forward.ratio.median == 2
    x_bytes, y_bytes = 16 * 3 * 3 * 4, 16 * 5 * 5 * 4
    limits = Limits(copy_gbps=1.0, matrix_tflops={"float32": 1.0})
    assert forward.floor_us(limits) == pytest.approx((x_bytes + y_bytes) / 1e3)
    expected = f"| {FORWARD} | 1000000.00 | 500000.00 | 2.000x | {plan_text(FAST)} | {forward.floor_us(limits):.2f} |"
    assert expected in tuned_table.tuned_markdown(found, limits).splitlines()


@NEEDS_INTERPRETER
def test_what_is_less_than_two_percent_better_is_not_written(out: Path, made_up_times: dict[str, float]) -> None:
    made_up_times |= {plan_text(FAST): 1 / 1.019}
    launch.tuned_path(GPU.name, out).write_text(json.dumps({FORWARD: {"old": 1}, "another key": {"kept": 2}}))
    told: list[str] = []
    found = tuned(out, told=told)
    assert not any(each.won for each in found)
    assert entries(out) == {"another key": {"kept": 2}}
    assert any(line.startswith(FORWARD) and "less than 2% better, not taken" in line for line in told)
    assert tuned_table.tuned_markdown(found).count("| no | built in | - |") == 2
    made_up_times |= {plan_text(FAST): 1 / 1.021}
    tuned(out)
    assert list(entries(out)) == ["another key", BACKWARD, FORWARD]


@NEEDS_INTERPRETER
def test_time_that_is_up_ends_with_the_key_that_was_begun(out: Path, made_up_times: dict[str, float]) -> None:
    made_up_times |= {plan_text(FAST): 0.5}
    launch.tuned_path(GPU.name, out).write_text(json.dumps({FORWARD: {"old": 1}}))
    told: list[str] = []
    (backward,) = tuned(out, until_s=0.1, told=told)
    assert backward.key == BACKWARD
    assert not backward.complete
    assert entries(out) == {FORWARD: {"old": 1}, BACKWARD: vars_of(FAST)}
    assert told[-1].startswith("time is up")
    assert tuned(out, until_s=0.0) == []
    made_up_times |= {plan_text(FAST): 3.0}
    assert [each.won for each in tuned(out, until_s=MadeUpTimes.clock_s + 0.1)] == [False]
    assert BACKWARD in entries(out)  # not every plan was tried: what the table has may still be the best


FURTHER = [NormPlan("two_phase", 8, 16, warps, 16, 8) for warps in (4, 8, 16)]


@pytest.mark.slow
@NEEDS_INTERPRETER
def test_keys_are_visited_with_few_candidates_first_then_with_all(
    out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "norm_candidates", lambda *_: [RULE, SLOW, *FURTHER, FAST])
    made_up_times |= {plan_text(FURTHER[0]): 0.8, plan_text(FAST): 0.5}
    few = Visit(first=2, again=1, rounds_each=1, rounds=1)
    with planning_for(GPU):
        found = list(
            tuned_table.tuning(
                CPU,
                [SITE],
                [torch.float32],
                [(2, 1)],
                math.inf,
                out,
                lambda _: None,
                visits=[few, EVERYTHING],
            )
        )
    keys = [
        launch.norm_key(direction, SITE.shape(n), 1, torch.float32)
        for n in (2, 1)
        for direction in ("backward", "forward")
    ]
    assert sorted(each.key for each in found[:4]) == sorted(each.key for each in found[4:]) == sorted(keys)
    first = {each.key: each for each in found[:4]}
    # Variants take turns, and the smaller batch tries the tile that won at the larger one.
    assert {each.best for each in first.values()} == {FURTHER[0]}
    assert not any(each.complete for each in first.values())
    assert all(each.best == FAST and each.complete for each in found[4:])
    assert entries(out)[FORWARD] == vars_of(FAST)


@NEEDS_INTERPRETER
def test_a_candidate_is_tried_once_for_each_key(
    out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_times |= {plan_text(FAST): 0.5}
    tested: list[str] = []
    wrong = tuner._wrong

    def noted(trial: trials.Trial, plan: trials.Plan, allowed: Sequence[float]) -> str | None:
        assert plan is not None
        tested.append(plan_text(plan))
        return wrong(trial, plan, allowed)

    monkeypatch.setattr(tuner, "_wrong", noted)
    visits = [Visit(first=1, again=1, rounds_each=1, rounds=1), EVERYTHING, EVERYTHING]
    with planning_for(GPU):
        found = list(
            tuned_table.tuning(CPU, [SITE], [torch.float32], [(1,)], math.inf, out, lambda _: None, visits=visits)
        )
    assert Counter(tested) == {plan_text(FAST): 2, plan_text(SLOW): 2}  # forward and backward
    assert len(found) == 4


def vars_of(plan: NormPlan | ConvPlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


@NEEDS_INTERPRETER
@pytest.mark.parametrize(("ours_s", "beats_library"), [(0.9, True), (0.99, False)])
def test_a_convolution_is_written_with_whether_it_beats_the_library(
    ours_s: float,
    beats_library: bool,
    out: Path,
    made_up_times: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "norm_candidates", lambda *_: [FAST])
    made_up_times |= {plan_text(CONV_FAST): ours_s}
    found = tuned(out, BLOCKS)
    assert [each.key for each in found[-2:]] == [CONVOLUTION, EDGES]
    assert not found[-2].refused
    assert not found[-1].refused
    assert launch.edges_beat_padding(BLOCKS[0].shape(1), 16, torch.float32, GPU) == found[-1].won
    assert entries(out)[CONVOLUTION] == vars_of(CONV_FAST) | {"beats_library": beats_library}
    assert launch.conv_plan(BLOCKS[0].shape(1), 16, torch.float32, GPU) == CONV_FAST
    assert launch.conv_beats_library(BLOCKS[0].shape(1), 16, torch.float32, GPU) == beats_library
    assert ("| the library's |" in tuned_table.tuned_markdown(found[:-1])) != beats_library


@NEEDS_INTERPRETER
def test_a_wrong_convolution_is_not_written(
    out: Path, made_up_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "norm_candidates", lambda *_: [FAST])
    made_up_times |= {plan_text(CONV_FAST): 0.1}
    run = trials.conv_forward

    def conv_forward(x: Tensor, weight: Tensor, *, reflect: bool) -> tuple[Tensor, Tensor]:
        y, partials = run(x, weight, reflect=reflect)
        assert launch.forced(NormPlan) is not None  # the best known, for both
        return y, partials * (1.01 if launch.forced(ConvPlan) == CONV_FAST else 1.0)

    monkeypatch.setattr(trials, "conv_forward", conv_forward)
    *_, convolution, _ = tuned(out, BLOCKS)
    assert "wrong" in convolution.refused[plan_text(CONV_FAST)]
    assert entries(out)[CONVOLUTION] == vars_of(CONV_SLOW) | {"beats_library": False}


# --- the command -----------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_says_so_and_writes_nothing(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main(["--out", str(out / "tables")]) == tune.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 2
    assert "sees no NVIDIA GPU here" in printed.err
    assert not list(out.iterdir())


@pytest.mark.slow
@NEEDS_INTERPRETER
def test_the_whole_command_runs_in_the_interpreter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "INTERPRETED_SIZE", {"width": 2, "side": 32})
    monkeypatch.setattr(candidates, "TWO_PHASE_TILES", {"forward": ((8192, 8),), "backward": ((4096, 8),)})
    command = ["--interpret", "--dtypes", "float32", "--batches", "1", "--seconds", "0.01", "--out", str(tmp_path)]
    assert tune.main(command) == 0
    printed = capsys.readouterr().out
    key = "backward 2 x 64 pixels, 8 channels, pad 1, float32"
    assert f"\n{key}: built in " in printed
    assert f"\n| {key} | " in printed
    assert "times mean nothing" in printed
    (path,) = tmp_path.iterdir()
    assert path.name == "nvidia_h200_in_the_interpreter.json"
    assert set(json.loads(path.read_text())) <= {key}
    path.write_text("{")
    assert tune.main(command) == 2
    assert f"{path} is not JSON" in capsys.readouterr().err
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interpret"], "--interpret needs an --out of its own"),
        (["--interpret", "--out", str(launch.TUNED)], "--interpret needs an --out of its own"),
        (["--side", "30"], "--side must be a multiple of 8 and at least 32, got 30"),
        (["--batches", "0"], "must be positive, got 0"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tune.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_as_command(tune.__file__, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: python -m bench.tune")
