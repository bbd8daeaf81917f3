"""Lists the variants that Triton compiles for a call of an operator, and for all calls of the networks.

Launches are recorded instead of made, on tensors without storage. `kernels.aot` compiles what is recorded for every
architecture, `kernels.checking.ahead` for the GPU at hand.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dispatch import TRITON_DTYPES
from ..elementwise.signed_windows import SAMPLE_DTYPES
from ..gpus import GPUS, Gpu, planning_for
from ..launching import Grid, launching_with
from .runs import run_networks, run_of_images, run_windows

TYPE_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
    torch.uint16: "u16",
    torch.int16: "i16",
}


@dataclass(frozen=True)
class Specialisation:
    """Describes the variant of a kernel that one call compiles.

    It is hashable, and small enough to send to another process.
    """

    capability: int
    kernel: str
    """the module and the name, as module:name"""
    signature: tuple[tuple[str, Any], ...]
    """types by name; a tuple of types for a tuple of tensors"""
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[str, ...]
    """arguments known to be multiples of 16; "name.3" is one of a tuple"""
    options: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return self.kernel.partition(":")[2]

    @property
    def jit(self) -> Any:
        """Return the kernel, a function under `triton.jit`."""
        module, _, name = self.kernel.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def dtype(self) -> str:
        of_x: str = dict(self.signature)["x_ptr"]
        return of_x.removeprefix("*")

    @property
    def multiplies_on_tensor_cores(self) -> bool:
        return self.dtype != "fp32" or ("PRECISION", "tf32") in self.constants

    @property
    def stores_narrow_rows(self) -> bool:
        """Return whether the variant writes a few sums for each channel, or rows of a few channels, and no more.

        Or it adds to edges, of which a tile of 16 places leaves each thread four channels.
        """
        constants = dict(self.constants)
        first_phase = self.name in ("instance_norm_statistics", "instance_norm_backward_sums")
        few_places = self.name == "conv2d_3x3_edge_gradients" and constants["BLOCK_PIXELS"] == 16
        return self.is_thin_convolution or few_places or (first_phase and not constants.get("STORE_H", False))

    @property
    def is_thin_convolution(self) -> bool:
        return self.name.startswith("thin_")

    @property
    def has_wide_rows(self) -> bool:
        """Return whether tiles have rows of 16 bytes and more: an image's few channels, or its planes, have not.

        The compiler knows it of channels that it knows to be a multiple of 16.
        """
        constants = dict(self.constants)
        is_odd = "channels" in dict(self.signature) and "channels" not in self.divisible
        return (
            int(constants.get("BLOCK_CHANNELS", 0)) >= 8 and not is_odd and bool(constants.get("X_CHANNELS_LAST", True))
        )

    @property
    def wide_loads_needed(self) -> int:
        """Return how many loads of 128 bits a norm's code holds if every operand of a tile is read that way."""
        constants = dict(self.constants)
        if not self.name.startswith("instance_norm"):
            return 0
        tile_bytes = constants["BLOCK_PIXELS"] * constants["BLOCK_CHANNELS"] * (4 if self.dtype == "fp32" else 2)
        of_an_operand = tile_bytes // (16 * 32 * dict(self.options)["num_warps"])
        operands = 1 + constants.get("HAS_RESIDUAL", False)
        if "backward" in self.name:
            # Folding a pad reads nine places of dY.
            operands = 1 + (9 if constants["PAD"] else 1) + constants["HAS_SKIP"]
        return int(of_an_operand * operands)

    @property
    def flags(self) -> str:
        """Describe the constants that tell this variant from others, such as "1024x16 relu, pad 1"."""
        constants = dict(self.constants)
        tile = "x".join(str(constants[n]) for n in constants if n.startswith("BLOCK_"))
        shown = [str(constants["ACTIVATION"])] if "ACTIVATION" in constants else []
        shown += [f"pad {constants['PAD']}"] if "PAD" in constants else []
        shown += [n.lower() for n, v in constants.items() if v is True and not n.endswith("CHANNELS_LAST")]
        shown += [str(constants["PRECISION"])] if "PRECISION" in constants else []
        return f"{tile} {', '.join(shown)}"


def recorded(capability: int, kernel: Any, arguments: dict[str, Any], options: dict[str, Any]) -> Specialisation:
    """Return the variant that Triton would compile for this call, decided as its JIT decides."""
    signature: dict[str, Any] = {}
    constants, divisible = {}, []
    for parameter in kernel.params:
        name, value = parameter.name, arguments[parameter.name]
        if isinstance(value, Tensor):
            signature[name] = f"*{TYPE_NAMES[value.dtype]}"
            divisible.append(name)  # PyTorch aligns allocations, and an image of 8 channels keeps 16 bytes
        elif parameter.is_constexpr or (value == 1 and isinstance(value, int) and not parameter.do_not_specialize):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, tuple):  # parts of larger tensors may begin anywhere
            signature[name] = tuple(f"*{TYPE_NAMES[tensor.dtype]}" for tensor in value)
            offsets = [tensor.storage_offset() * tensor.element_size() for tensor in value]
            divisible += [f"{name}.{index}" for index, offset in enumerate(offsets) if offset % 16 == 0]
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                divisible.append(name)
        else:
            signature[name] = "fp32"
    return Specialisation(
        capability,
        f"{kernel.fn.__module__}:{kernel.fn.__name__}",
        tuple(signature.items()),
        tuple(constants.items()),
        tuple(divisible),
        tuple(options.items()),
    )


def recorded_launches(run: Callable[[], object], gpu: Gpu) -> list[Specialisation]:
    """Return what `run` launches, each variant once, without launching it.

    Args:
        run: calls operators on tensors of the device "meta".
        gpu: the GPU that plans are made for.
    """
    found: dict[Specialisation, None] = {}

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        found[recorded(gpu.capability, kernel, arguments, options)] = None

    with launching_with(record), planning_for(gpu):
        run()
    return list(found)


def network_launches(gpu: Gpu, dtypes: Iterable[torch.dtype], batches: Iterable[int]) -> list[Specialisation]:
    """Return everything that training and translation launch on a GPU at 256x256, each variant once."""

    def run() -> None:
        for dtype in dtypes:
            for batch in batches:
                run_networks(batch, dtype)

    return recorded_launches(run, gpu)


def image_launches(gpu: Gpu, channels: Iterable[int], dtypes: Iterable[torch.dtype]) -> list[Specialisation]:
    """Return what stands around the networks and computes with images, for images of other numbers of channels."""

    def run() -> None:
        for count in channels:
            for dtype in dtypes:
                run_of_images(1, count, dtype)
            for samples in SAMPLE_DTYPES:
                run_windows(1, count, samples)

    return recorded_launches(run, gpu)


def specialisations(
    capability: int, dtypes: Iterable[torch.dtype] = TRITON_DTYPES, batches: Iterable[int] = (1, 2, 16, 32)
) -> list[Specialisation]:
    """Return `network_launches` on the GPU that stands for an architecture, such as 90 for Hopper.

    The batches are those that steps of 1 and of 16 images give the networks.
    """
    return network_launches(GPUS[capability], dtypes, batches)
