"""Measures the distance of all translations to all real images, in a network's features: the metrics `fid` and `kid`.

distance_networks.py loads such networks.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan_fast.conventions import Direction
from cyclegan_fast.data.test_sets import TestSets
from cyclegan_fast.evaluation.base_metric import Metric, MetricSetup, TranslatedBatch, pixels_in_words, with_formulas
from cyclegan_fast.evaluation.distance_networks import INCEPTION, PROGRAM_ENDING, distance_network
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.images.pixel_type import RGB, PixelType, PixelTypes
from cyclegan_fast.images.pixels import levels, signed
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import waiting

OWN_NETWORK = f"give a network for such images by --features FILE{PROGRAM_ENDING}"
KID_SUBSET = 1000  # images in a subset, as Bińkowski et al. 2018


class FeatureDistance(Metric):
    """Computes FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018) of translations and real images.

    Args:
        network: uint8 [N, 3, H, W] -> features [N, F]; or, where it `takes_any_channels`, float32 [N, C, H, W] in
            [-1, 1] of other images than those of three channels.
        name: what the network is called in labels.
        which: "fid", "kid" or both.
        known: features of the real images by direction, where an earlier pass over the same images left them; those of
            this pass are added.
        takes_any_channels: whether the network was made for images of other than three channels.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        which: Sequence[str],
        known: dict[str, Tensor] | None = None,
        *,
        takes_any_channels: bool = False,
    ) -> None:
        self.network, self.name, self.which = network, name, which
        self.takes_any_channels = takes_any_channels
        self.left_out: dict[Direction, PixelType] = {}
        self.known = {} if known is None else known
        self.fake: dict[str, list[Tensor]] = {}
        self.real: dict[str, list[Tensor]] = {}

    @classmethod
    def prepare(cls, setup: MetricSetup) -> Callable[[], Metric]:
        which = [name for name in ("fid", "kid") if name in setup.names]
        takes_any = setup.feature_source.endswith(PROGRAM_ENDING)
        if not takes_any and all(kind.channels != 3 for kind in setup.kinds):
            names, look = " and ".join(which), "looks" if len(which) == 1 else "look"
            raise UserError(
                f"{names} {look} at images of 3 channels, and {pixels_in_words(setup.kinds)}: {OWN_NETWORK}, or leave "
                f"{names} out of --metrics"
            )
        title = "Inception-v3" if setup.feature_source == INCEPTION else Path(setup.feature_source).name
        with waiting(f"loading {title}"):
            network = distance_network(setup.feature_source, setup.device)
        _check_enough_images(which, setup.tests, setup.count)
        known: dict[str, Tensor] = {}
        return partial(cls, network, title, which, known, takes_any_channels=takes_any)

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        _, target = kinds.of_direction(direction)
        takes = self.takes_any_channels or target.channels == 3
        return [f"features.{name}" for name in self.which] if takes else []

    @torch.no_grad()
    def add(self, batch: TranslatedBatch) -> None:
        if batch.target_kind.channels != 3 and not self.takes_any_channels:
            self.left_out[batch.direction] = batch.target_kind
            return
        self.fake.setdefault(batch.direction, []).append(self.features(batch.translation, batch.target_kind))

    @torch.no_grad()
    def add_real(self, direction: Direction, images: Tensor, kind: PixelType = RGB) -> None:
        if direction not in self.known and (kind.channels == 3 or self.takes_any_channels):
            self.real.setdefault(direction, []).append(self.features(images, kind))

    def features(self, samples: Tensor, kind: PixelType = RGB) -> Tensor:
        """Return the features of samples [N, C, H, W], float32 [N, F] on the host.

        Of samples of three channels that are not 8-bit RGB the network sees their range as 8 bits. Raises UserError
        where it takes or gives something else.
        """
        images = samples
        if not kind.is_rgb:
            images = signed(samples, kind)
            images = levels(images) if kind.channels == 3 else images
        dtype = str(images.dtype).removeprefix("torch.")
        try:
            found = self.network(images)
        except (AssertionError, RuntimeError) as error:  # for example a program that was exported for another shape
            raise UserError(f"{self.name} does not take {list(images.shape)} {dtype} images: {error}") from error
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{self.name} gives {shape} for {list(images.shape)} images instead of features [N, F]")
        return found.float().cpu()

    def scores(self) -> list[Score]:
        found = []
        self.known |= {direction: torch.cat(parts) for direction, parts in self.real.items()}
        for direction in self.fake.keys() & self.known.keys():
            real, fake = self.known[direction], torch.cat(self.fake[direction])
            text = f"features of {{translation}} against {{target}}, {self.name}, {len(fake)} and {len(real)} images"
            name = f"{direction}.features"
            found.append(Score(name, with_formulas(name, text), distances(real, fake, self.which)))
        return found

    def notes(self) -> list[str]:
        counts = [*(sum(map(len, parts)) for parts in self.fake.values()), *map(len, self.known.values())]
        size = next(iter(self.fake.values()))[0].size(1) if self.fake else 0
        notes = [
            f"{' and '.join(self.which)} of {direction} are left out: {self.name} takes images of 3 channels, and "
            f"these have {kind}; {OWN_NETWORK}"
            for direction, kind in self.left_out.items()
        ]
        if "fid" in self.which and counts:
            notes.append(
                f"FID of {min(counts)} images is biased upwards, and the more so the fewer there are (Chong & Forsyth "
                "2020): compare it only with FIDs of as many images; KID has no such bias"
            )
            if min(counts) <= size:
                notes.append(
                    f"{min(counts)} images are too few for FID, which takes the covariance of {size} features: see KID"
                )
        return notes


