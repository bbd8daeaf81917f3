"""Training copies, chooses and explains on a GPU as it should: a GPU is imitated where none is at hand."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast import evaluate, train, translate
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.kernels import launching, triton_language
from cyclegan_fast.system.device import choose_device, ready_to_copy, remark_on_choice, set_determinism
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.trouble import told_of_training
from cyclegan_fast.training.update.decisions import Decisions
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.training.test_train import interrupt_at

GPU = torch.device("cuda")


@pytest.fixture
def cudnn_as_it_was() -> Iterator[None]:
    timing = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = timing


# --- copies --------------------------------------------------------------------------------------------------------


class Copies:
    """Stands in for copies to a GPU: remembers which tensors were pinned, and what was copied from where."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pinned: list[Tensor] = []
        self.copied: list[tuple[Tensor, dict[str, Any]]] = []
        patch.setattr(Tensor, "is_pinned", lambda tensor: self.is_pinned(tensor))
        patch.setattr(Tensor, "pin_memory", lambda tensor: self._pin(tensor))
        patch.setattr(Tensor, "to", lambda tensor, device, **options: self._copy(tensor, device, options))

    def is_pinned(self, tensor: Tensor) -> bool:
        return any(tensor is other for other in self.pinned)

    def _pin(self, tensor: Tensor) -> Tensor:
        self.pinned.append(tensor.clone())
        return self.pinned[-1]

    def _copy(self, tensor: Tensor, device: torch.device, options: dict[str, Any]) -> Tensor:
        assert device == GPU
        self.copied.append((tensor, options))
        return tensor


def test_what_the_host_draws_for_a_step_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    drawn = Decisions(torch.tensor([[3], [1]]), torch.tensor([[2], [0]]), torch.rand(2, 1, 1, 1, 1), torch.randn(1, 4))
    on_gpu = drawn.to(GPU)
    assert len(copies.copied) == 4
    for tensor, options in copies.copied:
        assert copies.is_pinned(tensor)
        assert options == {"non_blocking": True}
    for name, tensor in on_gpu.tensors().items():
        assert torch.equal(tensor, drawn.tensors()[name]), name


def test_what_is_pinned_already_is_not_copied_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(monkeypatch)
    values = ready_to_copy(torch.ones(2), GPU)
    assert ready_to_copy(values, GPU) is values
    assert len(copies.pinned) == 1


def test_on_a_cpu_nothing_is_pinned() -> None:
    values = torch.ones(2)
    assert ready_to_copy(values, torch.device("cpu")) is values


# --- cuDNN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "sizes_repeat", "timed"), [(False, True, True), (False, False, False), (True, True, False)]
)
@pytest.mark.usefixtures("cudnn_as_it_was")
def test_cudnn_times_its_algorithms_for_sizes_that_repeat(wanted: bool, sizes_repeat: bool, timed: bool) -> None:
    set_determinism(wanted, sizes_repeat=sizes_repeat)
    assert torch.backends.cudnn.benchmark is timed
    set_determinism(False)


@pytest.mark.parametrize(("preprocess", "timed"), [("none", False), ("scale_width", False), ("crop", True)])
@pytest.mark.usefixtures("cudnn_as_it_was")
def test_a_training_lets_cudnn_time_where_all_images_are_cut_to_one_size(
    preprocess: str, timed: bool, folder: Path, tmp_path: Path
) -> None:
    flags = ["--data", str(folder), "--runs", str(tmp_path), "--name", "x", "--max-steps", "1", "--workers", "0"]
    assert train.main([*flags, *TINY, "--preprocess", preprocess, "--evaluate-images", "1"]) == 0
    assert torch.backends.cudnn.benchmark is timed


# --- what is said --------------------------------------------------------------------------------------------------


