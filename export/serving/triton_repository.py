"""`python export/serving/triton_repository.py`: write what NVIDIA's Triton Inference Server loads.

Each exported file becomes a model of a repository (Triton's "Model Repository" and "Model Configuration" say what that
is): NAME/config.pbtxt, and the file as NAME/VERSION/model.onnx or model.plan. A file of --uint8-io takes and gives
pixels itself, so that no ensemble with a model in front of it and behind it is needed.
"""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.files import sha256_of, write_atomically
from cyclegan_fast.system.ranges import Range, TranslatedSide, check_fields
from export.engines.engine_card import EngineCard, Profile
from export.graphs.interface import INPUT, OUTPUT, sample_dtype
from export.onnx_translators import load_translator
from export.pixel_ends import PixelEnds
from export.serving.service_options import BatchOptions

InstanceKind = Literal["auto", "cpu", "gpu"]
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_QUEUED = 256
"""requests that wait for a model, at most; Triton refuses further ones"""


@dataclass(frozen=True)
class TritonOptions:
    """Says how Triton runs the models of a repository."""

    batch_size: Annotated[int, Range(1, 1024)] = 8
    """images of one size that are translated at once, at most; an engine's own largest batch, where that is less"""
    batch_wait_ms: Annotated[float, Range(0, 10000)] = BatchOptions.batch_wait_ms
    """milliseconds that an image waits for others"""
    timeout_ms: Annotated[int, Range(1, 10**7)] = 60_000
    """milliseconds that a request may wait for its turn; then it is refused"""
    instances: Annotated[int, Range(1, 64)] = 1
    """copies of each model that run at the same time, on each GPU or on the CPU"""
    kind: InstanceKind = "auto"
    """where ONNX files run: "auto" is on the GPUs that Triton finds, and on the CPU where it finds none"""
    warm_up_size: TranslatedSide = 256
    """side of the images by which Triton warms an ONNX file up, before it says that it is ready; an engine's own"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


@dataclass(frozen=True)
class TritonRepositoryCommand:
    """Write a model repository for NVIDIA's Triton Inference Server.

    Each file becomes a model, called by the file's name. A model that is there already gets the file as a further
    version, unless its newest one is the same; Triton serves the newest. Files of export --uint8-io take and give
    images as they are decoded; others take float32 in [-1, 1].

    Examples:
        python export/serving/triton_repository.py engines/*-uint8.onnx --out model_repository
    """

    files: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES...", help_behavior_hint="(required)")
    ]
    """ONNX files, and engines of TensorRT (not TensorRT for RTX, which Triton does not run) with their .json files"""
    options: Annotated[TritonOptions, tyro.conf.arg(name="")]
    out: Path = Path("model_repository")
    """folder of the repository"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


@dataclass(frozen=True)
class TritonModel:
    """Describes a model of a repository.

    has_samples: whether it takes and gives samples [height, width, channels], or float32 [channels, height, width].
    profile: the shapes of an engine; None for an ONNX file.
    """

    name: str
    ends: PixelEnds
    has_samples: bool
    profile: Profile | None = None

    @property
    def file_name(self) -> str:
        """Return the name that Triton's backend expects."""
        return "model.onnx" if self.profile is None else "model.plan"


def write_triton_repository(
    files: Sequence[Path], out: Path, options: TritonOptions | None = None, notes: list[str] | None = None
) -> list[Path]:
    """Write models of exported files into a repository; return the folder of each one's version.

    Args:
        files: ONNX files, and engines of TensorRT.
        out: the repository, which may have other models and earlier versions.
        options: how Triton runs them.
        notes: lines are appended on what a user should know.

    Raises UserError for a file that cannot be used, before anything is written.
    """
    options, notes = options or TritonOptions(), notes if notes is not None else []
    names = [path.stem for path in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two files are called {twice[0]}: rename one, as Triton calls a model by that name")
    models = [_described(path, notes) for path in files]
    return [_write(path, model, out, options) for path, model in zip(files, models, strict=True)]


def _described(path: Path, notes: list[str]) -> TritonModel:
    if path.suffix.lower() == ".engine":
        card = EngineCard.beside(path)
        card.content_of_engine(path)  # which refuses a damaged one
        if card.library != "tensorrt":
            raise UserError(
                f"{path} is an engine of {card.library}, and Triton runs those of TensorRT: give the ONNX file, or "
                "build it on the server's GPU with python export/trt.py --runtime tensorrt"
            )
        notes.append(f"{path} runs with TensorRT {card.version} only: take the release of Triton that has it")
        model = TritonModel(path.stem, card.ends, card.uint8_io, card.profile)
    else:
        translator, _ = load_translator(path, "auto", "cpu", amp=False, notes=notes)
        model = TritonModel(path.stem, translator.ends, translator.signed is None)
    if not model.has_samples:
        notes.append(f"{path} takes and gives float32 in [-1, 1]: export with --uint8-io for pixels in and out")
    return model


def _write(path: Path, model: TritonModel, out: Path, options: TritonOptions) -> Path:
    folder = out / model.name
    versions = sorted(int(each.name) for each in folder.glob("*") if each.name.isdecimal() and each.is_dir())
    newest = folder / str(versions[-1]) / model.file_name if versions else None
    if newest is not None and newest.is_file() and sha256_of(newest) == sha256_of(path):
        version = newest.parent
    else:
        version = folder / str(versions[-1] + 1 if versions else 1)
        beginning = folder / f".{version.name}.partial"  # Triton looks only at folders that are called by a number
        shutil.rmtree(beginning, ignore_errors=True)
        beginning.mkdir(parents=True)
        write_atomically(beginning / model.file_name, path.read_bytes())
    write_atomically(folder / "config.pbtxt", triton_config(model, options).encode())
    if not version.exists():
        beginning.rename(version)
    return version


def triton_config(model: TritonModel, options: TritonOptions) -> str:
    """Return the text of a model's config.pbtxt, of the message ModelConfig in Triton's model_config.proto."""
    profile = model.profile
    most = options.batch_size if profile is None else min(options.batch_size, profile.largest[0])
    kind = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}[options.kind if profile is None else "gpu"]
    warm_up = (options.warm_up_size,) * 2 if profile is None else profile.usual[1:]
    sides = profile.usual[1:] if profile is not None and profile.takes_one_size else (-1, -1)
    source, target = model.ends
    taken = f"data_type: {_type_of(model, source)} dims: {_dims(model, source, sides)}"
    warm_ups = "\n".join(
        f"""model_warmup {{
  name: "{batch} of {warm_up[1]}x{warm_up[0]}"
  batch_size: {batch}
  inputs {{
    key: "{INPUT}"
    value {{ data_type: {_type_of(model, source)} dims: {_dims(model, source, warm_up)} zero_data: true }}
  }}
}}"""
        for batch in sorted({1, most})
    )
    return f"""# {model.ends}; written by cyclegan-fast
name: "{model.name}"
backend: "{"onnxruntime" if profile is None else "tensorrt"}"
max_batch_size: {most}
input {{ name: "{INPUT}" {taken} }}
output {{ name: "{OUTPUT}" data_type: {_type_of(model, target)} dims: {_dims(model, target, sides)} }}
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group {{ kind: {kind} count: {options.instances} }}
dynamic_batching {{
  max_queue_delay_microseconds: {round(options.batch_wait_ms * 1000)}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {options.timeout_ms * 1000}
    max_queue_size: {_QUEUED}
  }}
}}
{warm_ups}
"""


def _type_of(model: TritonModel, kind: PixelType) -> str:
    return _TYPES[sample_dtype(kind) if model.has_samples else "float32"]


def _dims(model: TritonModel, kind: PixelType, sides: tuple[int, ...]) -> str:
    """Return the sides of one image, of height and width -1 where these are free, as the message has them."""
    dims = (*sides, kind.channels) if model.has_samples else (kind.channels, *sides)
    return f"[ {', '.join(map(str, dims))} ]"


def write_repository(command: TritonRepositoryCommand) -> int:
    """Write the models, say where they are, and return the exit status."""
    if not command.files:
        raise UserError("give the files to serve: python export/to_onnx.py --uint8-io writes ONNX files")
    notes: list[str] = []
    versions = write_triton_repository(command.files, command.out, command.options, notes)
    for note in notes:
        print(f"note: {note}")
    for version in versions:
        print(f"{version.parent}: version {version.name}")
    print(f"tritonserver --model-repository={command.out.resolve()} serves it")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: write_repository(
            parse_command(TritonRepositoryCommand, "python export/serving/triton_repository.py", arguments)
        ),
        next_time="begins again",
    )


if __name__ == "__main__":
    sys.exit(main())
