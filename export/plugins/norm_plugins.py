"""Registers the norm's kernels with `tensorrt.plugin`, so that TensorRT's ONNX parser finds them by name.

TensorRT asks what a plugin's outputs are, in which formats it takes tensors, and for its kernel: PTX, the grid as an
expression of the inputs' sides, and sizes to pass. All of it goes into the engine, which needs neither Triton nor
Python to run. No line of this has built an engine yet; tests drive it by NVIDIA's own `tensorrt.plugin` 11.4, whose
Python runs without a GPU.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cyclegan_fast.system.errors import UserError
from export.engines.libraries import Library
from export.plugins.compiled_kernel import CompiledKernel, ElementType, Entry, compiled_kernel
from export.plugins.node_names import APPLY_NODE, APPLY_RESIDUAL_NODE, DOMAIN, STATISTICS_NODE

_Function = TypeVar("_Function", bound=Callable[..., Any])

_TILE: dict[str, type] = {"channels": int, "pixels_per_program": int, "block_pixels": int, "block_channels": int}
_OPTIONS: dict[str, type] = {"num_warps": int, "maxnreg": int}
_NORM: dict[str, type] = {"activation": str, "pad": int, "epsilon": str, "to": str}
_capabilities: dict[str, int] = {}
"""by the name of a package, the GPU that its plugins are compiled for"""


def register_norm_plugins(library: Library, capability: int) -> None:
    """Register the plugins, once for a process.

    Args:
        library: TensorRT.
        capability: 10 * major + minor of the GPU that engines are built for.

    Raises UserError as `plugin_package` does, and for another GPU than before.
    """
    package = plugin_package(library)
    if library.name not in _capabilities:
        _register(library.module, package, capability)
        _capabilities[library.name] = capability
    elif (before := _capabilities[library.name]) != capability:
        raise UserError(f"--norms triton builds for one GPU in a process: sm{before} before, now sm{capability}")


def plugin_package(library: Library) -> Any:
    """Return the library's package `plugin`. Raises UserError where it takes no compiled kernels."""
    name = f"{library.name} {library.version}"
    if library.is_rtx:
        # `import tensorrt_rtx.plugin` (1.7.1): "No module named 'tensorrt_rtx_bindings.plugin'". A network has no
        # add_plugin, and the parser: "TensorRT-RTX imports IPluginV3 plugins registered with an IPluginCreatorV3One
        # creator only." Plugins of compiled kernels have another creator, IPluginCreatorV3Quick.
        raise UserError(
            f"--norms triton needs --runtime tensorrt, on an NVIDIA GPU: {name} takes no plugins of compiled kernels"
        )
    try:
        package = importlib.import_module(f"{library.name}.plugin")
    except ImportError as error:
        raise UserError(f"--norms triton needs TensorRT 10.9 or later, and this is {name} ({error})") from error
    if not hasattr(package, "aot_impl"):
        raise UserError(f"--norms triton needs TensorRT 10.9 or later, and this is {name}")
    return package


def _annotated(tensors: Sequence[str], attributes: dict[str, type], tensor: Any, result: Any) -> Any:
    """Return a decorator that types a function's parameters as the package reads them, by annotations."""

    def decorate(function: _Function) -> _Function:
        function.__annotations__ = {**dict.fromkeys(tensors, tensor), **attributes, "return": result}
        return function

    return decorate


def _text(attribute: str) -> str:
    """Return an attribute's text without the zero that ends strings in C, should TensorRT's parser hand that on."""
    return attribute.rstrip("\0")


