"""Makes translators from an ONNX file, on OpenVINO or ONNX Runtime; each library is imported where it is used.

`runtime` runs TensorRT engines.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.translator import BatchDoesNotFit
from export.graph_translator import GraphTranslator
from export.graphs.interface import INPUT, OUTPUT, GraphTensor, has_sample_io
from export.graphs.onnx_file import ends_of, frames_of, metadata_of, read_onnx
from export.library_errors import explaining, reason_of

Backend = Literal["auto", "openvino", "onnxruntime"]
OnnxDevice = Literal["auto", "cpu", "cuda"]

CUDA = "CUDAExecutionProvider"
CACHED_OPERATIONS = 64
"""number of compiled operations that OpenVINO keeps. It keeps 5000 by itself, to which each new size of images adds
0.7 MiB: 149 MiB from the 100th to the 300th size, 1.5 MiB with 64. Translating 1 to 5 sizes in turn took as long with
either."""
_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory", "could not create a memory")
"""Holds what the libraries say where memory ends, ONNX Runtime's arena first."""
INSTALL = {
    "openvino": "`pip install openvino`",
    "onnxruntime": "`pip install onnxruntime` (onnxruntime-gpu for --device cuda)",
}


def load_translator(
    path: Path,
    backend: Backend,
    device: OnnxDevice,
    *,
    amp: bool,
    threads: int | None = None,
    notes: list[str] | None = None,
) -> "tuple[OnnxRuntimeTranslator | OpenVinoTranslator, str]":
    """Make a translator from an ONNX file; return it, and a phrase that says what it computes with.

    Args:
        path: written by export/to_onnx.py.
        backend: "auto" is OpenVINO on a CPU where it is installed, and ONNX Runtime otherwise.
        device: "auto" is "cuda" where the installed ONNX Runtime offers it and OpenVINO is not asked for.
        amp: compute in bfloat16 on a CPU that has it; OpenVINO only.
        threads: how many compute on a CPU; None for one on each of its cores.
        notes: a line is appended where nothing tells whether the file is unharmed, see `graphs.onnx_file.read_onnx`.

    Raises UserError where the file is not one of those or is damaged, and where the library or the device is missing.
    A device that was asked for is used or refused, never replaced.
    """
    content = read_onnx(path, notes if notes is not None else [])
    backend, device = choose_backend(
        backend, device, {name for name in INSTALL if find_spec(name) is not None}, offers_cuda=_offers_cuda
    )
    if backend == "onnxruntime":
        if amp:
            raise UserError("--amp is OpenVINO's: export in float16 for ONNX Runtime on CUDA, or --backend openvino")
        runtime = OnnxRuntimeTranslator(path, content, device, threads)
        return runtime, f"ONNX Runtime on {'CUDA' if device == 'cuda' else 'the CPU'}"
    translator = OpenVinoTranslator(path, content, amp=amp, threads=threads)
    return translator, f"OpenVINO on the CPU in {translator.precision}"


def choose_backend(
    backend: Backend, device: OnnxDevice, installed: set[str], offers_cuda: Callable[[], bool]
) -> tuple[Literal["openvino", "onnxruntime"], Literal["cpu", "cuda"]]:
    """Return the library and the device to use.

    Args:
        backend: the library that was asked for, or "auto".
        device: the device that was asked for, or "auto".
        installed: the names of the libraries that are installed.
        offers_cuda: says whether ONNX Runtime has CUDA; it is called only where that matters, as it loads the library.

    Raises UserError where what was asked for is missing.
    """
    if backend == "openvino" and device == "cuda":
        raise UserError("OpenVINO has no CUDA: leave out --backend or --device")
    if backend != "openvino" and "onnxruntime" in installed and device != "cpu":
        if offers_cuda():
            return "onnxruntime", "cuda"
        if device == "cuda":
            raise UserError(f"the installed ONNX Runtime has no {CUDA}: `pip install onnxruntime-gpu` in its place")
    if device == "cuda":
        raise UserError("--device cuda needs ONNX Runtime: `pip install onnxruntime-gpu`")
    if backend == "auto" and not installed:
        raise UserError(f"ONNX files need OpenVINO, {INSTALL['openvino']}, or ONNX Runtime, {INSTALL['onnxruntime']}")
    if backend == "auto":
        return ("openvino" if "openvino" in installed else "onnxruntime"), "cpu"
    if backend not in installed:
        raise UserError(f"{backend} is not installed: {INSTALL[backend]}, or leave out --backend")
    return backend, "cpu"


def _offers_cuda() -> bool:
    return CUDA in _load("onnxruntime").get_available_providers()


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is installed and cannot be imported: {error}") from error


