"""Memory does not grow with the number of image sizes, whatever computes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.system.device import has_bfloat16
from export.graphs.graph import serialised
from export.to_onnx import float32_graph
from tests.cyclegan_fast.translations import make_generator

ROOT = Path(__file__).parents[2]
SET_BY_COMMANDS = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")
MOST_MIB = 40
SIZES = 300

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="the processor has no bfloat16")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Writes one generator as a file of weights and as a graph, by their endings."""
    folder, network = tmp_path_factory.mktemp("generator"), make_generator(0)
    paths = {"pth": folder / "latest_net_G.pth", "onnx": folder / "graph.onnx"}
    torch.save(to_original(network.state_dict()), paths["pth"])
    paths["onnx"].write_bytes(serialised(float32_graph(network)))
    return paths


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process's memory so")
@pytest.mark.parametrize(
    ("kind", "sides", "flags"),
    [
        ("pth", "40-200", ""),  # what PyTorch's layers and the heap keep depends on the size
        pytest.param("pth", "40-200", "--amp", marks=needs_bfloat16),
        ("pth", "8-96", "--tile"),
        ("onnx", "8-96", "--backend openvino"),
        pytest.param("onnx", "8-96", "--backend openvino --amp", marks=needs_bfloat16),
        ("onnx", "8-96", "--backend onnxruntime"),
    ],
)
def test_memory_after_300_sizes_is_that_after_100(files: dict[str, Path], kind: str, sides: str, flags: str) -> None:
    """It was 50 to 60 MiB more with PyTorch, and 150 with OpenVINO, when their caches were as large as they come."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_COMMANDS}
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.export.memory_over_sizes",
            files[kind],
            sides,
            str(SIZES),
            *flags.split(),
        ],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    after_100, after_all = (float(mib) for mib in re.findall(r"^(?:100|300) sizes: ([\d.]+) MiB$", said, re.MULTILINE))
    assert after_all - after_100 < MOST_MIB
