"""Orders and divides the tests, sums up what the kernels' tests measured, and makes once what takes long to make."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

# Tests compute on tiny tensors, where a second thread only costs; it is set before torch starts its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

OURS = ("bench", "cyclegan_fast", "export", "kernels", "tests")
NOT_INSTALLED = pytest.StashKey[set[str]]()

LONGEST_FIRST = (
    "cyclegan_fast/system/test_distributed.py",
    "cyclegan_fast/training/health/test_rollback.py",
    "faults/test_campaigns_of_trainings.py",
    "faults/test_campaigns.py",
    "cyclegan_fast/training/history/test_other_ranks.py",
    "kernels/prepare/test_prepare.py",
    "kernels/test_aot.py",
    "cyclegan_fast/training/test_train.py",
    "bench/test_pytest_bench.py",
    "export/test_trt.py",
    "export/test_to_onnx.py",
    "export/formats/test_formats.py",
    "export/test_memory_over_sizes.py",
    "cyclegan_fast/methods/test_methods.py",
    "cyclegan_fast/training/test_cuda_graph.py",
    "bench/tuning/test_tune.py",
    "cyclegan_fast/training/test_step.py",
    "kernels/test_networks_on_triton.py",
    "kernels/test_properties.py",
    "bench/new_gpu/test_parallel_tests.py",
    "bench/new_gpu/test_gpu_command.py",
    "cyclegan_fast/system/test_interruption.py",
    "test_bare_image.py",
    "test_documentation.py",
    "kernels/checking/test_ahead.py",
    "kernels/test_accuracy.py",
    "kernels/test_pending_sum.py",
    "kernels/test_registration.py",
    "cyclegan_fast/datasets/test_street_scenes.py",
    "cyclegan_fast/study/test_perceptual_study.py",
    "export/graphs/test_quantisation.py",
    "bench/test_step.py",
)
"""Files whose tests take longest, the slow ones too: begun at the end, one would leave the other process of two without
work."""

# Without a GPU the Triton kernels run in Triton's interpreter, which decides when a kernel is decorated.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


class FileOfABareImage(pytest.Module):
    """Collects a test file, which is left out where a package that it imports isn't installed.

    A rented GPU's image has PyTorch and little else, and no test of the kernels is to wait for a package that only the
    tests of data sets need.
    """

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            if not isinstance(cause, ModuleNotFoundError) or cause.name is None or cause.name.split(".")[0] in OURS:
                raise
            self.config.stash[NOT_INSTALLED].add(cause.name)
            pytest.skip(f"imports {cause.name}, which is not installed", allow_module_level=True)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOT_INSTALLED] = set()
    if hasattr(config.option, "loadscopereorder"):
        # pytest-xdist would begin with the files of the most tests, which are not those that take longest.
        config.option.loadscopereorder = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", metavar="K/N", help="of the chosen tests, run the K-th of N shares, counted from 0")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if share := config.getoption("--share"):
        which, count = (int(number) for number in share.split("/"))
        ours: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            (ours if crc32(item.nodeid.encode()) % count == which else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = ours
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave files out with `-m gpu` alone, because elsewhere a missing package is a mistake."""
    if parent.config.getoption("markexpr") != "gpu":
        return None
    module: pytest.Module = FileOfABareImage.from_parent(parent, path=module_path)
    return module


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under pytest-xdist, hand what this worker measured to the process that sums up."""
    from tests.kernels import accuracy

    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["accuracy"] = accuracy.as_numbers()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from tests.kernels import accuracy

    accuracy.add_numbers(getattr(node, "workeroutput", {}).get("accuracy", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    from tests.kernels import accuracy

    for line in accuracy.summary():
        terminalreporter.write_line(line)
    if missing := config.stash[NOT_INSTALLED]:
        terminalreporter.write_line(
            f"files that import {', '.join(sorted(missing))} were left out; pip install -e '.[dev]' brings them"
        )


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Computes on one thread: small networks only wait for further ones, for seconds where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
"""Makes a folder of that name by calling the function with it, where no test of this run has made it; returns it"""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Makes folders that all tests may read and none may write to, once in all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait for the process that makes it
            folder, is_whole = base / name, base / f"{name}.whole"
            if not is_whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                is_whole.touch()
        return folder

    return made
