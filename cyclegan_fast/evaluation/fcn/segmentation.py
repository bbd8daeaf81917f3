"""Defines and trains a segmentation network that reads labels out of photographs: the judge of the FCN score.

The paper judges generated photographs by an FCN-8s (Long et al. 2015) with a VGG-16 underneath, trained on Cityscapes
(Zhu et al. 2017, section 5.1.1, after Isola et al. 2017). Weights of a VGG-16 cannot be assumed here, so this is a
small fully convolutional network of the same idea, coarse features refined by finer ones, trained from scratch on the
real photographs of the data set. Its own score on real photographs, printed beside every other, is what to compare
with.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.images.labels import CLASSES, VOID, Labels
from cyclegan_fast.images.pixels import Pixels, as_tensor
from cyclegan_fast.networks.optimizers import EagerAdamW
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import beside, write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import (
    MOST_COUNTED,
    BatchSize,
    LearningRate,
    NetworkWidth,
    Range,
    RunSeed,
    check_fields,
)

SCALES = 5  # the coarsest features have a sixteenth of the side
_SIDE_MULTIPLE = 2 ** (SCALES - 1)  # of this network, which halves an image four times
_PIXELS_AT_ONCE = 16 * 256 * 256


class ConvNormReLU(nn.Sequential):
    """Applies a 3x3 convolution, batch norm and ReLU; instance norm would hide how bright and how red a thing is."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )


class SegmentationNetwork(nn.Module):
    """Scores the classes of every pixel: photographs uint8 [N, 3, H, W] -> [N, 19, H, W] by train id.

    Sides that no four halvings divide are continued by their last pixels, and cut off again.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        channels = [width * min(2**scale, 8) for scale in range(SCALES)]
        self.down = nn.ModuleList(
            nn.Sequential(ConvNormReLU(before, after), ConvNormReLU(after, after))
            for before, after in zip([3, *channels], channels, strict=False)
        )
        self.up = nn.ModuleList(ConvNormReLU(fine + coarse, fine) for fine, coarse in itertools.pairwise(channels))
        self.score = nn.Conv2d(width, len(CLASSES), 1)

    def features(self, photographs: Tensor) -> list[Tensor]:
        """Return the activations of every scale, finest first."""
        x = ((photographs.float() - 127.5) / 64).contiguous(memory_format=torch.channels_last)
        found: list[Tensor] = []
        for scale, stage in enumerate(self.down):
            x = stage(F.max_pool2d(x, 2) if scale else x)
            found.append(x)
        return found

    def forward(self, photographs: Tensor) -> Tensor:
        height, width = photographs.shape[2:]
        below, right = -height % _SIDE_MULTIPLE, -width % _SIDE_MULTIPLE
        if below or right:
            photographs = F.pad(photographs.float(), (0, right, 0, below), mode="replicate")
        *finer, x = self.features(photographs)
        for fine, stage in zip(reversed(finer), reversed(self.up), strict=True):
            x = stage(torch.cat([fine, F.interpolate(x, scale_factor=2, mode="bilinear")], 1))
        scores: Tensor = self.score(x)
        return scores[:, :, :height, :width]


@dataclass(frozen=True)
class SegmentationTraining:
    """Says how a segmentation network is trained: everything that its weights depend on beside the images."""

    width: NetworkWidth = 16
    """channels at full size; the coarsest scales have eight times as many"""
    epochs: Annotated[int, Range(1, MOST_COUNTED)] = 60
    """passes over the photographs"""
    batch_size: BatchSize = 16
    """photographs in one step"""
    learning_rate: LearningRate = 3e-3
    """AdamW's largest step size, of a one-cycle schedule (Smith & Topin 2018)"""
    seed: RunSeed = 0
    """fixes weights, order and augmentation"""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Examples:
    """Holds photographs [N, H, W, 3] and their labels, train ids [N, H, W], VOID where they are unknown."""

    photographs: Pixels
    labels: Labels

    @property
    def fingerprint(self) -> str:
        """Return a digest of the photographs and the labels."""
        digest = hashlib.sha256(self.photographs.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]

    def batches(self, training: SegmentationTraining, epoch: int) -> Iterator[tuple[Pixels, Labels, Tensor, Tensor]]:
        """Yield the batches of an epoch in random order, mirrored at random, with gains and shifts of their colours.

        Every random decision is a function of (seed, epoch), so that an epoch can be entered anew after a crash.
        """
        random = np.random.default_rng([training.seed, epoch])
        order = random.permutation(len(self.photographs))
        for start in range(0, len(order), training.batch_size):
            chosen = order[start : start + training.batch_size]
            photographs, labels = self.photographs[chosen], self.labels[chosen]
            mirrored = random.random(len(chosen)) < 0.5
            photographs[mirrored], labels[mirrored] = photographs[mirrored, :, ::-1], labels[mirrored, :, ::-1]
            gain = torch.from_numpy(random.uniform(0.8, 1.25, (len(chosen), 1, 1, 1))).float()
            shift = torch.from_numpy(random.uniform(-13, 13, (len(chosen), 3, 1, 1))).float()  # in 8-bit levels
            yield photographs, labels, gain, shift


