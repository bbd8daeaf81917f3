"""Trains a small network like VGG on images without labels, to tell how they are rotated.

It takes the place of a VGG-16 of ImageNet where none is at hand: what tells an upright scene from a turned one is what
is in it and where, not its colours (Gidaris, Singh & Komodakis 2018, arXiv 1803.07728).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.data.image_lists import Images
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.images.pixels import Pixels, to_signed
from cyclegan_fast.methods.feature_loss.vgg import Vgg, blank
from cyclegan_fast.networks.optimizers import EagerAdamW
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import LARGEST_BATCH, MOST_STEPS, WIDEST, Range, check_fields
from cyclegan_fast.system.words import counted

ROTATIONS = 4
LARGEST_CROP = 128  # pixels: a step at 256 would take four times as long, and what is near says enough
MOST_HELD_OUT = 256  # images of a domain

Domains = tuple[Images, Images]


@dataclass(frozen=True)
class RotationTraining:
    """Holds the settings of a training: everything that the network's weights depend on beside the images."""

    stages: tuple[Annotated[int, Range(1, 100)], ...] = (2, 2, 2, 2)
    """the number of convolutions of each stage"""
    widths: tuple[Annotated[int, Range(1, 8 * WIDEST)], ...] = (16, 32, 64, 128)
    """the channels of each stage"""
    steps: Annotated[int, Range(1, MOST_STEPS)] = 500
    """the number of updates"""
    images_per_step: Annotated[int, Range(2, LARGEST_BATCH, multiple=2)] = 8
    """the number of images in one step, half of each domain; each is shown in all four rotations"""
    learning_rate: Annotated[float, Range(above=0, most=1e30)] = 2e-3
    """AdamW's largest step size in a one-cycle schedule (Smith & Topin 2018)"""

    def __post_init__(self) -> None:
        check_fields(self)


