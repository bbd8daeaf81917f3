"""Mends Triton's interpreter so that it computes what a GPU computes, and four times as fast.

Seen in Triton 3.6 and 3.7: it cuts a float32 off where hardware rounds it to the nearest bfloat16, which doubles the
error of everything stored; `tl.dot` multiplies bfloat16 operands by their bits, taken as integers (triton-lang/triton
issue 11584). Two thirds of a small test's time go into patching triton.language anew for every function that a kernel
calls, and into asserting after each sum and product of 32-bit integers, in 64 bits, that it did not overflow. Of what
is left, a third goes into broadcasting operands that have one shape already, and into building the table of NumPy's
types anew for each look into it.

In Triton 3.6 alone: a bound of a loop is read by `int` from an array of one element with a dimension, which NumPy 2.4
refuses.
"""

import dataclasses
from typing import Any

import torch


def mend() -> None:
    """Replace the seven parts of the interpreter that the module's docstring describes."""
    from triton.runtime import interpreter

    interpreter._convert_float = _rounding(interpreter._convert_float)
    _widen_operands_of_dot(interpreter)
    _patch_language_once(interpreter)
    _read_bounds_of_loops(interpreter)
    _remember_types(interpreter)
    _leave_equal_shapes(interpreter)
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


def _rounding(convert: Any) -> Any:
    def convert_float(value: Any, source: Any, target: Any, rounding_mode: Any) -> Any:
        if (str(source), str(target)) == ("fp32", "bf16"):
            return torch.from_numpy(value).bfloat16().view(torch.uint16).numpy()
        if (str(source), str(target)) == ("bf16", "fp32"):
            return torch.from_numpy(value).view(torch.bfloat16).float().numpy()
        return convert(value, source, target, rounding_mode)

    return convert_float


def _widen_operands_of_dot(interpreter: Any) -> None:
    create_dot = interpreter.InterpreterBuilder.create_dot
    float32 = interpreter.tl.float32

    def widened(operand: Any) -> Any:
        if str(operand.dtype.scalar) != "bf16":
            return operand
        value = torch.from_numpy(operand.data.copy()).view(torch.bfloat16).float().numpy()
        return interpreter.TensorHandle(value, float32)

    def create_dot_of_values(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return create_dot(self, widened(a), widened(b), *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot_of_values


def _patch_language_once(interpreter: Any) -> None:
    patched: set[str] = set()
    error = interpreter.InterpreterError

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        # A launch patches the name `tl` of this package's kernels; Triton's own functions use other names for it.
        module = self.fn.__module__
        if module not in patched and not module.startswith(f"{__package__}."):
            interpreter._patch_lang(self.fn)
            patched.add(module)
        try:
            return self.rewrite()(*arguments, **options)
        except Exception as cause:
            raise error(repr(cause)) from cause

    interpreter.InterpretedFunction.__call__ = call


def _read_bounds_of_loops(interpreter: Any) -> None:
    patch = interpreter._patch_lang_tensor

    def patch_language_tensor(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch_language_tensor


def _remember_types(interpreter: Any) -> None:
    look_up = interpreter._get_np_dtype
    found: dict[Any, Any] = {}

    def numpy_type(kind: Any) -> Any:
        scalar = kind.scalar  # of a block, that of its elements; blocks and pointers have no hash
        if scalar.is_ptr():
            return look_up(scalar)
        if scalar not in found:
            found[scalar] = look_up(scalar)
        return found[scalar]

    interpreter._get_np_dtype = numpy_type


def _leave_equal_shapes(interpreter: Any) -> None:
    semantic = type(interpreter.interpreter_semantic)
    broadcast = semantic.broadcast_impl_value

    def broadcast_where_shapes_differ(self: Any, left: Any, right: Any) -> Any:
        if left.type.is_block() and right.type.is_block() and left.type.shape == right.type.shape:
            return left, right
        return broadcast(self, left, right)

    semantic.broadcast_impl_value = broadcast_where_shapes_differ
