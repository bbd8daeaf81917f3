"""`python -m kernels.aot`: compile every kernel for every architecture, with no GPU present, and read the result.

What is compiled is what the networks launch: the sites of both networks are run on tensors without storage, for one GPU
of each architecture, and each launch is recorded instead of made. The compiler's output is then held to the limits of
memory-bound and matrix kernels: no spilled registers, shared memory that the GPU has, 16-byte global accesses along the
channels, tensor-core instructions in the convolution, room on a multiprocessor for as many programs as a norm plans.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from . import triton_language
from .checking.specialisations import Specialisation, image_launches, specialisations
from .dispatch import TRITON_DTYPES
from .gpus import GPUS, resident_programs

# This is the shared memory that one program may use, from the CUDA C++ programming guide's table of compute
# capabilities.
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
TENSOR_CORES = {80: "mma.sync", 86: "mma.sync", 89: "mma.sync", 90: "wgmma", 100: "tcgen05", 120: "mma.sync"}


MULTIPLYING = ("conv2d_3x3", "thin_convolution", "thin_weight_gradient")
"""The kernels whose products are large enough for the architecture's newest instruction: the edges' are not."""


@dataclass(frozen=True)
class CompilerReport:
    """Holds what the compiler made of one variant of a kernel: registers, memory, widths of accesses."""

    specialisation: Specialisation
    registers: int
    """registers per thread"""
    spilled_bytes: int
    """bytes of stack and local memory per thread"""
    shared_bytes: int
    """bytes of shared memory per program"""
    load_bits: int
    """width of the widest global load"""
    store_bits: int
    """width of the widest global store"""
    wide_loads: int
    """number of global loads of 128 bits in the code"""
    tensor_core: str
    """the tensor-core instruction that it uses; empty for none"""

    def broken_limits(self) -> list[str]:
        """Return a phrase for each limit that kernels of this project must hold and this one does not."""
        broken = []
        if self.spilled_bytes:
            broken.append(f"{self.spilled_bytes} bytes spilled")
        available = SHARED_BYTES[self.specialisation.capability]
        if self.shared_bytes > available:
            broken.append(f"{self.shared_bytes} bytes of shared memory, {available} available")
        if self.specialisation.has_wide_rows:
            for what, bits in (("load", self.load_bits), ("store", self.store_bits)):
                if bits < 128 and not (what == "store" and self.specialisation.stores_narrow_rows):
                    broken.append(f"widest global {what} has {bits} bits, not 128")
            if self.wide_loads < self.specialisation.wide_loads_needed:
                needed = self.specialisation.wide_loads_needed
                broken.append(f"{self.wide_loads} global loads of 128 bits, {needed} if all operands are read so")
        if self.specialisation.name.startswith("instance_norm"):
            capability, options = self.specialisation.capability, dict(self.specialisation.options)
            planned = resident_programs(capability, options["num_warps"], options["maxnreg"])
            fitting = resident_programs(capability, options["num_warps"], self.registers, self.shared_bytes)
            if fitting < planned:
                broken.append(f"{fitting} programs fit a multiprocessor, planned for {planned}")
        multiplies = self.specialisation.name in MULTIPLYING
        if multiplies and self.specialisation.multiplies_on_tensor_cores:
            expected = TENSOR_CORES[self.specialisation.capability]
            if not self.tensor_core.startswith(expected):
                broken.append(f"no {expected}")
        return broken


def compile_to_cubin(specialisation: Specialisation) -> Any:
    """Compile a variant for its architecture, to machine code; return Triton's compiled kernel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel = specialisation.jit
    source = ASTSource(
        fn=kernel,
        signature=dict(specialisation.signature),
        constexprs=dict(specialisation.constants),
        attrs={_place(kernel.arg_names, name): [["tt.divisibility", 16]] for name in specialisation.divisible},
    )
    return compile(
        source, target=GPUTarget("cuda", specialisation.capability, 32), options=dict(specialisation.options)
    )


def _place(names: Sequence[str], name: str) -> tuple[int, ...]:
    """Return where an argument stands, and where in it, of "name.3"."""
    name, _, index = name.partition(".")
    return (names.index(name), int(index)) if index else (names.index(name),)


def compile_variant(specialisation: Specialisation) -> CompilerReport:
    """Compile a variant for its architecture, and read the compiler's output."""
    binary = compile_to_cubin(specialisation)
    registers, spilled = _resource_usage(binary.asm["cubin"])
    ptx = binary.asm["ptx"]
    tensor_core = re.search(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)[\w.:]*", ptx)
    return CompilerReport(
        specialisation,
        registers,
        spilled,
        binary.metadata.shared,
        _widest(ptx, "ld"),
        _widest(ptx, "st"),
        len(re.findall(r"\bld\.global[.\w:]*\.v4\.[bfsu]32|\bld\.global[.\w:]*\.v2\.[bfsu]64", ptx)),
        tensor_core.group(0) if tensor_core else "",
    )


