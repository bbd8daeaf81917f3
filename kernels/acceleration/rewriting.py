"""Rewrites the graph of a module so that instance norms and what stands around them are fused operators.

The steps are those of `rewrite`, in its order, and each leaves a graph that computes the same. Where a tensor was
changed in place, later readers read the result of that change by its own name, so that a node stands for one value.
Norms take in their activation and sum, and then the reflection pads behind them: other readers see the interior of the
padded buffer. Two norms and their convolutions become a residual block. Biases that a norm subtracts are left out.
"""

import copy
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..dispatch import Activation, Impl
from ..nn.functional import convolve, fused_block, fused_norm, interior, padded
from .patterns import Patterns, may_be_reshaped, may_be_view, sum_of
from .report import FusedNorm


class Rewriting:
    """Holds the copy of a module's graph that is being rewritten, and what was done to it.

    `norms` are the nodes of fused norms that are no part of a block, `records` describes all of them. `left` has the
    names of nodes that were left as they are, with the reasons; the numbers count reflection pads that run by
    themselves, residual blocks, and biases left out.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, impl: Impl) -> None:
        self.patterns = Patterns(module)
        self.graph = copy.deepcopy(graph)
        self.impl = impl
        self.norms: dict[fx.Node, FusedNorm] = {}
        self.records: list[FusedNorm] = []
        self.left: list[tuple[str, str]] = []
        self.pads = self.blocks = self.biases = 0


def rewrite(module: nn.Module, graph: fx.Graph, impl: Impl) -> Rewriting:
    """Return the rewritten copy of a module's graph; without any norm in it that can be fused nothing is changed."""
    rewriting = Rewriting(module, graph, impl)
    _follow_in_place(rewriting)
    if (reshaped := _reshaped_and_changed(rewriting)) is not None:
        rewriting.left.append((reshaped.name, "a tensor that is changed by way of a view of another shape"))
        return rewriting
    _fuse_norms(rewriting)
    if rewriting.norms:
        _spell_out_pads(rewriting)
        _pad_in_norms(rewriting)
        if impl != "c":  # which has none
            _fuse_blocks(rewriting)
        _leave_out_biases(rewriting)
        _take_any_layout(rewriting.graph)
        rewriting.graph.eliminate_dead_code(is_impure_node=_has_effect)
        rewriting.graph.lint()
        rewriting.pads = sum(node.target is padded for node in rewriting.graph.nodes)
    return rewriting


def _has_effect(node: fx.Node) -> bool:
    """Return whether a node stays although nobody reads it: all that were the network's own."""
    return node.op != "get_attr" and node.target is not interior


# --- values that are changed in place --------------------------------------------------------------------------------


def _follow_in_place(rewriting: Rewriting) -> None:
    order = _order(rewriting.graph)
    for node in order:
        changed = rewriting.patterns.changed(node)
        if changed is not None:
            for reader in list(changed.users):
                if order[reader] > order[node]:
                    reader.replace_input_with(changed, node)


def _order(graph: fx.Graph) -> dict[fx.Node, int]:
    return {node: place for place, node in enumerate(graph.nodes)}


def _changes_something(rewriting: Rewriting, node: fx.Node) -> bool:
    is_assignment = node.target in (operator.setitem, operator.delitem) or "out" in node.kwargs
    return is_assignment or rewriting.patterns.changed(node) is not None


def _is_changed_by_a_reader(rewriting: Rewriting, node: fx.Node) -> bool:
    """Return whether a reader changes a tensor, also by way of a view of it."""
    return any(
        _changes_something(rewriting, reader) or (may_be_view(reader) and _is_changed_by_a_reader(rewriting, reader))
        for reader in node.users
    )


def _reshaped_and_changed(rewriting: Rewriting) -> fx.Node | None:
    """Return a view that is changed, of a tensor that is read afterwards: channels last it may be a copy."""
    order = _order(rewriting.graph)
    for node in rewriting.graph.nodes:
        if may_be_reshaped(node) and _is_changed_by_a_reader(rewriting, node):
            base: fx.Node = node.all_input_nodes[0]
            if any(order[reader] > order[node] for reader in base.users):
                view: fx.Node = node
                return view
    return None


# --- norms, with the activation and the sum behind them --------------------------------------------------------------


def _fuse_norms(rewriting: Rewriting) -> None:
    for node in list(rewriting.graph.nodes):
        eps = rewriting.patterns.norm(node)
        if isinstance(eps, str):
            rewriting.left.append((_name(node), f"instance norm: {eps}"))
        elif eps is not None:
            _fuse_norm(rewriting, node, eps)


