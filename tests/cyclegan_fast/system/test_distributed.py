"""Trains with two gloo ranks on the CPU, started by torchrun as a user would."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from cyclegan_fast import sample_photos
from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.distributed import ALONE, Ranks, joined
from cyclegan_fast.system.errors import ReportedElsewhere, UserError
from cyclegan_fast.training import session
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.training.test_train import assert_same_state, command, final_state, metrics

ROOT = Path(__file__).parents[3]
NETWORKS = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="reference")


def torchrun(*arguments: str, restarts: int = 0) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *launcher, "--max-restarts", str(restarts), "-m", *arguments]


# --- two ranks are one with twice the batch -------------------------------------------------------------------------


class Scripted(random.Random):
    """Pool decisions of step after step: both images of a batch swap with the slot that the script names, or do not.

    A single rank's pool of 4 holds the images of two batches, in slots 0 to 3; of them rank r's pool of 2 holds those
    in slots r and r + 2. So slot 2k + r there is slot k here, and both make the same exchange.
    """

    SCRIPT = (None, 0, 1, None, 1, 1, 0, None)  # slots of a rank's pool

    def __init__(self, rank: int | None) -> None:
        super().__init__(0)
        self.rank = rank  # None: alone, for both images of a batch
        self.image = 0
        self.queries = 0

    def random(self) -> float:
        per_query = 2 if self.rank is None else 1
        self.image = self.queries % per_query
        self.slot = self.SCRIPT[self.queries // per_query % len(self.SCRIPT)]
        self.queries += 1
        return 0.9 if self.slot is None else 0.1

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert self.slot is not None
        return self.slot if self.rank is not None else 2 * self.slot + self.image


@dataclass(frozen=True)
class Case:
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    dtype: torch.dtype = torch.float64
    is_scripted: bool = False
    steps: int = 12


CASES = {
    "no pool": Case(loss=LossConfig(pool_size=0)),
    "scripted pool": Case(loss=LossConfig(pool_size=4), is_scripted=True),
    "moving average": Case(loss=LossConfig(pool_size=0), optimizer=OptimizerConfig(ema=0.5)),
    "bigan": Case(loss=LossConfig(method="bigan", pool_size=0), steps=4),
    "pix2pix": Case(loss=LossConfig(method="pix2pix", pool_size=0), steps=4),
    "bfloat16": Case(loss=LossConfig(pool_size=0), dtype=torch.bfloat16, steps=1),
}
QUICK = ["scripted pool"]


def step_of(case: Case, ranks: Ranks) -> TrainingStep:
    torch.manual_seed(5 + ranks.index)  # ranks begin with the first one's weights, whatever their own
    size = case.loss.pool_size // ranks.count
    config = Config(networks=NETWORKS, loss=replace(case.loss, pool_size=size), optimizer=case.optimizer)
    kept_in = torch.float64 if case.dtype == torch.float64 else torch.float32
    source = Scripted(None if ranks.count == 1 else ranks.index) if case.is_scripted else None
    return TrainingStep(Model(config).to(kept_in), config, case.dtype, source, ranks)


def whole_batch(number: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    real_A, real_B = (torch.rand(2, 3, 24, 24, generator=generator, dtype=dtype) * 2 - 1 for _ in range(2))
    return real_A, real_B


def half_of(images: Tensor, rank: int) -> Tensor:
    return images[rank : rank + 1]


def finish(step: TrainingStep) -> dict[str, Tensor]:
    """Weights, and Adam's first moments: after one step the weights only know the signs of gradients."""
    moments = [
        of_parameter["exp_avg"]
        for descent in (step.generators, step.discriminators)
        for of_parameter in descent.optimizer.state.values()
    ]
    named = {f"moment {number}": moment for number, moment in enumerate(moments)}
    return {name: value.clone() for name, value in {**step.model.state_dict(), **named}.items()}


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param([name for name in CASES if name not in QUICK], marks=pytest.mark.slow)], ids=len
)
def test_two_ranks_take_the_steps_of_one_rank_with_twice_the_batch(names: list[str], tmp_path: Path) -> None:
    """Trains all the cases in one start of torchrun, which takes longer than their steps."""
    subprocess.run(torchrun("tests.cyclegan_fast.rank_of_two", str(tmp_path), *names), check=True, timeout=300)
    for name in names:
        check_steps(name, torch.load(tmp_path / f"{name}.pt", weights_only=True))


