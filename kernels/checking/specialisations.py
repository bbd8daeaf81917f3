"""Lists the variants that Triton compiles for a call of an operator, and for all calls of the networks.

Launches are recorded instead of made, on tensors without storage. `kernels.aot` compiles what is recorded for every
architecture, `kernels.checking.ahead` for the GPU at hand.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from .. import plans
from ..conv2d import conv_forward
from ..convolution.edge_gradients import reflected_input_gradient
from ..dispatch import TRITON_DTYPES
from ..elementwise.adam import ADAM_UPDATE, AdamOperands, launch_adam
from ..elementwise.bias_activation import BIAS_ACTIVATION, BIAS_ACTIVATION_BACKWARD
from ..elementwise.image_exchange import IMAGE_EXCHANGE
from ..elementwise.mean_error import MEAN_ERROR, MEAN_ERROR_BACKWARD
from ..elementwise.signed_windows import SIGNED_WINDOWS
from ..gpus import GPUS, Gpu, gpu_of, planning_for
from ..launching import Grid, launching_with
from ..norm.forward import norm_forward
from ..reflection_pad import pad_backward, pad_forward
from ..registration import LAUNCHES
from ..thin_convolution import convolution as thin
from .sites import NormSite, all_sites, generator_sites, run_backward, run_forward

TYPE_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
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
        """Return whether tiles have rows of 8 channels or more, 16 bytes wide: a 3-channel image's have not."""
        return int(dict(self.constants).get("BLOCK_CHANNELS", 0)) >= 8

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
                _run_everything(batch, dtype)

    return recorded_launches(run, gpu)


def specialisations(
    capability: int, dtypes: Iterable[torch.dtype] = TRITON_DTYPES, batches: Iterable[int] = (1, 2, 16, 32)
) -> list[Specialisation]:
    """Return `network_launches` on the GPU that stands for an architecture, such as 90 for Hopper.

    The batches are those that steps of 1 and of 16 images give the networks.
    """
    return network_launches(GPUS[capability], dtypes, batches)


def _run_everything(batch: int, dtype: torch.dtype) -> None:
    image = torch.empty((batch, 3, 256, 256), dtype=dtype, device="meta")
    for layout in (torch.contiguous_format, torch.channels_last):
        pad_backward(pad_forward(image.contiguous(memory_format=layout), 3), 3)
    _run_elementwise(batch, dtype)
    _run_adam(dtype)
    for site in all_sites():
        _run_site(site, batch, dtype)
        if site.feeds_block:  # compiled graphs add the two gradients themselves
            _run_site(dataclasses.replace(site, feeds_block=False), batch, dtype)
    site = generator_sites()[3]
    for which_pass in get_args(plans.NormPass):
        plan = plans.cooperative_plan(which_pass, site.shape(1), dtype, gpu_of(image))
        if plan is not None:  # a GPU of few multiprocessors cannot hold the programs of this site at once
            with plans.forcing(plan):
                _run_site(site, batch, dtype, which_pass)
    _run_site(NormSite("an image of 2^31 elements", 64, 5800, "relu", pad=1), 1, dtype)
    x = torch.empty((batch, 256, 64, 64), dtype=dtype, device="meta").contiguous(memory_format=torch.channels_last)
    weight = torch.empty((256, 256, 3, 3), dtype=dtype, device="meta")
    reflected_input_gradient(x, weight, x)
    for reflect in (True, False):
        y, partials = conv_forward(x, weight, reflect=reflect)
        norm_forward(y, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=1e-5, partials=partials)
    if dtype != torch.float32:
        run_thin(batch, dtype)


def run_thin(batch: int, dtype: torch.dtype) -> None:
    """Launch the kernels of a generator's last and of its first convolution."""

    def lying(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta").contiguous(memory_format=torch.channels_last)

    x, y = lying(batch, 64, 262, 262), lying(batch, 3, 256, 256)
    thin.launch_to_thin(x, lying(3, 64, 7, 7), torch.empty(3, dtype=dtype, device="meta"), 1, True)
    thin.launch_to_thin_wgrad(y, x, 7, 1)
    image, dy = lying(batch, 3, 262, 262), lying(batch, 64, 256, 256)
    thin.launch_from_thin_dgrad(dy, lying(64, 3, 7, 7), 1)
    thin.launch_from_thin_wgrad(dy, image, 7, 1)


def _run_elementwise(batch: int, dtype: torch.dtype) -> None:
    """Run what stands around the networks: images from bytes, biases, losses, the exchange of a pool."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)

    pixels = torch.empty((batch, 286, 286, 3), dtype=torch.uint8, device="meta")
    windows = _call(SIGNED_WINDOWS, pixels, empty(batch, 3, dtype=torch.int64), 256, 256)
    image, scores, upstream = empty(batch, 3, 256, 256), empty(batch, 1, 30, 30), empty(1, dtype=torch.float32)
    _call(IMAGE_EXCHANGE, image, empty(51, 3, 256, 256), empty(2, batch, dtype=torch.int64))
    errors: list[tuple[Tensor, Tensor | None, str]] = [
        (image, windows, "absolute"),
        (scores, None, "from 1"),
        (scores, None, "from 0"),
        (scores, scores, "from 1 and 0"),
    ]
    for x, y, kind in errors:
        _call(MEAN_ERROR, x, y, kind, 1.0, 1)
        _call(MEAN_ERROR_BACKWARD, upstream, x, y, kind, 1.0, 1, True, y is scores)
    for y, bias, activation in (
        (image, empty(3), "tanh"),
        (empty(batch, 64, 128, 128), empty(64), "leaky_relu"),
    ):
        _call(BIAS_ACTIVATION, y, bias, activation, 0.2)
        for wants_bias in (True, False):
            _call(BIAS_ACTIVATION_BACKWARD, y, y, bias, activation, 0.2, wants_bias)


def _run_adam(dtype: torch.dtype) -> None:
    """Update the weights of two generators' blocks, and the biases of their last layers, which have two gradients."""

    def operands(gradients: int, *shape: int) -> AdamOperands:
        weight, first, second = (torch.empty(shape, device="meta") for _ in range(3))
        copy, *found = (torch.empty(shape, dtype=dtype, device="meta") for _ in range(1 + gradients))
        return AdamOperands(weight, copy, first, second, torch.empty((), device="meta"), tuple(found))

    everything = [operands(1, 256, 256, 3, 3) for _ in range(36)] + [operands(2, 3) for _ in range(2)]
    learning_rate = torch.empty((), device="meta")
    launch_adam(everything, learning_rate, 0.5, 0.999, 1e-8, lambda *arguments: _call(ADAM_UPDATE, *arguments))


def _call(operator: Any, *arguments: Any) -> Any:
    """Run what an operator runs, on tensors without storage."""
    return LAUNCHES[operator](*arguments)


def _run_site(site: NormSite, batch: int, dtype: torch.dtype, only: str | None = None) -> None:
    operands = site.operands(batch, dtype, "meta")
    statistics = torch.empty((batch, 3, site.channels), device="meta")
    if only != "backward":
        run_forward(site, operands)
    if only != "forward":
        run_backward(site, operands, statistics)
