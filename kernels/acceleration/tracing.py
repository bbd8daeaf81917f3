"""Traces modules into graphs of torch.fx, and refuses those whose graph would not do what their `forward` does.

torch.fx and not torch.export, since its graphs call the network's own modules: sizes stay free, no example is needed,
and hooks, autocast, train() and eval() go on meaning what they mean. Its tracer sees no control flow, and forgets what
it does not see; what could be forgotten is looked for here.
"""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature, unwrap
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..nn import InstanceNorm2d, ReflectionPad2d, ResidualBlock

OURS = (InstanceNorm2d, ReflectionPad2d, ResidualBlock)
ABOUT_MEMORY = {"as_strided", "data_ptr", "is_contiguous", "storage", "stride", "untyped_storage"}
"""Methods of a tensor whose result depends on how it lies in memory."""


class Untraceable(Exception):
    """Says why a module cannot be traced, in words that follow its name."""


class Traced:
    """Holds the graphs of a network's modules, and the reasons of those that could not be traced, by path.

    The network itself comes first. Of a module that can be traced, those inside are part of its graph: they have no
    graph of their own, unless they have hooks. Of a module that cannot, each one inside is tried, and then the module
    once more, with calls of those that cannot be traced either. PyTorch's layers are calls in any case.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.graphs: dict[str, fx.Graph] = {}
        self.reasons: dict[str, str] = {}
        self._opaque: set[nn.Module] = set()
        self._seen: set[nn.Module] = set()
        self._trace("", network)

    @property
    def outer(self) -> list[str]:
        """Return the paths of modules that are no part of another one's graph, which together hold everything."""
        return sorted(path for path in self.graphs if not self._is_inside(path))

    def _trace(self, path: str, module: nn.Module) -> None:
        if module in self._seen:
            return
        self._seen.add(module)
        if _is_layer(module):
            self._trace_children(path, module)
            return
        if self._has_graph(path, module):
            for name, part in module.named_modules(prefix=path):
                if part is not module and has_hooks(part) and not _is_layer(part):
                    self._trace(name, part)
            return
        opaque_before = len(self._opaque)
        self._trace_children(path, module)
        if len(self._opaque) == opaque_before or not self._has_graph(path, module):
            self._opaque.add(module)

    def _trace_children(self, path: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            self._trace(f"{path}.{name}" if path else name, child)

    def _has_graph(self, path: str, module: nn.Module) -> bool:
        try:
            self.graphs[path] = trace(module, self._opaque)
        except Untraceable as reason:
            self.reasons[path] = str(reason)
            return False
        self.reasons.pop(path, None)
        return True

    def _is_inside(self, path: str) -> bool:
        while path and not has_hooks(self.network.get_submodule(path)):
            path = path.rpartition(".")[0]
            if path in self.graphs:
                return True
            if not isinstance(self.network.get_submodule(path), nn.ModuleList | nn.ModuleDict):
                return False
        return False


def trace(module: nn.Module, opaque: set[nn.Module]) -> fx.Graph:
    """Return the graph of a module's `forward`, in which the modules in `opaque` are calls.

    Raises Untraceable where that cannot be had, or where the graph would leave something out.
    """
    if "forward" in vars(module):
        raise Untraceable("its forward was replaced on the object")
    if module._compiled_call_impl is not None:
        raise Untraceable("it is compiled already; accelerate first, then compile")
    if any(argument.kind is argument.VAR_POSITIONAL for argument in signature(module.forward).parameters.values()):
        raise Untraceable("its forward takes any number of arguments, which torch.fx puts in another order")
    if "isinstance" in _names_used_by(module, opaque):
        raise Untraceable("its forward asks for types, and what torch.fx passes on is no tensor yet")
    graphs = []
    for training in (True, False):
        with torch.set_grad_enabled(training):
            graphs.append(_trace_once(module, opaque, training=training))
    codes = {graph.python_code("self").src for graph in graphs}
    if len(codes) > 1:
        raise Untraceable("its forward is another one in train() than in eval() without gradients")
    for node in graphs[0].nodes:
        if node.op == "call_method" and node.target in ABOUT_MEMORY:
            raise Untraceable(f"its forward asks how a tensor lies in memory ({node.target})")
    return graphs[0]


def has_hooks(module: nn.Module) -> bool:
    """Return whether somebody wants to be told when this module runs, forward or backward."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _is_layer(module: nn.Module) -> bool:
    is_of_pytorch = type(module).__module__.startswith(("torch.nn", "torch.ao.nn"))
    return isinstance(module, OURS) or (is_of_pytorch and not isinstance(module, nn.Sequential))


def _trace_once(module: nn.Module, opaque: set[nn.Module], *, training: bool) -> fx.Graph:
    with _training_mode(module, training):
        before, randomness = _attributes(module), _randomness()
        try:
            graph = _Tracer(opaque).trace(module)
        except Untraceable:
            raise
        except Exception as error:  # what runs is somebody's own code, which may raise anything
            raise Untraceable(_first_line(error)) from error
        finally:
            written = _restore(before)
        if written:
            raise Untraceable(f"its forward writes attributes: {', '.join(sorted(written))}")
        if _randomness() != randomness:
            raise Untraceable("its forward decides, or computes, by random numbers that torch.fx does not see")
        return graph


def _names_used_by(module: nn.Module, opaque: set[nn.Module]) -> set[str]:
    """Return the global names and attributes in the code of a module's `forward` and of those that a graph takes in."""
    names: set[str] = set()
    for part in module.modules():
        if part not in opaque and not _is_layer(part):
            code = getattr(unwrap(type(part).forward), "__code__", None)
            names.update(code.co_names if code else ())
    return names


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].partition(". ")[0]
    if isinstance(error, fx.proxy.TraceError) or "Proxy" in text or "symbolic" in text:
        return f"its forward has control flow that depends on its arguments ({text})"
    return f"torch.fx: {type(error).__name__}: {text}"


