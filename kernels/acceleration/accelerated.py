"""Gives a module a rewritten `forward`, and runs the module's own one where the rewritten one has no place.

The module stays the object it was, with its parameters, its children and its type's name: its class becomes a subclass
with another `forward`, as torch.nn.utils.parametrize and FSDP do it. An attribute of the object would not do, as copies
of the object that DataParallel makes would call the first one's.
"""

import functools
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import tree_leaves, tree_map_only

from ..dispatch import Impl, choose, is_exporting
from ..nn.functional import fused_block, fused_norm, interior
from .rewriting import Rewriting, rewrite
from .tracing import Traced, arguments_left_out, has_hooks

FEWEST_NORMS = 2
"""norms that make up for a copy of the result back to NCHW"""

_PLAN = "_acceleration_plan"


@dataclass(frozen=True)
class Program:
    """Holds a rewritten `forward`.

    Args:
        run: called with the module and the arguments of its `forward`.
        absorbed: the modules that it does not call, although `forward` does, the module itself first.
        left_out: positions and names of arguments that are None by default, and that it is not for.
        wants_channels_last: whether it gains nothing unless its input lies so: it would copy its result back.
    """

    run: Callable[..., Any]
    absorbed: "tuple[Absorbed, ...]"
    left_out: tuple[tuple[int, str], ...]
    wants_channels_last: bool


@dataclass(frozen=True)
class Absorbed:
    """Describes a module as it was when the graph was made: where it is, its `forward`, and what that depends on."""

    path: tuple[str, ...]
    forward: Callable[..., Any]
    attributes: tuple[str, ...]
    values: tuple[Any, ...]
    children: tuple[str, ...] | None
    """names of what is in a container, or None"""

    @classmethod
    def of(cls, root: nn.Module, path: str) -> "Absorbed":
        module = root.get_submodule(path)
        attributes = next((names for kind, names in _ATTRIBUTES.items() if isinstance(module, kind)), ())
        values = tuple([getattr(module, name) for name in attributes])
        children = tuple(module._modules) if isinstance(module, _CONTAINERS) else None
        return cls(tuple(path.split(".")) if path else (), _written(module), attributes, values, children)

    def is_now(self, root: nn.Module) -> bool:
        """Return whether such a module is still there, or a copy of it, and without hooks."""
        part: Any = root
        for name in self.path:
            part = part._modules.get(name)
            if part is None:
                return False
        if _written(part) is not self.forward or (self.path and has_hooks(part)):
            return False
        if self.children is not None and tuple(part._modules) != self.children:
            return False
        return tuple([getattr(part, name) for name in self.attributes]) == self.values


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.InstanceNorm2d: ("eps", "affine", "track_running_stats"),
    nn.LeakyReLU: ("negative_slope",),
    nn.ReflectionPad2d: ("padding",),
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
}
"""Attributes of layers that a program was made for."""


def _written(module: nn.Module) -> Callable[..., Any]:
    """Return the `forward` that a module has in its code."""
    kind = type(module)
    forward: Callable[..., Any] = getattr(kind, "_accelerated_from", kind).forward
    return forward


def compile_program(module: nn.Module, graph: fx.Graph, rewriting: Rewriting) -> Program:
    """Return the program of a module, from its graph and the rewritten one."""
    code = rewriting.graph.python_code("self")
    names = dict(code.globals)
    exec(compile(code.src, f"<accelerated {type(module).__name__}>", "exec"), names)
    absorbed = tuple([Absorbed.of(module, path) for path in ("", *_absorbed(graph, rewriting))])
    left_out = tuple(arguments_left_out(module.forward))
    (result,) = (node for node in rewriting.graph.nodes if node.op == "output")
    gives_norm = any(node.target in (fused_norm, fused_block, interior) for node in result.all_input_nodes)
    return Program(names["forward"], absorbed, left_out, gives_norm and len(rewriting.records) < FEWEST_NORMS)


def _absorbed(graph: fx.Graph, rewriting: Rewriting) -> list[str]:
    before, after = (
        Counter(str(node.target) for node in some.nodes if node.op == "call_module")
        for some in (graph, rewriting.graph)
    )
    parents = {path.rpartition(".")[0] for path in before} - {""}
    while above := {path.rpartition(".")[0] for path in parents} - {""} - parents:
        parents |= above
    return sorted(parents | {path for path in before if after[path] < before[path]})


