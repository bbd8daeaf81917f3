"""Compares whole training runs: plain float32 PyTorch and ours with everything on, side by side.

Loss curves of adversarial training drift apart from rounding alone, so the question is whether ours is as near to plain
PyTorch as plain PyTorch with another seed is to itself. Images are drawn here, so that nothing needs to be installed.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cases.plain_cyclegan import PLAIN_FLOAT32, PlainCycleGAN
from bench.cases.training_step import engine_from
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.device import working_dtype

WINDOW_SHARE = 0.25
"""The share of a run's steps, the last ones, whose mean losses are compared."""
PLAIN_RUN, OTHER_SEED_RUN, OUR_RUN = PLAIN_FLOAT32, f"{PLAIN_FLOAT32}, another seed", "ours"
DRAWN_IMAGES = 64


@dataclass(frozen=True)
class Setting:
    """Says how long is trained, on which images, and how large the networks are."""

    side: int
    steps: int
    width: int = 64
    blocks: int = 9
    batch_size: int = 1


@dataclass(frozen=True)
class TrainingCurve:
    """Holds the time and the losses of one training run."""

    seconds: float
    """the time of all steps but the first tenth, in which libraries and graphs settle, scaled to all"""
    losses: dict[str, list[float]]
    """the losses by name, a value for each step"""

    def final(self, name: str) -> float:
        """Return the mean of a loss over the last steps."""
        values = self.losses[name]
        return statistics.mean(values[-max(1, int(len(values) * WINDOW_SHARE)) :])


@dataclass(frozen=True)
class Outcome:
    """Says how far curves are apart at their end: the relative distance, in the mean over all losses."""

    setting: Setting
    curves: dict[str, TrainingCurve]

    @property
    def between_seeds(self) -> float:
        """Return the distance between two seeds of plain PyTorch."""
        return self._distance(PLAIN_RUN, OTHER_SEED_RUN)

    @property
    def of_ours(self) -> float:
        """Return the distance of ours from plain PyTorch."""
        return self._distance(PLAIN_RUN, OUR_RUN)

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(v) for c in self.curves.values() for values in c.losses.values() for v in values)

    @property
    def speedup(self) -> float:
        return self.curves[PLAIN_RUN].seconds / self.curves[OUR_RUN].seconds

    def _distance(self, one: str, other: str) -> float:
        curves = self.curves[one], self.curves[other]
        return statistics.mean(
            abs(curves[0].final(name) - curves[1].final(name)) / max(abs(curves[0].final(name)), 1e-3)
            for name in curves[0].losses
        )

    def described(self) -> str:
        lines = [
            f"{self.setting.steps} steps at {self.setting.side}x{self.setting.side}, batch {self.setting.batch_size}:"
        ]
        for name, curve in self.curves.items():
            finals = ", ".join(f"{loss} {curve.final(loss):.3f}" for loss in sorted(curve.losses))
            lines.append(f"  {name:<40} {curve.seconds:8.2f} s; at the end {finals}")
        lines.append(
            f"  ours {self.speedup:.2f} times as fast; losses at the end {self.of_ours:.1%} from plain PyTorch's, "
            f"whose own two seeds are {self.between_seeds:.1%} apart"
        )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for curve in found["curves"].values():
            curve["losses"] = {name: [round(v, 5) for v in values] for name, values in curve["losses"].items()}
        return found | {"between_seeds": self.between_seeds, "of_ours": self.of_ours, "speedup": self.speedup}


def compare_trainings(setting: Setting, device: torch.device) -> Outcome:
    """Train three times from scratch: plain PyTorch with two seeds, ours with the first one's weights and images."""
    return Outcome(
        setting,
        {
            PLAIN_RUN: _trained(_plain_step(setting, device, seed=0), setting, seed=0, device=device),
            OTHER_SEED_RUN: _trained(_plain_step(setting, device, seed=1), setting, seed=1, device=device),
            OUR_RUN: _trained(_our_step(setting, device, seed=0), setting, seed=0, device=device),
        },
    )


def drawn_images(side: int, seed: int) -> tuple[Pixels, Pixels]:
    """Draw two unpaired domains, uint8 [DRAWN_IMAGES, side, side, 3]: soft patches, and others as blue outlines."""
    random = np.random.default_rng(seed)

    def patches() -> np.ndarray[Any, np.dtype[np.float64]]:
        coarse = random.random((DRAWN_IMAGES, 9, 9, 3))
        at = np.linspace(0, 7.999, side)
        low, part = at.astype(int), at % 1
        rows = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
        mixed: np.ndarray[Any, np.dtype[np.float64]] = (
            rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
        )
        return mixed

    photographs, others = patches(), patches()
    grey = others.mean(axis=3)
    edges = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])) + np.abs(np.diff(grey, axis=2, prepend=grey[:, :, :1]))
    ink = np.clip(edges * side / 4, 0, 1)[..., None]
    drawings = (1 - ink) * np.array([0.95, 0.95, 0.85]) + ink * np.array([0.05, 0.1, 0.4])
    return tuple(np.rint(images * 255).astype(np.uint8) for images in (photographs, drawings))


def batches(setting: Setting, seed: int) -> Iterator[Batch]:
    """Yield batches of whole images without end, drawn at random, mirrored or not."""
    images_A, images_B = (torch.from_numpy(images) for images in drawn_images(setting.side, 0))
    random = torch.Generator().manual_seed(seed)
    size = setting.side, setting.side
    while True:
        chosen = torch.randint(DRAWN_IMAGES, (2, setting.batch_size), generator=random)
        crops = torch.zeros(2, setting.batch_size, 3, dtype=torch.int64)
        crops[:, :, 2] = torch.randint(2, (2, setting.batch_size), generator=random)
        yield Batch(images_A[chosen[0]], images_B[chosen[1]], crops[0], crops[1], size, size)


Update = Callable[[Batch], dict[str, Tensor]]


def _plain(setting: Setting, device: torch.device, seed: int) -> PlainCycleGAN:
    torch.manual_seed(seed)
    return PlainCycleGAN(ngf=setting.width, ndf=setting.width, blocks=setting.blocks, device=device)


def _plain_step(setting: Setting, device: torch.device, seed: int) -> Update:
    plain = _plain(setting, device, seed)
    return lambda batch: plain.update(*batch.to(device))


def _our_step(setting: Setting, device: torch.device, seed: int) -> Update:
    blocks = {9: "resnet_9", 6: "resnet_6"}[setting.blocks]
    config = Config(
        data=DataConfig(load_size=setting.side, crop_size=setting.side, batch_size=setting.batch_size),
        networks=NetworkConfig(generator=blocks, ngf=setting.width, ndf=setting.width),  # type: ignore[arg-type]
    )
    weights = {name: network.state_dict() for name, network in _plain(setting, device, seed).networks().items()}
    dtype, _ = working_dtype(device, amp=True, amp_dtype="auto")
    return engine_from(weights, config, device, dtype)


def _trained(update: Update, setting: Setting, *, seed: int, device: torch.device) -> TrainingCurve:
    losses: list[dict[str, Tensor]] = []
    settled = max(1, setting.steps // 10)
    started = 0.0
    for number, batch in zip(range(setting.steps), batches(setting, seed), strict=False):
        if number == settled:
            _wait(device)
            started = time.perf_counter()
        # A graph's losses are overwritten by its next replay.
        losses.append({name: loss.clone() for name, loss in update(batch).items()})
    _wait(device)
    seconds = (time.perf_counter() - started) * setting.steps / (setting.steps - settled)
    return TrainingCurve(seconds, {name: [float(step[name]) for step in losses] for name in sorted(losses[0])})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
