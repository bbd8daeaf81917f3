"""`python export/serve.py`: serve exported generators over HTTP, without PyTorch."""

if __name__ == "__main__":
    from cyclegan_fast.system.process import set_up_process

    set_up_process()  # before torch is imported, below

import importlib
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan_fast.system.command_line import parse_command
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.process import check_threads
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import Range, ThreadCount, check_fields
from cyclegan_fast.system.words import counted
from export.onnx_translators import Backend, OnnxDevice
from export.serving.service_options import BatchOptions, ServingLimits

PACKAGES = {"fastapi": "FastAPI", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
PACKAGES |= {"prometheus_client": "prometheus-client"}


@dataclass(frozen=True)
class ServeCommand:
    """Serve exported generators over HTTP: POST an image to /translate, and get its translation.

    It listens on this machine alone, unless --host says otherwise, and knows no passwords: put a proxy in front of it
    that does. Its pages, /docs and /openapi.json, say what it takes. SIGTERM lets what is in flight end.

    Examples:
        python export/serve.py engines/x-a2b-float32.onnx engines/x-b2a-float32.onnx
        python export/serve.py engines/x-a2b-float16.engine --port 9000 --batch-size 16
        curl --data-binary @photo.jpg "http://127.0.0.1:8000/translate?direction=a2b" -o translated.png
    """

    files: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES...", help_behavior_hint="(required)")
    ]
    """ONNX files, and engines with their .json files beside them; each is a generator, called by the file's name"""
    limits: Annotated[ServingLimits, tyro.conf.arg(name="")]
    batches: Annotated[BatchOptions, tyro.conf.arg(name="")]
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 is every one of this machine, for anybody who reaches it"""
    port: Annotated[int, Range(0, 65535)] = 8000
    """port to listen on; 0 is any that is free, which the first line of the log tells"""
    allowed_hosts: tuple[str, ...] = ()
    """names that it answers by, beside localhost; * is any, as where --host is an address that other machines reach"""
    backend: Backend = "auto"
    """for ONNX files: "auto" is OpenVINO on a CPU where it is installed, and ONNX Runtime otherwise"""
    device: OnnxDevice = "auto"
    """for ONNX files: "auto" is CUDA where the installed ONNX Runtime offers it, and the CPU otherwise"""
    amp: bool = False
    """for ONNX files on OpenVINO: compute in bfloat16 where the CPU has it"""
    threads: ThreadCount | None = None
    """for ONNX files: threads that compute on a CPU; by default one for each processor"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


def serve(command: ServeCommand) -> int:
    """Load the files, serve until the process is asked to stop, and return the exit status."""
    if not command.files:
        raise UserError("give the files to serve: python export/to_onnx.py writes ONNX files")
    check_threads(command.threads)
    require_packages()
    from cyclegan_fast.system.sockets import AllowedHosts, bound_socket
    from export.serving.json_lines import STANDARD_OUTPUT, JsonLines
    from export.serving.models import load_models
    from export.serving.server import run_service

    notes: list[str] = []
    with (
        bound_socket(command.host, command.port) as listening,
        JsonLines(None if sys.stdout is None else STANDARD_OUTPUT) as lines,
        ExitStack() as closing,
    ):
        hosts = AllowedHosts.of(listening, command.allowed_hosts)
        with waiting(f"loading {counted(len(command.files), 'generator')}"):
            models = load_models(
                command.files,
                backend=command.backend,
                device=command.device,
                amp=command.amp,
                threads=command.threads,
                notes=notes,
            )
        for model in models:
            closing.callback(model.close)
        for note in notes:
            lines.write("note", message=note)
        for model in models:
            with waiting(f"translating a first image by {model.name}"):
                model.warm_up()  # the first request would otherwise wait for all that starts late
            lines.write("model", **model.described())
        return run_service(models, command.limits, command.batches, lines, listening, hosts)


def require_packages() -> None:
    """Raise UserError where a package that only serving needs is missing."""
    for module, name in PACKAGES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"serving needs {name}, which cannot be imported ({error}): pip install -e '.[serve]'"
            ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        lambda: serve(parse_command(ServeCommand, "python export/serve.py", arguments)), next_time="begins again"
    )


if __name__ == "__main__":
    sys.exit(main())
