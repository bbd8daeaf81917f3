"""Writes a comparison for a terminal; tables.py writes Markdown."""

from bench.measure.records import Comparison
from bench.reporting.views import figure


def comparison_text(comparison: Comparison) -> str:
    """Return a few lines: every contender's time in ms, its quartiles, its ratio to ours and its share of the limit."""
    lines = [comparison.title]
    for name, timing in comparison.contenders.items():
        of_limit = comparison.of_limit(name)
        cells = [
            f"  {name:<48}",
            f"{figure(timing.ms.median):>7} ms ({figure(timing.ms.lower)} to {figure(timing.ms.upper)})",
            f"{timing.ratio.median:6.2f}x ours" if name != comparison.ours else " " * 11,
            "" if timing.kernels_ms is None else f"{figure(timing.kernels_ms)} ms in kernels",
            "" if of_limit is None else f"{of_limit:5.0%} of the limit",
            "" if timing.peak_gib is None else f"{timing.peak_gib:.2f} GiB",
            "" if timing.error is None else f"error {timing.error:.1e}",
        ]
        lines.append("  ".join(cell for cell in cells if cell).rstrip())
    lines += [f"  {name:<48} refused: {reason}" for name, reason in comparison.refused.items()]
    lines += [f"  {name:<48} absent: {reason}" for name, reason in comparison.absent.items()]
    again = comparison.again
    lines.append(f"  ours over itself: {again.lower:.3f} to {again.upper:.3f}, {comparison.rounds} rounds")
    return "\n".join(lines)
