"""Gives tests of translation a small generator, and a file of its weights."""

from pathlib import Path

import pytest
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.networks.resnet import ResnetGenerator


@pytest.fixture(scope="session")
def network() -> ResnetGenerator:
    from tests.cyclegan_fast.translations import make_generator  # a GPU's image may lack what translating imports

    return make_generator(0)


@pytest.fixture
def weights(tmp_path: Path, network: ResnetGenerator) -> Path:
    """Writes the network's weights as the original implementation does."""
    path = tmp_path / "latest_net_G.pth"
    torch.save(to_original(network.state_dict()), path)
    return path
