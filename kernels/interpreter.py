"""Mends Triton's interpreter so that it computes what a GPU computes, and several times as fast.

Seen in Triton 3.6 and 3.7: it cuts a float32 off where hardware rounds it to the nearest bfloat16, which doubles the
error of everything stored; `tl.dot` multiplies bfloat16 operands by their bits, taken as integers (triton-lang/triton
issue 11584). Two thirds of a small test's time go into patching triton.language anew for every function that a kernel
calls, and into asserting after each sum and product of 32-bit integers, in 64 bits, that it did not overflow. A third
of what is left goes into making the types of results anew for every operation, though a kernel has a few dozen.

In Triton 3.6 alone: a bound of a loop is read by `int` from an array of one element with a dimension, which NumPy 2.4
refuses.
"""

import dataclasses
from typing import Any

import torch


def mend() -> None:
    """Replace the parts of the interpreter that the module's docstring describes."""
    from triton.runtime import interpreter

    interpreter._convert_float = _rounding(interpreter._convert_float)
    _widen_operands_of_dot(interpreter)
    _patch_language_once(interpreter)
    _read_bounds_of_loops(interpreter)
    _remember_types(interpreter)
    _leave_operands_that_match(interpreter)
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
    """Make the type of blocks of one shape, and what a tensor holds of its type, once for each shape.

    Tensors of one shape then share the object that `shape` is, which nothing in Triton writes to.
    """
    core = interpreter.tl.core
    make_type, make_tensor, numpy_type = core.block_type.__init__, core.tensor.__init__, interpreter._get_np_dtype
    types: dict[tuple[Any, ...], dict[str, Any]] = {}
    of_tensors: dict[tuple[int, ...], dict[str, Any]] = {}
    of_scalars: dict[str, Any] = {}
    numpy_types: dict[str, Any] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple([size.value if isinstance(size, core.constexpr) else size for size in shape])
        known = types.get((element_ty.name, sizes))
        if known is None:
            make_type(self, element_ty, shape)
            known = types[element_ty.name, sizes] = {**vars(self), "of_tensors": of_tensors.setdefault(sizes, {})}
        self.__dict__.update(known)
        self.element_ty = element_ty

    def tensor(self: Any, handle: Any, type: Any) -> None:
        known = type.of_tensors if type.is_block() else of_scalars
        if not known:
            make_tensor(self, handle, type)
            known.update(shape=self.shape, numel=self.numel)
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = known["shape"], known["numel"]

    def get_np_dtype(type: Any) -> Any:
        known = numpy_types.get(type.name)
        if known is None:
            known = numpy_types[type.name] = numpy_type(type)
        return known

    core.block_type.__init__ = block_type
    core.tensor.__init__ = tensor
    interpreter._get_np_dtype = get_np_dtype


def _leave_operands_that_match(interpreter: Any) -> None:
    """Look for the type and the shape that two tensors have in common only where they differ, for a shape only once."""
    core, semantic = interpreter.tl.core, interpreter.TritonSemantic
    check_types, broadcast = semantic.binary_op_type_checking_impl, semantic.broadcast_impl_value
    in_common: dict[tuple[int, int], Any] = {}

    def binary_op_type_checking_impl(self: Any, lhs: Any, rhs: Any, *rest: Any, **options: Any) -> Any:
        # Two tensors of one type need no other, but in a quotient; pointers have rules of their own.
        is_quotient = options.get("div_or_mod") or rest[3:] == (True,)
        are_alike = type(lhs) is type(rhs) is core.tensor and lhs.dtype is rhs.dtype
        if are_alike and not is_quotient and not lhs.dtype.is_ptr():
            return self.broadcast_impl_value(lhs, rhs)
        return check_types(self, lhs, rhs, *rest, **options)

    def broadcast_impl_value(self: Any, lhs: Any, rhs: Any) -> Any:
        if lhs.shape is rhs.shape:
            return lhs, rhs
        if len(lhs.shape) != len(rhs.shape):
            return broadcast(self, lhs, rhs)
        shapes = id(lhs.shape), id(rhs.shape)  # of objects that are remembered, and so never of others
        if shapes not in in_common:
            result, _ = broadcast(self, lhs, rhs)
            in_common[shapes] = result.shape, result.type.shape
        whole, shape = in_common[shapes]
        return tuple(x if x.shape is whole else self.broadcast_impl_shape(x, shape) for x in (lhs, rhs))

    semantic.binary_op_type_checking_impl = binary_op_type_checking_impl
    semantic.broadcast_impl_value = broadcast_impl_value
