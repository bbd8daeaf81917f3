"""Norms are found with what stands around them, in whichever way somebody wrote it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.kernels.acceleration.report import FusedNorm
from tests.kernels.acceleration.comparison import accelerated_copy, assert_equal, report_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Written(nn.Module):
    """Computes `code(self, x)` with two convolutions and layers to choose from."""

    def __init__(self, code: Callable[["Written", Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3)
        self.third = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.norm = nn.InstanceNorm2d(4)
        self.affine = nn.InstanceNorm2d(4, affine=True)
        self.tracking = nn.InstanceNorm2d(4, track_running_stats=True)
        self.relu = nn.ReLU()
        self.relu_in_place = nn.ReLU(True)
        self.leaky = nn.LeakyReLU(0.3, True)
        self.pad = nn.ReflectionPad2d(1)
        self.oblique = nn.ReflectionPad2d((1, 2, 1, 0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def activated(name: str, pad: int = 0, residual: bool = False) -> tuple[str, int, bool]:
    return name, pad, residual


NORM = F.instance_norm
BLOCK = [activated("relu", 1), activated("none", 0, True)]
SPELLINGS: dict[str, tuple[Callable[[Written, Tensor], Tensor], list[tuple[str, int, bool]]]] = {
    "modules": (lambda m, x: m.second(m.pad(m.relu(m.norm(m.first(x))))), [activated("relu", 1)]),
    "in place": (lambda m, x: m.second(m.pad(m.relu_in_place(m.norm(m.first(x))))), [activated("relu", 1)]),
    "leaky": (lambda m, x: m.second(m.leaky(m.norm(m.first(x)))), [activated("leaky_relu")]),
    "functions": (
        lambda m, x: m.second(F.pad(F.relu(NORM(m.first(x), eps=1e-3)), (1, 1, 1, 1), "reflect")),
        [activated("relu", 1)],
    ),
    "functions in place": (
        lambda m, x: m.second(F.pad(F.relu(NORM(m.first(x)), inplace=True), [2] * 4, mode="reflect")),
        [activated("relu", 2)],
    ),
    "torch.relu": (lambda m, x: m.second(torch.relu(m.norm(m.first(x)))), [activated("relu")]),
    "torch.relu_": (lambda m, x: m.second(torch.relu_(m.norm(m.first(x)))), [activated("relu")]),
    "a method": (lambda m, x: m.second(m.norm(m.first(x)).relu()), [activated("relu")]),
    "a method in place": (lambda m, x: m.second(m.norm(m.first(x)).relu_()), [activated("relu")]),
    "F.leaky_relu": (lambda m, x: m.second(F.leaky_relu(m.norm(m.first(x)), 0.1)), [activated("leaky_relu")]),
    "F.leaky_relu_": (lambda m, x: m.second(F.leaky_relu_(m.norm(m.first(x)))), [activated("leaky_relu")]),
    "a slope by name": (
        lambda m, x: m.second(F.leaky_relu(m.norm(m.first(x)), negative_slope=0.1, inplace=True)),
        [activated("leaky_relu")],
    ),
    "padding_mode": (lambda m, x: m.third(m.relu(m.norm(m.first(x)))), [activated("relu", 1)]),
    "no activation": (lambda m, x: m.second(m.norm(m.first(x))), [activated("none")]),
    "another activation": (lambda m, x: m.second(F.gelu(m.norm(m.first(x)))), [activated("none")]),
    "a block": (lambda m, x: block(m, m.first(x)), [activated("relu", 1), activated("none", 0, True)]),
    "a block behind a norm": (
        lambda m, x: block(m, m.relu(m.norm(m.first(x)))),
        [activated("relu", 1), activated("relu", 1), activated("none", 0, True)],
    ),
    "two blocks": (
        lambda m, x: m.second(block(m, block(m, m.relu(m.norm(m.first(x)))))),
        [activated("relu", 1), *[activated("relu", 1), activated("none", 1, True)], *BLOCK],
    ),
    "+=": (lambda m, x: m.second(added_in_place(m.norm(m.third(y := m.first(x))), y)), [activated("none", 0, True)]),
    "torch.add": (lambda m, x: torch.add(y := m.first(x), m.norm(m.third(y))), [activated("none", 0, True)]),
    "a method of the sum": (
        lambda m, x: m.norm(m.third(y := m.first(x))).relu().add(y),
        [activated("relu", 0, True)],
    ),
    "a scaled sum": (
        lambda m, x: torch.add(y := m.first(x), m.norm(m.third(y)), alpha=2),
        [activated("none")],
    ),
    "a number added": (lambda m, x: m.norm(m.first(x)) + 1, [activated("none")]),
    "a size added": (lambda m, x: m.norm(m.first(x)) + x.size(2), [activated("none", 0, True)]),
    "a broadcast sum": (
        lambda m, x: m.norm(m.first(x)) + m.third(m.first(x)).mean((-2, -1), keepdim=True),
        [activated("none", 0, True)],
    ),
    "activation behind the sum": (
        lambda m, x: F.relu(m.norm(m.third(y := m.first(x))) + y),
        [activated("none", 0, True)],
    ),
    "two norms added": (
        lambda m, x: m.norm(m.first(x)) + F.relu(NORM(m.third(m.first(x)))),
        [activated("none", 0, True), activated("relu")],
    ),
    "a norm of a norm": (lambda m, x: m.norm(m.relu(m.norm(m.first(x)))), [activated("relu"), activated("none")]),
    "read twice": (
        lambda m, x: m.second(m.pad(y := m.relu(m.norm(m.first(x))))) + y,
        [activated("relu", 1)],
    ),
    "read before its activation": (
        lambda m, x: torch.cat([y := m.norm(m.first(x)), m.relu(y)], 1),
        [activated("none")],
    ),
    "read by a convolution as well": (
        lambda m, x: m.second(m.pad(y := m.relu(m.norm(m.first(x))))) + F.conv2d(y, m.third.weight, padding=1),
        [activated("relu", 0)],
    ),
    "around the activation in place": (
        lambda m, x: torch.cat([y := m.norm(m.first(x)), m.third(m.leaky(y))], 1),
        [activated("leaky_relu", 1)],
    ),
    "padded, and changed by a view": (lambda m, x: padding_changed_by_a_view(m, x), [activated("none", 0)]),
    "viewed as another": (lambda m, x: like_another(m, x), [activated("none")]),
    "padded, and changed in place": (lambda m, x: changed_behind(m, x), [activated("relu", 0)]),
    "dropout in between": (lambda m, x: m.second(m.pad(m.dropout(m.relu(m.norm(m.first(x)))))), [activated("relu")]),
    "affine beside": (lambda m, x: m.affine(m.second(m.relu(m.norm(m.first(x))))), [activated("relu")]),
    "tracking beside": (lambda m, x: m.tracking(m.second(m.relu(m.norm(m.first(x))))), [activated("relu")]),
    "oblique": (lambda m, x: m.second(m.oblique(m.relu(m.norm(m.first(x))))), [activated("relu")]),
    "a view behind": (
        lambda m, x: m.relu(m.norm(m.first(x))).view(x.size(0), -1) * 2,
        [activated("relu")],
    ),
    "its view is changed": (lambda m, x: changed_view(m, x), [activated("relu")]),
    "its input is changed before the sum": (lambda m, x: input_changed(m, x), [activated("none")]),
}


WITHOUT_GRADIENT = {
    "padded, and changed in place",
    "its view is changed",
    "its input is changed before the sum",
}
"""Names the spellings that change a tensor which PyTorch needs for its gradient, and notices."""


def block(m: Written, x: Tensor) -> Tensor:
    y = m.second(m.pad(x))
    y = m.relu_in_place(m.norm(y))
    return x + m.norm(m.second(F.pad(y, (1, 1, 1, 1), mode="reflect")))


def added_in_place(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


def changed_behind(m: Written, x: Tensor) -> Tensor:
    y = m.relu(m.norm(m.first(x)))
    padded = m.pad(y)
    y.mul_(2)
    return m.second(padded) + y


def changed_view(m: Written, x: Tensor) -> Tensor:
    y = m.relu(m.norm(m.first(x)))
    part = y[:, :2]
    part.mul_(2)
    return m.third(y)


def padding_changed_by_a_view(m: Written, x: Tensor) -> Tensor:
    y = m.norm(m.first(x))
    padded = m.pad(y)
    part = padded[:, :2]
    part.mul_(2)
    return m.second(padded) + y


def flat_view_changed(m: Written, x: Tensor) -> Tensor:
    y = m.norm(m.first(x))
    y.view(-1).mul_(2)
    return m.third(y)


def like_another(m: Written, x: Tensor) -> Tensor:
    y = m.norm(m.first(x))
    return y.view_as(y.flatten(-3))


def input_changed(m: Written, x: Tensor) -> Tensor:
    y = m.first(x) * 1
    z = m.norm(y)
    y.mul_(2)
    return z + y


def taken_in(norm: FusedNorm) -> tuple[str, int, bool]:
    return norm.activation, norm.pad, norm.has_residual


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("lying", ["NCHW", "channels last", "one image without a batch"])
def test_a_spelling_is_found_and_computes_the_same(spelling: str, lying: str) -> None:
    code, expected = SPELLINGS[spelling]
    torch.manual_seed(0)
    written = Written(code).double().eval()
    found = accelerated_copy(written)
    assert [taken_in(norm) for norm in report_of(found).norms] == expected
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    if lying != "NCHW":
        x = x.contiguous(memory_format=torch.channels_last) if lying == "channels last" else x[0]
    if spelling in WITHOUT_GRADIENT:
        with torch.no_grad():
            torch.testing.assert_close(found(x), written(x), rtol=1e-12, atol=1e-12)
    else:
        assert_equal(found, written, [x])


def test_blocks_are_one_operator_each() -> None:
    found = accelerated_copy(Written(SPELLINGS["two blocks"][0]))
    (region,) = report_of(found).regions
    assert (region.blocks, region.pads, region.biases) == (2, 0, 5)


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        ("affine beside", "affine parameters"),
        ("tracking beside", "running statistics"),
        ("oblique", "not the same on all sides"),
        ("activation behind the sum", "activation behind the sum"),
        ("read by a convolution as well", "read unpadded as well"),
    ],
)
def test_what_is_left_is_said(spelling: str, reason: str) -> None:
    found = accelerated_copy(Written(SPELLINGS[spelling][0]))
    assert reason in str(report_of(found))


def test_norms_without_eps_are_left_and_a_plane_of_one_value_stays_0() -> None:
    written = nn.Sequential(nn.InstanceNorm2d(3, eps=0.0), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4))
    found = accelerated_copy(written.double())
    assert "an eps of 0" in str(report_of(found))
    assert len(report_of(found).norms) == 1
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    x[:, 1] = 0.5
    assert not written[0](x)[:, 1].any()
    assert_equal(found, written, [x])


class AsksForTypes(nn.Module):
    """Takes a tensor or several, and changes what is one already."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, list | tuple):
            x = torch.cat(list(x))
        if isinstance(x, Tensor):
            x = x * 2 + 1
        return self.body(x)  # type: ignore[no-any-return]


def test_a_forward_that_asks_for_types_is_left_as_it_is_and_what_it_holds_is_not() -> None:
    written = AsksForTypes().double()
    found = accelerated_copy(written)
    assert "asks for types" in str(report_of(found))
    assert [taken_in(norm) for norm in report_of(found).norms] == [("relu", 0, False)]
    assert_equal(found, written, [torch.randn(2, 3, 7, 6, dtype=torch.float64)])


def test_a_tensor_that_a_flat_view_of_it_changes_is_changed() -> None:
    written = Written(flat_view_changed).double()
    found = accelerated_copy(written)
    assert "by way of a view" in str(report_of(found))
    assert_equal(found, written, [torch.randn(2, 3, 7, 6, dtype=torch.float64)])


def test_a_changed_input_is_changed_for_the_caller_as_well() -> None:
    written = Written(lambda m, x: added_in_place(x, m.norm(m.third(x)))).double()
    found = accelerated_copy(written)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    mine, theirs = x.clone(), x.clone()
    with torch.no_grad():
        assert found(mine) is mine
        written(theirs)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