class RotationNetwork(nn.Module):
    """Scores by how many quarter turns images were rotated: [N, 3, H, W] in [-1, 1] -> [N, 4].

    It has no normalisation layers: an activation, as `Vgg` names it, depends on its image alone, in training and use.
    Eight layers with the initialisation of He et al. (2015) learn well without.
    """

    def __init__(self, stages: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.features = Vgg(stages, widths)
        self.score = nn.Linear(widths[-1], ROTATIONS)

    def forward(self, images: Tensor) -> Tensor:
        last = self.features.activations[-1]
        deepest: Tensor = self.features(images, [last])[last]
        scores: Tensor = self.score(deepest.mean(dim=(2, 3)))
        return scores

    def initialise(self, seed: int) -> None:
        """Draw the weights as He et al. (2015) do for ReLU; the global generator is not touched."""
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
            else:
                nn.init.zeros_(parameter)


class TrainedFeatures(NamedTuple):
    """Holds the convolutions of a trained network, in eval mode, and a phrase on where they come from."""

    network: Vgg
    description: str


class Crops:
    """Draws random square crops, mirrored at random, of the images of two domains; a tenth of them are held out.

    Args:
        size: the side of the square that images are resized to before they are cropped.
        multiple: the crop's side is a multiple of this, so that no pooling cuts anything off.

    Raises UserError where a domain has no two images.
    """

    def __init__(self, images: Domains, size: int, multiple: int, seed: int) -> None:
        self.images, self.size = images, size
        self.side = max(multiple, min(size * 3 // 4, LARGEST_CROP) // multiple * multiple)
        self.training: list[list[int]] = []
        self.held_out: list[list[int]] = []
        for name, domain in zip("AB", images, strict=True):
            if len(domain) < 2:
                raise UserError(
                    f"domain {name} has {counted(len(domain), 'image')}: the feature network needs two, one of them "
                    "held out; add images, or give the weights of a VGG-16"
                )
            order = np.random.default_rng(seed).permutation(len(domain)).tolist()
            held = max(1, len(domain) // 10)
            self.held_out.append(order[:held])
            self.training.append(order[held:])

    def batch(self, step: int, count: int, seed: int) -> Tensor:
        """Return the training images of one step, half of each domain: [count, 3, side, side] in [-1, 1]."""
        random = np.random.default_rng([seed, step])
        crops = [
            self._crop(images[int(random.choice(places))], random)
            for images, places in zip(self.images, self.training, strict=True)
            for _ in range(count // 2)
        ]
        gain, shift = random.uniform(0.8, 1.25, (count, 1, 1, 1)), random.uniform(-0.1, 0.1, (count, 3, 1, 1))
        return (
            to_signed(torch.from_numpy(np.stack(crops))) * torch.from_numpy(gain).float()
            + torch.from_numpy(shift).float()
        )

    def held_out_of(self, domain: int, seed: int) -> Tensor:
        """Return a crop of each held-out image of domain 0 or 1: [n, 3, side, side] in [-1, 1]."""
        random = np.random.default_rng([seed, 0, domain])
        images = self.images[domain]
        crops = [self._crop(images[place], random) for place in self.held_out[domain][:MOST_HELD_OUT]]
        return to_signed(torch.from_numpy(np.stack(crops)))

    def _crop(self, image: Pixels, random: np.random.Generator) -> Pixels:
        if image.shape[:2] != (self.size, self.size):
            image = np.asarray(resize(Image.fromarray(image), self.size, self.size))
        top, left = random.integers(0, self.size - self.side + 1, 2)
        crop = image[top : top + self.side, left : left + self.side]
        return crop[:, ::-1] if random.random() < 0.5 else crop


def rotated(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return images [N, C, S, S] rotated by 0, 1, 2 and 3 quarter turns, [4N, C, S, S], and the turns [4N]."""
    turned = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))


def train_on_rotations(
    images: Domains, size: int, training: RotationTraining, seed: int, device: torch.device, progress: bool = True
) -> tuple[RotationNetwork, list[float]]:
    """Train a network in float32; returns it with the shares of right answers on held-out images of A and of B.

    Chance gives a share of 0.25. On a CPU the same seed gives the same bits. Raises UserError where a domain has no two
    images, or where the training diverges.
    """
    crops = Crops(images, size, 2 ** (len(training.stages) - 1), seed)
    network = blank(RotationNetwork, training.stages, training.widths)
    network.initialise(seed)
    network.to(device)
    adam = EagerAdamW(network.parameters(), lr=training.learning_rate, weight_decay=1e-4)
    steps = max(training.steps, 4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, training.learning_rate, total_steps=steps, pct_start=max(0.1, 2 / steps)
    )
    loss = torch.zeros(())
    bar = progress_bar(range(training.steps), desc="training the feature network", unit=" steps", disable=not progress)
    for step in bar:
        turned, turns = rotated(crops.batch(step, training.images_per_step, seed).to(device))
        loss = F.cross_entropy(network(turned), turns)
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        adam.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix_str(f"cross-entropy {float(loss.detach()):.3f}", refresh=False)
    if not loss.isfinite():
        raise UserError(f"the feature network's loss is {loss.item()}: give another seed, or the weights of a VGG-16")
    network.eval()
    return network, [accuracy(network, crops.held_out_of(domain, seed).to(device)) for domain in (0, 1)]


@torch.no_grad()
def accuracy(network: RotationNetwork, images: Tensor) -> float:
    """Return the share of right answers over all rotations of images [N, 3, S, S]."""
    right = 0
    for part in torch.split(images, 16):
        turned, turns = rotated(part)
        right += int((network(turned).argmax(1) == turns).sum())
    return right / (ROTATIONS * len(images))


# --- files ---------------------------------------------------------------------------------------------------------


def origin_of(images: Domains, size: int, training: RotationTraining, seed: int) -> dict[str, Any]:
    """Return all that a network's weights depend on, as plain values; images are a digest of all their pixels."""
    digest = hashlib.sha256()
    for domain in images:
        for index in range(len(domain)):
            pixels = domain[index]
            digest.update(str(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels).data)
    # By way of JSON, in which tuples are lists: as it is read back.
    settings: dict[str, Any] = json.loads(json.dumps(asdict(training)))
    return {
        "images": digest.hexdigest(),
        "numbers": [len(domain) for domain in images],
        "size": size,
        "seed": seed,
        "training": settings,
    }


def write_features(path: Path, network: RotationNetwork, origin: dict[str, Any], accuracies: Sequence[float]) -> None:
    """Write the file that `load_features` reads, whole or not at all."""
    state = {key: value.cpu() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"rotation_network": state, "origin": origin, "accuracy": list(accuracies)}
    write_atomically(path, checkpoint.to_bytes(content), "feature_network")


def is_trained_here(path: Path) -> bool:
    """Tell whether `write_features` wrote a file; raises UserError for a damaged one."""
    return "rotation_network" in checkpoint.load(path)


def load_features(path: Path, origin: dict[str, Any] | None = None) -> TrainedFeatures:
    """Read a trained network.

    Args:
        origin: what it must have been trained from; with None it may be anything.

    Raises UserError where it was trained from something else, or where the file is missing, damaged or no such file.
    """
    content = checkpoint.load(path)
    if not {"rotation_network", "origin", "accuracy"} <= content.keys():
        raise UserError(f"{path} holds no feature network that was trained here: give another file")
    made_from = content["origin"]
    if origin is not None and made_from != origin:
        differing = ", ".join(key for key in origin if origin[key] != made_from.get(key))
        raise UserError(f"{path} was trained from other {differing}: delete it to have it trained anew")
    training = made_from["training"]
    network = blank(RotationNetwork, training["stages"], training["widths"])
    checkpoint.load_weights(network, content["rotation_network"], str(path))
    percent = [f"{100 * share:.0f}%" for share in content["accuracy"]]
    return TrainedFeatures(
        network.features.eval(),
        f"a small VGG of {'-'.join(map(str, training['widths']))} channels, trained on {sum(made_from['numbers'])} "
        f"images of both domains to tell rotations apart ({percent[0]} right on held-out images of A, {percent[1]} on "
        "B, 25% by chance)",
    )