def _fuse_norm(rewriting: Rewriting, norm: fx.Node, eps: float) -> None:
    span = [norm]
    activation: Activation = "none"
    slope = 0.0
    residual: fx.Node | None = None
    reader = _only_reader(norm)
    found = rewriting.patterns.activation(reader) if reader else None
    if reader and found and _nothing_changes_between(rewriting, span, reader):
        activation, slope = found
        span.append(reader)
    reader = _only_reader(span[-1])
    added = sum_of(reader) if reader else None
    if reader and added and _nothing_changes_between(rewriting, span, reader):
        other = added[0] if added[1] is span[-1] else added[1]
        if rewriting.patterns.changed(reader) is not other or _is_nobodys(rewriting, other):
            residual = other
            span.append(reader)
            behind = _only_reader(reader)
            if behind and rewriting.patterns.activation(behind):
                rewriting.left.append(
                    (_name(behind), "activation behind the sum, which the operator has in front of it")
                )
    options: dict[str, Any] = {"activation": activation, "negative_slope": slope, "pad": 0, "eps": eps}
    options |= {"impl": rewriting.impl, "is_function": norm.op == "call_function"}
    with rewriting.graph.inserting_after(span[-1]):
        fused = rewriting.graph.call_function(fused_norm, (_input(norm), residual), options)
    record = FusedNorm(_name(norm), activation, residual is not None)
    rewriting.norms[fused] = record
    rewriting.records.append(record)
    span[-1].replace_all_uses_with(fused)
    for node in reversed(span):
        rewriting.graph.erase_node(node)


def _nothing_changes_between(rewriting: Rewriting, span: Sequence[fx.Node], last: fx.Node) -> bool:
    """Return whether the norm, first in `span`, may as well be computed where `last` is."""
    order = _order(rewriting.graph)
    between = [node for node, place in order.items() if order[span[0]] < place < order[last] and node not in span]
    return not any(_changes_something(rewriting, node) for node in between)


