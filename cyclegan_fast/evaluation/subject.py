"""Loads what an evaluation judges, generators and test images, onto a device; and writes what it found."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from cyclegan_fast.config.options import EARTH, Pairs, RunConfig
from cyclegan_fast.config.run_options import DISPLAY_OPTIONS
from cyclegan_fast.config.values import pixels_of_run, scenes_of_run, with_values
from cyclegan_fast.conventions import Direction
from cyclegan_fast.images.display import DomainViews
from cyclegan_fast.images.pixel_type import PixelTypes
from cyclegan_fast.runs import RUNS, checked_size, newest_run
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.progress import waiting
from cyclegan_fast.system.ranges import MOST_COUNTED, BatchSize, Range, ThreadCount, TrainedSide, check_fields


@dataclass(frozen=True)
class EvaluationOptions:
    """Says which generators are judged, on which images, and where the result goes: the options of both commands."""

    checkpoint: Path | None = None
    """a run's folder, a checkpoint that it keeps (RUN@120 of epoch 120, RUN@best, or its file), bare weights of one
    generator, or hub:owner/name; by default the newest of runs/"""
    data: Path | None = None
    """folder with testA and testB, or with train/ and test/ (or val/) side by side, or Cityscapes as its archives
    unpack; or earth; by default what the run was trained on"""
    direction: Direction = "a2b"
    """what bare weights translate; a run has generators for both directions"""
    size: TrainedSide | None = None
    """side of the square that images are resized to; by default what the run was trained with"""
    images: Annotated[int, Range(0, MOST_COUNTED)] = 0
    """test images of each domain that are used, the first ones; 0 for all"""
    batch_size: BatchSize | None = None
    """images translated at once; by default as many as make half a megapixel"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    amp: bool = False
    """compute in low precision where that is faster: bfloat16, or float16 on a GPU without it"""
    threads: ThreadCount | None = None
    """threads that compute on a CPU; by default one for each processor"""
    network: str | None = None
    """of weights that hold several generators, the name of the one to use, such as netG_A2B; by default the one whose
    name says the direction"""
    running_statistics: bool = False
    """normalise by the running statistics of batch norms, as the original's test.py does with --eval; by default by
    each image's own, as it does without"""
    strict: bool = False
    """stop at the first image or folder that cannot be read, instead of leaving it out with a note"""
    out: Path | None = None
    """folder for the results; by default evaluation/ in the run's folder (evaluation/120 for RUN@120), beside the
    weights, or, of weights from a hub, evaluation/NAME here"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


class Subject:
    """Loads and holds the generators, the test images and the device of one evaluation."""

    def __init__(self, options: EvaluationOptions, pairs: Pairs | None = None) -> None:
        from torch import nn

        from cyclegan_fast.data.domains import open_test_sets
        from cyclegan_fast.networks.norms import use_running_statistics
        from cyclegan_fast.system.device import choose_device, use_threads, working_dtype
        from cyclegan_fast.translation.graphs import graphed
        from cyclegan_fast.translation.on_device import prepare_network
        from cyclegan_fast.translation.trained import load_translators

        if options.out is not None and options.out.exists() and not options.out.is_dir():
            raise UserError(f"--out {options.out} is a file: give a folder for the results")
        self.options = options
        self.notes: list[str] = []
        self.path = options.checkpoint or newest_run(RUNS)
        use_threads(options.threads)
        self.device = choose_device(options.device)
        self.dtype, remark = working_dtype(self.device, options.amp, "auto")
        self.notes += [remark] if remark else []
        directions: tuple[Direction, ...] = ("a2b", "b2a")
        with waiting(f"loading {self.path}"):
            loaded = load_translators(self.path, directions, self.notes, options.network)
        _, self.config, self.file, _ = loaded[0]
        self.generators: dict[Direction, nn.Module] = {}
        for network, _, _, direction in loaded:
            if options.running_statistics:
                use_running_statistics(network, str(self.path))
            # Of one generator's bare weights only the user knows what they translate.
            prepared = prepare_network(network, self.device, self.dtype)
            self.generators[direction or options.direction] = graphed(
                prepared, self.device, lambda reason: tqdm.write(f"note: {printable(reason)}")
            )
        described = pixels_of_run(self.config, str(self.path))
        if not self.config:
            channels = loaded[0].source.channels, loaded[0].target.channels
            channels_A, channels_B = channels if options.direction == "a2b" else channels[::-1]
            described = replace(described, channels_a=channels_A, channels_b=channels_B)
        self.views = _views_of_run(self.config, described.pixel_types, str(self.path))
        multiple = loaded[0].network.multiple
        assert isinstance(multiple, int)
        self.size = checked_size(options.size, self.config, self.path, multiple)
        self.data = options.data or self._trained_on()
        trained = self.config.get("data", {})
        pairs = pairs or (trained.get("pairs", "auto") if options.data is None else "auto")
        settings = replace(
            described,
            data=self.data,
            load_size=self.size,
            crop_size=self.size,
            pairs=pairs,
            strict=options.strict,
            **scenes_of_run(self.config, str(self.path)),
        )
        self.tests, warnings = open_test_sets(settings)
        self.notes += warnings

    def _trained_on(self) -> Path | None:
        """Return the data of the run, None for the embedded photographs; raises UserError where it is not there."""
        if not self.config:
            raise UserError(f"{self.path} does not say what it was trained on: give --data FOLDER")
        named = self.config.get("data", {}).get("data")
        if named is not None and not Path(named).is_dir() and Path(named) != EARTH:
            raise UserError(f"{self.path} was trained on {named}, which is not there any more: give --data FOLDER")
        return Path(named) if named is not None else None

    @property
    def out(self) -> Path:
        """Return the folder for the results."""
        if self.options.out is not None:
            return self.options.out
        from cyclegan_fast.checkpoint.hub import HubName, is_hub_name
        from cyclegan_fast.checkpoint.names import kept_under

        if is_hub_name(self.path):  # what lies in the hub's cache is not ours to write to
            return Path("evaluation") / HubName.parse(str(self.path)).short
        folder = self.file.parent
        return (folder.parent if folder.name == "checkpoints" else folder) / "evaluation" / kept_under(self.file)

    def __str__(self) -> str:
        from cyclegan_fast.system.device import describe, name_of

        data = self.data or "the embedded photographs"
        return f"{self.file} on {data} at {self.size}x{self.size}; {describe(self.device)}, {name_of(self.dtype)}"

    def publish(self, name: str, result: dict[str, Any], notes: Sequence[str]) -> Path:
        """Print the notes, and write a JSON file of what was found and what it is of; return the file."""
        import torch

        from cyclegan_fast.system.device import describe, name_of
        from cyclegan_fast.system.files import write_atomically
        from cyclegan_fast.version import __version__

        notes = [*self.notes, *notes]
        for note in notes:
            print(f"note: {printable(note)}")
        origin = {
            "checkpoint": str(self.file),
            "data": str(self.data) if self.data else "embedded photographs",
            "size": self.size,
            "pixels": {"A": self.views.A.kind.as_values(), "B": self.views.B.kind.as_values()},
            "device": describe(self.device),
            "dtype": name_of(self.dtype),
            "versions": {"cyclegan_fast": __version__, "torch": torch.__version__},
        }
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / name
        write_atomically(path, json.dumps({**origin, **result, "notes": notes}, indent=2).encode())
        return path


def _views_of_run(config: Mapping[str, Any], kinds: PixelTypes, origin: str) -> DomainViews:
    """Return how images are shown by the plain values of a run's configuration; by default where these say nothing."""
    run = config.get("run")
    known = {name: run[name] for name in DISPLAY_OPTIONS if name in run} if isinstance(run, dict) else {}
    options = with_values(RunConfig(), known, origin)
    assert isinstance(options, RunConfig)
    try:
        return options.views(kinds)
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error
