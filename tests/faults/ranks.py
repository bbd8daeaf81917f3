"""Trains with several ranks on gloo under torchrun's agent while ranks die, disks fill and machines come and go."""

import contextlib
import json
import os
import random
import resource
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.faults.harness import TINY, Campaign, Ended, Tally, begin, end_of, limited, photos_in

AGENT = "tests.faults.harness_agent"
REPORTS = 2
STEPS = 12
STEPS_OF_NODES = 80
"""A training that other machines come to and leave has as many steps, since torchrun takes seconds to notice."""


def settings(steps: int) -> list[str]:
    """Return the flags of a training of so many steps, whose four images a step any of 1, 2 and 4 ranks can share."""
    changed = {"max-steps": steps, "epochs": steps, "decay-epochs": steps, "report-every": REPORTS}
    changed |= {"checkpoint-every": 3, "sample-every": steps, "pool-size": 6, "batch-size": 4}
    return [*TINY, *(text for name, value in changed.items() for text in (f"--{name}", str(value))), "--share-batch"]


def begin_agent(work: Path, name: str, launch: Sequence[str], *, said: str = "", steps: int = STEPS, **how: Any) -> int:
    """Begin to train a run by an agent with torchrun's options `launch`; returns the agent's process."""
    folder = work / (said or name)
    folder.mkdir(exist_ok=True)
    command = ["-m", "cyclegan_fast.train", "--data", str(photos_in(work)), *settings(steps)]
    return begin(AGENT, [*launch, *command, "--runs", str(work / "runs"), "--name", name], folder, **how)


