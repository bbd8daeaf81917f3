"""`bench.gpu` ends on a summary, in which training curves and kernels are summed up."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.cases import training
from bench.cases.step_profile import KernelTime, kind_of, summed
from bench.new_gpu.summary import CUT_SHORT, MOST_LINES, operators_lines, summary
from tests.bench.result_samples import comparison


def test_the_summary_is_short_and_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "tests.txt").write_text(
        "collected\t5\ttests/a.py\n"
        "begun\ttests/a.py::one\t\npassed\ttests/a.py::one\t0.10 s\n"
        "begun\ttests/a.py::two\t\nfailed\ttests/a.py::two\tassert 1 == 2\n"
        "begun\ttests/a.py::three\t\nskipped\ttests/a.py::three\tno tyro\n"
        "begun\ttests/a.py::four\t\n"
    )
    (tmp_path / "profile.txt").write_text("\n".join(f"profile {line}" for line in range(60)))
    text = summary(tmp_path, {"tests": 1, "tune": 0, "step": CUT_SHORT}, "NVIDIA H200")
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[:4] == [
        "NVIDIA H200",
        "phases: tests FAILED, tune done, step cut short",
        "tests: 1 passed, 1 failed, 1 skipped, 1 without an end, 1 not begun",
        "  tests/a.py::two: assert 1 == 2",
    ]


def test_the_summary_says_what_the_check_of_the_kernels_found(tmp_path: Path) -> None:
    results = [{"share_of_allowed": share} for share in (0.2, 0.71)]
    failures = ["instance_norm, after the stem, float32, batch 2, is off by 0.5 of its size, 9 times what is allowed"]
    (tmp_path / "check.json").write_text(json.dumps({"failures": failures, "results": results}))
    assert summary(tmp_path, {"check": 1}, "NVIDIA H200").splitlines()[1:] == [
        "phases: check FAILED",
        "check: 2 cases, errors up to 0.71 of what is allowed, 1 failures",
        f"  {failures[0]}",
    ]


def test_of_many_failed_tests_the_first_are_named(tmp_path: Path) -> None:
    lines = "".join(f"failed\ttests/a.py::test_{number}\treason\n" for number in range(20))
    (tmp_path / "tests.txt").write_text(f"collected\t20\ttests/a.py\n{lines}")
    found = summary(tmp_path, {"tests": 1}, "NVIDIA H200").splitlines()
    assert found[2:] == [
        "tests: 0 passed, 20 failed",
        *(f"  tests/a.py::test_{number}: reason" for number in range(8)),
        "  12 more, see test-failures.txt",
    ]


def test_sites_are_summed_up_by_direction() -> None:
    sites = [
        comparison(times, case=f"{site}, forward", limit_ms=1.0)
        for site, times in (
            ("a", {"plain PyTorch": 8.0, "torch.compile default": 4.0, "ours": 2.0}),
            ("b", {"plain PyTorch": 2.0, "torch.compile default": 9.0, "ours": 4.0}),
        )
    ]
    (line,) = operators_lines(sites)
    # 4 / 2 and 2 / 4 cancel; 50% and 25% of the limit.
    assert line == (
        "norms forward, bfloat16, batch 1: 2 sites, 1.00x the best opponent (0.50 to 2.00), 38% of the limit, "
        "least 25% b"
    )


def test_the_distance_between_curves_by_hand() -> None:
    def curve(first: float, second: float) -> training.TrainingCurve:
        return training.TrainingCurve(10.0, {"a": [9.0, 9.0, 9.0, first], "b": [9.0, 9.0, 9.0, second]})

    outcome = training.Outcome(
        training.Setting(32, 4),
        {
            training.PLAIN_RUN: curve(2.0, 4.0),
            training.OTHER_SEED_RUN: curve(3.0, 4.0),
            training.OUR_RUN: curve(2.2, 3.6),
        },
    )
    assert outcome.between_seeds == pytest.approx(0.25)
    assert outcome.of_ours == pytest.approx(0.1)


def test_images_are_drawn_alike_for_a_seed_and_the_domains_differ() -> None:
    photographs, drawings = training.drawn_images(32, 0)
    again, _ = training.drawn_images(32, 0)
    assert photographs.shape == drawings.shape == (training.DRAWN_IMAGES, 32, 32, 3)
    assert (photographs == again).all()
    assert photographs.std() > 20
    # A drawing is ink on paper: one channel tells the others.
    for pixels, alike in ((drawings, True), (photographs, False)):
        red, green, blue = (pixels[..., channel].ravel().astype(float) for channel in range(3))
        assert (np.corrcoef(red, green)[0, 1] > 0.999) == alike
        assert (np.corrcoef(red, blue)[0, 1] > 0.999) == alike


def test_kernels_are_summed_by_their_kind_and_the_rest_of_the_time_is_gaps() -> None:
    kernels = [
        KernelTime("instance_norm_apply", 30.0),
        KernelTime("instance_norm_apply", 10.0),
        KernelTime("sm90_xmma_fprop_implicit_gemm_bf16", 100.0),
        KernelTime("void multi_tensor_apply_kernel<FusedAdam>", 20.0),
        KernelTime("cudnn::ops::nchwToNhwcKernel", 4.0),
        KernelTime("tanh_kernel", 6.0),
    ]
    found = summed(kernels, wall_us=200.0, steps=2)
    assert found.wall_us == 100
    assert found.kinds_us == {
        "fused norms": 20.0,
        "convolutions": 50.0,
        "optimiser": 10.0,
        "copies and layout": 2.0,
        "other": 3.0,
    }
    assert found.gaps_us == 15
    assert [kernel.us for kernel in found.slowest[:2]] == [50, 20]
    assert kind_of("reflection_pad_backward") == "reflection padding"
    assert "convolutions              0.050 ms  50.0%" in found.described()
