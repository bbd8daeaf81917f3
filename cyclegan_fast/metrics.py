"""What can be measured of translated images, batch by batch: any number of metrics look at one pass over a test set.

metric          compares                                             values
reconstruction  G_B(G_A(A)) with A, and G_A(G_B(B)) with B           PSNR, SSIM, L1
truth           a translation with the true one, where it is known   PSNR, SSIM, L1; and what no translation gives
lookup          the best 3D colour table's result with the truth     PSNR, SSIM, L1
fid, kid        all translations with all real images of the domain  one distance for each direction
lpips           a translation with the truth, else a reconstruction  LPIPS
fcn             labels read out of translations with the true ones   accuracies, class IoU
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_fast import features, segmentation
from cyclegan_fast.cityscapes import Labels, nearest_labels
from cyclegan_fast.config import MetricName
from cyclegan_fast.domains import TestSets, label_maps
from cyclegan_fast.errors import UserError
from cyclegan_fast.pixels import Pixels, as_pixels, as_tensor
from cyclegan_fast.progress import waiting
from cyclegan_fast.score_table import Score
from cyclegan_fast.scores import ColourLookup, Similarity, concatenated, similarity
from cyclegan_fast.segmentation_scores import Counts, SegmentationScores, confusion_matrix
from cyclegan_fast.translator import Direction

FORMULAS = {
    "a2b": {"source": "A", "target": "B", "translation": "G_A(A)", "reconstruction": "G_B(G_A(A))"},
    "b2a": {"source": "B", "target": "A", "translation": "G_B(B)", "reconstruction": "G_A(G_B(B))"},
}
KID_SUBSET = 1000  # images in a subset, as Bińkowski et al. 2018
LOOKUP_BYTES = 2 << 30


@dataclass(frozen=True)
class View:
    """One batch of the test images of a domain, and what became of them; all uint8 [N, 3, H, W] on the device."""

    direction: Direction
    first: int
    """place of the first image in its test set"""
    source: Tensor
    translation: Tensor
    reconstruction: Tensor | None
    truth: Tensor | None


class Metric(Protocol):
    """Sees every batch of a pass once, and then says what it found."""

    sees_reconstructions: bool

    def add(self, view: View) -> None: ...

    def add_real(self, direction: Direction, images: Tensor) -> None:
        """Real images of the domain that `direction` translates to."""

    def scores(self) -> list[Score]: ...

    def notes(self) -> list[str]:
        """What a reader of the scores must know."""


class Quiet:
    """A metric without real images and without notes."""

    sees_reconstructions = False

    def add_real(self, direction: Direction, images: Tensor) -> None:
        pass

    def notes(self) -> list[str]:
        return []


class Comparison(Quiet):
    """PSNR, SSIM and L1 of images with others, by direction and kind, one image after another."""

    TEXTS: ClassVar[dict[str, str]]
    """what people read of each kind"""

    def __init__(self) -> None:
        self.parts: dict[str, list[Similarity]] = {}

    def compare(self, key: str, images: Tensor, others: Tensor) -> None:
        self.parts.setdefault(key, []).append(similarity(images, others))

    def of(self, key: str) -> Similarity | None:
        return concatenated(self.parts[key]) if key in self.parts else None

    def scores(self) -> list[Score]:
        return [
            Score(key, label(key, self.TEXTS[key.partition(".")[2]]), concatenated(parts).means())
            for key, parts in self.parts.items()
        ]


class Reconstruction(Comparison):
    sees_reconstructions = True
    TEXTS: ClassVar = {"reconstruction": "reconstructed, {reconstruction} against {source}"}

    def add(self, view: View) -> None:
        if view.reconstruction is not None:
            self.compare(f"{view.direction}.reconstruction", view.reconstruction, view.source)


class Truth(Comparison):
    TEXTS: ClassVar = {
        "truth": "translated, {translation} against the truth",
        "untranslated": "untranslated, {source} against the truth",
    }

    def add(self, view: View) -> None:
        if view.truth is not None:
            self.compare(f"{view.direction}.truth", view.translation, view.truth)
            self.compare(f"{view.direction}.untranslated", view.source, view.truth)


def label(key: str, text: str) -> str:
    return text.format(**FORMULAS[key.partition(".")[0]])


class Lookup(Quiet):
    """What a colour lookup reaches that was fitted with the truth: a translation must beat it to have seen more."""

    def __init__(self) -> None:
        self.pairs: dict[str, list[tuple[Pixels, Pixels]]] = {}
        self.lookups: dict[str, ColourLookup] = {}
        self.nbytes: dict[str, int] = {}
        self.cut: set[str] = set()

    def add(self, view: View) -> None:
        if view.truth is None:
            return
        way, used = view.direction, self.nbytes.get(view.direction, 0)
        if used > LOOKUP_BYTES:
            self.cut.add(way)
            return
        source, truth = as_pixels(view.source), as_pixels(view.truth)
        self.nbytes[way] = used + source.nbytes + truth.nbytes
        self.pairs.setdefault(way, []).append((source, truth))
        self.lookups.setdefault(way, ColourLookup()).add(source, truth)

    def scores(self) -> list[Score]:
        found = []
        for way, pairs in self.pairs.items():
            parts = [similarity(as_tensor(self.lookups[way](source)), as_tensor(truth)) for source, truth in pairs]
            text = f"best colour lookup of {FORMULAS[way]['source']} (32 levels), fitted with the truth"
            found.append(Score(f"{way}.lookup", text, concatenated(parts).means()))
        return found

    def notes(self) -> list[str]:
        return [
            f"{way}: the colour lookup is fitted to the first {LOOKUP_BYTES >> 30} GiB of images" for way in self.cut
        ]


class _Given(nn.Module):
    """Stands where torchmetrics expects a feature network: the features were computed already, once for all metrics."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features


