"""Networks whose features FID, KID and LPIPS compare, and where to get their weights."""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from cyclegan_fast.conventions import Direction
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.view import Quiet, View, label
from cyclegan_fast.system.errors import UserError

KID_SUBSET = 1000  # images in a subset, as Bińkowski et al. 2018


INCEPTION = "inception"
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_WEIGHTS}"


class SegmentationFeatures(nn.Module):
    """The coarsest activation of a segmentation network, averaged over the picture: [N, 8 * width]."""

    def __init__(self, network: segmentation.SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        coarsest: Tensor = self.network.features(images)[-1]
        return coarsest.mean(dim=(2, 3))


def distance_network(given: str, device: torch.device) -> nn.Module:
    """A function of uint8 [N, 3, H, W] to features [N, F].

    Args:
        given: "inception", the 2048 features after the last pooling of the Inception-v3 that FID is defined with
            (Heusel et al. 2017), by torch-fidelity; or a file: a segmentation network of `evaluate fcn`, or a program
            of `torch.export.save` (.pt2; one may come from anywhere, so load only what you trust).

    Raises UserError where a library or a file is missing, saying where to get it and where to put it.
    """
    if given == INCEPTION:
        return _inception().to(device).eval()
    path = Path(given)
    if not path.is_file():
        raise UserError(f"--features {given}: no such file; give {INCEPTION}, a segmentation network, or a .pt2 file")
    if path.suffix == ".pt2":
        try:
            return move_to_device_pass(torch.export.load(path), device).module()  # it has no eval(), nor needs it
        except Exception as error:  # its reader raises whatever a damaged archive trips over
            raise UserError(f"--features {given}: not a program of torch.export.save: {error}") from error
    network, _ = segmentation.load_segmentation(path)
    return SegmentationFeatures(network).to(device).eval()


def _inception() -> nn.Module:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    weights = folder / INCEPTION_WEIGHTS
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network: nn.Module = NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["2048"],
            feature_extractor_weights_path=str(weights) if weights.is_file() else None,
        )
    except ImportError as error:
        raise UserError(
            f"the Inception network of FID and KID needs torch-fidelity, which is not usable here ({error}): "
            "pip install torch-fidelity, or give another network with --features FILE"
        ) from error
    except OSError as error:  # URLError among them: no network, or no room
        raise UserError(
            f"the weights of the Inception network could not be fetched ({error}): put {INCEPTION_URL} into {folder}, "
            "or give another network with --features FILE"
        ) from error
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"the Inception network cannot be used ({error}): where {weights} is damaged, delete it to have it fetched "
            "anew; else give another network with --features FILE"
        ) from error
    return network


def lpips_network(device: torch.device) -> nn.Module:
    """LPIPS with AlexNet (Zhang et al. 2018) by torchmetrics, summed over images; raises UserError without it."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network: nn.Module = LearnedPerceptualImagePatchSimilarity(net_type="alex", reduction="sum")
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"LPIPS cannot be had here ({error}): pip install torchvision for this build of torch, see that "
            "AlexNet's weights are whole, or leave lpips out"
        ) from error
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"the weights of LPIPS's AlexNet could not be fetched ({error}): put torchvision's "
            f"alexnet-owt-7be5be79.pth into {folder}, or leave lpips out"
        ) from error
    return network.to(device)


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
