"""Builds an engine from an ONNX graph, by TensorRT 10 or 11 or by TensorRT for RTX.

Their Python interface is the same; `libraries` chooses between them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar
from export.engines.engine_card import ImageShape, Profile
from export.engines.libraries import Library
from export.engines.library_messages import make_messages
from export.library_errors import explaining

RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
DEFAULT_TARGETS = ("sm80", "sm86", "sm89", "sm120")
SINCE = {"fp8": 89, "bfloat16": 80}  # Ada and Ampere: the library builds neither for older GPUs


@dataclass(frozen=True)
class EngineTensor:
    """Describes an engine's input or output, as the library read it from the graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """its sides; -1 for a side that may vary"""


@dataclass(frozen=True)
class BuiltEngine:
    """Holds an engine's bytes, and what the library says of it."""

    content: bytes
    input: EngineTensor
    output: EngineTensor
    timings: bytes | None
    """the library's timing cache after the build, for the next one; None where it keeps none"""


def default_targets(library: Library, precision: str) -> tuple[str, ...]:
    """Return the compute capabilities that an engine is built for where the user names none.

    There are none for TensorRT, which builds for the GPU at hand.
    """
    if not library.is_rtx:
        return ()
    return tuple(target for target in DEFAULT_TARGETS if _has(target, precision))


def _has(target: str, precision: str) -> bool:
    return int(target.removeprefix("sm")) >= SINCE.get(precision, 0)


def check_targets(library: Library, targets: Sequence[str], precision: str) -> None:
    """Raise UserError for a compute capability that the library does not build for, or not in that precision."""
    if not library.is_rtx:
        if targets:
            raise UserError("--target is for --runtime rtx: TensorRT builds for the GPU that it runs on")
        return
    for target in targets:
        if not re.fullmatch(r"sm\d{2,3}", target):
            raise UserError(f"--target takes names such as {', '.join(DEFAULT_TARGETS)}, got {target}")
        if target not in RTX_TARGETS:
            is_hopper = "; Hopper needs --runtime tensorrt, on such a GPU" if target == "sm90" else ""
            raise UserError(f"TensorRT for RTX builds for {', '.join(RTX_TARGETS)}, not for {target}{is_hopper}")
        if not _has(target, precision):
            raise UserError(
                f"GPUs of {target} have no {precision}, which came with sm{SINCE[precision]}: give --precision int8 or "
                "float16 for them"
            )


def build(
    library: Library,
    onnx: bytes,
    profile: Profile,
    *,
    targets: Sequence[str] = (),
    refittable: bool = False,
    timings: bytes | None = None,
    progress: bool = True,
) -> BuiltEngine:
    """Build an engine of a strongly typed graph.

    Args:
        library: from `export.engines.libraries`.
        onnx: the content of a file, as `export.to_onnx` makes it.
        profile: the shapes that the engine takes.
        targets: compute capabilities such as "sm89"; for TensorRT for RTX only.
        refittable: whether the engine's weights may be replaced later.
        timings: the timing cache of an earlier build, or None.
        progress: whether to show a bar on standard error, where that is a terminal.

    Raises UserError with the library's own words where it refuses the graph or fails.
    """
    advice = "export in another --precision, or build with another version of the library"
    with explaining(f"{library.name} {library.version} built no engine", advice):
        return _build(library, onnx, profile, targets, refittable=refittable, timings=timings, progress=progress)


def _build(
    library: Library,
    onnx: bytes,
    profile: Profile,
    targets: Sequence[str],
    *,
    refittable: bool,
    timings: bytes | None,
    progress: bool,
) -> BuiltEngine:
    trt = library.module
    messages = messages_of(library)
    messages.forget()
    builder = trt.Builder(messages)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(onnx):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise UserError(f"{library.name} {library.version} does not take the graph: {reasons or messages.last}")
    image, translated = network.get_input(0), network.get_output(0)
    config = builder.create_builder_config()
    config.add_optimization_profile(_optimization_profile(builder, image, profile))
    _set_flags(trt, config, refittable=refittable)
    for index, target in enumerate(targets):
        if index == 0:
            config.num_compute_capabilities = len(targets)
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    keeps_timings = not library.is_rtx and config.set_timing_cache(  # RTX measures nothing, as it builds without a GPU
        config.create_timing_cache(timings or b""), ignore_mismatch=False
    )
    bar = _progress_bar(trt) if progress else None
    if bar is not None:
        config.progress_monitor = bar
    content = builder.build_serialized_network(network, config)
    if bar is not None:
        bar.close()
    if bar is not None and bar.interruption:
        raise bar.interruption
    if content is None:
        raise UserError(f"{library.name} {library.version} built no engine: {messages.last}")
    return BuiltEngine(
        content=bytes(content),
        input=_interface(image),
        output=_interface(translated),
        timings=bytes(config.get_timing_cache().serialize()) if keeps_timings else None,
    )


def _strongly_typed(trt: Any) -> int:
    """Return the flag that asks for strong typing, or 0 for a library that no longer has weak typing, nor the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _set_flags(trt: Any, config: Any, *, refittable: bool) -> None:
    flags = trt.BuilderFlag
    config.clear_flag(flags.TF32)  # with it float32 would be computed with 10 bits of mantissa
    if hasattr(
        flags, "REQUIRE_USER_ALLOCATION"
    ):  # TensorRT for RTX has it from 1.2 on; its engines refuse a CUDA graph without it
        config.set_flag(flags.REQUIRE_USER_ALLOCATION)
    if refittable:
        config.set_flag(flags.REFIT)


def _optimization_profile(builder: Any, image: Any, profile: Profile) -> Any:
    sides = tuple(image.shape)  # -1 for those that may vary: all but the number of channels

    def shape(of: ImageShape) -> tuple[int, int, int, int]:
        batch, height, width = of
        return (batch, height, width, sides[3]) if sides[3] > 0 else (batch, sides[1], height, width)

    result = builder.create_optimization_profile()
    result.set_shape(image.name, shape(profile.smallest), shape(profile.usual), shape(profile.largest))
    return result


def _interface(tensor: Any) -> EngineTensor:
    return EngineTensor(tensor.name, tensor.dtype.name.lower(), tuple(tensor.shape))


@cache
def messages_of(library: Library) -> Any:
    """Return the library's message logger, one for the process: its builders take no second one."""
    return make_messages(library.module)


def _progress_bar(trt: Any) -> Any:
    class ProgressBar(trt.IProgressMonitor):  # type: ignore[misc]  # a base class known at run time only
        """Shows the steps of the outermost phase, and behind them the phase inside it. Ctrl-C ends the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bar: Any = None
            self.outermost = ""
            self.interruption: KeyboardInterrupt | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.outermost = phase_name
                self.bar = progress_bar(total=num_steps, desc="building", unit=" phases", leave=False)
            elif self.bar is not None:
                self.bar.set_postfix_str(phase_name.lower(), refresh=True)

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.outermost:
                self.close()

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self.outermost and self.bar is not None:
                    self.bar.update(step + 1 - self.bar.n)
            except KeyboardInterrupt as interruption:
                self.interruption = interruption
            return self.interruption is None

        def close(self) -> None:
            if self.bar is not None:
                self.bar.close()
                self.bar = None

    return ProgressBar()
