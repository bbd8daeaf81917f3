"""Loads the networks whose features FID and KID compare, and says where to get their weights.

distances.py has the distances themselves, lpips.py the network of LPIPS.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.system.errors import UserError

INCEPTION = "inception"
PROGRAM_ENDING = ".pt2"  # of a program of torch.export.save
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_WEIGHTS}"


class SegmentationFeatures(nn.Module):
    """Gives the coarsest activation of a segmentation network, averaged over the picture: [N, 8 * width]."""

    def __init__(self, network: segmentation.SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        coarsest: Tensor = self.network.features(images)[-1]
        return coarsest.mean(dim=(2, 3))


def distance_network(given: str, device: torch.device) -> nn.Module:
    """Load a network that takes uint8 [N, 3, H, W] and gives features [N, F]; a program may take other images.

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
    if path.suffix == PROGRAM_ENDING:
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