def arguments_left_out(forward: Callable[..., Any]) -> list[tuple[int, str]]:
    """Return position and name of the arguments that are None by default, without which a graph is made.

    `x is None` says nothing of a proxy: with one, the graph would be that of the argument given, always.
    """
    parameters = enumerate(signature(forward).parameters.values())
    return [(position, parameter.name) for position, parameter in parameters if parameter.default is None]


def _randomness() -> tuple[Any, ...]:
    """Return the states of the generators that Python code draws from."""
    numpy: Any = sys.modules.get("numpy")
    of_numpy = () if numpy is None else (numpy.random.get_state()[1].tobytes(), *numpy.random.get_state()[2:])
    return random.getstate(), torch.get_rng_state().tolist(), *of_numpy


class _Tracer(fx.Tracer):
    """Traces as torch.fx does, and raises Untraceable where it would leave something out in silence."""

    proxy_buffer_attributes = True

    def __init__(self, opaque: set[nn.Module]) -> None:
        super().__init__()
        self.opaque = opaque
        self.modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.opaque or has_hooks(m) or _is_layer(m)

    def create_args_for_root(self, root_fn: Any, *arguments: Any, **options: Any) -> tuple[Any, list[Any]]:
        function, proxies = super().create_args_for_root(root_fn, *arguments, **options)
        for position, _ in arguments_left_out(root_fn):
            proxies[position] = None
        return function, proxies

    def create_node(self, *arguments: Any, **options: Any) -> fx.Node:
        # A graph has no room for contexts: what ran under one would run without it.
        if _modes() != self.modes:
            raise Untraceable("part of its forward runs under no_grad, autocast, checkpointing or the like")
        return super().create_node(*arguments, **options)

    def create_arg(self, a: Any) -> Any:
        # A tensor that is none of the network's was computed here and now: the graph would have it as a constant.
        if isinstance(a, Tensor) and not self._is_of_the_network(a):
            raise Untraceable("its forward computes with parameters or constants outside of what torch.fx sees")
        return super().create_arg(a)

    def _is_of_the_network(self, tensor: Tensor) -> bool:
        owned = (*self.root.parameters(), *self.root.buffers())
        return any(tensor is other for other in owned) or tensor in self.tensor_attrs


def _modes() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")),
        torch._C._autograd._top_saved_tensors_default_hooks(False) is not None,
    )


@contextmanager
def _training_mode(module: nn.Module, training: bool) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    for part, _ in before:
        part.training = training
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


_Attributes = list[tuple[nn.Module, dict[str, tuple[Any, Any]]]]


def _attributes(root: nn.Module) -> _Attributes:
    """Return the attributes of all modules, and copies of those that are containers."""
    return [
        (module, {name: (value, _copied(value)) for name, value in vars(module).items()}) for module in root.modules()
    ]


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list | set) else None


def _restore(before: _Attributes) -> set[str]:
    """Give modules the attributes back that they had; return the names of those that had changed."""
    changed = set()
    for module, attributes in before:
        now = vars(module)
        for name in set(now) - set(attributes):
            changed.add(name)
            del now[name]
        for name, (value, content) in attributes.items():
            if name not in now or now[name] is not value or not _has_content(value, content):
                changed.add(name)
                now[name] = value
                if content is not None:
                    value.clear()
                    (value.extend if isinstance(value, list) else value.update)(content)
    return changed


def _has_content(value: Any, content: Any) -> bool:
    if content is None:
        return True
    pairs = zip(_items(value), _items(content), strict=False)
    return len(value) == len(content) and all(a is b for a, b in pairs)


def _items(container: Any) -> list[Any]:
    return [*container.keys(), *container.values()] if isinstance(container, dict) else list(container)
