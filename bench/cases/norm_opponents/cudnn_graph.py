"""Computes cuDNN's own instance norm by the graph API of its frontend (nvidia-cudnn-frontend 1.32).

PyTorch does not use it. Statistics come out in float32, as ours do. A graph is built for each shape and precision; it
takes weights and biases as operands, 1 and 0 here, and backward returns their gradients as well.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.cases.norm_opponents.opponent import OPPONENTS_EPS, installed_only_on_gpus


@dataclass(frozen=True)
class _Built:
    """Holds a graph that is ready to run, its operands by name, and tensors that are the same in each run."""

    graph: Any
    operands: Mapping[str, Any]
    constants: Mapping[str, Tensor]
    workspace: Tensor

    def run(self, handle: Any, **tensors: Tensor) -> None:
        everything = {**self.constants, **tensors}
        self.graph.execute({self.operands[name]: each for name, each in everything.items()}, self.workspace, handle)


class CudnnNorm:
    """cuDNN's instance norm, channels last, forward and backward."""

    name = "cuDNN's instance norm"
    layout = torch.channels_last
    has_backward = True

    def __init__(self) -> None:
        self._built: dict[tuple[str, torch.Size, torch.dtype], _Built] = {}
        self._handle: Any = None

    def absence(self, device: torch.device) -> str | None:
        return installed_only_on_gpus("cudnn", device)

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = _GraphNorm.apply(x, self)  # type: ignore[no-untyped-call]
        return normed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, mean and 1 / standard deviation, both [N, C, 1, 1] in float32."""
        built = self._ready("forward", x)
        y, (mean, inv_variance) = torch.empty_like(x), (_per_channel(x, len(x), torch.float32) for _ in range(2))
        built.run(self._current_handle(x), input=x, Y=y, mean=mean, inv_variance=inv_variance)
        return y, mean, inv_variance

    def backward(self, dy: Tensor, x: Tensor, mean: Tensor, inv_variance: Tensor) -> Tensor:
        built = self._ready("backward", x)
        dx, statistics = torch.empty_like(x), {"mean": mean, "inv_variance": inv_variance}
        built.run(self._current_handle(x), grad=dy, input=x, **statistics, DX=dx)
        return dx

    def _current_handle(self, x: Tensor) -> Any:
        """Return cuDNN's handle, on the stream that PyTorch computes on now."""
        cudnn = importlib.import_module("cudnn")
        if self._handle is None:
            self._handle = cudnn.create_handle()
        cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(x.device).cuda_stream)
        return self._handle

    def _ready(self, which: str, x: Tensor) -> _Built:
        key = which, x.shape, x.dtype
        if key not in self._built:
            cudnn = importlib.import_module("cudnn")
            describe = described_forward if which == "forward" else described_backward
            graph, operands = describe(cudnn, x, self._current_handle(x))
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            graph.check_support()
            graph.build_plans()
            constants = {"scale": _per_channel(x, 1).fill_(1)}
            if which == "forward":
                constants |= {"bias": _per_channel(x, 1).zero_(), "epsilon": _epsilon()}
            else:
                # Nobody reads these gradients.
                constants |= {"DScale": _per_channel(x, 1), "DBias": _per_channel(x, 1)}
            workspace = torch.empty(graph.get_workspace_size(), dtype=torch.uint8, device=x.device)
            self._built[key] = _Built(graph, operands, constants, workspace)
        return self._built[key]


def described_forward(cudnn: Any, x: Tensor, handle: Any) -> tuple[Any, dict[str, Any]]:
    """Return a graph of the norm of x, not built yet, and its operands by name."""
    graph = _empty_graph(cudnn, handle)
    operands = {
        "input": _operand(cudnn, graph, x.shape, x.stride(), x.dtype, "x"),
        "scale": _channel_operand(cudnn, graph, x, 1, x.dtype, "scale"),
        "bias": _channel_operand(cudnn, graph, x, 1, x.dtype, "bias"),
        "epsilon": graph.tensor_like(_epsilon()),
    }
    phase = cudnn.norm_forward_phase.TRAINING
    results = graph.instancenorm(name="instance_norm", norm_forward_phase=phase, **operands)
    for name, result in zip(("Y", "mean", "inv_variance"), results, strict=True):
        dtype = x.dtype if name == "Y" else torch.float32
        operands[name] = result.set_output(True).set_data_type(_cudnn_type(cudnn, dtype))
    _lie_as(x, operands["Y"])
    return graph, operands


def described_backward(cudnn: Any, x: Tensor, handle: Any) -> tuple[Any, dict[str, Any]]:
    """Return a graph of the gradient of the norm of x, not built yet, and its operands by name."""
    graph = _empty_graph(cudnn, handle)
    operands = {
        "grad": _operand(cudnn, graph, x.shape, x.stride(), x.dtype, "dy"),
        "input": _operand(cudnn, graph, x.shape, x.stride(), x.dtype, "x"),
        "scale": _channel_operand(cudnn, graph, x, 1, x.dtype, "scale"),
        "mean": _channel_operand(cudnn, graph, x, len(x), torch.float32, "mean"),
        "inv_variance": _channel_operand(cudnn, graph, x, len(x), torch.float32, "inv_variance"),
    }
    results = graph.instancenorm_backward(name="instance_norm_backward", **operands)
    for name, result in zip(("DX", "DScale", "DBias"), results, strict=True):
        operands[name] = result.set_output(True).set_data_type(_cudnn_type(cudnn, x.dtype))
    _lie_as(x, operands["DX"])
    return graph, operands


def _lie_as(x: Tensor, result: Any) -> None:
    """Have a result lie in memory as x does, whatever the frontend would infer."""
    result.set_dim([*x.shape]).set_stride([*x.stride()])


class _GraphNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: CudnnNorm) -> Tensor:
        y, mean, inv_variance = norm.forward(x)
        ctx.norm = norm
        ctx.save_for_backward(x, mean, inv_variance)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mean, inv_variance = ctx.saved_tensors
        # Its graph has dY lie as x does.
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        return ctx.norm.backward(dy, x, mean, inv_variance), None


def _empty_graph(cudnn: Any, handle: Any) -> Any:
    wide = cudnn.data_type.FLOAT
    return cudnn.pygraph(intermediate_data_type=wide, compute_data_type=wide, handle=handle)


def _cudnn_type(cudnn: Any, dtype: torch.dtype) -> Any:
    types = cudnn.data_type
    return {torch.float32: types.FLOAT, torch.float16: types.HALF, torch.bfloat16: types.BFLOAT16}[dtype]


def _operand(
    cudnn: Any, graph: Any, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, name: str
) -> Any:
    return graph.tensor(dim=[*shape], stride=[*stride], data_type=_cudnn_type(cudnn, dtype), name=name)


def _channel_operand(cudnn: Any, graph: Any, x: Tensor, images: int, dtype: torch.dtype, name: str) -> Any:
    channels = x.shape[1]
    return _operand(cudnn, graph, (images, channels, 1, 1), (channels, 1, channels, channels), dtype, name)


def _per_channel(x: Tensor, images: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return memory for one value for each channel of so many images, [images, C, 1, 1]."""
    return torch.empty(images, x.shape[1], 1, 1, dtype=dtype or x.dtype, device=x.device)


def _epsilon() -> Tensor:
    """Return what is added to the variance; on the host, since cuDNN takes it by value."""
    return torch.full((1, 1, 1, 1), OPPONENTS_EPS)
