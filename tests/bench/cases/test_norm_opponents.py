"""Norms of other libraries are called as their libraries want it; absent ones are named.

The libraries themselves did not run: each is imitated on a CPU by a module of the same signatures, copied from its
sources (cudnn-frontend 1.32, FlagGems 5.0.2, TileOPs 0.1.0, QuACK 0.6.5, Apex's pull request 1564). None of the real
ones was run on a GPU.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases.norm_opponents import NORM_OPPONENTS
from bench.cases.norm_opponents.cudnn_graph import CudnnNorm
from bench.cases.norm_opponents.opponent import (
    NEEDS_GPU,
    NO_BACKWARD,
    NOT_INSTALLED,
    NormOpponent,
    OpponentFailed,
    failing_as_opponent,
    installed_only_on_gpus,
)
from bench.cases.norm_opponents.quack_rows import QuackRowNorm
from bench.cases.norm_opponents.ready_made import (
    ApexNorm,
    ChannelsLastNorm,
    FlagGemsNorm,
    GroupNormOfChannels,
    TileNorm,
)
from bench.cases.operators import operator_contest
from bench.measure.agreement import ALLOWED, errors
from cyclegan_fast.kernels.checking.sites import NormSite

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EPS = 1e-5
SHAPE = (2, 6, 8, 12)
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put modules into `sys.modules`, with the packages around them."""

    def put(name: str, **contents: Any) -> None:
        package, _, _ = name.rpartition(".")
        if package and package not in sys.modules:
            put(package)
        module = ModuleType(name)
        vars(module).update(contents, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)

    return put


def flag_gems(install: Install) -> None:
    def instance_norm(
        input: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
        cudnn_enable: bool = False,
    ) -> Tensor:
        assert weight is bias is running_mean is running_var is None
        assert use_input_stats
        return F.instance_norm(input, eps=eps)

    install("flag_gems", instance_norm=instance_norm)


def tileops(install: Install) -> None:
    class InstanceNormFwdOp:
        def __init__(
            self, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *, target: Any = None
        ) -> None:
            assert use_input_stats
            self.eps = eps

        def __call__(
            self,
            input: Tensor,
            running_mean: Tensor | None = None,
            running_var: Tensor | None = None,
            weight: Tensor | None = None,
            bias: Tensor | None = None,
        ) -> Tensor:
            assert weight is bias is running_mean is running_var is None
            return F.instance_norm(input.detach(), eps=self.eps)

    install("tileops.norm", InstanceNormFwdOp=InstanceNormFwdOp)


