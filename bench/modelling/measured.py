"""Holds a prediction against what was measured on such a GPU, where anything was."""

from collections.abc import Iterable

from bench.measure.records import Comparison, is_ours
from bench.modelling.table import StepModel
from bench.reporting.device_results import Device


def against_measurements(model: StepModel, devices: Iterable[Device]) -> str:
    """Return a line for each step of this size that was measured on a GPU of this name, or a sentence that says none.

    The fastest of ours counts, as its users launch it.
    """
    name = model.facts.gpu.name
    lines = [
        _line(model, device.name, comparison)
        for device in devices
        if device.name.startswith(name)
        for comparison in device.of("step")
        if (comparison.batch, comparison.side, comparison.dtype) == (model.batch, model.side, "bfloat16")
    ]
    return "\n".join(lines) or f"No step of this size has been measured on a GPU named {name}: nothing to compare with."


def _line(model: StepModel, device: str, comparison: Comparison) -> str:
    times_ms = {who: timing.ms.median for who, timing in comparison.contenders.items() if is_ours(who)}
    who = min(times_ms, key=lambda one: (times_ms[one], one))
    ratio = times_ms[who] / (model.step_us / 1e3)
    return f"Measured on {device}: {who} {times_ms[who]:.2f} ms, {ratio:.2f} times the prediction."
