"""Does from Python what the commands do: `load` a translator, `train` a run, `evaluate` it.

    import cyclegan_fast as cf

`cyclegan_fast` has these functions under their names. Their keyword arguments are the flags of the commands in Python's
spelling; each imports PyTorch when it is called.
"""

import os
import warnings
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cyclegan_fast.conventions import DIRECTIONS, Direction
from cyclegan_fast.system.errors import UserError

if TYPE_CHECKING:
    import torch

    from cyclegan_fast.images.pixel_type import PixelType
    from cyclegan_fast.training.callbacks.callback import Callback
    from cyclegan_fast.translation.any_image import ImageTranslator

_EXPORTED = (".onnx", ".engine")


def load(
    path: str | os.PathLike[str] | None = None,
    direction: Direction = "a2b",
    *,
    network: str | None = None,
    device: "str | torch.device" = "auto",
    amp: bool = False,
    batch_size: int | None = None,
    threads: int | None = None,
    running_statistics: bool = False,
    source: "PixelType | None" = None,
    target: "PixelType | None" = None,
) -> "ImageTranslator":
    """Load a trained generator to translate with, as `python -m cyclegan_fast.translate` does, to the same bits.

    Images that the command translates at once must be given at once for that, in a list or an array: in a batch,
    convolutions may add up in another order than one by one (--batch-size 1).

    ONNX files and engines are loaded by `export.load`, which has options of its own for them.

    Args:
        path: a run's folder, a checkpoint that it keeps ("RUN@120" of epoch 120, "RUN@best", or its file), a generator
            of the original implementation, as .pth or .safetensors, or either on a hub: "hub:owner/name",
            "hub:owner/name@revision", "hub:owner/name/latest_net_G.pth"; by default the newest of runs/. Or an ONNX
            file, or an engine with the file beside it.
        direction: "a2b" makes images like those of trainA into those of trainB, "b2a" the reverse; bare weights of one
            generator and exported files know one way only.
        network: of weights that hold several generators, the name of the one to use, such as "netG_A2B".
        device: "auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1".
        amp: compute in low precision where that is faster: bfloat16, or float16 on a GPU without it.
        batch_size: images translated at once, at most; by default as many as make half a megapixel.
        threads: how many compute on a CPU, for all that PyTorch does in this process; by default that is left alone.
        running_statistics: normalise by the running statistics of batch norms, as the original's test.py with --eval.
        source: the pixels of the images, of bare weights, which do not say it; by default 8 bits of as many channels as
            the weights take. A run says it, and `source` replaces its range at most.
        target: the pixels of the translations, likewise.

    Raises UserError for what is no such file, and for a device that is not there. What a user should know of the choice
    (a damaged checkpoint that was passed over, a precision that is not there) is a UserWarning.
    """
    if direction not in DIRECTIONS:
        raise UserError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    if path is not None and Path(path).suffix.lower() in _EXPORTED:
        if network is not None or running_statistics:
            raise UserError(f"{path} is an exported file: network and running_statistics are for what PyTorch runs")
        if source is not None or target is not None:
            raise UserError(f"{path} is an exported file: source and target are for weights that PyTorch runs")
        options = _options_of_exported(str(device), amp, threads, is_engine=Path(path).suffix.lower() == ".engine")
        # By its name, since this floor does not import that one, whose libraries may be missing.
        exported = import_module("export.loading").load(path, batch_size=batch_size, **options)
        return cast("ImageTranslator", exported)
    from cyclegan_fast.config.values import pixels_of_run
    from cyclegan_fast.networks.norms import use_running_statistics
    from cyclegan_fast.publishing.push import push_release, save_release
    from cyclegan_fast.publishing.release import LoadedFrom
    from cyclegan_fast.runs import RUNS, newest_run
    from cyclegan_fast.system.device import choose_device, describe, name_of, use_threads, working_dtype
    from cyclegan_fast.system.trouble import told_of_translation
    from cyclegan_fast.translation.any_image import ImageTranslator
    from cyclegan_fast.translation.on_gpu import new_translator
    from cyclegan_fast.translation.trained import fitting, load_generator

    notes: list[str] = []
    checkpoint = newest_run(RUNS) if path is None else Path(path)
    use_threads(threads)
    place = choose_device(str(device))
    dtype, remark = working_dtype(place, amp, "auto")
    loaded = load_generator(checkpoint, direction, notes, network)
    if running_statistics:
        use_running_statistics(loaded.network, str(checkpoint))
    for note in [*notes, *([remark] if remark else [])]:
        warnings.warn(note, UserWarning, stacklevel=2)
    source = fitting(source, loaded.source, "source", is_run=bool(loaded.config))
    target = fitting(target, loaded.target, "target", is_run=bool(loaded.config))
    translator = new_translator(loaded.network, place, dtype, partial(warnings.warn, stacklevel=2), source, target)
    described = pixels_of_run(loaded.config, str(checkpoint))
    pixels = "" if source.is_rgb and target.is_rgb else f", {source} -> {target}"
    origin = LoadedFrom.now(loaded.file, direction, network)
    return ImageTranslator(
        translator,
        tensors=translator.translate_tensor,
        direction=loaded.direction,
        description=f"{checkpoint}, {loaded.direction or 'bare weights'}, {describe(place)}, {name_of(dtype)}{pixels}",
        multiple=loaded.network.multiple,
        batch_size=batch_size,
        value_range=described.range_of_deep("B" if direction == "b2a" else "A"),
        frames=described.frames,
        axis=described.slice_axis,
        explained=partial(told_of_translation, str(device)),
        close=translator.close,
        save=partial(save_release, origin),
        push=partial(push_release, origin),
    )


