"""Runs whose losses explode on purpose: they say so, go back, go on, and end where they cannot be helped."""

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_fast import sample_photos, train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config, OptimizerConfig, RunConfig
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.health import rollback
from cyclegan_fast.training.health.alarms import Alarm, read_alarms, up_to, write_alarms
from cyclegan_fast.training.health.rollback import (
    Attempt,
    finish_going_back,
    forget_older,
    good_checkpoints,
    good_name,
    newest_before,
)
from cyclegan_fast.training.health.rule import Trouble
from cyclegan_fast.training.schedule import Schedule
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.training.health.sabotaged import (
    ALARM_AT,
    BACK_TO,
    EXPLODES_AT,
    KILLS,
    STEPS,
    WINDOWS,
    Killed,
    flags_of,
    sabotage,
)
from tests.cyclegan_fast.training.test_train import assert_same_state, final_state, metrics


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder of images; each test trains runs of its own beside it."""
    root = tmp_path_factory.mktemp("rollback")
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "7"])
    return root


@pytest.fixture(scope="module")
def gone_back(root: Path) -> Path:
    """Trains a run that explodes once, goes back, and ends well; keeps in `before` what it was before it exploded."""
    run = root / "gone-back"
    with pytest.MonkeyPatch.context() as patch:
        sabotage(patch)
        step = TrainingStep.__call__

        def keeping(self: TrainingStep, *images: Any) -> Any:
            if (self.config.run.seed, self.steps_taken + 1) == (0, EXPLODES_AT):
                shutil.copytree(run, root / "before")
            return step(self, *images)

        patch.setattr(TrainingStep, "__call__", keeping)
        assert train.main(flags_of(root / "data", root, run.name, "--rollback")) == 0
    return run


@pytest.fixture
def begun(gone_back: Path, root: Path, tmp_path: Path) -> list[str]:
    """Copies the run before it explodes, as a kill would leave it there; returns the command that goes on with it."""
    shutil.copytree(root / "before", tmp_path / gone_back.name)
    return flags_of(root / "data", tmp_path, gone_back.name, "--rollback")


def checkpoints(run: Path) -> dict[str, int]:
    """Return the step of each checkpoint by its name."""
    return {path.name: checkpoint.load(path)["log"]["step"] for path in (run / "checkpoints").iterdir()}


def test_a_run_that_explodes_goes_back_and_goes_on_with_another_seed_and_half_the_rate(gone_back: Path) -> None:
    (alarm,) = read_alarms(gone_back)
    assert (alarm.kind, alarm.step, alarm.back_to) == ("exploded", ALARM_AT, BACK_TO)
    assert alarm.text.endswith(f"from step {EXPLODES_AT} to {ALARM_AT}")
    lines = metrics(gone_back)
    assert [line["step"] for line in lines] == list(range(2, STEPS + 1, 2)), "no step is told of twice"
    assert {line["learning_rate"] for line in lines if line["step"] <= BACK_TO} == {2e-4}
    assert {line["learning_rate"] for line in lines if line["step"] > BACK_TO} == {1e-4}
    assert max(line["losses"]["D_A"] for line in lines) < 2
    state = final_state(gone_back)
    assert (state["rollbacks"], state["config"]["run"]["seed"]) == (1, 1000)
    assert state["config"]["optimizer"]["learning_rate"] == 1e-4
    asked = values.load_config(gone_back / "config.yaml")
    assert (asked.run.seed, asked.optimizer.learning_rate) == (0, 2e-4), "what was asked for stays"
    assert checkpoints(gone_back) == {
        "last.pt": 48,
        "previous.pt": 44,
        "good_00000024.pt": 24,
        "good_00000036.pt": 36,
        "good_00000048.pt": 48,
    }
    assert f"Step {ALARM_AT}: the loss D_A has exploded" in (gone_back / "index.html").read_text()
    notes = json.loads((gone_back / "results.json").read_text())["notes"]
    assert any(f"the run went back to step {BACK_TO}" in note for note in notes)


def test_the_attempt_is_the_checkpoint_trained_on_with_the_settings_that_are_stated(
    gone_back: Path, root: Path, begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares with a run of its own that is given these weights, and trains with that seed and rate."""
    with monkeypatch.context() as patch:
        sabotage(patch, kill_at="1:25")
        with pytest.raises(Killed):
            train.main(begun)
    run = tmp_path / gone_back.name
    kept = final_state(run)
    assert (kept["log"]["step"], kept["rollbacks"]) == (BACK_TO, 0)
    (run / "alarms.jsonl").unlink()
    config = values.load_config(run / "config.yaml")
    config = Config(
        data=config.data,
        networks=config.networks,
        loss=config.loss,
        evaluation=config.evaluation,
        optimizer=OptimizerConfig(learning_rate=1e-4, ema=0.9),
        run=RunConfig(**{**vars(config.run), "seed": 1000}),
    )
    values.save_config(config, run / "config.yaml")
    other = ("--seed", "1000", "--learning-rate", "1e-4")
    # A state made anew from the seed has the random numbers that the attempt goes on with.
    from cyclegan_fast.training.state import TrainingState

    restore = TrainingState.restore

    def with_own_numbers(self: TrainingState, saved: Any, *_: Any, **__: Any) -> None:
        random, pools, penalty = torch.get_rng_state(), self.step.random_source.getstate(), self.step.tensor_random
        before = penalty.get_state()
        restore(self, saved, run)
        torch.set_rng_state(random)
        self.step.random_source.setstate(pools)
        penalty.set_state(before)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "restore", with_own_numbers)
        assert train.main(flags_of(root / "data", tmp_path, gone_back.name, *other)) == 0
    assert_same_state(final_state(run)["model"], final_state(gone_back)["model"])
    assert_same_state(final_state(run)["step"], final_state(gone_back)["step"])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_processes_that_die_go_back_alike_and_end_with_the_same_bits(
    gone_back: Path, root: Path, begun: list[str], tmp_path: Path, ranks: int
) -> None:
    """Kills a run before, right behind and after going back; two ranks hear the same alarm, and go back together."""
    whole, dying = gone_back, tmp_path / gone_back.name
    if ranks == 2:
        shutil.rmtree(dying)
        whole = tmp_path / "whole" / gone_back.name
        assert statuses(flags_of(root / "data", whole.parent, whole.name, "--rollback"), ranks, ()) == [[0, 0]]
    assert statuses(begun, ranks, KILLS) == [[-signal.SIGKILL] * ranks] * len(KILLS) + [[0] * ranks]
    assert [alarm.back_to for alarm in read_alarms(whole)] == [BACK_TO]
    assert read_alarms(dying) == read_alarms(whole)
    assert len(final_state(whole)["ranks"]) == ranks
    assert_same_state(final_state(dying), final_state(whole))
    assert metrics(dying) == metrics(whole)
    assert sorted(contents(dying / "samples")) == sorted(contents(whole / "samples"))


