"""Test runs that another number of processes continues: what stays to the bit, and by which rule the rest is dealt."""

import random
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from bench.cases.plain_cyclegan import PlainCycleGAN
from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.training.history.rank_states import dealt, remark_on_ranks, state_of_rank
from cyclegan_fast.training.history.shares import RankShares
from cyclegan_fast.training.schedule import rate_of_epoch
from tests.cyclegan_fast.training.history.changing_ranks import PER_RANK, RANKS_AND_STEPS
from tests.cyclegan_fast.training.test_step import in_our_names, relative_difference
from tests.cyclegan_fast.training.test_train import assert_same_state

CPU = torch.device("cpu")


# --- shares of a batch and of the pools -----------------------------------------------------------------------------


def config(batch: int, *, accumulate: int = 1, pool: int = 50, **data: Any) -> Config:
    return Config(
        data=DataConfig(batch_size=batch, **data),
        loss=LossConfig(pool_size=pool),
        optimizer=OptimizerConfig(accumulate=accumulate),
    )


def own(shares: RankShares, given: Config, count: int, index: int = 0) -> tuple[int, int, int]:
    """Return a rank's images of a step, the parts that it computes them in, and its places in a pool."""
    settings = shares.settings(given, Ranks(index, count))
    return settings.data.batch_size, settings.optimizer.accumulate, settings.loss.pool_size


def test_a_run_begins_with_the_settings_that_it_is_given() -> None:
    for ranks in (1, 2, 3):
        given = config(6, accumulate=2)
        shares = RankShares.of(given, None, ranks)
        assert shares == RankShares(6 * ranks, 50 * ranks)
        assert shares.settings(given, Ranks(ranks - 1, ranks)) == given


def test_a_shared_batch_is_the_same_by_any_number_of_processes() -> None:
    given = config(12, accumulate=3, share_batch=True)
    for ranks in (1, 2, 3, 4, 6, 12):
        shares = RankShares.of(given, None, ranks)
        assert shares == RankShares(12, 50)
        assert shares.problem(given, ranks) is None
        assert sum(own(shares, given, ranks, index)[2] for index in range(ranks)) == 50
    assert [own(shares, given, 4, index) for index in range(4)] == [(3, 1, 13), (3, 1, 13), (3, 1, 12), (3, 1, 12)]
    assert own(shares, given, 1) == (12, 3, 50)
    assert own(shares, given, 2) == (6, 2, 25)  # never more than 4 at once, as was given


def test_fewer_processes_compute_as_many_images_at_once_as_before() -> None:
    given = config(1)
    saved = cast(RunCheckpoint, {"shares": {"batch": 4, "pool": 200}, "ranks": [{}, {}]})
    shares = RankShares.of(given, saved, 1)
    assert [own(shares, given, count) for count in (4, 2, 1)] == [(1, 1, 50), (2, 2, 100), (4, 4, 200)]
    batch_norm = replace(given, networks=NetworkConfig(norm="batch"))  # whose statistics are those of all at once
    assert own(shares, batch_norm, 1) == (4, 1, 200)


def test_an_older_checkpoint_is_of_as_many_processes_as_its_run_began_with() -> None:
    saved = cast(RunCheckpoint, {"ranks": [{}] * 3})
    assert RankShares.of(config(2, pool=7), saved, 1) == RankShares(6, 21)


@pytest.mark.parametrize(
    ("batch", "ranks", "options", "said"),
    [
        (4, 3, {}, "takes 4 images of each domain, which 3 processes cannot share equally: start 1, 2 or 4 instead"),
        (1, 2, {}, "takes 1 image of each domain, which 2 processes cannot share equally: start 1 instead"),
        (4, 2, {"preprocess": "none"}, r"\(--preprocess none takes one image at a time\): start 4 instead"),
    ],
)
def test_processes_that_cannot_share_a_batch_are_told_how_many_can(
    batch: int, ranks: int, options: dict[str, Any], said: str
) -> None:
    problem = RankShares(batch, 0).problem(config(1, **options), ranks)
    assert problem is not None
    assert re.search(said, problem), problem


# --- what each process has of its own -------------------------------------------------------------------------------


def places(images: list[list[int]]) -> dict[int, int]:
    """Return in which place of one pool of all each image is: slot k of rank r of N is place k * N + r."""
    return {image: slot * len(images) + rank for rank, pool in enumerate(images) for slot, image in enumerate(pool)}