def _resource_usage(cubin: bytes) -> tuple[int, int]:
    """Return registers per thread, and bytes of stack and local memory, which cuobjdump reads."""
    text = nvidia_tool("cuobjdump", "-res-usage", cubin)
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def nvidia_tool(tool: str, option: str, cubin: bytes) -> str:
    """Return what one of the tools inside the triton package, such as "nvdisasm", says of machine code."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([path, option, file.name], capture_output=True, text=True, check=True).stdout


def _widest(ptx: str, what: str) -> int:
    """Return the bits of the widest global access in PTX; a convolution copies from global to shared memory."""
    if what == "ld" and (copies := re.findall(r"\bcp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)[,;]", ptx)):
        return 8 * max(int(size, 0) for size in copies)
    widths = re.findall(rf"\b{what}\.global(?:\.\w+(?:::\w+)*)*?(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    return max((int(lanes or 1) * int(bits) for lanes, bits in widths), default=0)


def _by_kernel(reports: list[CompilerReport]) -> dict[tuple[str, int], list[CompilerReport]]:
    """Group reports by kernel and architecture, in the order in which they came."""
    groups: dict[tuple[str, int], list[CompilerReport]] = {}
    for report in reports:
        groups.setdefault((report.specialisation.name, report.specialisation.capability), []).append(report)
    return groups


def _table(reports: list[CompilerReport]) -> str:
    """Return a Markdown table, a row for each kernel on each architecture, with the worst figures of its variants."""
    lines = [
        "| kernel | sm | variants | registers | spilled bytes | shared bytes | load bits | store bits | tensor cores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, capability), group in _by_kernel(reports).items():
        vectorised = [report for report in group if report.specialisation.has_wide_rows] or group
        instructions = sorted({report.tensor_core.split(".sync")[0] for report in group if report.tensor_core})
        cells = [
            name,
            capability,
            len(group),
            max(report.registers for report in group),
            max(report.spilled_bytes for report in group),
            max(report.shared_bytes for report in group),
            min(report.load_bits for report in vectorised),
            min(report.store_bits for report in vectorised),
            ", ".join(instructions),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def compile_all(wanted: list[Specialisation], processes: int) -> Iterator[CompilerReport]:
    """Compile in parallel and yield reports in the order of `wanted`."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(compile_variant, wanted, chunksize=2)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.aot", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--all", action="store_true", help="every dtype and batch size; else bfloat16 at batch 1")
    parser.add_argument("--sm", type=int, nargs="+", default=sorted(GPUS), choices=sorted(GPUS), help="architectures")
    parser.add_argument(
        "--channels", type=int, nargs="+", metavar="N", help="what images of so many channels launch, and no more"
    )
    parser.add_argument("--verbose", action="store_true", help="a line for each variant")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="compilers at a time")
    options = parser.parse_args(arguments)
    if reason := triton_language.reason_against_compiling():
        print(f"kernels.aot {reason}", file=sys.stderr)
        return 2
    dtypes, batches = (TRITON_DTYPES, (1, 2, 16, 32)) if options.all else ((torch.bfloat16,), (1,))
    wanted = [
        found
        for capability in options.sm
        for found in (
            image_launches(GPUS[capability], options.channels, dtypes)
            if options.channels
            else specialisations(capability, dtypes, batches)
        )
    ]
    start = time.perf_counter()
    reports = []
    for report in compile_all(wanted, options.processes):
        reports.append(report)
        if sys.stderr.isatty():
            print(f"\rcompiled {len(reports)} of {len(wanted)}", end="", file=sys.stderr)
        if options.verbose:
            print(_described(report), flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(_table(reports))
    broken = [report for report in reports if report.broken_limits()]
    for report in broken:
        print(f"{_described(report)}: {'; '.join(report.broken_limits())}", file=sys.stderr)
    seconds = time.perf_counter() - start
    print(f"{len(reports)} variants compiled in {seconds:.0f} s, {len(broken)} break a limit")
    return 1 if broken else 0


def _described(report: CompilerReport) -> str:
    """Describe one variant in one line."""
    what = report.specialisation
    return (
        f"sm_{what.capability} {what.name} {what.dtype} {what.flags}: {report.registers} registers, "
        f"{report.spilled_bytes} bytes spilled, {report.shared_bytes} bytes shared, loads {report.load_bits} bits, "
        f"stores {report.store_bits} bits {report.tensor_core}".rstrip()
    )


if __name__ == "__main__":
    sys.exit(main())