def statuses(arguments: list[str], ranks: int, kills: tuple[str, ...]) -> list[list[int]]:
    """Train a run whose processes are killed at each of `kills`; return the statuses of all starts."""
    module = [sys.executable, "-m", "tests.cyclegan_fast.training.health.sabotaged", str(ranks), ",".join(kills)]
    ended = subprocess.run([*module, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line.partition(":")[2]) for line in ended.stdout.splitlines() if line.startswith("statuses:")]


@pytest.mark.slow
def test_a_run_gives_up_after_three_times_and_says_what_is_kept(
    begun: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, attempts=4)
    run = tmp_path / "gone-back"
    assert train.main(begun) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "and the run went back 3 times already" in error
    assert f"{run / 'checkpoints/good_00000024.pt'}, of step 24, is from before that" in error
    assert [alarm.back_to for alarm in read_alarms(run)] == [BACK_TO] * 3
    rates = [line["learning_rate"] for line in metrics(run) if line["step"] > BACK_TO]
    assert set(rates) == {2e-4 / 8}
    assert train.main(begun) == 2, "the same command finds the same"
    assert "went back 3 times already" in capfd.readouterr().err


@pytest.mark.slow
def test_without_rollback_a_run_says_it_once_and_goes_back_later_by_the_same_command_or_with_a_later_end(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goes back with --rollback, though no checkpoint was kept for that."""
    sabotage(monkeypatch)

    def arguments(runs: Path) -> list[str]:
        return [*flags_of(root / "data", runs, "told", "--keep-every-epochs", "3"), "--max-steps"]

    run, other = tmp_path / "told", tmp_path / "other" / "told"
    assert train.main([*arguments(tmp_path), "38"]) == 0
    out = capfd.readouterr()
    assert (out.out + out.err).count("warning: the loss D_A has exploded") == 1
    assert "goes back to the newest checkpoint up to step 28" in out.out + out.err
    (alarm,) = read_alarms(run)
    assert (alarm.step, alarm.back_to) == (ALARM_AT, None)
    assert not list((run / "checkpoints").glob("good_*"))
    shutil.copytree(run, other)
    assert train.main([*arguments(tmp_path), "38"]) == 0
    assert "is finished after 38 steps" in capfd.readouterr().out
    for end, its in ((38, run), (40, other)):
        assert train.main([*arguments(its.parent), str(end), "--rollback"]) == 0
        (alarm,) = read_alarms(its)
        assert (alarm.step, alarm.back_to) == (ALARM_AT, 21), "the third epoch of seven steps was kept"
        assert [line["step"] for line in metrics(its)] == list(range(2, end + 1, 2))
        assert final_state(its)["rollbacks"] == 1
    capfd.readouterr()
    assert train.main([*arguments(tmp_path), "38", "--rollback"]) == 0
    assert "is finished after 38 steps" in capfd.readouterr().out


@pytest.mark.slow
def test_a_run_goes_back_to_before_its_images_and_its_end_changed(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs no second consent to images and an end that it had gone on with."""
    sabotage(monkeypatch)
    data = tmp_path / "data"
    shutil.copytree(root / "data", data)
    arguments = [*flags_of(data, tmp_path, "changed", "--rollback"), "--epochs", "2"]
    assert train.main([*arguments, "--decay-epochs", "2", "--max-steps", "26"]) == 0
    first = min((data / "trainA").iterdir())
    shutil.copy(first, first.with_stem("another"))
    longer = [*arguments, "--decay-epochs", "10"]
    assert train.main([*longer, "--max-steps", "27", "--data-may-change", "--extend-from-here"]) == 0
    capfd.readouterr()
    assert train.main([*longer, "--max-steps", "38"]) == 0
    assert [alarm.back_to for alarm in read_alarms(tmp_path / "changed")] == [BACK_TO]
    said = capfd.readouterr().out
    assert "the images changed (7 A and 7 B then, 8 A and 7 B now): epoch 4 begins anew" in said
    assert "the steps so far keep their learning rates" in said


@pytest.mark.slow
def test_where_nothing_was_saved_before_the_trouble_a_run_begins_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares with a run that has the seed and the rate from its beginning: its networks are drawn anew."""
    sabotage(monkeypatch)
    rare = ("--checkpoint-every", "100", "--max-steps", "38", "--rollback")
    assert train.main(flags_of(root / "data", root, "anew", *rare)) == 0
    (alarm,) = read_alarms(root / "anew")
    assert (alarm.step, alarm.back_to) == (ALARM_AT, 0)
    plain = ("--checkpoint-every", "100", "--max-steps", "38", "--seed", "1000", "--learning-rate", "1e-4")
    assert train.main(flags_of(root / "data", root, "plain", *plain)) == 0
    assert_same_state(final_state(root / "anew")["model"], final_state(root / "plain")["model"])
    without = [[{**line, "learning_rate": 0} for line in metrics(root / name)] for name in ("anew", "plain")]
    assert without[0] == without[1]


def test_a_loss_that_is_not_finite_is_gone_back_from(
    begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, harm=lambda model: model.G_B.head.weight.fill_(float("nan")))
    assert train.main(begun) == 0
    (alarm,) = read_alarms(tmp_path / "gone-back")
    assert alarm.kind == "not finite"
    assert alarm.back_to == 12, "8 steps before the last report, of step 28, and the checkpoints of 12 and 24 are kept"


@pytest.mark.slow
def test_the_best_evaluation_stays_the_best_where_the_run_goes_back_before_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    by_step = {8: 0.1, 16: 0.2, 24: 0.3, 32: 0.9, 40: 0.4}
    monkeypatch.setattr(
        "cyclegan_fast.training.validation.scalars", lambda _: {"a2b.reconstruction.ssim": by_step[step[0]]}
    )
    step = [0]
    from cyclegan_fast.training.validation import Evaluator

    is_best = Evaluator.is_best

    def noting(self: Evaluator, at: int, evaluation: Any) -> bool:
        step[0] = at
        return is_best(self, at, evaluation)

    monkeypatch.setattr(Evaluator, "is_best", noting)
    flags = ("--rollback", "--evaluate-every", "8", "--max-steps", "40")
    assert train.main(flags_of(root / "data", root, "best", *flags)) == 0
    best = final_state(root / "best")["best"]
    assert (best["step"], best["value"]) == (32, 0.9)
    assert checkpoints(root / "best")["best.pt"] == 32
    lines = [json.loads(line) for line in (root / "best/evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 16, 24, 32, 40]
    assert not lines[3]["best"], "the one that is written is that of the attempt that went on"


# --- the folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def about_to_go_back(gone_back: Path, tmp_path: Path) -> Path:
    """Writes the folder of a run whose alarm says that it goes back, and that has not begun to."""
    run = tmp_path / "run"
    shutil.copytree(gone_back, run)
    folder = run / "checkpoints"
    shutil.copy(folder / "last.pt", folder / "epoch_0006.pt")
    shutil.copy(folder / "last.pt", folder / "incoming.pt")
    write_alarms(run, [Alarm(48, "won", "D has won", back_to=36, unfinished=True)])
    return run


def test_a_kill_at_any_moment_of_going_back_is_made_up_for(about_to_go_back: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(about_to_go_back, whole)
    finish_going_back(whole)
    assert checkpoints(whole) == {"last.pt": 36, "good_00000024.pt": 24, "good_00000036.pt": 36}
    assert metrics(whole)[-1]["step"] == 36
    assert not (whole / "results.json").exists()
    assert read_alarms(whole) == [Alarm(48, "won", "D has won", back_to=36)]
    moments = 0
    for moment in range(100):
        run = tmp_path / f"killed-{moment}"
        shutil.copytree(about_to_go_back, run)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at_call(moment, patch)
            try:
                finish_going_back(run)
            except Killed:
                moments += 1
            else:
                break
        finish_going_back(run)
        assert contents(run) == contents(whole)
    assert moments >= 8


def _kill_at_call(moment: int, patch: pytest.MonkeyPatch) -> None:
    """Raise Killed in place of the call of that number of those that change the folder."""
    calls = iter(range(1000))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == moment:
                raise Killed
            return function(*args, **kwargs)

        return call

    patch.setattr(Path, "unlink", counted(Path.unlink))
    for name in ("write_atomically", "cut_off_after", "write_alarms"):
        patch.setattr(rollback, name, counted(getattr(rollback, name)))


def test_checkpoints_up_to_the_trouble_are_gone_back_to_the_newest_first(about_to_go_back: Path) -> None:
    def found(since: int) -> tuple[int, str] | None:
        newest = newest_before(about_to_go_back, since)
        return (newest[0], newest[1].name) if newest else None

    assert found(48) == (48, "good_00000048.pt")
    assert found(47) == (36, "good_00000036.pt")
    assert found(35) == (24, "good_00000024.pt")
    assert found(23) is None
    (about_to_go_back / "checkpoints/good_00000036.pt").write_bytes(b"cut off")
    assert found(47) == (24, "good_00000024.pt"), "a damaged one is passed over"
    for path in (about_to_go_back / "checkpoints").glob("good_*"):
        path.unlink()
    assert found(47) == (44, "previous.pt"), "without one that was kept for it, any other"
    (about_to_go_back / "checkpoints/previous.pt").write_bytes(b"cut off")
    assert found(47) is None


@pytest.mark.parametrize(
    ("report_every", "checkpoint_every", "apart"), [(50, 1000, 1000), (25, 250, 250), (50, 100, 300), (400, 1000, 2000)]
)
def test_a_kept_checkpoint_is_before_all_that_any_alarm_looks_at(
    report_every: int, checkpoint_every: int, apart: int, tmp_path: Path
) -> None:
    config = Config(run=RunConfig(report_every=report_every, checkpoint_every=checkpoint_every, rollback=True))
    (tmp_path / "checkpoints").mkdir()
    block = report_every * math.ceil(50 / report_every)
    looked_at = max(1000, 4 * block)
    for step in range(checkpoint_every, 30_000, checkpoint_every):
        if name := good_name(config, step):
            assert step % apart == 0
            (tmp_path / "checkpoints" / name).touch()
            forget_older(tmp_path, config)
        kept = list(good_checkpoints(tmp_path))
        assert len(kept) <= 7
        # An alarm comes up to a block after that checkpoint's step, and before the next one is kept.
        assert step < looked_at + apart or min(kept) <= step - looked_at
        assert kept == [] or min(kept) > step - looked_at - 2 * apart - block
    without = Config(run=RunConfig(report_every=report_every, checkpoint_every=checkpoint_every))
    assert good_name(without, apart) is None


def test_a_long_run_without_a_checkpoint_from_before_its_trouble_is_left_as_it_is(
    about_to_go_back: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback.rule, "WINDOWS", WINDOWS)
    for path in (about_to_go_back / "checkpoints").glob("good_*"):
        path.unlink()
    before, config = contents(about_to_go_back), Config(run=RunConfig(report_every=2, checkpoint_every=4))
    apart = rollback.steps_apart(config)
    with pytest.raises(UserError, match=rf"D won, and no whole checkpoint up to step {apart} is there to go back to"):
        rollback.go_back(about_to_go_back, config, Trouble("won", apart + 40, apart, "D won"), None, [])
    assert contents(about_to_go_back) == before


def test_alarms_of_steps_that_are_trained_again_are_raised_again() -> None:
    alarms = [Alarm(10, "won", "a"), Alarm(50, "won", "b", back_to=20), Alarm(30, "won", "c"), Alarm(40, "won", "d")]
    assert [alarm.text for alarm in up_to(alarms, 30)] == ["a", "b", "c"]
    assert [alarm.text for alarm in up_to(alarms[:1], 5)] == []


def test_a_damaged_file_of_alarms_is_named(tmp_path: Path) -> None:
    (tmp_path / "alarms.jsonl").write_text('{"step": 3}\n')
    with pytest.raises(UserError, match=r"alarms\.jsonl is damaged .* it says how often the run went back"):
        read_alarms(tmp_path)


def test_seed_and_rate_are_functions_of_the_runs_own_and_of_the_attempt() -> None:
    config = Config(run=RunConfig(seed=2**63 - 1), optimizer=OptimizerConfig(learning_rate=0.4))
    alarms = [Alarm(10, "won", "a", back_to=5), Alarm(12, "won", "b")]
    settings = Attempt(alarms * 2, []).settings(config)
    assert (settings.run.seed, settings.optimizer.learning_rate) == (1999, 0.1)
    assert Attempt(alarms[1:], []).settings(config) == config


def test_the_rate_of_policy_plateau_is_halved_where_it_stands() -> None:
    schedule = Schedule(OptimizerConfig(learning_rate=1e-3, learning_rate_policy="plateau"), ["G_A"])
    schedule.lower(0.25)
    assert schedule.rate(7) == 2.5e-4