class OnnxRuntimeTranslator(GraphTranslator):
    """Translates through ONNX Runtime, on "cpu" or "cuda".

    Raises UserError where the file cannot be used there, and where memory runs out.
    """

    def __init__(self, path: Path, content: bytes, device: Literal["cpu", "cuda"], threads: int | None = None) -> None:
        runtime = _load("onnxruntime")
        errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        provider = CUDA if device == "cuda" else "CPUExecutionProvider"
        with _loading(path, "ONNX Runtime"):
            try:
                self._session = runtime.InferenceSession(
                    content, sess_options=_session_options(runtime, threads), providers=[provider]
                )
            except errors.NotImplemented as error:
                raise UserError(
                    f"ONNX Runtime cannot compute {path} ({reason_of(error)}): on a CPU it has no bfloat16, so export "
                    "in float16 or float32, or give --backend openvino"
                ) from error
        # Where its CUDA libraries are missing, it would compute on the CPU and say so only in its log.
        self._session.disable_fallback()
        if provider not in self._session.get_providers():
            raise UserError(
                "ONNX Runtime could not start on CUDA, its log says why; it needs CUDA and cuDNN of the major versions "
                "that it was built with, and an NVIDIA GPU: mend that, or give --device cpu"
            )
        with _loading(path, "ONNX Runtime"):  # a name may be no UTF-8
            inputs, outputs = (
                [
                    GraphTensor(value.name, _type_name(value.type), tuple(_side(side) for side in value.shape))
                    for value in values
                ]
                for values in (self._session.get_inputs(), self._session.get_outputs())
            )
        metadata = metadata_of(content)
        ends = ends_of(path, metadata)
        super().__init__(self._compute, has_sample_io(path, inputs, outputs, ends), ends, frames_of(path, metadata))

    def _compute(self, images: Any) -> Any:
        with _translating("ONNX Runtime", images):
            return self._session.run([OUTPUT], {INPUT: images})[0]


class OpenVinoTranslator(GraphTranslator):
    """Translates through OpenVINO on the CPU; one thread at a time may call it.

    `precision` says in words what convolutions are computed in: float32, or with `amp` bfloat16 where the CPU has it.

    Raises UserError where the file cannot be used, and where memory runs out.
    """

    def __init__(self, path: Path, content: bytes, *, amp: bool, threads: int | None = None) -> None:
        core = _openvino_core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bfloat16" if amp and has_bfloat16 else "float32"
        if amp and not has_bfloat16:
            self.precision += ", as it has no bfloat16"
        # The hint is given in either case: without it OpenVINO takes bfloat16 on processors that are fast at it.
        hint = "bf16" if self.precision == "bfloat16" else "f32"
        with _loading(path, "OpenVINO"):
            model = core.read_model(content)
            inputs, outputs = (
                [
                    GraphTensor(
                        value.get_any_name(),
                        str(np.dtype(value.element_type.to_dtype())),
                        tuple(None if side.is_dynamic else side.get_length() for side in value.partial_shape),
                    )
                    for value in values
                ]
                for values in (model.inputs, model.outputs)
            )
            metadata = metadata_of(content)
            ends, frames = ends_of(path, metadata), frames_of(path, metadata)
            takes_samples = has_sample_io(path, inputs, outputs, ends)
            self._model = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "PERFORMANCE_HINT": "LATENCY",
                    "CPU_RUNTIME_CACHE_CAPACITY": CACHED_OPERATIONS,
                    **({"INFERENCE_NUM_THREADS": threads} if threads is not None else {}),
                },
            )
        super().__init__(self._compute, takes_samples, ends, frames)

    def _compute(self, images: Any) -> Any:
        with _translating("OpenVINO", images):
            # The result is copied: the library writes the next one into the same memory.
            return np.array(self._model({INPUT: images})[0])


def _session_options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    # Waiting threads sleep at once, see `process.set_up_process`.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Else a plan of all buffers would be kept for each size of images, for good.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


@cache
def _openvino_core() -> Any:
    """Return OpenVINO's Core, one for the whole process.

    Each Core puts the main thread's signals on a stack of its own and puts the stack before it back when it goes
    (OpenVINO 2026.4, on CPUs with AVX-512). Of two Cores that go in the order in which they came, the second puts back
    the stack of the first, which is no longer there: the next Ctrl-C is a segmentation fault.
    """
    return _load("openvino").Core()


def _type_name(onnxruntime_type: str) -> str:
    name = onnxruntime_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _side(side: object) -> int | None:
    return side if isinstance(side, int) else None


def _loading(path: Path, library: str) -> AbstractContextManager[None]:
    return explaining(
        f"{path} is damaged, or not for this {library}",
        "export it anew with python export/to_onnx.py, or give another --backend",
    )


@contextmanager
def _translating(library: str, images: Any) -> Iterator[None]:
    """Raise BatchDoesNotFit where a library says that memory ended, and UserError for all else that it raises."""
    what = f"{library} could not translate {images.dtype} {list(images.shape)}, for want of memory perhaps"
    advice = "give a smaller --size" if len(images) == 1 else "lower --batch-size, or give a smaller --size"
    try:
        with explaining(what, advice):
            yield
    except UserError as error:
        said = str(error.__cause__)
        if not isinstance(error.__cause__, MemoryError) and all(part not in said for part in _OF_MEMORY):
            raise
        given = f"{images.dtype} {list(images.shape)}"
        raise BatchDoesNotFit(f"the memory does not hold what {library} needs for {given}; {advice}") from error