def check_steps(name: str, two: dict[str, Any]) -> None:
    """Compare what two ranks saved with the steps of one rank."""
    case = CASES[name]
    alone = step_of(case, ALONE)
    losses = []
    for number in range(case.steps):
        losses.append(torch.stack(list(alone(*whole_batch(number, case.dtype)).values())).double())
    first, second = two["weights"]
    bound = 1e-9 if case.dtype == torch.float64 else 2e-2
    for found, expected in zip(two["losses"], losses, strict=True):
        torch.testing.assert_close(found, expected, rtol=bound, atol=0)
    worst = 0.0
    for key, expected in finish(alone).items():
        assert torch.equal(first[key], second[key]), key  # ranks stay alike, bit for bit
        if case.dtype == torch.float64 or key.startswith("moment"):
            scale = expected.norm().item() or 1.0
            worst = max(worst, (first[key] - expected).norm().item() / scale)
    assert 0 < worst <= bound
    print(f"{name}: weights and moments of two ranks after {case.steps} steps differ by {worst:.1e} of each tensor")


def test_other_ranks_draw_other_pool_decisions_than_the_first() -> None:
    config = Config(networks=NETWORKS)
    torch.manual_seed(0)
    model = Model(config)
    draws = [TrainingStep(model, config, torch.float32, ranks=Ranks(rank)).random_source.random() for rank in range(3)]
    assert draws[0] == random.Random(config.run.seed).random()
    assert len(set(draws)) == 3


def test_ranks_that_read_other_images_than_the_first_are_refused(folder: Path) -> None:
    data = open_data(DataConfig(data=folder, crop_size=32, load_size=36), 0)

    @dataclass
    class Second(Ranks):
        """Stands in for one of two ranks, which hears from the first what it is told here."""

        first: Any = None
        others_differ: bool = False

        def from_first(self, function: Callable[[], Any]) -> Any:
            return self.first

        def any(self, flag: bool) -> bool:
            return flag or self.others_differ

    own = data.training.fingerprint
    session.check_same_images(data, Second(1, 2, first=own))
    with pytest.raises(UserError, match="process 1 reads other images than process 0") as refused:
        session.check_same_images(data, Second(1, 2, first={"other": 1}))
    assert not isinstance(refused.value, ReportedElsewhere)
    with pytest.raises(ReportedElsewhere):
        session.check_same_images(data, Second(1, 2, first=own, others_differ=True))


def test_ranks_cannot_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="--device cuda:0 would be shared by 2 ranks: give cuda"), joined("cuda:0"):
        pass


def test_a_rank_alone_knows_whether_torchrun_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined("cpu") as (ranks, _):
        assert (ranks, ranks.by_node(True), ranks.by_node(False)) == (ALONE, [True], [False])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "of a machine whose others left")
    with joined("cpu") as (ranks, _):
        assert (ranks.count, ranks.is_launched) == (1, True)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Writes a folder of images and a run of two ranks that nothing interrupted."""
    root = tmp_path_factory.mktemp("ranks")
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "7"])
    subprocess.run(torchrun(*training(root, "whole")), check=True, timeout=300)
    return root, root / "whole"


def training(root: Path, name: str) -> list[str]:
    return ["cyclegan_fast.train", *command(root / "data", root, name)]


def workers_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the training processes, the first rank's first."""
    children = psutil.Process(launcher.pid).children(recursive=True)
    ranks = [child for child in children if "cyclegan_fast.train" in child.cmdline()]
    return sorted(ranks, key=lambda child: int(child.environ()["RANK"]))


