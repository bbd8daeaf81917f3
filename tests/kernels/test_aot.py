"""Every kernel compiles for every architecture within the limits, and what is compiled is what the networks launch."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cyclegan_fast.kernels import aot, triton_language
from cyclegan_fast.kernels.gpus import GPUS

COMPILING = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

# These read images of 3 channels, or single elements; their loads have no width to hold.
ELEMENTWISE = {
    "adam_moments_and_weights",
    "mean_error_sums",
    "mean_error_backward",
    "column_sums",
    "bias_activation_forward",
    "bias_activation_backward",
    "signed_windows_cut",
    "image_exchange_both_ways",
}
KERNELS = {
    "reflection_pad_forward",
    "reflection_pad_backward",
    "instance_norm_statistics",
    "instance_norm_apply",
    "instance_norm_on_chip",
    "instance_norm_backward_sums",
    "instance_norm_backward_apply",
    "instance_norm_backward_on_chip",
    "conv2d_3x3",
    "conv2d_3x3_edge_gradients",
    "thin_convolution",
    "thin_weight_gradient",
    "thin_weight_gradient_sum",
    *ELEMENTWISE,
}
MULTIPLYING = {"conv2d_3x3", "conv2d_3x3_edge_gradients", "thin_convolution", "thin_weight_gradient"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], env=COMPILING, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_kernel_compiles_for_every_architecture_without_spills_and_within_the_limits() -> None:
    result = run("kernels.aot")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 break a limit" in result.stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line][2:]
    assert {(row[0], int(row[1])) for row in rows} == {(kernel, sm) for kernel in KERNELS for sm in GPUS}
    for kernel, sm, _, _, spilled, _, loads, stores, tensor_cores in rows:
        assert spilled == "0"
        if kernel not in ("reflection_pad_forward", "reflection_pad_backward", *ELEMENTWISE):
            assert loads == "128"
        if kernel in ("instance_norm_apply", "instance_norm_on_chip", "instance_norm_backward_apply", "conv2d_3x3"):
            assert stores == "128"
        assert (kernel in MULTIPLYING) == bool(tensor_cores), (kernel, sm)


@pytest.mark.slow
def test_kernels_of_images_of_other_channels_compile_within_the_limits() -> None:
    result = run("kernels.aot", "--channels", "6", "--sm", "90", "--verbose")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 break a limit" in result.stdout
    for kernel in MULTIPLYING - {"conv2d_3x3", "conv2d_3x3_edge_gradients"}:
        assert f"sm_90 {kernel} bf16" in result.stdout
    for samples in ("u8", "u16", "i16", "fp32"):
        assert f"sm_90 signed_windows_cut {samples}" in result.stdout


@pytest.mark.slow
def test_what_the_networks_launch_is_in_the_list_that_is_compiled() -> None:
    result = run("tests.kernels.record_networks")
    assert result.returncode == 0, result.stdout + result.stderr


def report(**changes: object) -> aot.CompilerReport:
    what = aot.Specialisation(
        90,
        "cyclegan_fast.kernels.conv2d:conv2d_3x3",
        (("x_ptr", "*bf16"),),
        (("BLOCK_CHANNELS", 64),),
        (),
        (("num_warps", 8),),
    )
    values: dict[str, object] = {
        "specialisation": what,
        "registers": 128,
        "spilled_bytes": 0,
        "shared_bytes": 98304,
        "load_bits": 128,
        "store_bits": 128,
        "wide_loads": 0,
        "tensor_core": "wgmma.mma_async.sync",
    }
    return aot.CompilerReport(**(values | changes))  # type: ignore[arg-type]


def test_each_limit_is_reported_when_it_is_broken() -> None:
    assert report().broken_limits() == []
    assert report(spilled_bytes=8).broken_limits() == ["8 bytes spilled"]
    assert report(shared_bytes=240_000).broken_limits() == ["240000 bytes of shared memory, 232448 available"]
    assert report(load_bits=64).broken_limits() == ["widest global load has 64 bits, not 128"]
    assert report(store_bits=32).broken_limits() == ["widest global store has 32 bits, not 128"]
    assert report(tensor_core="mma.sync").broken_limits() == ["no wgmma"]
    assert report(tensor_core="").broken_limits() == ["no wgmma"]


def test_rows_that_are_no_multiple_of_16_bytes_need_no_wide_accesses() -> None:
    signature = (("x_ptr", "*bf16"), ("channels", "i32"))
    what = replace(report().specialisation, signature=signature, constants=(("BLOCK_CHANNELS", 8),))
    assert report(specialisation=what, load_bits=16, store_bits=16).broken_limits() == []
    known = replace(what, divisible=("channels",))
    assert len(report(specialisation=known, load_bits=16, store_bits=16).broken_limits()) == 2
    planes = replace(known, constants=(*what.constants, ("X_CHANNELS_LAST", False)))
    assert report(specialisation=planes, load_bits=16, store_bits=16).broken_limits() == []


@pytest.mark.parametrize(
    ("registers", "shared_bytes", "broken"),
    [
        (128, 512, []),
        (81, 512, []),
        (80, 512, []),  # room for three
        (129, 512, ["1 programs fit a multiprocessor, planned for 2"]),
        (128, 120 << 10, ["1 programs fit a multiprocessor, planned for 2"]),
    ],
)
def test_a_norm_of_which_fewer_programs_than_planned_fit_a_multiprocessor_breaks_a_limit(
    registers: int, shared_bytes: int, broken: list[str]
) -> None:
    what = aot.Specialisation(
        90,
        "cyclegan_fast.kernels.norm.forward:instance_norm_statistics",
        (("x_ptr", "*bf16"),),
        (("BLOCK_PIXELS", 16), ("BLOCK_CHANNELS", 64)),
        (),
        (("num_warps", 8), ("maxnreg", 128)),
    )
    found = report(specialisation=what, registers=registers, shared_bytes=shared_bytes, tensor_core="")
    assert found.broken_limits() == broken


def test_in_the_interpreter_the_command_says_what_to_unset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(triton_language, "INTERPRETED", True)
    assert aot.main([]) == 2
    assert "unset TRITON_INTERPRET" in capsys.readouterr().err