def flags_of(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    flags = ["--data", str(folder), "--runs", str(tmp_path), "--name", "x", "--workers", "0", "--evaluate-images", "1"]
    return [*flags, *TINY, "--sample-every", "1000", *more]


class Refusing:
    """Raises where a kernel is launched."""

    def __init__(self, kernel: Any, error: Exception) -> None:
        self.__name__ = kernel.__name__
        self.error = error

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, **arguments: Any) -> None:
        raise self.error


def refusing(error: Exception) -> AbstractContextManager[None]:
    """Have every launch of a fused kernel raise `error`, as Triton would."""

    def launcher(kernel: Any, grid: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        launching.launch_kernel(Refusing(kernel, error), grid, arguments, options)

    return launching.launching_with(launcher)


needs_interpreter = pytest.mark.skipif(not triton_language.INTERPRETED, reason="kernels of CPU tensors need it")
NO_COMPILER = "Failed to find C compiler. Please specify via CC environment variable."


@needs_interpreter
def test_a_kernel_that_does_not_run_ends_a_training_with_one_sentence_and_the_reference_goes_on(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = flags_of(folder, tmp_path, "--max-steps", "4", "--checkpoint-every", "2")
    with refusing(RuntimeError(NO_COMPILER)):
        assert train.main([*flags, "--impl", "triton"]) == 2
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        r"error: the fused kernel \w+ does not run on the cpu with Triton [\d.]+: Failed to find C compiler\. .*"
        r"gcc.*; the same command with --impl reference goes on with PyTorch's own operators; nothing was saved",
        line,
    )
    assert "Traceback" not in said
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(3, patch)
        assert train.main([*flags, "--impl", "reference"]) == 130
    with refusing(RuntimeError(NO_COMPILER)):
        assert train.main([*flags, "--impl", "triton"]) == 2
    assert capfd.readouterr().err.rstrip().endswith("; the checkpoint of step 3 is kept")
    assert train.main([*flags, "--impl", "reference"]) == 0


@needs_interpreter
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"),
            "cpu reported 'CUDA error: an illegal memory access was encountered', which it may do long after the cause",
        ),
        (RuntimeError("Triton Error [CUDA]: misaligned address"), "cpu reported 'Triton Error [CUDA]: misaligned addr"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "the memory of cpu does not suffice: "),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "the memory of cpu does not suffice: "),
    ],
)
def test_what_ends_a_training_on_a_gpu_is_said_in_one_line(
    error: Exception, said: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with refusing(error):
        assert train.main(flags_of(folder, tmp_path, "--max-steps", "1", "--impl", "triton")) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert lines[-1].startswith(f"error: {said}")
    assert lines[-1].endswith("; nothing was saved")


def test_any_other_error_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="of nobody's doing"), told_of_training(Config(), GPU, lambda: None):
        raise RuntimeError("an error of nobody's doing")


