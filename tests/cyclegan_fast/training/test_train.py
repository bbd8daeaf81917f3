"""`python -m cyclegan_fast.train`: runs end, stop, go on to the same bits, and say what is wrong."""

import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cyclegan_fast import sample_photos, train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.content import RankState, RunCheckpoint
from cyclegan_fast.config import options as configuration, values
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.kernels import triton_language
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training import loop
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.run_folder import FinishedRun, open_shared_run, plain_name
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.decisions import Decisions
from cyclegan_fast.translation import trained
from tests.cyclegan_fast.checkpoints import narrow_checkpoint, older
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.pictures import photo

STEPS = 48
RUN = [*TINY, "--report-every", "3", "--checkpoint-every", "5", "--sample-every", "20", "--max-steps", str(STEPS)]
RUN += ["--evaluate-images", "2"]


def command(folder: Path, runs: Path, name: str, *flags: str) -> list[str]:
    return [
        "--data",
        str(folder),
        "--runs",
        str(runs),
        "--name",
        name,
        *RUN,
        "--pool-size",
        "5",
        "--ema",
        "0.9",
        *flags,
    ]


def final_state(run: Path) -> dict[str, Any]:
    return checkpoint.load(run / "checkpoints" / "last.pt")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what a clock decides."""
    clocks = ("elapsed_s", "step_ms", "images_per_s", "peak_gib")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines]


def assert_same_state(one: Any, other: Any, where: str = "") -> None:
    """Bit for bit, but for clocks and what the user may change between two starts."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"elapsed_s", "since_s", "name", "runs", "workers"}:
            assert_same_state(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (x, y) in enumerate(zip(one, other, strict=True)):
            assert_same_state(x, y, f"{where}/{index}")
    else:
        assert one == other, where


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cyclegan_fast.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def kill_after_a_moment(process: subprocess.Popen[str], run: Path, moment_s: float) -> None:
    """SIGKILL at `moment_s` after this process wrote its first line of metrics."""
    began = (run / "metrics.jsonl").stat().st_size if (run / "metrics.jsonl").exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size != began:
            break
        time.sleep(0.005)
    time.sleep(moment_s)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Writes a folder of images and a run that nothing interrupted."""
    root = tmp_path_factory.mktemp("train")
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "7"])
    assert train.main(command(root / "data", root, "whole", "--workers", "0")) == 0
    return root, root / "whole"


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    arguments = command(root / "data", root, "killed", "--workers", "4")
    run = root / "killed"
    moments = random.Random(4)
    for _ in range(2):
        kill_after_a_moment(start(arguments), run, moments.uniform(0.0, 0.8))
    process = start(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 or "is finished" in output, output  # a fast machine may finish before the kill
    assert_same_state(final_state(run), final_state(whole))
    assert metrics(run) == metrics(whole)
    assert sorted(p.name for p in (run / "samples").iterdir()) == sorted(p.name for p in (whole / "samples").iterdir())


def test_a_run_interrupted_by_ctrl_c_saves_and_continues(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, whole = undisturbed
    arguments = command(root / "data", root, "stopped")
    run = root / "stopped"
    with monkeypatch.context() as patch:
        interrupt_at(13, patch)
        assert train.main(arguments) == 130
    output = capfd.readouterr().out
    assert output.count("interrupted after step 13; the same command continues") == 1
    assert "reconstructed" not in output, "scoring the test set is no part of stopping"
    assert final_state(run)["log"]["step"] == 13
    assert train.main(arguments) == 0
    assert_same_state(final_state(run), final_state(whole))
    assert metrics(run) == metrics(whole)


def test_a_finished_run_is_not_overwritten(undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    root, whole = undisturbed
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert train.main(command(root / "data", root, "whole", "--workers", "0")) == 0
    output = capfd.readouterr()
    assert f"{whole} is finished after 48 steps, see its index.html" in output.out
    assert "error" not in output.err
    assert train.main(command(root / "data", root, "whole", "--learning-rate", "0.001")) == 2
    error = capfd.readouterr().err
    assert "learning_rate: 0.0002 -> 0.001" in error
    assert "--name NEW" in error
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_ranks_learn_from_the_first_that_a_run_is_finished(undisturbed: tuple[Path, Path]) -> None:
    """Finds the run finished, which is no error where a rank died on its way out, and torchrun starts all again."""
    _, whole = undisturbed
    config = values.load_config(whole / "config.yaml")
    with pytest.raises(FinishedRun, match="is finished after 48 steps"):
        open_shared_run(config, Ranks())

    class Second(Ranks):
        def from_first(self, function: Any) -> Any:
            return "said by the first"

    with pytest.raises(FinishedRun, match="said by the first"):
        open_shared_run(config, Second(index=1, count=2))


@pytest.mark.slow
def test_a_saved_configuration_can_be_given_back(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    saved = str(whole / "config.yaml")
    assert train.main(["--config", saved, "--name", "again"]) == 0
    assert_same_state(final_state(root / "again"), final_state(whole))


def test_a_checkpoint_holds_the_entries_that_are_listed(undisturbed: tuple[Path, Path]) -> None:
    state = final_state(undisturbed[1])
    assert {*state} == {*RunCheckpoint.__annotations__}
    assert list(state["ranks"][0]) == list(RankState.__annotations__)


def test_the_run_folder_holds_what_the_readme_says(undisturbed: tuple[Path, Path]) -> None:
    _, whole = undisturbed
    names = {path.name for path in whole.iterdir()}
    assert names >= {"config.yaml", "checkpoints", "metrics.jsonl", "tensorboard", "samples", "index.html"}
    results = json.loads((whole / "results.json").read_text())
    assert results["step"] == STEPS
    assert [row["label"].split(",")[0] for row in results["rows"]] == ["reconstructed", "reconstructed"]
    records = metrics(whole)
    assert [record["step"] for record in records] == list(range(3, STEPS + 1, 3))
    assert set(records[0]["losses"]) == {"G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B"}


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    root, whole = undisturbed
    arguments = command(root / "data", root, "cut")
    shutil.copytree(whole, root / "cut")
    folder = root / "cut" / "checkpoints"
    request.addfinalizer(gc.enable)
    gc.disable()  # damage raises errors inside, which must not keep the run's lock until they are collected
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:5000])
    assert train.main(arguments) == 0
    output = capfd.readouterr().out
    assert "last.pt is cut off or damaged" in output
    assert "going back to previous.pt" in output
    assert_same_state(final_state(root / "cut"), final_state(whole))
    for name in ("last.pt", "previous.pt"):
        (folder / name).write_bytes(b"")
    assert train.main(arguments) == 2
    assert "no whole checkpoint" in capfd.readouterr().err


def test_a_flipped_bit_in_a_checkpoint_is_noticed(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    _, whole = undisturbed
    content = bytearray((whole / "checkpoints" / "last.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    # Behind an entry's name there is room up to a round address, which means nothing, and no checksum covers it.
    content[largest.header_offset + largest.compress_size // 2 + 256] ^= 4
    (tmp_path / "flipped.pt").write_bytes(content)
    with pytest.raises(checkpoint.DamagedCheckpoint, match="checksum"):
        checkpoint.load(tmp_path / "flipped.pt")


@pytest.mark.parametrize("content", [b".", b"\0" * 1000, b"PK\x03\x04" + b"x" * 500, b"\x80\x02}q\x00."])
def test_bytes_that_are_no_checkpoint_get_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.load_newest(tmp_path, [])


def test_a_file_that_holds_something_else_does_not_hide_the_checkpoint_before_it(tmp_path: Path) -> None:
    for best in (1.0, 2.0):
        checkpoint.save(tmp_path, with_best(best))
    torch.save([1, 2], tmp_path / "checkpoints" / "last.pt")
    warnings: list[str] = []
    assert best_in(checkpoint.load_newest(tmp_path, warnings)) == 1.0
    assert "holds a list" in warnings[0]


@pytest.mark.parametrize("keep_as", [(), ("epoch_0001.pt", "best.pt")])
def test_a_kill_at_any_call_of_the_system_while_saving_leaves_a_whole_checkpoint(
    keep_as: tuple[str, ...], tmp_path: Path
) -> None:
    """Ends the process, without any cleaning up, just before its n-th fsync, rename or removal, for every n."""
    before, after = with_best(1.0), with_best(2.0)
    outcomes = []
    for fatal_call in range(1, 30):
        run = tmp_path / str(fatal_call)
        for _ in range(2):
            checkpoint.save(run, before)
        status = save_in_a_process_that_dies(run, after, keep_as, fatal_call)
        warnings: list[str] = []
        found = checkpoint.load_newest(run, warnings)
        assert not warnings
        outcomes.append((status, best_in(found)))
        assert best_in(found) in (1.0, 2.0)
        if status == 0:
            break
    assert outcomes[0] == (9, 1)
    assert outcomes[-1] == (0, 2)
    assert (9, 2) in outcomes  # killed between the renames, the newest is found all the same


def with_best(value: float) -> RunCheckpoint:
    return {**narrow_checkpoint(), "best": {"step": 0, "name": "x", "value": value}}


def best_in(found: RunCheckpoint | None) -> float | None:
    best = found["best"] if found else None
    return best["value"] if best else None


def save_in_a_process_that_dies(run: Path, content: RunCheckpoint, keep_as: tuple[str, ...], fatal_call: int) -> int:
    """Return the exit status of a process that saves: 9 where it got as far as its `fatal_call`-th call, else 0."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0

    def dies(call: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fatal_call:
                os._exit(9)
            return call(*arguments, **options)

        return counted

    for name in ("fsync", "replace", "rename", "unlink"):
        setattr(os, name, dies(getattr(os, name)))
    try:
        checkpoint.save(run, content, keep_as=keep_as)
        os._exit(0)
    finally:  # an error must not go on as a second pytest
        os._exit(1)


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/cyclegan-fast-was-here",)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(checkpoint.DamagedCheckpoint, match="could run code"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not Path("/tmp/cyclegan-fast-was-here").exists()


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    from cyclegan_fast.networks.resnet import ResnetGenerator

    state = ResnetGenerator(width=4, blocks=6).state_dict()
    state["head.weight"] = torch.zeros(3, 5, 7, 7)
    del state["up.1.bias"]
    with pytest.raises(
        UserError, match=r"head\.weight is \(3, 5, 7, 7\) instead of \(3, 4, 7, 7\); up\.1\.bias is missing"
    ):
        trained.generator_from(state, "x.pt")


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during that step of the training that follows."""
    draw = TrainingStep.draw

    def interrupted(self: TrainingStep, images: int) -> Decisions:
        if self.steps_taken == step - 1:
            signal.raise_signal(signal.SIGINT)
        return draw(self, images)

    patch.setattr(TrainingStep, "draw", interrupted)


@pytest.mark.slow
def test_a_full_disk_ends_with_one_line_and_keeps_the_last_checkpoint(
    undisturbed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, whole = undisturbed
    arguments = command(root / "data", root, "full")
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert train.main(arguments) == 130
    saved = (root / "full" / "checkpoints" / "last.pt").read_bytes()

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(arguments, preexec_fn=limit_file_size)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "File too large" in errors[0]
    assert "Traceback" not in output
    assert not list((root / "full").rglob("*.partial*"))
    assert (root / "full" / "checkpoints" / "last.pt").read_bytes() == saved
    assert train.main(arguments) == 0
    assert_same_state(final_state(root / "full"), final_state(whole))


def test_metrics_that_cannot_be_written_end_the_run_with_one_line(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = undisturbed
    begin = RunLog.__init__

    def on_a_full_disk(self: RunLog, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._lines._file = open("/dev/full", "ab")

    monkeypatch.setattr(RunLog, "__init__", on_a_full_disk)
    assert train.main(command(root / "data", root, "full-metrics")) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert str(root / "full-metrics" / "metrics.jsonl") in errors[0]


def test_an_image_that_vanishes_during_training_costs_no_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "7"])
    no_folder = str(tmp_path / "data" / "trainB" / "0000.png")  # nothing can be kept there
    arguments = command(
        tmp_path / "data", tmp_path, "x", "--cache-gib", "0", "--cache-dir", no_folder, "--workers", "0"
    )
    arguments += ["--max-steps", "21"]  # three epochs
    victim = tmp_path / "data" / "trainA" / "0003.png"
    content = victim.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "report", lambda self, **_: victim.unlink(missing_ok=True))
        assert train.main(arguments) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "0003.png" in error
    assert f"step {final_state(tmp_path / 'x')['log']['step']} is saved" in error
    victim.write_bytes(content)
    assert train.main(arguments) == 0


def test_an_image_that_vanishes_from_a_diverged_run_is_still_named(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = undisturbed
    update = TrainingStep.__call__

    def vanishing(self: TrainingStep, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.steps_taken == 6:
            with torch.no_grad():
                self.model.G_B.head.weight.fill_(float("nan"))
            raise UnreadableImage("photo.png: cut off")
        return update(self, *images)

    monkeypatch.setattr(TrainingStep, "__call__", vanishing)
    assert train.main(command(root / "data", root, "vanished")) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: photo.png: cut off; weights G_B.head.weight are not finite at step 6")
    assert error.endswith("the checkpoint of step 5 is kept")


@pytest.mark.slow
def test_checkpoints_of_whole_epochs_are_kept_and_are_the_last_resort(undisturbed: tuple[Path, Path]) -> None:
    root, whole = undisturbed
    arguments = command(root / "data", root, "kept", "--keep-every-epochs", "2")
    assert train.main(arguments) == 0
    folder = root / "kept" / "checkpoints"
    assert sorted(path.name for path in folder.glob("epoch_*")) == ["epoch_0002.pt", "epoch_0004.pt", "epoch_0006.pt"]
    assert checkpoint.load(folder / "epoch_0004.pt")["log"]["step"] == 4 * 7
    for name in ("last.pt", "previous.pt"):
        (folder / name).unlink()
    assert train.main(arguments) == 0
    assert_same_state(final_state(root / "kept")["model"], final_state(whole)["model"])


def test_a_run_that_lost_its_checkpoints_is_not_begun_anew(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root, _ = undisturbed
    arguments = command(root / "data", root, "lost", "--max-steps", "10")
    assert train.main(arguments) == 0
    for path in (root / "lost" / "checkpoints").iterdir():
        path.unlink()
    assert train.main(arguments) == 2
    assert "metrics up to step 9 and no checkpoint" in capfd.readouterr().err
    assert len(metrics(root / "lost")) == 3


def test_a_run_is_not_continued_in_another_precision(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = undisturbed
    arguments = command(root / "data", root, "precision", "--amp")
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        patch.setattr("cyclegan_fast.system.device.has_bfloat16", lambda device: True)
        assert train.main(arguments) == 130
    monkeypatch.setattr("cyclegan_fast.system.device.has_bfloat16", lambda device: False)
    assert train.main(arguments) == 2
    assert "was trained in bfloat16 and this device gives float32" in capfd.readouterr().err


def test_file_names_that_are_no_utf8_are_trained_on(tmp_path: Path) -> None:
    for name in ("trainA", "trainB"):
        (tmp_path / "data" / name).mkdir(parents=True)
        photo(40, 1).save(tmp_path / "data" / name / os.fsdecode(b"caf\xe9.png"))
        (tmp_path / "data" / name / os.fsdecode(b"bro\xe9ken.png")).write_bytes(b"no image")
    assert train.main(command(tmp_path / "data", tmp_path, "x", "--max-steps", "6")) == 0


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = undisturbed
    update = TrainingStep.__call__

    def diverging(self: TrainingStep, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.steps_taken == 13:
            with torch.no_grad():
                self.model.G_B.head.weight.fill_(float("nan"))
        return update(self, *images)

    monkeypatch.setattr(TrainingStep, "__call__", diverging)
    assert train.main(command(root / "data", root, "nan")) == 2
    error = capfd.readouterr().err
    assert "became infinite or NaN within" in error
    assert "the checkpoint of step 10 is kept" in error
    kept = final_state(root / "nan")
    assert kept["log"]["step"] == 10
    assert all(torch.isfinite(value).all() for value in kept["model"].values())


def test_two_processes_cannot_train_one_run(undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    import fcntl

    root, whole = undisturbed
    with open(whole / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert train.main(command(root / "data", root, "whole", "--workers", "0")) == 2
    assert "another process is training" in capfd.readouterr().err


def test_a_folder_that_is_no_run_is_left_alone(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root, _ = undisturbed
    before = sorted(path.name for path in (root / "data").iterdir())
    assert train.main(command(root / "data", root, "data")) == 2
    assert "is not a run" in capfd.readouterr().err
    assert sorted(path.name for path in (root / "data").iterdir()) == before


def test_images_that_changed_since_the_checkpoint_are_noticed(
    undisturbed: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "3"])
    arguments = command(tmp_path / "data", tmp_path, "x")
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "report", lambda self, **_: signal.raise_signal(signal.SIGINT))
        assert train.main(arguments) == 130
    (tmp_path / "data" / "trainA" / "0001.png").unlink()
    assert train.main(arguments) == 2
    assert "the images changed" in capfd.readouterr().err


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a folder with uncompressed images, `data`, and a run `x` that was interrupted after its first report."""
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "3"])
    for path in (tmp_path / "data").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "report", lambda self, **_: signal.raise_signal(signal.SIGINT))
        assert train.main(of_begun(tmp_path, "data")) == 130
    return tmp_path