def _options_of_exported(device: str, amp: bool, threads: int | None, *, is_engine: bool) -> dict[str, Any]:
    """Return the options of `export.load` that say the same; raises UserError for a device that is not theirs."""
    if is_engine:
        if device not in ("auto", "cuda"):
            raise UserError(f"an engine runs on the CUDA device that it was built for, got device {device!r}")
        return {"amp": amp, "threads": threads}
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device of an ONNX file must be auto, cpu or cuda, got {device!r}")
    return {"device": device, "amp": amp, "threads": threads}


def train(*, callbacks: "Iterable[Callback]" = (), **flags: Any) -> Path:
    """Train a run, or continue it, as `python -m cyclegan_fast.train` does; return its folder.

        train(data="folder", preset="paper256", amp=True)

    It prints what the command prints. Ctrl-C asks it to stop after the step that it is at, which is saved; it then
    raises Stopped, a KeyboardInterrupt.

    Args:
        callbacks: objects of subclasses of `Callback` that are told of reports, scores, samples and checkpoints, and
            may end the training early.
        flags: the command's flags with underscores, such as `max_steps=1000` for --max-steps 1000. `python -m
            cyclegan_fast.train --help` explains them. Paths may be strings.

    Raises UserError, as the command ends with a line, for unknown flags and values that make no sense, and where the
    training cannot go on.
    """
    from cyclegan_fast.config.keywords import training_settings
    from cyclegan_fast.system.interruption import Stopped
    from cyclegan_fast.training import session
    from cyclegan_fast.training.callbacks.dispatch import checked_callbacks
    from cyclegan_fast.training.history.initial_weights import settings_to_begin_with
    from cyclegan_fast.training.run_folder import completed

    watching = checked_callbacks(callbacks)
    config, origin = training_settings(flags, settings_to_begin_with)
    config = completed(config, origin)
    status = session.train(config, origin, watching)
    if status:
        raise Stopped(status - Stopped(0).status)
    assert config.run.name is not None
    return config.run.runs / config.run.name


def evaluate(checkpoint: str | os.PathLike[str] | None = None, **flags: Any) -> dict[str, float]:
    """Measure a trained run on test images, as `python -m cyclegan_fast.evaluate` does; return the scores.

        evaluate("runs/x", metrics=["truth", "fid"])["a2b.truth.ssim"]

    The scores are every finite value by its direction, metric and name, such as "a2b.truth.ssim". It prints the table,
    and writes evaluation.json and the contact sheets, as the command does.

    Args:
        checkpoint: a run's folder, a checkpoint that it keeps ("RUN@120", "RUN@best", or its file), or bare weights of
            one generator; by default the newest of runs/.
        flags: the command's other flags with underscores, such as `batch_size=4` for --batch-size 4. `python -m
            cyclegan_fast.evaluate --help` explains them. Paths may be strings, and lists may be lists or tuples.

    Raises UserError, as the command ends with a line.
    """
    from cyclegan_fast.config.keywords import given_flags
    from cyclegan_fast.evaluation.command import EvaluateCommand, scores_of_run
    from cyclegan_fast.evaluation.score_table import scalars

    return scalars(scores_of_run(given_flags(EvaluateCommand(), {"checkpoint": checkpoint, **flags}, "evaluate")))