class ForwardPlan:
    """Says how a module is computed: by which implementation, and by which program.

    Copies of a module share its plan. A program that is not given is made when it is needed; so it is after pickle.
    """

    def __init__(self, impl: Impl, program: Program | None = None) -> None:
        self.impl: Impl = impl
        self.program = program
        self.can_be_made = program is None

    def __deepcopy__(self, memo: dict[int, Any]) -> "ForwardPlan":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return ForwardPlan, (self.impl,)

    @staticmethod
    def is_looked_at() -> bool:
        """Return whether somebody makes a graph of the network, which is to be that of the network as written."""
        is_traced = torch._C._get_tracing_state() is not None  # by torch.jit.trace
        return is_traced or is_fx_symbolic_tracing() or is_exporting()

    def program_for(self, module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Program | None:
        """Return what computes `module` for these arguments, or None where its own `forward` has to."""
        x = next((leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)), None)
        if x is None or (self.impl == "auto" and choose("accelerate", "auto", x) == "reference"):
            return None
        if self.program is None and self.can_be_made and not torch.compiler.is_compiling():
            self.can_be_made = False
            self.program = _made(module, self.impl)
        program = self.program
        if program is None or (program.wants_channels_last and not lies_channels_last(x)):
            return None
        return program if _is_as_it_was(module, program) and _is_for(program, module, arguments, options) else None


def is_worth_a_call(module: nn.Module) -> bool:
    """Return whether a module that is called by itself may gain: one norm would be copied back to NCHW."""
    is_code = not type(module).__module__.startswith("torch.nn") or isinstance(module, nn.Sequential)
    return is_code and sum(isinstance(part, nn.InstanceNorm2d) for part in module.modules()) >= FEWEST_NORMS


def _made(module: nn.Module, impl: Impl) -> Program | None:
    traced = Traced(module)
    if "" not in traced.graphs:
        return None
    rewriting = rewrite(module, traced.graphs[""], impl)
    return compile_program(module, traced.graphs[""], rewriting) if rewriting.records else None


def _is_as_it_was(module: nn.Module, program: Program) -> bool:
    """Return whether the modules that do not run by themselves are still what they were, and have no hooks."""
    if _has_any_global_hook():  # type: ignore[no-untyped-call]  # untyped in torch
        return False
    for part in program.absorbed:
        if not part.is_now(module):
            name = ".".join(part.path) or type(module).__name__
            _say(module, f"{name} has a hook, or was replaced, since accelerate was called", "; call accelerate again")
            return False
    return True


def _is_for(program: Program, module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    for position, name in program.left_out:
        given = options.get(name) if position >= len(arguments) else arguments[position]
        if given is not None:
            _say(module, f"{name} was given, and accelerate takes it to be None, as by default")
            return False
    return True


def _say(module: nn.Module, reason: str, advice: str = "") -> None:
    if not torch.compiler.is_compiling():
        warnings.warn(f"{reason}: {type(module).__name__} runs as it was written{advice}", stacklevel=6)


def install(module: nn.Module, plan: ForwardPlan) -> None:
    """Let a module compute by a plan."""
    module.__class__ = accelerated_class(type(module))
    vars(module)[_PLAN] = plan


def uninstall(module: nn.Module) -> None:
    """Give a module the class back that it had, if it has a plan."""
    if _PLAN in vars(module):
        del vars(module)[_PLAN]
    base = getattr(type(module), "_accelerated_from", None)
    if base is not None:
        module.__class__ = base


_classes: "weakref.WeakKeyDictionary[type[nn.Module], type[nn.Module]]" = weakref.WeakKeyDictionary()


def accelerated_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of `base` whose objects compute by their plans where they have one."""
    if base not in _classes:
        _classes[base] = _make_class(base)
    return _classes[base]


def _make_class(base: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(base.forward)
    def forward(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        plan: ForwardPlan | None = self.__dict__.get(_PLAN)
        if plan is None or plan.is_looked_at():
            return base.forward(self, *arguments, **options)
        program = plan.program_for(self, arguments, options)
        run = base.forward if program is None else program.run
        return lying_as_given(run(self, *arguments, **options), arguments, options)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        # The class has no name that pickle could import: the class that it was made from has.
        reduced: Any = base.__reduce_ex__(self, protocol)
        made, arguments, *state = reduced
        if arguments and arguments[0] is type(self):
            return _new, (base, made, arguments[1:]), *state
        return made, arguments, *state

    attributes = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_accelerated_from": base,
    }
    return type(base.__name__, (base,), attributes)


def _new(base: type[nn.Module], made: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    """Make the object that pickle and copy then fill."""
    return made(accelerated_class(base), *arguments)


def lies_channels_last(x: Tensor) -> bool:
    """Return whether x lies channels last, and not in NCHW as well, as tensors of one channel do."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def lying_as_given(results: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Return results in the memory format of the first tensor given, as PyTorch's operators do.

    Somebody may ask for a `view` of them.
    """
    x = next((leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)), None)
    is_last = x is not None and lies_channels_last(x)

    def laid(y: Tensor) -> Tensor:
        if y.dim() not in (3, 4):
            return y
        is_image_batch = is_last and y.dim() == 4
        return y.contiguous(memory_format=torch.channels_last if is_image_batch else torch.contiguous_format)

    return laid(results) if isinstance(results, Tensor) else tree_map_only(Tensor, laid, results)