def _is_nobodys(rewriting: Rewriting, node: fx.Node) -> bool:
    """Return whether a tensor that is changed in place is surely not seen under another name, or by the caller."""
    patterns = rewriting.patterns
    is_new = node.target is fused_norm or patterns.plain_convolution(node) is not None
    readers_copy = all(
        sum_of(reader) or patterns.plain_convolution(reader) or patterns.pad(reader) or reader.target is fused_norm
        for reader in node.users
    )
    return is_new and readers_copy


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _input(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs["input"]


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


# --- reflection pads -------------------------------------------------------------------------------------------------


def _spell_out_pads(rewriting: Rewriting) -> None:
    """Give every reflection pad, also that of a convolution, a node of its own."""
    graph = rewriting.graph
    for node in list(graph.nodes):
        pad = rewriting.patterns.pad(node)
        if isinstance(pad, str):
            rewriting.left.append((_name(node), f"reflection pad: {pad}"))
        elif pad is not None:
            with graph.inserting_after(node):
                new = graph.call_function(padded, (_input(node), pad), {"impl": rewriting.impl})
            _replace(graph, node, new)
        elif (pad := rewriting.patterns.reflecting_convolution(node)) is not None:
            with graph.inserting_before(node):
                buffer = graph.call_function(padded, (node.args[0], pad), {"impl": rewriting.impl})
                module = graph.get_attr(str(node.target))
                new = graph.call_function(convolve, (module, buffer), {"with_bias": True})
            _replace(graph, node, new)


def _replace(graph: fx.Graph, old: fx.Node, new: fx.Node) -> None:
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _pad_in_norms(rewriting: Rewriting) -> None:
    for norm in list(rewriting.norms):
        pads = Counter(reader.args[1] for reader in norm.users if reader.target is padded)
        if pads:
            _pad_in_norm(rewriting, norm, pads.most_common(1)[0][0])


def _pad_in_norm(rewriting: Rewriting, norm: fx.Node, pad: Any) -> None:
    chosen = [reader for reader in norm.users if reader.target is padded and reader.args[1] == pad]
    others = [reader for reader in norm.users if reader not in chosen]
    record = rewriting.norms[norm]
    if not all(_takes_interior(rewriting, reader, norm) for reader in others):
        rewriting.left.append((record.name, "padding: its result is read unpadded as well, by what would copy it"))
        return
    if any(_is_changed_by_a_reader(rewriting, reader) for reader in chosen):
        rewriting.left.append((record.name, "padding: the padded tensor is changed in place"))
        return
    graph = rewriting.graph
    norm.kwargs = {**norm.kwargs, "pad": pad}
    record.pad = pad
    for reader in chosen:
        _replace(graph, reader, norm)
    if others:
        with graph.inserting_after(norm):
            inside = graph.call_function(interior, (norm, pad))
        for reader in others:
            reader.replace_input_with(norm, inside)


def _takes_interior(rewriting: Rewriting, reader: fx.Node, norm: fx.Node) -> bool:
    if reader.target is fused_norm:
        return reader.args[0] is not norm
    return reader.target is padded or rewriting.patterns.reads_views(reader)


# --- residual blocks -------------------------------------------------------------------------------------------------


def _fuse_blocks(rewriting: Rewriting) -> None:
    for second in list(rewriting.norms):
        found = _block_that_ends_in(rewriting, second)
        if found is not None:
            _fuse_block(rewriting, second, *found)


def _block_that_ends_in(rewriting: Rewriting, second: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, fx.Node] | None:
    """Return the padded input of a residual block, both its convolutions and its first norm, or None."""
    options = second.kwargs
    if options["activation"] != "none" or options["pad"] not in (0, 1) or second.args[1] is None:
        return None
    convolution2, first = _block_convolution(rewriting, second.args[0])
    if convolution2 is None or first not in rewriting.norms or len(first.users) != 1:
        return None
    expected = {**options, "activation": "relu", "pad": 1, "negative_slope": first.kwargs["negative_slope"]}
    if first.kwargs != expected or first.args[1] is not None:
        return None
    convolution1, buffer = _block_convolution(rewriting, first.args[0])
    if convolution1 is None or buffer is None or _is_changed_by_a_reader(rewriting, buffer):
        return None
    around: Any = second.args[1]
    is_its_interior = around.target is interior and around.args == (buffer, 1)
    is_padded_here = buffer.target is padded and buffer.args == (around, 1)
    return (buffer, convolution1, convolution2, first) if is_its_interior or is_padded_here else None


def _block_convolution(rewriting: Rewriting, node: Any) -> tuple[fx.Node | None, Any]:
    """Return the node of a 3x3 convolution that one norm alone reads, and its padded input; else None, None."""
    module = _convolution(rewriting, node)
    if not isinstance(module, nn.Conv2d) or len(node.users) != 1:
        return None, None
    shape = (module.kernel_size, module.stride, module.dilation, module.groups)
    is_padded = node.target is convolve or module.padding in ((0, 0), "valid")
    if shape != ((3, 3), (1, 1), (1, 1), 1) or module.in_channels != module.out_channels or not is_padded:
        return None, None
    return node, node.args[-1]


def _fuse_block(
    rewriting: Rewriting, second: fx.Node, buffer: fx.Node, convolution1: fx.Node, convolution2: fx.Node, first: fx.Node
) -> None:
    graph = rewriting.graph
    with graph.inserting_before(second):
        modules = [_get_module(graph, node) for node in (convolution1, convolution2)]
        options = {name: second.kwargs[name] for name in ("eps", "impl", "is_function")}
        block = graph.call_function(fused_block, (buffer, *modules), {"pad_out": second.kwargs["pad"], **options})
    for node in (first, second):
        rewriting.norms.pop(node).in_block = True
    rewriting.biases += sum(_has_bias(rewriting, node) for node in (convolution1, convolution2))
    rewriting.blocks += 1
    second.replace_all_uses_with(block)
    for node in (second, convolution2, first, convolution1):
        graph.erase_node(node)


def _convolution(rewriting: Rewriting, node: Any) -> nn.Conv2d | nn.ConvTranspose2d | None:
    """Return the module of a node that `convolve` can compute, or None."""
    if not isinstance(node, fx.Node):
        return None
    if node.target is convolve:
        named: Any = node.args[0]
        return rewriting.patterns.root.get_submodule(named.target)  # type: ignore[return-value]  # made here
    module = rewriting.patterns.plain_convolution(node)
    return module if module is not None and module.padding_mode == "zeros" else None


def _has_bias(rewriting: Rewriting, node: fx.Node) -> bool:
    module = _convolution(rewriting, node)
    return module is not None and module.bias is not None


def _get_module(graph: fx.Graph, node: fx.Node) -> fx.Node:
    named: Any = node.args[0] if node.target is convolve else node
    return graph.get_attr(str(named.target))


# --- biases, and layouts ---------------------------------------------------------------------------------------------


def _leave_out_biases(rewriting: Rewriting) -> None:
    graph = rewriting.graph
    for norm in list(rewriting.norms):
        node: Any = norm.args[0]
        if _has_bias(rewriting, node) and len(node.users) == 1:
            with graph.inserting_before(node):
                module = _get_module(graph, node)
                new = graph.call_function(convolve, (module, node.args[-1]), {"with_bias": False})
            _replace(graph, node, new)
            rewriting.biases += 1


def _take_any_layout(graph: fx.Graph) -> None:
    """Turn views, which a tensor in channels last refuses, into reshapes."""
    for node in graph.nodes:
        if node.op == "call_method" and node.target == "view" and not isinstance(node.args[1], torch.dtype):
            node.target = "reshape"
        elif node.op == "call_method" and node.target == "view_as":
            node.target = "reshape_as"