def test_pools_are_dealt_like_cards_and_back_to_where_they_were() -> None:
    total = 50
    tensors = [torch.tensor([float(number)]) for number in range(total)]
    for counts in ((4, 2, 1, 4), (1, 3, 1), (4, 3, 2, 4)):
        pools = [tensors[rank :: counts[0]] for rank in range(counts[0])]
        for _, count in pairwise(counts):
            in_order = dealt(pools)
            pools = [in_order[rank::count] for rank in range(count)]
            where = places([[int(image) for image in pool] for pool in pools])
            assert where == {number: number for number in range(total)}
            assert [len(pool) for pool in pools] == [total // count + (r < total % count) for r in range(count)]


def rank_state(index: int, images: int = 2) -> dict[str, Any]:
    source = random.Random(index)
    version, words, gauss = source.getstate()
    pool = {"images": [torch.full((1, 1, 1), 10.0 * slot + index) for slot in range(images)]}
    losses = {
        "names": ["G_A"],
        "sums": torch.tensor([1.0 + index]).double(),
        "finite": torch.tensor([3]),
        "lost": torch.tensor([0]),
        "in_a_row": torch.tensor([index]),
    }
    generator = torch.Generator().manual_seed(index)
    return {
        "step": {
            "pool_A": pool,
            "pool_B": pool,
            "pool_random": [version, list(words), gauss],
            "penalty_random": generator.get_state(),
        },
        "schedule": {"plateau": {"rate": 0.1}, "losses": losses},
        "random": {"cpu": generator.get_state(), "cuda": None},
    }


def saved_by(count: int) -> RunCheckpoint:
    return cast(RunCheckpoint, {"ranks": [rank_state(index) for index in range(count)], "log": {"step": 9}})


def test_ranks_that_were_there_keep_their_random_states_and_new_ones_are_made_from_seed_step_and_rank() -> None:
    saved = saved_by(2)
    states = [state_of_rank(saved, Ranks(index, 4), 7, CPU) for index in range(4)]
    drawn = ("pool_random", "penalty_random")
    for index in (0, 1):
        assert_same_state(states[index]["random"], saved["ranks"][index]["random"])
        for name in drawn:
            assert_same_state(states[index]["step"][name], saved["ranks"][index]["step"][name])
    for name in drawn:
        assert len({str(state["step"][name]) for state in states}) == 4
    assert len({str(state["random"]["cpu"].tolist()) for state in states}) == 4
    assert_same_state(states[3], state_of_rank(saved, Ranks(3, 4), 7, CPU))
    expected = random.Random("7 at step 9 on rank 3")
    expected.getrandbits(63), expected.getrandbits(63)  # for the other two sources
    version, words, gauss = expected.getstate()
    assert states[3]["step"]["pool_random"] == [version, list(words), gauss]
    other = state_of_rank(saved, Ranks(3, 4), 8, CPU)
    assert other["step"]["pool_random"] != states[3]["step"]["pool_random"]


def test_losses_that_the_plateau_waits_for_become_those_of_all_ranks() -> None:
    (alone,) = [state_of_rank(saved_by(4), Ranks(0, 1), 0, CPU)]
    losses = alone["schedule"]["losses"]
    assert losses["sums"].tolist() == [(1 + 2 + 3 + 4) / 4]
    assert (losses["finite"].tolist(), losses["lost"].tolist(), losses["in_a_row"].tolist()) == ([3], [0], [3])
    assert [float(image) for image in alone["step"]["pool_A"]["images"]] == [0, 1, 2, 3, 10, 11, 12, 13]


def test_as_many_ranks_as_before_continue_with_what_they_had() -> None:
    saved = saved_by(2)
    assert state_of_rank(saved, Ranks(1, 2), 0, CPU) is saved["ranks"][1]
    assert remark_on_ranks(saved, Ranks(1, 2), RankShares(2, 0), config(1)) is None


def test_the_note_names_what_may_be_others() -> None:
    plain = remark_on_ranks(saved_by(2), Ranks(0, 1), RankShares(2, 0), config(1))
    assert plain is not None
    assert plain.endswith("dealt out anew; the last step of an epoch may be others than with 2")
    networks = NetworkConfig(norm="batch", dropout=True)
    said = remark_on_ranks(saved_by(1), Ranks(0, 3), RankShares(3, 50), replace(config(1), networks=networks))
    assert said is not None
    assert said.startswith("trained by 1 process so far, and by 3 from here on: steps of 3 images, weights")
    names = "the decisions of the pools, dropout, statistics of batch norm and the last step of an epoch"
    assert said.endswith(f"{names} may be others than with 1")


# --- 4, 2, 1 and 4 ranks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains the runs of changing_ranks.py, and writes what it said to `said`."""
    root = tmp_path_factory.mktemp("ranks")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cyclegan_fast.training.history.changing_ranks", str(root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (root / "said").write_text(ended.stdout)
    return root


@pytest.mark.slow
def test_a_change_is_said_once(trained: Path) -> None:
    said = (trained / "said").read_text()
    for before, now in (("4 processes", 2), ("2 processes", 1), ("1 process", 4)):
        assert said.count(f"note: trained by {before} so far, and by {now} from here on") == 2  # in each of two runs


@pytest.mark.slow
def test_only_ranks_of_machines_that_were_not_told_to_stop_are_started_again(trained: Path) -> None:
    """Tells one rank to stop: torchrun takes the status 0 of a machine's ranks for an end, any other for a death."""
    said = (trained / "said").read_text()
    assert "statuses of two machines: [143, 0]" in said
    assert "statuses of one machine: [0, 0]" in said


def number_of(values: Any) -> int:
    """Count the numbers in a tree of tensors and plain values."""
    if isinstance(values, torch.Tensor):
        return values.numel()
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else []
    return sum(map(number_of, inner))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "pooled"])