def test_memory_that_lacks_before_the_first_step_is_told_as_well(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Happens, for one, where the weights do not fit."""

    def too_large(*arguments: Any, **options: Any) -> TrainingStep:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 200.00 GiB")

    monkeypatch.setattr("cyclegan_fast.training.state.TrainingStep", too_large)
    assert train.main(flags_of(folder, tmp_path, "--max-steps", "1")) == 2
    assert "the memory of cpu does not suffice: " in capfd.readouterr().err


SMALL = DataConfig(load_size=32, crop_size=24)
MEMORY = {
    "as it is": (
        Config(),
        "the same command needs less with --checkpoint-blocks, --cuda-graph off (a graph keeps its memory to itself) "
        "or --streams 1, another run (--name NEW) with --amp or a lower --crop-size",
    ),
    "nearly everything is given": (
        Config(
            data=DataConfig(batch_size=6),
            networks=NetworkConfig(checkpoint_blocks=True),
            optimizer=OptimizerConfig(accumulate=2),
            run=RunConfig(amp=True, cuda_graph="off"),
        ),
        "the same command needs less with --accumulate 3, another run (--name NEW) with a lower --batch-size or a "
        "lower --crop-size",
    ),
    "both directions as one": (
        Config(networks=NetworkConfig(checkpoint_blocks=True), run=RunConfig(amp=True, cuda_graph="off", paired=True)),
        "the same command needs less with --no-paired, another run (--name NEW) with a lower --crop-size",
    ),
    "no graph, since images differ": (
        Config(data=DataConfig(preprocess="scale_width")),
        "the same command needs less with --checkpoint-blocks, another run (--name NEW) with --amp or a lower "
        "--load-size",
    ),
    "a U-Net with batch norm": (
        Config(
            data=DataConfig(batch_size=4),
            networks=NetworkConfig(generator="unet_256", norm="batch"),
            run=RunConfig(amp=True),
        ),
        "the same command needs less with --cuda-graph off (a graph keeps its memory to itself), another run "
        "(--name NEW) with a lower --batch-size or a lower --crop-size",
    ),
    "nothing is left": (
        Config(data=SMALL, networks=NetworkConfig(checkpoint_blocks=True), run=RunConfig(amp=True, cuda_graph="off")),
        "train on smaller images",
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_where_memory_lacks_only_flags_are_named_that_are_not_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, ways = MEMORY[name]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(UserError) as caught, told_of_training(config, GPU, lambda: 20):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert str(caught.value) == f"the memory of cuda does not suffice: {ways}; the checkpoint of step 20 is kept"


def test_a_pytorch_without_code_for_the_gpu_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not advise the reference operators, which would not run either."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    with pytest.raises(UserError) as caught, told_of_training(Config(), GPU, lambda: None):
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nand so on")
    assert str(caught.value) == (
        f"PyTorch {torch.__version__} has no code for NVIDIA GeForce GTX 1080 (sm_61), but for sm_80, sm_90: install a "
        "build that has, or use --device cpu; nothing was saved"
    )


@needs_interpreter
def test_commands_that_translate_name_the_environment_variable(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main(flags_of(folder, tmp_path, "--max-steps", "1", "--impl", "reference")) == 0
    run = str(tmp_path / "x")
    monkeypatch.setenv("CYCLEGAN_FAST_IMPL", "triton")
    commands = [
        lambda: translate.main([str(folder / "testA"), "--checkpoint", run, "--out", str(tmp_path / "out")]),
        lambda: evaluate.main(["--checkpoint", run, "--images", "1"]),
    ]
    for command in commands:
        capfd.readouterr()
        with refusing(RuntimeError(NO_COMPILER)):
            assert command() == 2
        last = capfd.readouterr().err.rstrip().splitlines()[-1]
        assert last.startswith("error: the fused kernel ")
        assert last.endswith(
            "; the same command with CYCLEGAN_FAST_IMPL=reference in its environment goes on with PyTorch's own "
            "operators"
        )


# --- the driver ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update it.\nMore."),
            "The NVIDIA driver on your system is too old (found version 11040). Please update it",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "Torch not compiled with CUDA enabled"),
        (None, "it does not say why"),
    ],
)
def test_why_pytorch_sees_no_gpu_is_passed_on(
    raised: Exception | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        if raised:
            raise raised

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(UserError) as caught:
        choose_device("cuda")
    assert str(caught.value) == (
        f"--device cuda: PyTorch {torch.__version__} sees no CUDA device here ({reason}); use --device cpu"
    )


def test_a_build_for_cuda_that_computes_on_the_cpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", no_driver)
    said = remark_on_choice("auto", torch.device("cpu"))
    assert said is not None
    assert said.endswith("is built for CUDA 13.0 and sees no such device (Found no NVIDIA driver on your system)")
    assert remark_on_choice("cpu", torch.device("cpu")) is None
    assert remark_on_choice("auto", GPU) is None
    monkeypatch.setattr(torch.version, "cuda", None)
    assert remark_on_choice("auto", torch.device("cpu")) is None