def on_one_machine(ranks: int, restarts: int = 3) -> list[str]:
    """Return torchrun's options for so many ranks on this machine."""
    return ["--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]


def ranks_of(agent: int) -> list[psutil.Process]:
    """Return the ranks of an agent, the first one first."""
    with contextlib.suppress(psutil.Error):
        return sorted(psutil.Process(agent).children(), key=lambda rank: (rank.create_time(), rank.pid))
    return []


def kill_with_ranks(agent: int) -> None:
    """Kill an agent and its ranks at once, as a machine that loses its power does."""
    for process in [agent, *(rank.pid for rank in ranks_of(agent))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 9)


def ended(agent: int, folder: Path, timeout_s: float = 240) -> Ended:
    """Wait for an agent; one that hangs is killed with its ranks."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and os.waitid(os.P_PID, agent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.02)
    hung = time.monotonic() >= deadline
    if hung:
        kill_with_ranks(agent)
    end = end_of(agent, folder)
    return Ended(end.status, end.out, end.err, end.seconds, hung)


def reports_of(work: Path, name: str) -> list[int]:
    """Return the steps of the whole lines of a run's metrics."""
    path = work / "runs" / name / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def wait_for(agent: int, condition: Callable[[], bool], limit_s: float = 120) -> bool:
    """Wait until a condition is true; returns False where the agent ended first, or time ran out."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        if os.waitid(os.P_PID, agent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.01)
    return False


def final_state(work: Path, name: str) -> dict[str, Any]:
    """Return the newest checkpoint of a run."""
    state: dict[str, Any] = torch.load(work / "runs" / name / "checkpoints" / "last.pt", weights_only=True)
    return state


def what_is_wrong(work: Path, name: str, end: Ended, like: str | None = None, steps: int = STEPS) -> str | None:
    """Return what is wrong with a run that should be whole; where a run `like` is named, it has its weights."""
    run = work / "runs" / name
    if end.hung or end.status != 0:
        return f"hung {end.hung}, status {end.status}: {end.last_line}"
    if trouble := own_traceback(end):
        return trouble
    if reports_of(work, name) != list(range(REPORTS, steps + 1, REPORTS)):
        return f"reports {reports_of(work, name)}"
    if not ((run / "results.json").exists() and (run / "index.html").exists()):
        return "not finished"
    state = final_state(work, name)
    if state["log"]["step"] != steps:
        return f"ended at step {state['log']['step']}"
    if like:
        expected = final_state(work, like)["model"]
        others = [key for key, value in expected.items() if not torch.equal(value, state["model"][key])]
        return f"other weights: {others[:3]}" if others else None
    kept = sum(len(own["step"]["pool_A"]["images"]) for own in state["ranks"])
    return None if kept == 6 else f"{kept} images in the pools instead of 6"


def own_traceback(end: Ended) -> str | None:
    """Return the last line of a traceback through the project's code; torchrun prints some of its own."""
    return f"traceback: {end.last_line}" if "/cyclegan_fast/" in end.err and "Traceback" in end.err else None


def add(tally: Tally, what: str, fault: str, wrong: str | None) -> None:
    """Count a fault of a kind."""
    tally.add(f"{what}, {fault}", wrong or what, failed=wrong is not None)


# --- the faults -----------------------------------------------------------------------------------------------------


def undisturbed(work: Path) -> str:
    """Return the name of a run of two ranks that nothing disturbed, made at the first call."""
    if not (work / "runs" / "whole").exists():
        end = ended(begin_agent(work, "whole", on_one_machine(2)), work / "whole")
        if wrong := what_is_wrong(work, "whole", end):
            raise RuntimeError(f"undisturbed: {wrong}")
    return "whole"


def killed(tally: Tally, work: Path, name: str, chance: random.Random) -> None:
    """Kill a rank at a random moment: torchrun starts all again, and the run ends as the undisturbed one."""
    like = undisturbed(work)
    rank, lines, delay = chance.randrange(2), chance.randrange(STEPS // REPORTS), chance.uniform(0, 0.3)
    agent = begin_agent(work, name, on_one_machine(2))
    wait_for(agent, lambda: len(ranks_of(agent)) == 2 and len(reports_of(work, name)) >= lines)
    time.sleep(delay)
    found = ranks_of(agent)
    if len(found) == 2:
        found[rank].kill()
    wrong = what_is_wrong(work, name, ended(agent, work / name), like)
    add(tally, "a rank killed", f"rank {rank} {delay:.2f} s after {lines} reports", wrong)


def terminated(tally: Tally, work: Path, name: str, chance: random.Random) -> None:
    """Send torchrun SIGTERM: all ends soon, and the same command continues to the same weights."""
    like = undisturbed(work)
    lines, delay = chance.randrange(STEPS // REPORTS - 1), chance.uniform(0, 0.2)
    agent = begin_agent(work, name, on_one_machine(2))
    wait_for(agent, lambda: len(ranks_of(agent)) == 2 and len(reports_of(work, name)) >= lines)
    time.sleep(delay)
    os.kill(agent, 15)
    end = ended(agent, work / name, 60)
    wrong = "hung" if end.hung else own_traceback(end)
    again = ended(begin_agent(work, name, on_one_machine(2), said=f"{name}-again"), work / f"{name}-again")
    wrong = wrong or what_is_wrong(work, name, again, like)
    add(tally, "torchrun told to stop", f"{delay:.2f} s after {lines} reports", wrong)


def other_numbers(tally: Tally, work: Path, name: str, chance: random.Random) -> None:
    """Stop a run, or kill all of it, again and again; other numbers of ranks continue it to its end.

    Three ranks, which cannot share four images, are refused in one line, and nothing is written.
    """
    begun = [chance.choice([1, 2, 4]) for _ in range(3)]
    wrong: str | None = None
    for number, count in enumerate(begun):
        lines = len(reports_of(work, name)) + chance.randrange(1, 3)
        agent = begin_agent(work, name, on_one_machine(count), said=f"{name}-{number}")
        wait_for(agent, lambda lines=lines: len(reports_of(work, name)) >= lines)  # type: ignore[misc]
        kill_with_ranks(agent) if chance.random() < 0.5 else os.kill(agent, 15)
        end = ended(agent, work / f"{name}-{number}", 60)
        wrong = wrong or ("hung" if end.hung else own_traceback(end))
    before = {path: path.stat().st_mtime_ns for path in (work / "runs" / name).rglob("*.*") if path.name != ".lock"}
    refused = ended(begin_agent(work, name, on_one_machine(3, 0), said=f"{name}-three"), work / f"{name}-three")
    said = [line for line in refused.err.splitlines() if line.startswith("error:")]
    after = {path: path.stat().st_mtime_ns for path in (work / "runs" / name).rglob("*.*") if path.name != ".lock"}
    if not (len(said) == 1 and "cannot share equally: start 1, 2 or 4 instead" in said[0] and before == after):
        wrong = wrong or f"three ranks: status {refused.status}, {said}, {refused.last_line}"
    last = chance.choice([1, 2, 4])
    end = ended(begin_agent(work, name, on_one_machine(last), said=f"{name}-last"), work / f"{name}-last")
    wrong = wrong or what_is_wrong(work, name, end)
    if wrong is None and len(final_state(work, name)["ranks"]) != last:
        wrong = f"saved by {len(final_state(work, name)['ranks'])} ranks"
    add(tally, "other numbers of ranks", f"{[*begun, last]}", wrong)


def full_disk(tally: Tally, work: Path, name: str, chance: random.Random) -> None:
    """Let no file grow beyond a size: one line says so, what was saved stays, and with room the run ends the same."""
    like = undisturbed(work)
    size = (work / "runs" / like / "checkpoints" / "last.pt").stat().st_size
    limit = chance.choice([size // 20, size // 2, size - 2000, chance.randrange(50_000, size)])
    agent = begin_agent(work, name, on_one_machine(2, 0), prepare=limited(resource.RLIMIT_FSIZE, limit))
    end = ended(agent, work / name)
    said = [line for line in end.err.replace("\r", "\n").splitlines() if line.startswith("error:")]
    clear = end.status not in (0, None) and any("could not" in line or "too large" in line for line in said)
    wrong = own_traceback(end) or (None if clear else f"status {end.status}, said {said}, {end.last_line}")
    again = ended(begin_agent(work, name, on_one_machine(2), said=f"{name}-again"), work / f"{name}-again")
    wrong = wrong or what_is_wrong(work, name, again, like)
    add(tally, "a full disk", f"no file above {limit} of {size} bytes", wrong)


def leaving_node(tally: Tally, work: Path, name: str, chance: random.Random) -> None:
    """Let one of two machines leave and come back: the other one goes on meanwhile, and all steps are taken."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    is_killed, holds_first_rank = chance.random() < 0.5, chance.random() < 0.5
    # The first rank is on the machine whose address comes first. The rendezvous stays on the one that began it.
    stays, goes = ("127.0.0.2", "127.0.0.1") if holds_first_rank else ("127.0.0.1", "127.0.0.2")

    def machine(address: str, said: str) -> int:
        wait = "last_call_timeout=2,join_timeout=120,keep_alive_interval=3"
        launch = [
            "--nnodes=1:2",
            "--nproc-per-node=1",
            "--max-restarts=9",
            "--rdzv-backend=c10d",
            f"--rdzv-conf={wait}",
        ]
        launch += [f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id={name}", f"--local-addr={address}"]
        return begin_agent(work, name, launch, said=f"{name}-{said}", steps=STEPS_OF_NODES)

    def trained_by(count: int) -> Callable[[], bool]:
        return lambda: (
            (work / "runs" / name / "checkpoints" / "last.pt").exists()
            and (len(final_state(work, name)["ranks"]) == count)
        )

    first = machine(stays, "stays")
    time.sleep(0.5)
    second = machine(goes, "goes")
    met = wait_for(first, trained_by(2))
    time.sleep(chance.uniform(0, 0.5))
    kill_with_ranks(second) if is_killed else os.kill(second, 15)
    left = ended(second, work / f"{name}-goes", 60)
    went_on = wait_for(first, trained_by(1))
    third = machine(goes, "comes")
    came_back = wait_for(first, trained_by(2))
    ends = [ended(first, work / f"{name}-stays"), ended(third, work / f"{name}-comes", 60)]
    wrong = "the machine that was told to leave hung" if left.hung else None
    wrong = wrong or what_is_wrong(work, name, ends[0], steps=STEPS_OF_NODES)
    wrong = wrong or next((trouble for end in ends if (trouble := own_traceback(end))), None)
    if wrong is None and not (met and went_on and came_back):
        wrong = f"met {met}, went on {went_on}, came back {came_back}"
    how = f"{'killed' if is_killed else 'told to leave'}, {'with' if holds_first_rank else 'without'} the first rank"
    add(tally, "a machine that leaves and comes back", how, wrong)


KINDS = (killed, full_disk, other_numbers, leaving_node, terminated, killed)


def make(tally: Tally, work: Path, count: int, chance: random.Random) -> None:
    """Make faults of all kinds in turn."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        kind(tally, work, f"run{number}", chance)
        shutil.rmtree(work / "runs" / f"run{number}", ignore_errors=True)


CAMPAIGN = Campaign(make, full=12, few=1)