class FeatureDistance:
    """FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018) between translations and real images, by torchmetrics.

    Args:
        network: uint8 [N, 3, H, W] -> features [N, F].
        name: what the network is called in labels.
        which: "fid", "kid" or both.
        known: features of the real images by direction, where an earlier pass over the same images left them.
    """

    sees_reconstructions = False

    def __init__(
        self, network: nn.Module, name: str, which: Sequence[str], known: dict[str, Tensor] | None = None
    ) -> None:
        self.network, self.name, self.which = network, name, which
        self.known = {} if known is None else known
        self.fake: dict[str, list[Tensor]] = {}
        self.real: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, view: View) -> None:
        self.fake.setdefault(view.direction, []).append(self.features(view.translation))

    @torch.no_grad()
    def add_real(self, direction: Direction, images: Tensor) -> None:
        if direction not in self.known:
            self.real.setdefault(direction, []).append(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, F] on the host; raises UserError where the network takes or gives something else."""
        try:
            found = self.network(images)
        except (AssertionError, RuntimeError) as error:  # of a program that was exported for another shape, for one
            raise UserError(f"{self.name} does not take {list(images.shape)} uint8 images: {error}") from error
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
            found.append(Score(name, label(name, text), distances(real, fake, self.which)))
        return found

    def notes(self) -> list[str]:
        counts = [*(sum(map(len, parts)) for parts in self.fake.values()), *map(len, self.known.values())]
        size = next(iter(self.fake.values()))[0].size(1) if self.fake else 0
        notes = []
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


def distances(real: Tensor, fake: Tensor, which: Sequence[str]) -> dict[str, float]:
    """FID and KID of features [N, F]; raises UserError for fewer than two of either.

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


class Lpips(Quiet):
    """Zhang et al. 2018 with AlexNet, against the truth where it is known and of reconstructions elsewhere.

    Args:
        network: a metric of torchmetrics that sums over images.
    """

    sees_reconstructions = True

    def __init__(self, network: Any) -> None:
        self.network = network
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, view: View) -> None:
        if view.truth is not None:
            kind, images, against = "truth", view.translation, view.truth
        elif view.reconstruction is not None:
            kind, images, against = "reconstruction", view.reconstruction, view.source
        else:
            return
        self.network.reset()
        self.network.update(images.float() / 127.5 - 1, against.float() / 127.5 - 1)
        total, count = self.sums.get(f"{view.direction}.{kind}", (0.0, 0))
        self.sums[f"{view.direction}.{kind}"] = (total + float(self.network.compute()), count + len(images))

    def scores(self) -> list[Score]:
        texts = {
            "truth": "{translation} against the truth, AlexNet",
            "reconstruction": "{reconstruction} against {source}, AlexNet",
        }
        return [
            Score(key, label(key, texts[key.partition(".")[2]]), {"lpips": total / count})
            for key, (total, count) in self.sums.items()
        ]


class FcnScore(Quiet):
    """Section 5.1.1 of the paper, for photographs A and label maps B.

    G_B(B), photographs made from label maps, are read by a segmentation network; G_A(A), label maps made from
    photographs, by the nearest colour of the palette. Both are compared with the true labels of that view.

    Args:
        labels: [N, H, W] train ids of the test images by domain: of "B", and of "A" where its views' labels are known.
    """

    def __init__(self, network: segmentation.SegmentationNetwork, labels: dict[str, Labels]) -> None:
        self.network, self.labels = network, labels
        self.matrices: dict[str, Counts] = {}

    def add(self, view: View) -> None:
        source = FORMULAS[view.direction]["source"]
        if source not in self.labels:
            return
        truth = self.labels[source][view.first : view.first + len(view.source)]
        if view.direction == "b2a":
            found = segmentation.read_out(self.network, view.translation).cpu().numpy()
        else:
            found = nearest_labels(as_pixels(view.translation))
        matrix = confusion_matrix(truth, found)
        self.matrices[view.direction] = self.matrices.get(view.direction, 0) + matrix

    def scores(self) -> list[Score]:
        texts = {
            "b2a.fcn": "labels -> photo, read by the segmentation network",
            "a2b.fcn": "photo -> labels, read by the nearest colour",
        }
        return [
            Score(f"{direction}.fcn", texts[f"{direction}.fcn"], SegmentationScores(matrix).means())
            for direction, matrix in self.matrices.items()
        ]


