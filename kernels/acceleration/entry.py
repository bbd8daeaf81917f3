"""Holds the one function that somebody calls, `accelerate`."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..arguments.options import check_flag, value_and_type
from ..arguments.tensors import check_tensor
from ..dispatch import Impl, check_impl
from .accelerated import ForwardPlan, compile_program, install, is_worth_a_call, uninstall
from .report import Acceleration, Counted, Region
from .rewriting import Rewriting, rewrite
from .tracing import Traced
from .weights import turn_weights

Network = TypeVar("Network", bound=nn.Module)


def accelerate(
    network: Network,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
    device: torch.device | str | None = None,
    impl: Impl = "auto",
    verbose: bool = True,
) -> Network:
    """Let the instance norms of somebody's network run as fused operators, and return the same network.

    The network is traced by torch.fx; where its own code cannot be, the modules inside it are. Instance norms without
    parameters and running statistics take in the ReLU or leaky ReLU, the sum and the reflection padding around them.
    Convolutions get weights that are channels last. Parameters, state dict, children, hooks, train() and eval() stay.
    On a CPU, in float64, while a graph is being exported, and where a hook or another module came since, the network
    runs as it was written. What is done, and what is not, is printed, and kept as `network.acceleration`.

    Args:
        network: it may be on its device already, or come there later; it may not be compiled.
        example: arguments of `forward`, of which only shapes and dtypes count: launches and bytes are then counted.
        device: where the network will run; by default where its parameters are. On a CPU nothing is changed.
        impl: see `kernels.dispatch.choose`; an implementation asked for by name runs on a CPU as well.
        verbose: whether the report is printed.

    Raises ValueError for a network that is compiled already and for an `impl` or a `device` that there is not,
    TypeError for what is no module or a scripted one, and for an `example` of anything but tensors.
    """
    _check(network)
    check_impl(impl)
    check_flag("verbose", verbose)
    if example is not None:
        for each in example if isinstance(example, Sequence) else (example,):
            check_tensor("example", each)
    target = _device_of(network) if device is None else _checked_device(device)
    for module in network.modules():
        uninstall(module)
    acceleration = _accelerate(network, example, target, impl)
    vars(network)["acceleration"] = acceleration
    if verbose:
        print(acceleration)
    return network


def _check(network: nn.Module) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"accelerate takes an nn.Module, got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        raise TypeError("accelerate takes a network in Python, got a scripted one: accelerate what it was made from")
    if hasattr(network, "_orig_mod") or network._compiled_call_impl is not None:
        raise ValueError("the network is compiled already: accelerate it first, then compile it")


def _checked_device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one of PyTorch's, such as 'cuda', got {value_and_type(device)}") from error


def _device_of(network: nn.Module) -> torch.device:
    tensors = (*network.parameters(), *network.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def _accelerate(
    network: nn.Module, example: Tensor | Sequence[Tensor] | None, device: torch.device, impl: Impl
) -> Acceleration:
    kind = type(network).__name__
    if impl == "auto" and device.type != "cuda":
        note = f"on a {device.type.upper()} there is nothing to gain; device='cuda' prepares it for a GPU"
        return Acceleration(kind, note=note)
    traced = Traced(network)
    untraced = tuple((path, reason) for path, reason in traced.reasons.items() if _has_norms(network, path))

    def rewrite_all(impl: Impl) -> dict[str, Rewriting]:
        return {path: rewrite(network.get_submodule(path), traced.graphs[path], impl) for path in traced.outer}

    rewritten = rewrite_all(impl)
    left = tuple((_joined(path, name), reason) for path, one in rewritten.items() for name, reason in one.left)
    rewritten = {path: one for path, one in rewritten.items() if one.records}
    if not rewritten:
        return Acceleration(kind, left=left, untraced=untraced)
    regions = tuple(_region(network, path, one) for path, one in rewritten.items())
    counts: tuple[Counted, ...] = ()
    if example is None:
        _install(traced, rewritten, impl)
    else:
        from .counting import count_launches  # here, since it imports what only checks of the kernels need

        before = count_launches(network, example)
        _install(traced, {path: one for path, one in rewrite_all("triton").items() if one.records}, "triton")
        try:
            after = count_launches(network, example)
        finally:
            _install(traced, rewritten, impl)
        counts = tuple(Counted(what, before[what], after[what]) for what in before)
    return Acceleration(kind, regions, left, untraced, counts)


def _install(traced: Traced, rewritten: dict[str, Rewriting], impl: Impl) -> None:
    """Give modules their rewritten `forward`, and their convolutions weights that are channels last.

    Modules inside of others have one, too, which is made when somebody calls them by themselves.
    """
    for path, one in rewritten.items():
        outer = traced.network.get_submodule(path)
        program = compile_program(outer, traced.graphs[path], one)
        for module in outer.modules():
            uninstall(module)
            if is_worth_a_call(module):
                install(module, ForwardPlan(impl))
        uninstall(outer)
        install(outer, ForwardPlan(impl, program))
        turn_weights(outer)


def _region(network: nn.Module, path: str, one: Rewriting) -> Region:
    norms = tuple(one.records)
    return Region(path, type(network.get_submodule(path)).__name__, norms, one.blocks, one.pads, one.biases)


def _has_norms(network: nn.Module, path: str) -> bool:
    return any(isinstance(module, nn.InstanceNorm2d) for module in network.get_submodule(path).modules())


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