def quack(install: Install) -> None:
    def layernorm_fwd(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        eps: float = 1e-6,
        return_rstd: bool = False,
        return_mean: bool = False,
    ) -> Any:
        assert (x.dim(), weight.dim(), weight.dtype, bias) == (2, 1, torch.float32, None)
        assert return_rstd
        assert return_mean
        mean = x.float().mean(1)
        rstd = (x.float().var(1, correction=0) + eps).rsqrt()
        return ((x - mean[:, None]) * rstd[:, None] * weight).to(x.dtype), rstd, mean

    def layernorm_bwd(
        x: Tensor, weight: Tensor, dout: Tensor, rstd: Tensor, mean: Tensor, has_bias: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert not has_bias
        assert dout.is_contiguous()
        normed = (x - mean[:, None]) * rstd[:, None]
        dy = dout * weight
        dx = (dy - dy.mean(1, keepdim=True) - normed * (dy * normed).mean(1, keepdim=True)) * rstd[:, None]
        return dx.to(x.dtype), (dout * normed).sum(0), None

    install("quack.rmsnorm", layernorm_fwd=layernorm_fwd, layernorm_bwd=layernorm_bwd)


def apex(install: Install) -> None:
    class InstanceNorm3dNVFuser(nn.Module):
        def __init__(
            self,
            num_features: int,
            eps: float = 1e-5,
            momentum: float = 0.1,
            affine: bool = False,
            track_running_stats: bool = False,
            device: Any = None,
            dtype: Any = None,
        ) -> None:
            super().__init__()
            assert not affine
            assert not track_running_stats
            self.num_features, self.eps = num_features, eps

        def forward(self, input: Tensor) -> Tensor:
            assert input.dim() == 5
            # What it takes for channels last, it permutes and wants to lie without gaps.
            assert input.is_contiguous(memory_format=torch.channels_last_3d)
            assert input.permute(0, 2, 3, 4, 1).is_contiguous()
            return F.group_norm(input, self.num_features, eps=self.eps)

    install("apex.normalization.instance_norm", InstanceNorm3dNVFuser=InstanceNorm3dNVFuser)


class GraphTensor:
    """Stands in for a tensor of a cuDNN graph, which is described first and given memory when the graph is run."""

    def __init__(self, dim: list[int], stride: list[int], data_type: str, name: str = "") -> None:
        self.dim, self.stride, self.data_type, self.name = dim, stride, data_type, name
        self.is_output = False

    def set_output(self, value: bool) -> "GraphTensor":
        self.is_output = value
        return self

    def set_data_type(self, value: str) -> "GraphTensor":
        self.data_type = value
        return self

    def set_dim(self, value: list[int]) -> "GraphTensor":
        self.dim = value
        return self

    def set_stride(self, value: list[int]) -> "GraphTensor":
        self.stride = value
        return self

    def check(self, tensor: Tensor) -> Tensor:
        """Hold the memory that comes for it against its description."""
        assert [*tensor.shape] == self.dim, self.name
        strides = [
            (one, other) for size, one, other in zip(self.dim, tensor.stride(), self.stride, strict=True) if size > 1
        ]
        assert all(one == other for one, other in strides), self.name
        assert (
            tensor.dtype == {"FLOAT": torch.float32, "HALF": torch.float16, "BFLOAT16": torch.bfloat16}[self.data_type]
        )
        return tensor


class Graph:
    """Stands in for `cudnn.pygraph`: a graph is described, built step by step, and run."""

    BUILDING = ("validate", "build_operation_graph", "create_execution_plans", "check_support", "build_plans")

    def __init__(self, *, intermediate_data_type: str, compute_data_type: str, handle: object) -> None:
        assert intermediate_data_type == compute_data_type == "FLOAT"
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in self.BUILDING:
            raise AttributeError(name)
        return lambda *_: self.done.append(name)

    def tensor(self, *, dim: list[int], stride: list[int], data_type: str, name: str) -> GraphTensor:
        return GraphTensor(dim, stride, data_type, name)

    def tensor_like(self, tensor: Tensor) -> GraphTensor:
        assert tensor.device == CPU
        return GraphTensor([*tensor.shape], [*tensor.stride()], "FLOAT", "epsilon")

    def instancenorm(
        self,
        *,
        input: GraphTensor,
        scale: GraphTensor,
        bias: GraphTensor,
        epsilon: GraphTensor,
        **rest: Any,
    ) -> list[GraphTensor]:
        assert rest == {"name": "instance_norm", "norm_forward_phase": "TRAINING"}
        self.inputs = [input, scale, bias, epsilon]
        channels = [*input.dim[:2], 1, 1]
        self.results = [self._result(input.dim), self._result(channels), self._result(channels)]
        return self.results

    def instancenorm_backward(
        self,
        *,
        grad: GraphTensor,
        input: GraphTensor,
        scale: GraphTensor,
        mean: GraphTensor,
        inv_variance: GraphTensor,
        name: str,
    ) -> list[GraphTensor]:
        self.inputs = [grad, input, scale, mean, inv_variance]
        self.results = [self._result(input.dim), self._result(scale.dim), self._result(scale.dim)]
        return self.results

    @staticmethod
    def _result(dim: list[int]) -> GraphTensor:
        _, channels, height, width = dim
        return GraphTensor(dim, [channels * height * width, height * width, width, 1], "FLOAT", "result")

    def get_workspace_size(self) -> int:
        assert tuple(self.done) == self.BUILDING
        return 16

    def execute(self, pack: dict[GraphTensor, Tensor], workspace: Tensor, handle: object = None) -> None:
        assert tuple(self.done) == self.BUILDING
        assert (workspace.numel(), workspace.dtype) == (16, torch.uint8)
        assert set(pack) == {*self.inputs, *self.results}
        assert all(result.is_output for result in self.results)
        inputs = [each.check(pack[each]) for each in self.inputs]
        results = [each.check(pack[each]) for each in self.results]
        for result, value in zip(results, (_forward if len(inputs) == 4 else _backward)(*inputs), strict=True):
            result.copy_(value)


def _forward(x: Tensor, scale: Tensor, bias: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = x.float()
    mean = wide.mean((2, 3), keepdim=True)
    inv_variance = (wide.var((2, 3), correction=0, keepdim=True) + epsilon).rsqrt()
    return (wide - mean) * inv_variance * scale + bias, mean, inv_variance


def _backward(
    dy: Tensor, x: Tensor, scale: Tensor, mean: Tensor, inv_variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    normed = (x.float() - mean) * inv_variance
    wide = dy.float() * scale
    means = [each.mean((2, 3), keepdim=True) for each in (wide, wide * normed)]
    dx = (wide - means[0] - normed * means[1]) * inv_variance
    return dx, (wide * normed).sum((0, 2, 3), keepdim=True), wide.sum((0, 2, 3), keepdim=True)


def cudnn(install: Install) -> None:
    install(
        "cudnn",
        pygraph=Graph,
        create_handle=object,
        set_stream=lambda *, handle, stream: None,
        data_type=SimpleNamespace(FLOAT="FLOAT", HALF="HALF", BFLOAT16="BFLOAT16"),
        heur_mode=SimpleNamespace(A="A", FALLBACK="FALLBACK"),
        norm_forward_phase=SimpleNamespace(TRAINING="TRAINING"),
    )


def nothing(install: Install) -> None:
    """Install nothing: PyTorch's own is there."""


IMITATED: dict[Callable[[], NormOpponent], Callable[[Install], None]] = {
    GroupNormOfChannels: nothing,
    ChannelsLastNorm: nothing,
    CudnnNorm: cudnn,
    FlagGemsNorm: flag_gems,
    TileNorm: tileops,
    QuackRowNorm: quack,
    ApexNorm: apex,
}


@pytest.fixture
def _host_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: SimpleNamespace(cuda_stream=0))


def test_every_opponent_is_imitated() -> None:
    assert set(IMITATED) == set(NORM_OPPONENTS)
    assert len({make().name for make in NORM_OPPONENTS}) == len(NORM_OPPONENTS)


@pytest.mark.usefixtures("_host_stream")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", IMITATED)
def test_values_and_gradients_are_those_of_an_instance_norm(
    make: Callable[[], NormOpponent], dtype: torch.dtype, install: Install
) -> None:
    IMITATED[make](install)
    opponent = make()
    torch.manual_seed(0)
    for _ in range(2):  # the second call finds what the first one has built
        x = torch.randn(SHAPE).add(2).to(dtype).contiguous(memory_format=opponent.layout).requires_grad_()
        dy = torch.randn(SHAPE).to(dtype)
        exact = x.detach().double().requires_grad_()
        wanted = F.instance_norm(exact, eps=EPS)
        found = opponent(x)
        assert found.dtype == dtype
        assert errors({"found": found.detach()}, [wanted.detach()])["found"] <= ALLOWED[dtype]
        if opponent.has_backward and make is not ChannelsLastNorm:  # that gradient is wrong on a CPU (torch 2.13)
            (dx,) = torch.autograd.grad(found, x, dy)
            (wanted_dx,) = torch.autograd.grad(wanted, exact, dy.double())
            assert errors({"dx": dx}, [wanted_dx])["dx"] <= ALLOWED[dtype]


@pytest.mark.usefixtures("_host_stream")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_they_take_part_in_a_contest_and_agree(
    direction: Any, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for put in IMITATED.values():
        put(install)
    monkeypatch.setattr("bench.cases.norm_opponents.ready_made.installed_only_on_gpus", lambda *_: None)
    for module in ("cudnn_graph", "quack_rows"):
        monkeypatch.setattr(f"bench.cases.norm_opponents.{module}.installed_only_on_gpus", lambda *_: None)
    site = NormSite("here", 8, 16, "relu", pad=1)
    contest = operator_contest(
        site, direction, torch.float32, 2, device=CPU, impl="auto", with_compile=False, with_others=True
    )
    absent = {ChannelsLastNorm.name} | ({TileNorm.name} if direction == "backward" else set())
    assert set(contest.absent) == absent
    names = {make().name for make in NORM_OPPONENTS} - absent
    assert names <= set(contest.contenders)
    found = errors({name: contest.contenders[name].calls[0]() for name in [*names, "ours"]}, contest.exact)
    assert max(found.values()) <= ALLOWED[torch.float32]
    if direction == "backward":
        assert contest.absent[TileNorm.name] == NO_BACKWARD


def test_absent_libraries_are_named_with_the_reason(install: Install, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("flag_gems", "cudnn", "quack", "tileops", "apex"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    opponents = [make() for make in NORM_OPPONENTS if make not in (GroupNormOfChannels, ChannelsLastNorm)]
    site = NormSite("here", 8, 16, "relu")
    contest = operator_contest(
        site, "forward", torch.float32, 1, device=CPU, impl="auto", with_compile=False, with_others=True
    )
    assert {opponent.name: NOT_INSTALLED for opponent in opponents}.items() <= contest.absent.items()
    assert GroupNormOfChannels.name in contest.contenders
    for name in ("broken_here", "halved_here"):
        (tmp_path / f"{name}.py").write_text(
            "import absent_parts" if name == "halved_here" else "raise OSError('no driver')"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_only_on_gpus("broken_here", CUDA) == "it cannot be imported: OSError: no driver"
    assert installed_only_on_gpus("halved_here", CUDA) == "it needs absent_parts"
    install("installed_here.norm")
    assert installed_only_on_gpus("installed_here.norm", CPU) == NEEDS_GPU
    assert installed_only_on_gpus("installed_here.norm", CUDA) is None


def test_what_a_library_raises_leaves_it_out_of_the_contest() -> None:
    def fails() -> None:
        raise KeyError("rows of 65536")

    with pytest.raises(OpponentFailed, match="KeyError: 'rows of 65536'"):
        failing_as_opponent(fails)()
    assert failing_as_opponent(lambda: 3)() == 3