def _check_enough_images(which: Sequence[str], tests: TestSets, count: int) -> None:
    """Raise UserError where a domain has fewer than two test images, or only one of them is used."""
    sizes = [len(held.images) for held in (tests.A, tests.B) if held is not None]
    used = min(count, *sizes) if count and sizes else min(sizes, default=0)
    if len(sizes) < 2 or used < 2:
        raise UserError(
            f"{' and '.join(which)} compare translations with real images and need at least 2 test images "
            f"of each domain; {f'there is {used}' if len(sizes) == 2 else 'one domain has none'}: add some, or use "
            "more of them"
        )


def distances(real: Tensor, fake: Tensor, which: Sequence[str]) -> dict[str, float]:
    """Compute FID, KID or both of features [N, F] by torchmetrics; raises UserError for fewer than two of either.

    KID is the mean of the unbiased estimate over 100 random subsets of 1000, or of as many as the smaller set has, and
    its deviation over them; of two sets of one size below that there is one estimate, and no deviation.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    if min(len(real), len(fake)) < 2:
        raise UserError(f"FID and KID need at least 2 images of each kind, got {len(real)} real, {len(fake)} generated")
    found: dict[str, float] = {}
    given = _Given(real.size(1))
    if "fid" in which:
        fid = FrechetInceptionDistance(given).set_dtype(torch.float64)
        fid.update(real.double(), real=True)
        fid.update(fake.double(), real=False)
        found["fid"] = float(fid.compute())
    if "kid" in which:
        size = min(KID_SUBSET, len(real), len(fake))
        several = size < max(len(real), len(fake))
        # Training's own random numbers stay as they are. The warning is that features are kept: they are small.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")
            torch.manual_seed(0)
            kid = KernelInceptionDistance(given, subsets=100 if several else 1, subset_size=size)
            kid.update(real.double(), real=True)
            kid.update(fake.double(), real=False)
            mean, deviation = kid.compute()
        found["kid"] = float(mean)
        if several:
            found["kid_std"] = float(deviation)
    return found


class _Given(nn.Module):
    """Stands where torchmetrics expects a feature network: the features were computed already, once for FID and KID."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features
