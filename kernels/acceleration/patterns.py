"""Recognises what a node of a traced graph computes, in whichever way it was written."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..dispatch import Activation
from .tracing import has_hooks

_RELUS: set[Any] = {F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_"}
_LEAKY_RELUS: set[Any] = {F.leaky_relu, F.leaky_relu_}
_SUMS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__iadd__", "__radd__"}
_IN_PLACE_OPERATORS: set[Any] = {
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ifloordiv,
    operator.imod,
    operator.ipow,
}
# These read a tensor however it lies, and change none: they take the interior of a padded buffer without a copy.
_READING_VIEWS: set[Any] = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.cat),
    *(torch.sigmoid, torch.tanh, F.relu, torch.relu, F.leaky_relu, F.elu, F.gelu, F.silu),
    *("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "mean", "sum", "size", "dim"),
}
_RESHAPING: set[Any] = {"view", "view_as", "reshape", "reshape_as", "flatten", torch.reshape, torch.flatten}
_VIEWS: set[Any] = {
    *(operator.getitem, torch.narrow, torch.select, torch.chunk, torch.split, torch.unbind, torch.detach),
    *(torch.transpose, torch.permute, torch.movedim, torch.squeeze, torch.unsqueeze, torch.unflatten),
    *("narrow", "select", "chunk", "split", "unbind", "detach", "transpose", "permute", "movedim", "squeeze"),
    *("unsqueeze", "unflatten", "expand", "expand_as", "t"),
    *_RESHAPING,
}
_LAYERS_READING_VIEWS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh)


class Patterns:
    """Reads the nodes of one graph; `root` is the module that was traced."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, or None."""
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def norm(self, node: fx.Node) -> float | str | None:
        """Return the eps of an instance norm that the operator computes, why it does not, or None for another node."""
        module = self.module(node)
        if module is not None:
            if not isinstance(module, nn.InstanceNorm2d) or type(module).forward is not nn.InstanceNorm2d.forward:
                return None
            if module.affine:
                return "affine parameters, which the operator has none of"
            if module.track_running_stats:
                return "running statistics"
            return "hooks on it" if has_hooks(module) else _fused_eps(module.eps)
        if node.target is not F.instance_norm:
            return None
        given = _bound(F.instance_norm, node)
        if given.get("weight") is not None or given.get("bias") is not None:
            return "affine parameters, which the operator has none of"
        if given.get("running_mean") is not None or given.get("use_input_stats", True) is not True:
            return "running statistics"
        eps = given.get("eps", 1e-5)
        return _fused_eps(eps) if isinstance(eps, int | float) else "an eps that is computed"

    def activation(self, node: fx.Node) -> tuple[Activation, float] | None:
        """Return a ReLU's or leaky ReLU's name and slope, or None."""
        module = self.module(node)
        if module is not None:
            if has_hooks(module):
                return None
            if type(module) is nn.ReLU:
                return "relu", 0.0
            return ("leaky_relu", float(module.negative_slope)) if type(module) is nn.LeakyReLU else None
        if node.op not in ("call_function", "call_method"):
            return None
        if node.target in _RELUS:
            return "relu", 0.0
        if node.target in _LEAKY_RELUS:
            slope = _argument(node, 1, "negative_slope", 0.01)
            return ("leaky_relu", float(slope)) if isinstance(slope, int | float) else None
        return None

    def pad(self, node: fx.Node) -> int | str | None:
        """Return the padding of a reflection pad that is the same on all sides, why it is not, or None."""
        module = self.module(node)
        if module is not None:
            if type(module) is not nn.ReflectionPad2d:
                return None
            if has_hooks(module):
                return "hooks on it"
            sides: Any = module.padding
        elif node.target is F.pad and _argument(node, 2, "mode", "constant") == "reflect":
            sides = _argument(node, 1, "pad", None)
        else:
            return None
        if not isinstance(sides, list | tuple) or len(sides) != 4 or not all(isinstance(side, int) for side in sides):
            return "not two sides of an image"
        return int(sides[0]) if len(set(sides)) == 1 and sides[0] > 0 else "not the same on all sides"

    def reflecting_convolution(self, node: fx.Node) -> int | None:
        """Return the padding of a `Conv2d(padding_mode="reflect")` that is the same on all sides, or None."""
        module = self.plain_convolution(node)
        if not isinstance(module, nn.Conv2d) or module.padding_mode != "reflect" or isinstance(module.padding, str):
            return None
        return int(module.padding[0]) if len(set(module.padding)) == 1 and module.padding[0] > 0 else None

    def plain_convolution(self, node: fx.Node) -> nn.Conv2d | nn.ConvTranspose2d | None:
        """Return the module of a convolution of PyTorch that nobody looks into, or None."""
        module = self.module(node)
        if type(module) not in (nn.Conv2d, nn.ConvTranspose2d) or has_hooks(module):  # type: ignore[arg-type]
            return None
        return module if len(node.args) == 1 and not node.kwargs else None  # type: ignore[return-value]  # as tested

    def reads_views(self, node: fx.Node) -> bool:
        """Return whether a node takes a view with gaps without a copy, and changes nothing in place."""
        module = self.module(node)
        if module is not None:
            return type(module) in _LAYERS_READING_VIEWS and not getattr(module, "inplace", False)
        if node.target is getattr:
            return node.args[1] in ("shape", "dtype", "device", "ndim")
        return node.target in _READING_VIEWS and self.changed(node) is None

    def changed(self, node: fx.Node) -> fx.Node | None:
        """Return the node whose tensor this one changes in place and gives back, or None."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            return None
        target = node.target
        module = self.module(node)
        if module is not None:
            is_in_place = bool(getattr(module, "inplace", False))
        elif node.op == "call_method":
            is_in_place = (str(target).endswith("_") and not str(target).endswith("__")) or target == "__iadd__"
        elif node.op == "call_function":
            is_named = getattr(target, "__name__", "").endswith("_") and not str(target).endswith("__")
            is_in_place = target in _IN_PLACE_OPERATORS or is_named or _is_told_in_place(node)
        else:
            is_in_place = False
        return first if is_in_place else None


def _fused_eps(eps: float) -> float | str:
    return float(eps) if eps else "an eps of 0, with which the operator makes NaN of a plane of one value"


def may_be_view(node: fx.Node) -> bool:
    """Return whether a node gives a view of the tensor that it reads, or may do so."""
    if node.target is getattr:
        return node.args[1] in ("data", "T", "mT")
    return node.op in ("call_function", "call_method") and node.target in _VIEWS


def may_be_reshaped(node: fx.Node) -> bool:
    """Return whether a node gives a view of another shape, or a copy where the memory does not lie so."""
    return node.op in ("call_function", "call_method") and node.target in _RESHAPING


def sum_of(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the two tensors that a node adds, or None."""
    if node.op not in ("call_function", "call_method") or node.target not in _SUMS:
        return None
    given = [*node.args, *(node.kwargs[name] for name in ("other",) if name in node.kwargs)]
    if node.kwargs.get("alpha", 1) != 1 or set(node.kwargs) - {"other", "alpha"} or len(given) != 2:
        return None
    first, second = given
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
        return None
    return first, second


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _bound(function: Callable[..., Any], node: fx.Node) -> dict[str, Any]:
    return inspect.signature(function).bind(*node.args, **node.kwargs).arguments


def _is_told_in_place(node: fx.Node) -> bool:
    if "inplace" in node.kwargs:
        return bool(node.kwargs["inplace"])
    try:
        given = _bound(node.target, node)  # type: ignore[arg-type]  # the target of a call is a function
    except (TypeError, ValueError):  # written in C, without a signature
        return False
    return bool(given.get("inplace", False))