class Trainer:
    """Trains a network on `examples`, and keeps what an interrupted training needs to go on in `file`.

    Args:
        file: where the trained network goes; until then `file` with ".training" added holds the state of an epoch.
        amp_dtype: what convolutions compute in.
    """

    def __init__(
        self,
        examples: Examples,
        training: SegmentationTraining,
        file: Path,
        device: torch.device,
        amp_dtype: torch.dtype,
    ) -> None:
        self.examples, self.training, self.file = examples, training, file
        self.device, self.amp_dtype = device, amp_dtype
        torch.manual_seed(training.seed)
        self.network = SegmentationNetwork(training.width).to(device)
        self.steps_per_epoch = -(-len(examples.photographs) // training.batch_size)
        self.adam = EagerAdamW(self.network.parameters(), lr=training.learning_rate, weight_decay=1e-4)
        steps = max(training.epochs * self.steps_per_epoch, 4)
        # The rise takes a tenth of the steps, and one at the least, as the schedule needs.
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.adam, training.learning_rate, total_steps=steps, pct_start=max(0.1, 2 / steps)
        )
        self.origin = {"training": asdict(training), "examples": examples.fingerprint}
        self.unfinished = beside(file, "", ".training")
        self.epoch = self._restored()

    def run(self, tell: Callable[[str], None] = print) -> SegmentationNetwork:
        """Train to the end, write the file, and return the network, ready to predict."""
        if self.epoch:
            tell(f"{self.unfinished}: continued after epoch {self.epoch}")
        total = self.training.epochs * self.steps_per_epoch
        progress = progress_bar(
            desc="training the segmentation network",
            unit=" steps",
            total=total,
            initial=self.epoch * self.steps_per_epoch,
        )
        with progress:
            while self.epoch < self.training.epochs:
                losses = []
                for batch in self.examples.batches(self.training, self.epoch):
                    losses.append(self.step(*batch))
                    progress.update()
                self.epoch += 1
                loss = float(torch.stack(losses).mean())
                if not np.isfinite(loss):
                    raise UserError(f"the segmentation network's loss is {loss} in epoch {self.epoch}: lower its rate")
                progress.set_postfix_str(f"epoch {self.epoch}, cross-entropy {loss:.3f}")
                self._write(self.unfinished)
        self._write(self.file)
        self.unfinished.unlink(missing_ok=True)
        self.network.eval()
        return self.network

    def step(self, photographs: Pixels, labels: Labels, gain: Tensor, shift: Tensor) -> Tensor:
        """Make one update; return the cross-entropy over the pixels that are not VOID."""
        varied = as_tensor(photographs, self.device).float() * gain.to(self.device) + shift.to(self.device)
        truth = torch.from_numpy(labels).to(self.device).long()
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype != torch.float32):
            scores = self.network(varied)
        loss = F.cross_entropy(scores.float(), truth, ignore_index=VOID)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.adam.step()
        self.schedule.step()
        return loss.detach()

    def _write(self, path: Path) -> None:
        state = {
            "segmentation": self.network.state_dict(),
            "origin": self.origin,
            "epoch": self.epoch,
            "adam": self.adam.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, checkpoint.to_bytes(state))

    def _restored(self) -> int:
        """Take over what an interrupted training of the same kind left; return the epochs that it had done."""
        if not self.unfinished.exists():
            return 0
        state = read_state(self.unfinished)
        if state["origin"] != self.origin:
            return 0  # it has other images or settings, and is written over at the end of the first epoch
        self.network.load_state_dict(state["segmentation"])
        self.adam.load_state_dict(state["adam"])
        self.schedule.load_state_dict(state["schedule"])
        return int(state["epoch"])


def read_state(path: Path) -> dict[str, Any]:
    """Read the file of a segmentation network; raises UserError for any other file."""
    state = checkpoint.load(path)
    if not {"segmentation", "origin", "epoch"} <= state.keys():
        raise UserError(f"{path} holds no segmentation network: give one that `evaluate fcn` trained")
    return state


def load_segmentation(path: Path) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Load a network that `Trainer` wrote, ready to predict, and what it was trained from; raises UserError."""
    state = read_state(path)
    network = SegmentationNetwork(int(state["origin"]["training"]["width"]))
    checkpoint.load_weights(network, state["segmentation"], str(path))
    return network.eval(), state["origin"]


@torch.inference_mode()
def read_out(network: SegmentationNetwork, photographs: Tensor) -> Tensor:
    """Return the most probable class of every pixel: uint8 [N, 3, H, W] -> train ids uint8 [N, H, W], on the device."""
    at_once = max(1, _PIXELS_AT_ONCE // (photographs.size(2) * photographs.size(3)))
    return torch.cat([network(part).argmax(1).byte() for part in torch.split(photographs, at_once)])