def of_begun(root: Path, place: str, *flags: str) -> list[str]:
    """Return the command of the run that `begun` wrote, with images of a folder."""
    return command(root / place, root, "x", "--max-steps", "12", *flags)


def test_a_run_follows_its_data_to_another_place(begun: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (begun / "data").rename(begun / "moved")
    # Checkpoints of before have no digest of the images' content.
    torch.save(older(final_state(begun / "x"), "content"), begun / "x/checkpoints/last.pt")
    assert train.main(of_begun(begun, "moved", "--max-steps", "6")) == 2
    assert "max_steps: 12 -> 6" in capfd.readouterr().err, "the rest of the configuration counts as before"
    assert train.main(of_begun(begun, "moved")) == 0
    assert f"the data moved from {begun / 'data'} to {begun / 'moved'}" in capfd.readouterr().out
    assert final_state(begun / "x")["log"]["step"] == 12
    assert values.load_config(begun / "x" / "config.yaml").data.data == begun / "moved"


@pytest.mark.parametrize("place", ["data", "moved"])
def test_other_images_of_the_same_names_and_sizes_are_noticed(
    begun: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    (begun / "data").rename(begun / place)
    path = begun / place / "trainB" / "0001.bmp"
    size = path.stat().st_size
    Image.open(path).rotate(180).save(path)
    assert path.stat().st_size == size
    before = (begun / "x" / "config.yaml").read_bytes()
    assert train.main(of_begun(begun, place)) == 2
    assert "the images changed" in capfd.readouterr().err
    assert (begun / "x" / "config.yaml").read_bytes() == before


def test_without_a_checkpoint_nothing_tells_that_data_moved(begun: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (begun / "data").rename(begun / "moved")
    shutil.rmtree(begun / "x" / "checkpoints")
    assert train.main(of_begun(begun, "moved")) == 2
    assert "another configuration (data:" in capfd.readouterr().err


def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "3"])
    runs = tmp_path / "runs"
    for name in ("trainA", "trainB"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    assert train.main(command(tmp_path / "empty", runs, "x")) == 2
    assert list(runs.iterdir()) == []

    def refuse(*_: object) -> None:
        raise UserError("does not fit")

    with monkeypatch.context() as patch:
        patch.setattr(Records, "draw_samples", refuse)  # after the log was opened
        assert train.main(command(tmp_path / "data", runs, "x")) == 2
    assert list(runs.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "save", refuse)  # after the first reports
        assert train.main(command(tmp_path / "data", runs, "x")) == 2
    assert (runs / "x" / "metrics.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("horse2zebra-paper256", "horse2zebra-paper256"),
        ("馬-demo", "馬-demo"),
        ("\udcc2\udced2\udcb0\udcdf-demo", "%C2%ED2%B0%DF-demo"),
        ("two\nlines\\x-demo", "two%0Alines%5Cx-demo"),
        ("-data-demo", "-data-demo"),
    ],
)
def test_default_names_of_runs_can_be_shown(text: str, name: str) -> None:
    assert plain_name(text) == name


def test_default_names_of_runs_stay_short_and_apart() -> None:
    names = {plain_name(letter * 250 + str(index)) for letter in ("n", "浮", "\udcc2") for index in range(3)}
    assert len(names) == 9
    for name in names:
        assert name.isprintable()
        assert len(name.encode()) <= 128
        configuration.RunConfig(name=name)  # which takes plain names only


def test_a_folder_whose_name_is_no_utf8_is_trained_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, runs = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/\xc2\xed2", b"/runs\xff"))
    sample_photos.main([str(data), "--side", "36", "--count", "2"])
    arguments = ["--data", str(data), "--runs", str(runs), *RUN, "--max-steps", "3"]
    assert train.main(arguments) == 0
    (run,) = runs.iterdir()
    assert run.name == "%C2%ED2-paper256"
    assert any((run / "tensorboard").iterdir())
    assert "%C2%ED2-paper256" in (run / "index.html").read_text()
    assert values.load_config(run / "config.yaml").data.data == data
    assert train.main(arguments) == 0
    assert "is finished after 3 steps" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda:7"], "CUDA device"),
        (["--device", "tpu"], "--device must be"),
        (["--config", "a.yaml", "--preset", "demo"], "give one of them"),
        (["--config", "missing.yaml"], "no configuration at missing.yaml"),
        (["--preprocess", "none"], "needs --data FOLDER"),
        (["--data", "no/such/folder"], "no such folder"),
        (["--impl", "triton"], "needs a CUDA tensor, got one on cpu"),
    ],
)
def test_a_bad_command_gets_one_line(
    flags: list[str],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_available() and {"cuda:7", "triton"} & set(flags):
        pytest.skip("a machine with CUDA devices says how many there are, and runs the Triton kernels")
    monkeypatch.setattr(triton_language, "INTERPRETED", False)  # as it is outside of the tests
    assert train.main([*flags, "--runs", str(tmp_path / "runs")]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_wgan_gp_says_where_its_discriminators_run(
    undisturbed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    root, _ = undisturbed
    assert train.main(command(root / "data", root, "wgan", "--gan-loss", "wgan-gp", "--max-steps", "2")) == 0
    assert "discriminators run on the reference operators" in capfd.readouterr().out


def test_images_of_many_shapes_train_without_a_crop(tmp_path: Path) -> None:
    for name in ("trainA", "trainB"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index, size in enumerate([(40, 33), (51, 44)]):
            photo(60, index).resize(size).save(tmp_path / "data" / name / f"{index}.png")
    assert train.main(command(tmp_path / "data", tmp_path, "x", "--preprocess", "none", "--max-steps", "4")) == 0
    assert "testA" in json.loads((tmp_path / "x" / "results.json").read_text())["notes"][0]


@pytest.mark.slow
def test_the_embedded_run_improves_on_the_untranslated_image(tmp_path: Path) -> None:
    """Takes most of a minute, for what no step shows: that a training learns to translate."""
    flags = ["--amp", "--ngf", "16", "--max-steps", "150", "--runs", str(tmp_path), "--name", "x", "--ema", "0.9"]
    assert train.main(flags) == 0
    rows = json.loads((tmp_path / "x" / "results.json").read_text())["rows"]
    psnr_db = {row["label"].split(",")[0]: row["psnr_db"] for row in rows}
    assert psnr_db["translated"] > psnr_db["untranslated"] + 2.5
