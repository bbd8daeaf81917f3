"""Holds what is printed about an accelerated network, also on the documentation's page."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cyclegan_fast.kernels import accelerate
from cyclegan_fast.kernels.acceleration import Acceleration
from cyclegan_fast.kernels.traffic import Traffic
from tests.kernels.acceleration.comparison import report_of

PAGE = Path(__file__).parents[3] / "docs" / "kernels.md"


def layers(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 3, 1))


def test_the_page_shows_what_its_example_prints(capsys: pytest.CaptureFixture[str]) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## In your own network")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    printed = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert code
    assert printed
    exec(code[1], {})
    assert capsys.readouterr().out == printed[1]


def test_without_a_norm_nothing_is_changed_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    accelerate(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3)), device="cuda")
    assert capsys.readouterr().out == "accelerate: Sequential: nothing changed: no instance norm to fuse\n"


def test_launches_and_bytes_are_those_of_the_operators() -> None:
    network = accelerate(layers(16), impl="triton", example=torch.empty(2, 3, 18, 18), verbose=False)
    forward, backward = report_of(network).counts
    activation, small = 2 * 16 * 16 * 16 * 4, 2 * 3 * 16 * 16 * 4
    # Before: the bias of each convolution, a norm and a ReLU read and write a tensor each; there is no statistic.
    assert forward.before.launches == 4
    assert forward.before.total_bytes == pytest.approx(3 * 2 * activation + 2 * small, rel=0.01)
    # After: one launch reads and writes; the last bias; the copy of the result to the layout of the input.
    assert forward.after.launches == 3
    assert forward.after.total_bytes == pytest.approx(2 * activation + 4 * small, rel=0.02)
    # Backward: x and dY are read and dx is written, in one launch; a bias's sum; zeros for the other.
    assert backward.after.launches == 3
    assert backward.after.total_bytes == pytest.approx(3 * activation + small, rel=0.02)
    assert isinstance(forward.before, Traffic)


def test_reasons_and_modules_are_named() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = layers()
            self.affine = nn.InstanceNorm2d(3, affine=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.affine(self.inside(x)) if x.sum() > 0 else x

    text = str(report_of(accelerate(Deciding(), impl="reference", verbose=False)))
    assert "in inside (Sequential)" in text
    assert "not traced, only what is inside: the network itself: its forward has control flow" in text
    assert str(Acceleration("Net", note="of a reason")) == "accelerate: Net: nothing changed: of a reason"


FORGOTTEN = {
    "no_grad": "runs under no_grad",
    "attribute": "writes attributes: kept",
    "list": "writes attributes: seen",
    "training": "another one in train",
    "gradients": "without gradients",
    "chance": "random numbers",
    "chance of numpy": "random numbers",
    "constant": "constants outside",
    "strides": "how a tensor lies in memory",
    "replaced": "replaced on the object",
}


class Forgotten(nn.Module):
    """Does what a graph would forget."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.inside = layers()
        self.seen: list[object] = []
        if what == "replaced":
            self.forward = lambda x: self.inside(x)  # type: ignore[method-assign]  # what is tested

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.what == "no_grad":
            with torch.no_grad():
                x = x + 1
        if self.what == "attribute":
            self.kept = x
        if self.what == "list":
            self.seen.append(x)
        if self.what == "training" and self.training:
            x = x + 1
        if self.what == "gradients" and torch.is_grad_enabled():
            x = x + 1
        # Never so, as stochastic depth is often not while somebody traces it.
        if self.what == "chance" and torch.rand(1) < -1:
            x = x + 1
        if self.what == "chance of numpy" and np.random.random() < -1:
            x = x + 1
        if self.what == "constant":
            x = x + torch.ones(3, 1, 1)
        if self.what == "strides" and x.stride() is None:
            x = x + 1
        return self.inside(x)  # type: ignore[no-any-return]  # a module's result


def test_arguments_that_torch_fx_puts_in_another_order_stay_as_they_are() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = layers()

        def forward(self, x: torch.Tensor, *more: float, factor: float = 1.0) -> torch.Tensor:
            return self.inside(x) * factor  # type: ignore[no-any-return]  # a module's result

    network = accelerate(Many(), impl="reference", verbose=False)
    assert "any number of arguments" in str(report_of(network))
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(network(x, 5.0, factor=2.0), 2 * network(x))


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_a_graph_would_forget_stays_code(what: str) -> None:
    network = Forgotten(what)
    accelerate(network, impl="reference", verbose=False)
    report = report_of(network)
    assert [region.name for region in report.regions] == ["inside"]
    assert FORGOTTEN[what] in str(report)
    assert network.seen == []
    assert not hasattr(network, "kept")
    assert network.training
