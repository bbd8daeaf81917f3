"""Holds a prediction against what was measured on such a GPU, where anything was."""

from collections.abc import Iterable

from bench.measure.records import Comparison
from bench.modelling.table import StepModel
from bench.reporting.device_results import Device


def against_measurements(model: StepModel, devices: Iterable[Device]) -> str:
    """Return a line for each step of this size and number of streams measured on this GPU, or say that there is none.

    What is predicted is `--amp` in a CUDA graph, with no other option than the number of streams.
    """
    name = model.facts.device
    lines = [
        f"Measured on {name}: {who} {ms:.2f} ms, {ms / (model.step_us / 1e3):.2f} times the prediction."
        for device in devices
        if device.name == name
        for comparison in device.of("step")
        if (comparison.batch, comparison.side, comparison.dtype) == (model.batch, model.side, "bfloat16")
        and (who := contender_on(model.streams, comparison))
        for ms in [comparison.contenders[who].ms.median]
    ]
    return "\n".join(lines) or (
        f"No step of this size on {'1 stream' if model.streams == 1 else f'{model.streams} streams'} "
        f"has been measured on {name}: nothing to compare with."
    )


def contender_on(streams: int, comparison: Comparison) -> str | None:
    """Return the name of our contender that ran on so many streams; None where none is known to have.

    Contenders are named by their options. Ours without any ran on the number that `--streams auto` chose, and beside it
    the other number was named (`bench.cases.training_step`).
    """
    named = f"{comparison.ours} --streams {streams}"
    if named in comparison.contenders:
        return named
    is_other_named = f"{comparison.ours} --streams {3 - streams}" in (*comparison.contenders, *comparison.refused)
    return comparison.ours if is_other_named else None