class RealPhotographs:
    """What the network of the FCN score reads in the real photographs: "real" against their own labels, and "shuffled"
    against those of other views.

    Args:
        labels: [N, H, W] train ids of the photographs that a pass shows.
    """

    sees_reconstructions = False

    def __init__(self, network: segmentation.SegmentationNetwork, labels: Labels) -> None:
        self.network = network
        self.labels = {"real": labels} | ({"shuffled": np.roll(labels, 1, axis=0)} if len(labels) > 1 else {})
        self.matrices: dict[str, Counts] = {}
        self.seen = 0

    def add(self, view: View) -> None:
        pass

    def add_real(self, direction: Direction, images: Tensor) -> None:
        if direction != "b2a":  # which makes photographs
            return
        found = segmentation.read_out(self.network, images).cpu().numpy()
        for key, labels in self.labels.items():
            matrix = confusion_matrix(labels[self.seen : self.seen + len(images)], found)
            self.matrices[key] = self.matrices.get(key, 0) + matrix
        self.seen += len(images)

    def scores(self) -> list[Score]:
        return []

    def notes(self) -> list[str]:
        return []


class MetricMaker:
    """Loads what metrics need, once, and makes them, anew for every pass over the same test images.

    Args:
        names: which; each may be given once.
        tests: the test images.
        size: side of the square that they are resized to.
        count: how many of each domain are used, the first ones; 0 for all.
        feature_source: see `features.feature_network`.
        segmentation_file: the network of the metric fcn.

    Raises UserError where a metric needs what is not there: a library, weights, images, labels.
    """

    def __init__(
        self,
        names: Sequence[MetricName],
        device: torch.device,
        tests: TestSets,
        *,
        size: int,
        count: int = 0,
        feature_source: str = features.INCEPTION,
        segmentation_file: Path | None = None,
    ) -> None:
        self.names, self.tests = names, tests
        self.distances = [name for name in ("fid", "kid") if name in names]
        self.network: nn.Module | None = None
        self.title = "Inception-v3" if feature_source == features.INCEPTION else Path(feature_source).name
        self.real_features: dict[str, Tensor] = {}
        if self.distances:
            with waiting(f"loading {self.title}"):
                self.network = features.distance_network(feature_source, device)
            self._check_enough(count)
        self.lpips: nn.Module | None = None
        if "lpips" in names:
            with waiting("loading AlexNet"):
                self.lpips = features.lpips_network(device)
        self.judge: segmentation.SegmentationNetwork | None = None
        self.labels: dict[str, Labels] = {}
        if "fcn" in names:
            if segmentation_file is None:
                raise UserError(
                    "the metric fcn needs a network that reads labels: give --segmentation FILE, which "
                    "`python -m cyclegan_fast.evaluate fcn` trains"
                )
            self.judge = segmentation.load_segmentation(segmentation_file)[0].to(device)
            self.labels = label_maps(tests, size)

    def _check_enough(self, count: int) -> None:
        sizes = [len(held.images) for held in (self.tests.A, self.tests.B) if held is not None]
        used = min(count, *sizes) if count and sizes else min(sizes, default=0)
        if len(sizes) < 2 or used < 2:
            raise UserError(
                f"{' and '.join(self.distances)} compare translations with real images and need at least 2 test images "
                f"of each domain; {f'there is {used}' if len(sizes) == 2 else 'one domain has none'}: add some, or use "
                "more of them"
            )

    def names_of_values(self) -> list[str]:
        """What a pass with both generators gives, such as "a2b.truth.ssim"."""
        compared, labels = ("psnr_db", "ssim", "l1"), ("per_pixel", "per_class", "class_iou")
        found: list[str] = []
        for way, held in (("a2b", self.tests.A), ("b2a", self.tests.B)):
            if held is None:
                continue
            known = held.truth is not None
            given = {
                "truth": compared if "truth" in self.names and known else (),
                "untranslated": compared if "truth" in self.names and known else (),
                "lookup": compared if "lookup" in self.names and known else (),
                "reconstruction": compared if "reconstruction" in self.names else (),
                "features": tuple(self.distances),
                "fcn": labels if FORMULAS[way]["source"] in self.labels else (),
            }
            found += [f"{way}.{kind}.{value}" for kind, values in given.items() for value in values]
            found += [f"{way}.{'truth' if known else 'reconstruction'}.lpips"] if self.lpips is not None else []
        return found

    def __call__(self) -> list[Metric]:
        simple: dict[str, type[Truth | Lookup | Reconstruction]] = {
            "truth": Truth,
            "lookup": Lookup,
            "reconstruction": Reconstruction,
        }
        made: list[Metric] = [kind() for name, kind in simple.items() if name in self.names]
        if self.network is not None:
            made.append(FeatureDistance(self.network, self.title, self.distances, self.real_features))
        if self.lpips is not None:
            made.append(Lpips(self.lpips))
        if self.judge is not None:
            made.append(FcnScore(self.judge, self.labels))
        return made
