"""Compiles the entries of the norm's kernels to PTX as TensorRT takes it. No GPU is needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from cyclegan_fast.system.errors import UserError

ElementType = Literal["fp32", "fp16", "bf16"]
Entry = Literal["plugin_norm_statistics", "plugin_norm_apply", "plugin_norm_apply_residual"]

_SIZES = ("height", "width", "splits")
_SCRATCH = 2
"""pointers that Triton adds behind a kernel's own parameters, for memory that these kernels do not use"""


@dataclass(frozen=True)
class CompiledKernel:
    """Holds what TensorRT puts into an engine."""

    name: str
    """the kernel's name in the PTX"""
    ptx: str
    threads: int
    """threads of a program"""
    shared_bytes: int
    """dynamic shared memory of a program"""


def compiled_kernel(
    entry: Entry,
    capability: int,
    elements: Mapping[str, ElementType],
    constants: Mapping[str, Any],
    options: Mapping[str, int],
) -> CompiledKernel:
    """Compile an entry for a GPU.

    Args:
        entry: a function of `norm_entries`.
        capability: 10 * major + minor of the GPU, 90 for Hopper.
        elements: types of the images' elements, by the names of the entry's pointers; statistics are float32.
        constants: what is compiled in, by the names of the entry's constexpr parameters.
        options: num_warps and maxnreg, as a plan has them.

    Raises UserError where Triton cannot compile here.
    """
    return _compiled(entry, capability, *(tuple(sorted(each.items())) for each in (elements, constants, options)))


@cache
def _compiled(
    entry: Entry,
    capability: int,
    elements: tuple[tuple[str, ElementType], ...],
    constants: tuple[tuple[str, Any], ...],
    options: tuple[tuple[str, int], ...],
) -> CompiledKernel:
    from cyclegan_fast.kernels import triton_language
    from cyclegan_fast.kernels.aot import compile_to_cubin
    from cyclegan_fast.kernels.checking.specialisations import Specialisation
    from export.plugins import norm_entries

    if reason := triton_language.reason_against_compiling():
        raise UserError(f"--norms triton {reason}")
    runtime = [name for name in getattr(norm_entries, entry).arg_names if name not in dict(constants)]
    kinds = {name: "i32" if name in _SIZES else f"*{dict(elements).get(name, 'fp32')}" for name in runtime}
    specialisation = Specialisation(
        capability=capability,
        kernel=f"{norm_entries.__name__}:{entry}",
        signature=tuple(kinds.items()) + tuple((name, "constexpr") for name, _ in constants),
        constants=constants,
        divisible=tuple(name for name in runtime if name.endswith("_ptr")),  # TensorRT aligns tensors to 256 bytes
        options=options,
    )
    binary = compile_to_cubin(specialisation)
    metadata = binary.metadata
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise UserError(f"{entry} needs scratch memory, which TensorRT does not give it: leave --norms triton out")
    ptx = without_scratch(without_source_lines(binary.asm["ptx"]), metadata.name, len(runtime))
    return CompiledKernel(metadata.name, ptx, 32 * metadata.num_warps, metadata.shared)


def without_scratch(ptx: str, name: str, parameters: int) -> str:
    """Return PTX whose kernel has its own parameters alone.

    Triton adds two pointers to scratch memory, which TensorRT does not pass: a launch would read them from behind the
    list of arguments. Raises ValueError where there are others, or where one of them is used.
    """
    head, separator, body = ptx.partition(")")
    declared = re.findall(r"\.param [^,\n]*?(\w+)(?=,|\s*$)", head, re.MULTILINE)
    expected = [f"{name}_param_{index}" for index in range(parameters + _SCRATCH)]
    if declared != expected:
        raise ValueError(f"{name} must have the parameters {expected}, got {declared}")
    used = [each for each in expected[parameters:] if re.search(rf"\b{each}\b", body)]
    if used:
        raise ValueError(f"{name} uses the scratch memory {', '.join(used)}")
    kept, _, _ = head.partition(f"{name}_param_{parameters - 1},")
    return f"{kept}{name}_param_{parameters - 1}\n{separator}{body}"


def without_source_lines(ptx: str) -> str:
    """Return PTX without the paths and lines of the source, which would tell of the machine that built an engine."""
    code, _, _ = ptx.partition("\t.file\t1 ")
    return "".join(line for line in code.splitlines(keepends=True) if not line.startswith("\t.loc\t"))