def test_weights_optimisers_and_schedule_continue_to_the_bit(trained: Path, name: str) -> None:
    for (before, at), (count, steps) in pairwise(RANKS_AND_STEPS):
        saved = load(trained / f"{name}-{at}.pt")
        assert (len(saved["ranks"]), saved["log"]["step"], saved["shares"]["batch"]) == (before, at, 4)
        for rank in range(count):
            continued = load(trained / f"{name}-{steps}-rank{rank}.pt")
            for part in ("model", "step"):
                assert_same_state(continued[part], saved[part], part)
            assert_same_state(continued["own"]["schedule"]["plateau"], saved["ranks"][0]["schedule"]["plateau"])
        numbers = number_of(saved["model"]) + number_of(saved["step"])
        print(f"{name}, step {at}: {before} -> {count} ranks, {numbers} numbers of weights and optimisers: 0 differ")


@pytest.mark.slow
def test_pools_continue_by_the_rule(trained: Path) -> None:
    for (before, at), (count, steps) in pairwise(RANKS_AND_STEPS):
        saved = load(trained / f"pooled-{at}.pt")
        for pool in ("pool_A", "pool_B"):
            pools = [own["step"][pool]["images"] for own in saved["ranks"]]
            assert sum(map(len, pools)) == 4 * PER_RANK
            place = {k * before + r: image for r, images in enumerate(pools) for k, image in enumerate(images)}
            for rank in range(count):
                own = load(trained / f"pooled-{steps}-rank{rank}.pt")["own"]["step"][pool]["images"]
                assert len(own) == 4 * PER_RANK // count
                for slot, image in enumerate(own):
                    assert torch.equal(image, place[slot * count + rank])
        print(f"step {at}: {before} -> {count} ranks, all {8 * PER_RANK} images of the pools where the rule puts them")


@pytest.mark.slow
def test_afterwards_the_steps_are_those_of_one_process_with_the_whole_batch(trained: Path) -> None:
    """Trains the plain transcription on batches of 4, from the run's own first weights, and compares at each change."""
    given = from_dict(load(trained / "exact-5.pt")["config"], "here")
    torch.manual_seed(given.run.seed)
    torch.set_default_dtype(torch.float64)
    try:
        model = Model(given)
    finally:
        torch.set_default_dtype(torch.float32)
    plain = PlainCycleGAN(ngf=4, ndf=4, blocks=6, pool_size=0, dtype=torch.float64)
    for name, network in plain.networks().items():
        network.load_state_dict(to_original(model.get_submodule(name).state_dict()))
    images = open_data(replace(given.data, batch_size=4), given.run.seed).training
    ends, step = {steps: ranks for ranks, steps in RANKS_AND_STEPS}, 0
    for epoch in range(1, 7):
        plain.set_learning_rate(rate_of_epoch(given.optimizer, epoch))
        for batch in images.epoch(epoch):
            plain.step(*(side.double() for side in batch.to(CPU)))
            step += 1
            if step in ends:
                saved = load(trained / f"exact-{step}.pt")["model"]
                worst = max(
                    relative_difference(saved[name], weight) for name, weight in in_our_names(plain.networks()).items()
                )
                print(f"step {step}, after steps of {ends.pop(step)} ranks: weights differ by {worst:.1e} at most")
                assert worst <= 1e-9
    assert not ends
