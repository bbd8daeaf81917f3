from pathlib import Path

import pytest
import torch

from cyclegan_fast import train
from cyclegan_fast.checkpoint import to_original
from cyclegan_fast.networks import ResnetGenerator


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the embedded photographs, stopped when its pictures are those of a trained network, not noise."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = ["--max-steps", "30", "--ngf", "16", "--ndf", "8", "--device", "cpu", "--runs", str(runs)]
    assert train.main([*arguments, "--name", "demo"]) == 0
    return runs / "demo"


@pytest.fixture(scope="session")
def random_generator() -> ResnetGenerator:
    torch.manual_seed(0)
    network = ResnetGenerator(width=8, blocks=9).eval()
    torch.nn.init.uniform_(network.get_parameter("head.bias"), -0.3, 0.3)  # zero at first, and not after training
    return network


@pytest.fixture
def weights(tmp_path: Path, random_generator: ResnetGenerator) -> Path:
    """A generator of the original implementation."""
    path = tmp_path / "latest_net_G.pth"
    torch.save(to_original(random_generator.state_dict()), path)
    return path
