"""Damages and tampers with checkpoints and weights: no code runs, the one before is used, nothing is wrong in silence.

A run has checkpoints of steps 7 and 14. After each fault the training goes on to step 17, and must end with the weights
of a run that met none, or with one line that names the file; a translation must give the undamaged picture, or a line.
"""

import os
import pickle
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

from cyclegan_fast.checkpoint import to_original
from cyclegan_fast.checkpoint.files import load
from tests.cyclegan_fast.checkpoint.mutations import mutations_at, places
from tests.faults.harness import TINY, Campaign, Ended, Tally, photos_in, run, trained

STEPS, END = 14, 17


class RunsCode:
    """Makes a file where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


class Truth(NamedTuple):
    """Holds what a run without faults is like: its folder, its last weights, its checkpoint, and what that draws.

    bare: the weights of its generator in the original's names.
    bare_picture: what these draw.
    """

    run: Path
    weights: dict[str, torch.Tensor]
    content: dict[str, Any]
    picture: bytes
    photo: Path
    bare: dict[str, Any]
    bare_picture: bytes


def _go_on(work: Path, name: str) -> Ended:
    flags = list(TINY)
    flags[flags.index("--max-steps") + 1] = str(END)
    data = ["--data", str(photos_in(work))]
    return run("cyclegan_fast.train", [*data, *flags, "--runs", str(work / "runs"), "--name", name], work)


def _translated(work: Path, weights: Path, photo: Path) -> tuple[Ended, bytes]:
    out = work / "translated"
    shutil.rmtree(out, ignore_errors=True)
    flags = ["--checkpoint", str(weights), "--size", "32", "--out", str(out), "--no-contact-sheet"]
    ended = run("cyclegan_fast.translate", [str(photo), *flags], work)
    return ended, next(out.iterdir()).read_bytes() if ended.status == 0 else b""


def _truth(work: Path) -> Truth:
    origin = trained(work, "x", steps=STEPS)
    photo = min((photos_in(work) / "testA").iterdir())
    shutil.copytree(origin, work / "runs" / "whole")
    ended = _go_on(work, "whole")
    translated, picture = _translated(work, origin / "checkpoints/last.pt", photo)
    content = load(origin / "checkpoints/last.pt")
    bare = to_original({name[4:]: weight for name, weight in content["model"].items() if name.startswith("G_A.")})
    torch.save(bare, work / "bare.pth")
    translated_bare, bare_picture = _translated(work, work / "bare.pth", photo)
    if ended.status or translated.status or translated_bare.status:
        raise RuntimeError(f"the run without faults failed: {ended.err} {translated.err} {translated_bare.err}")
    weights = load(work / "runs/whole/checkpoints/last.pt")["model"]
    return Truth(origin, weights, content, picture, photo, bare, bare_picture)


# --- faults: each writes something in place of a file, and says what ------------------------------------------------


def _flipped(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    content = bytearray(last.read_bytes())
    # The index and the last entries, which are small, as often as all the weights.
    ends = [*range(400), *range(len(content) - 3000, len(content))]
    place = draw.choice(ends) if draw.random() < 0.4 else draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    last.write_bytes(content)
    return f"bit flipped at {place}"


def _cut(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    content = last.read_bytes()
    length = draw.choice([0, 1, 4, 30, len(content) - 22, len(content) - 1, draw.randrange(len(content))])
    last.write_bytes(content[:length])
    return f"cut to {length} bytes"


def _other_file(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    size = last.stat().st_size
    kinds: dict[str, Callable[[], bytes]] = {
        "zeros": lambda: bytes(size),
        "noise": lambda: draw.randbytes(size),
        "a photograph": truth.photo.read_bytes,
        "a configuration": (truth.run / "config.yaml").read_bytes,
        "an ONNX file's beginning": lambda: b"\x08\x0a\x12\x0dcyclegan-fast" + draw.randbytes(1000),
        "weights as safetensors": lambda: safetensors.torch.save({"x": torch.zeros(2)}),
        "lists without end": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    }
    name = draw.choice(sorted(kinds))
    last.write_bytes(kinds[name]())
    return name


def _hostile(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    kind = draw.choice(["bare", "archive", "legacy", "inside"])
    evil = RunsCode(witness)
    if kind == "bare":
        last.write_bytes(pickle.dumps(evil))
    else:
        content = {**truth.content, "best": evil} if kind == "inside" else {"config": evil}
        torch.save(content, last, _use_new_zipfile_serialization=kind != "legacy")
    return f"a pickle that runs code, {kind}"


def _no_file(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    def as_socket() -> None:
        with chdir(last.parent), socket.socket(socket.AF_UNIX) as made:  # a socket's path may have 107 bytes
            made.bind(last.name)

    kinds: dict[str, Callable[[], None]] = {
        "a named pipe": lambda: os.mkfifo(last),
        "a folder": last.mkdir,
        "a socket": as_socket,
        "a device": lambda: last.symlink_to("/dev/zero"),
        "an empty device": lambda: last.symlink_to("/dev/null"),
        "a link to itself": lambda: last.symlink_to(last.name),
        "a link to nothing": lambda: last.symlink_to("nowhere"),
        "nothing": lambda: None,
    }
    name = draw.choice(sorted(kinds))
    last.unlink()
    kinds[name]()
    return name


def _tampered(last: Path, draw: random.Random, truth: Truth, witness: Path) -> str:
    place = draw.choice([*places(truth.content)])
    # As often as not one of the few entries that are no weight, moment or setting.
    scarce = [place for place in places(truth.content) if not {"config", "model", "state"} & {*place[:4]}]
    place = draw.choice(scarce) if draw.random() < 0.6 else place
    what, content = draw.choice([*mutations_at(truth.content, place)])
    torch.save(content, last)
    return f"{'.'.join(map(str, place))}: {what}"


_FAULTS = (_flipped, _cut, _other_file, _hostile, _no_file, _tampered, _tampered, _tampered)


def _judge_run(tally: Tally, work: Path, truth: Truth, number: int, draw: random.Random) -> None:
    name, witness = f"case{number}", work / "witness"
    folder = work / "runs" / name
    shutil.copytree(truth.run, folder)
    last = folder / "checkpoints/last.pt"
    what = _FAULTS[number % len(_FAULTS)](last, draw, truth, witness)
    ended, picture = _translated(work, last, truth.photo)
    if ended.status == 0:
        # The settings are free to be others, and say what is translated at what size.
        same = picture == truth.picture or what.startswith("config")
        tally.add(f"translating, {what}", "the same picture" if same else "ANOTHER PICTURE", failed=not same)
    else:
        tally.ended(f"translating, {what}", ended)
    ended = _go_on(work, name)
    if ended.status == 0:
        final = load(last)
        same = final["log"]["step"] == END and all(
            torch.equal(weight, truth.weights[key]) for key, weight in final["model"].items()
        )
        how = "the same weights" if same else "OTHER WEIGHTS"
        back = ", from the one before" if "going back to previous.pt" in ended.out else ""
        tally.add(f"training, {what}", how + back, failed=not same)
    else:
        tally.ended(f"training, {what}", ended)
    if witness.exists():
        tally.add(what, "CODE RAN", failed=True)
        witness.unlink()
    shutil.rmtree(folder)


def _judge_bare(tally: Tally, work: Path, truth: Truth, draw: random.Random) -> None:
    """Tamper with the weights of one generator, in the original's names or as safetensors."""
    key = draw.choice(sorted(truth.bare))
    what, changed = draw.choice(
        [(name, tree) for name, tree in mutations_at(truth.bare, (key,)) if name != "to bfloat16"]  # a precision
    )
    is_plain = all(
        isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
        for value in changed.values()
    )
    if is_plain and what != "repeated without end" and draw.random() < 0.5:
        path = work / "bare.safetensors"
        path.write_bytes(safetensors.torch.save({name: value.detach().contiguous() for name, value in changed.items()}))
    else:
        torch.save(changed, path := work / "bare.pth")
    ended, picture = _translated(work, path, truth.photo)
    what = f"bare weights, {path.suffix}, {key}: {what}"
    if ended.status == 0:
        same = picture == truth.bare_picture
        tally.add(what, "the same picture" if same else "ANOTHER PICTURE", failed=not same)
    else:
        tally.ended(what, ended)


def make(tally: Tally, work: Path, count: int, draw: random.Random) -> None:
    """Make faults one after another: a third of them in bare weights, the others in a run's newest checkpoint."""
    truth = _truth(work)
    for number in range(count):
        if number % 3 == 2:
            _judge_bare(tally, work, truth, draw)
        else:
            _judge_run(tally, work, truth, number - number // 3, draw)


CAMPAIGN = Campaign(make, full=400, few=10)