def wait_for_step(run: Path, step: int, launcher: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and launcher.poll() is None:
        lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        if lines and lines[-1].endswith("}") and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} in {run}: {launcher.communicate()[0] if launcher.poll() is not None else ''}")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_rank_is_killed_torchrun_starts_all_again_and_the_run_ends_as_the_undisturbed_one(
    undisturbed: tuple[Path, Path], rank: int
) -> None:
    root, whole = undisturbed
    run = root / f"killed-{rank}"
    launcher = subprocess.Popen(
        torchrun(*training(root, run.name), restarts=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(run, 12, launcher)
    os.kill(workers_of(launcher)[rank].pid, signal.SIGKILL)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, output
    assert f"{run}, steps 0 to 48" in output
    assert output.count("2 times CPU") == 2, output  # it was announced twice: at its start, and after the kill
    assert_same_state(final_state(run), final_state(whole))
    assert metrics(run) == metrics(whole)


THREADS = """
from pathlib import Path

import torch

from cyclegan_fast.system.distributed import joined


def threads():
    return [(path / "comm").read_text().strip() for path in Path("/proc/self/task").iterdir()]


with joined("cpu") as (ranks, _):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])  # imports more of PyTorch
    ranks.begin_average(torch.ones(3))()
    assert "pt_gloo_runloop" in threads()
assert "pt_gloo_runloop" not in threads()  # though `ranks` is still here
print("ended", flush=True)
"""


@pytest.mark.slow
def test_ranks_that_part_leave_no_thread_that_could_abort_them_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(THREADS)
    launcher = [*torchrun()[:-1], str(tmp_path / "threads.py")]
    ended = subprocess.run(
        launcher, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.count("ended")) == (0, 2), ended.stderr


@pytest.mark.slow
def test_what_the_first_rank_refuses_is_said_once_and_ends_all_ranks(undisturbed: tuple[Path, Path]) -> None:
    root, _ = undisturbed
    result = subprocess.run(
        torchrun(*training(root, "whole"), "--seed", "7"), capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode != 0
    assert result.stderr.count("was made with another configuration (seed: 0 -> 7)") == 1


@pytest.mark.slow
def test_a_finished_run_ends_all_ranks_well_and_a_later_end_goes_on_with_it(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    shutil.copytree(whole, root / "finished")
    for flags, said in (
        ([], "is finished after 48 steps"),
        (["--max-steps", "50"], "steps 48 to 50"),
    ):
        result = subprocess.run(
            torchrun(*training(root, "finished"), *flags), capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(said) == 1
    assert final_state(root / "finished")["log"]["step"] == 50


@pytest.mark.slow
def test_an_interrupted_torchrun_saves_and_continues(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    launcher = subprocess.Popen(
        torchrun(*training(root, "stopped")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_step(root / "stopped", 9, launcher)
    workers_of(launcher)[1].send_signal(signal.SIGTERM)  # one rank is told; both end after the same step
    output, _ = launcher.communicate(timeout=300)
    assert "the same command continues" in output
    assert launcher.returncode == 0, "torchrun would take it for a death and start all ranks again"
    subprocess.run(torchrun(*training(root, "stopped")), check=True, timeout=300)
    assert_same_state(final_state(root / "stopped"), final_state(whole))
    assert metrics(root / "stopped") == metrics(whole)


@pytest.mark.slow
def test_the_first_rank_evaluates_for_all_and_no_weight_changes(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    flags = ["--evaluate-every", "16", "--metrics", "reconstruction"]
    subprocess.run(torchrun(*training(root, "watched"), *flags), check=True, timeout=300)
    lines = (root / "watched" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [16, 32, 48]
    watched = final_state(root / "watched")
    assert watched["best"]["name"] == "a2b.reconstruction.ssim"
    for name, value in final_state(whole)["model"].items():
        assert torch.equal(watched["model"][name], value), name
    best = load(root / "watched" / "checkpoints" / "best.pt")
    assert len(best["ranks"]) == 2
    assert best["log"]["step"] == watched["best"]["step"]


@pytest.mark.slow
def test_what_only_the_first_rank_misses_ends_all_ranks_with_one_sentence(undisturbed: tuple[Path, Path]) -> None:
    root, _ = undisturbed
    flags = ["--metrics", "fid", "--features", "nowhere.pt2"]
    result = subprocess.run(
        torchrun(*training(root, "missing"), *flags), capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode != 0
    assert result.stderr.count("error: --features nowhere.pt2: no such file") == 1
