"""`python -m pytest -m gpu` on the image of a rented GPU: PyTorch, Triton, pytest and little else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_COMMANDS_AND_TESTS = (
    "tyro torchmetrics yaml tensorboard hypothesis pytest_benchmark xdist jsonschema onnxscript openvino"
)
OF_DATA_TOO = f"{OF_COMMANDS_AND_TESTS} tqdm safetensors scipy psutil"
KERNELS = [
    "tests/kernels/test_gpu.py::test_a_captured_graph_replays_the_block_forward_and_backward",
    "tests/bench/measure/test_timing.py::test_a_recorded_copy_moves_what_a_launched_one_does",
]
STEPS = [
    "tests/test_gpu_step.py::test_replayed_steps_have_the_bits_of_eager_ones[as it is-dtype0]",
    "tests/cyclegan_fast/translation/test_strips_on_a_gpu.py::test_strips_on_a_gpu[dtype0-0.001]",
]


def collected(missing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.without_packages", "-p", "no:cacheprovider"]
    # Else pytest imports plugins that are installed here, before they can seem not to be.
    environment = os.environ | {"WITHOUT_PACKAGES": missing, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command += ["--collect-only", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "found"),
    [(OF_COMMANDS_AND_TESTS, KERNELS + STEPS), (OF_DATA_TOO, KERNELS)],
    ids=["commands and tests", "data too"],
)
def test_the_gpu_tests_are_found_where_other_tests_lack_their_packages(missing: str, found: list[str]) -> None:
    ended = collected(missing, "-m", "gpu")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    lines = ended.stdout.splitlines()
    assert [name for name in found if name not in lines] == []
    (said,) = [line for line in lines if line.startswith("files that import")]
    assert "tyro" in said
    assert said.endswith("were left out; pip install -e '.[dev]' brings them")


def test_without_asking_for_the_gpu_tests_a_missing_package_is_an_error() -> None:
    ended = collected("tyro", "tests/cyclegan_fast/config/test_config.py")
    assert ended.returncode != 0
    assert "ModuleNotFoundError: No module named 'tyro'" in ended.stdout