def _register(trt: Any, trtp: Any, capability: int) -> None:
    dtypes = {"float32": trt.DataType.FLOAT, "float16": trt.DataType.HALF, "bfloat16": trt.DataType.BF16}
    elements: dict[Any, ElementType] = {
        trt.DataType.FLOAT: "fp32",
        trt.DataType.HALF: "fp16",
        trt.DataType.BF16: "bf16",
    }
    names = {trt.DataType.FLOAT: "FP32", trt.DataType.HALF: "FP16", trt.DataType.BF16: "BF16"}
    tensor, two_tensors = trtp.TensorDesc, tuple[trtp.TensorDesc, trtp.TensorDesc]
    compiled = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]

    def formats(*ends: Any, statistics: Sequence[int]) -> list[Any]:
        """Return the one way to pass these tensors; `statistics` are the places of those that are no images.

        Images have their channels last. TensorRT pads channels of 16 bits to a multiple of 8, which they are.
        """
        images = {trt.DataType.FLOAT: "HWC", trt.DataType.HALF: "HWC8", trt.DataType.BF16: "HWC8"}
        layouts = ["LINEAR" if place in statistics else images[end.dtype] for place, end in enumerate(ends)]
        return [trtp.AutoTuneCombination(", ".join(names[end.dtype] for end in ends), ", ".join(layouts))]

    def launch(kernel: CompiledKernel, grid: tuple[Any, int, Any], sizes: Sequence[Any]) -> tuple[str, str, Any, Any]:
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x, parameters.grid_y, parameters.grid_z = grid
        parameters.block_x, parameters.shared_mem = kernel.threads, kernel.shared_bytes
        extra = trtp.SymIntExprs(len(sizes))
        for index, size in enumerate(sizes):
            extra[index] = trtp.SymInt32(size)
        return kernel.name, kernel.ptx, parameters, extra

    # --- statistics of splits ---

    identifier = f"{DOMAIN}::{STATISTICS_NODE}"
    attributes = {**_TILE, **_OPTIONS}

    @trtp.register(identifier)
    @_annotated(["x"], attributes, tensor, tensor)
    def describe_statistics(x, channels, pixels_per_program, block_pixels, block_channels, num_warps, maxnreg):  # type: ignore[no-untyped-def]  # _annotated types them
        batch, _, height, width = x.shape_expr
        splits = trtp.cdiv(height * width, pixels_per_program)
        return trtp.from_shape_expr((batch, splits, 3, channels), trt.DataType.FLOAT)

    @trtp.autotune(identifier)
    def statistics_formats(x, outputs):  # type: ignore[no-untyped-def]
        return formats(x, *outputs, statistics=[1])

    @trtp.aot_impl(identifier)
    @_annotated(["x"], attributes, tensor, compiled)
    def compile_statistics(  # type: ignore[no-untyped-def]
        x, channels, pixels_per_program, block_pixels, block_channels, num_warps, maxnreg, outputs, tactic
    ):
        kernel = compiled_kernel(
            "plugin_norm_statistics",
            capability,
            {"x_ptr": elements[x.dtype]},
            {
                "CHANNELS": channels,
                "PIXELS_PER_PROGRAM": pixels_per_program,
                "BLOCK_PIXELS": block_pixels,
                "BLOCK_CHANNELS": block_channels,
            },
            {"num_warps": num_warps, "maxnreg": maxnreg},
        )
        batch, _, height, width = x.shape_expr
        splits = trtp.cdiv(height * width, pixels_per_program)
        return launch(kernel, (splits, -(-channels // block_channels), batch), (height, width, splits))

    # --- the norm, with and without a residual ---

    attributes = {**_TILE, **_NORM, **_OPTIONS}

    def described(x: Any, channels: int, pad: int, to: str) -> tuple[Any, Any]:
        batch, _, height, width = x.shape_expr
        y = trtp.from_shape_expr((batch, channels, height + 2 * pad, width + 2 * pad), dtypes[_text(to)])
        return y, trtp.from_shape_expr((batch, 3, channels), trt.DataType.FLOAT)

    def applied(
        entry: Entry, images: dict[str, Any], partials: Any, given: dict[str, Any]
    ) -> tuple[str, str, Any, Any]:
        """Compile and launch for images by the names of the entry's pointers, and the attributes by theirs."""
        kernel = compiled_kernel(
            entry,
            capability,
            {name: elements[image.dtype] for name, image in images.items()},
            {
                "CHANNELS": given["channels"],
                "PIXELS_PER_PROGRAM": given["pixels_per_program"],
                "ACTIVATION": _text(given["activation"]),
                "PAD": given["pad"],
                "EPS": float(_text(given["epsilon"])),
                "BLOCK_PIXELS": given["block_pixels"],
                "BLOCK_CHANNELS": given["block_channels"],
            },
            {name: given[name] for name in _OPTIONS},
        )
        batch, _, height, width = images["x_ptr"].shape_expr
        padded_pixels = (height + 2 * given["pad"]) * (width + 2 * given["pad"])
        grid = (
            trtp.cdiv(padded_pixels, given["pixels_per_program"]),
            -(-given["channels"] // given["block_channels"]),
            batch,
        )
        return launch(kernel, grid, (height, width, partials.shape_expr[1]))

    plain, with_residual = f"{DOMAIN}::{APPLY_NODE}", f"{DOMAIN}::{APPLY_RESIDUAL_NODE}"

    @trtp.register(plain)
    @_annotated(["x", "partials"], attributes, tensor, two_tensors)
    def describe_apply(  # type: ignore[no-untyped-def]
        x, partials, channels, pixels_per_program, block_pixels, block_channels, activation, pad, epsilon, to,
        num_warps, maxnreg,
    ):  # fmt: skip
        return described(x, channels, pad, to)

    @trtp.autotune(plain)
    def apply_formats(x, partials, outputs):  # type: ignore[no-untyped-def]
        return formats(x, partials, *outputs, statistics=[1, 3])

    @trtp.aot_impl(plain)
    @_annotated(["x", "partials"], attributes, tensor, compiled)
    def compile_apply(  # type: ignore[no-untyped-def]
        x, partials, channels, pixels_per_program, block_pixels, block_channels, activation, pad, epsilon, to,
        num_warps, maxnreg, outputs, tactic,
    ):  # fmt: skip
        given = {name: value for name, value in locals().items() if name in attributes}
        return applied("plugin_norm_apply", {"x_ptr": x, "y_ptr": outputs[0]}, partials, given)

    @trtp.register(with_residual)
    @_annotated(["x", "partials", "residual"], attributes, tensor, two_tensors)
    def describe_apply_residual(  # type: ignore[no-untyped-def]
        x, partials, residual, channels, pixels_per_program, block_pixels, block_channels, activation, pad, epsilon, to,
        num_warps, maxnreg,
    ):  # fmt: skip
        return described(x, channels, pad, to)

    @trtp.autotune(with_residual)
    def apply_residual_formats(x, partials, residual, outputs):  # type: ignore[no-untyped-def]
        return formats(x, partials, residual, *outputs, statistics=[1, 4])

    @trtp.aot_impl(with_residual)
    @_annotated(["x", "partials", "residual"], attributes, tensor, compiled)
    def compile_apply_residual(  # type: ignore[no-untyped-def]
        x, partials, residual, channels, pixels_per_program, block_pixels, block_channels, activation, pad, epsilon, to,
        num_warps, maxnreg, outputs, tactic,
    ):  # fmt: skip
        given = {name: value for name, value in locals().items() if name in attributes}
        images = {"x_ptr": x, "residual_ptr": residual, "y_ptr": outputs[0]}
        return applied("plugin_norm_apply_residual", images, partials, given)
