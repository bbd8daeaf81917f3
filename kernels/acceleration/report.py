"""Holds what `accelerate` did to a network, and says it in words."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..dispatch import Activation
from ..traffic import Traffic

MOST_NAMES = 3
"""names that stand behind one reason; the others are counted"""


@dataclass
class FusedNorm:
    """Describes an instance norm that was replaced, and what it took in."""

    name: str
    activation: Activation
    has_residual: bool
    pad: int = 0
    in_block: bool = False
    """whether it is one of the two norms of a residual block that runs as one operator"""


@dataclass(frozen=True)
class Region:
    """Describes a module whose `forward` was rewritten; modules inside it are part of its graph."""

    name: str
    kind: str
    norms: tuple[FusedNorm, ...]
    blocks: int
    pads: int
    """reflection pads that run by themselves, as the fused operator"""
    biases: int
    """convolutions whose bias the norm behind them subtracts again"""


@dataclass(frozen=True)
class Counted:
    """Holds what runs between the convolutions in one pass, before and after."""

    what: str
    before: Traffic
    after: Traffic

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.before.launches} -> {self.after.launches} launches, "
            f"{self.before.total_bytes / 1e6:.1f} -> {self.after.total_bytes / 1e6:.1f} MB"
        )


@dataclass(frozen=True)
class Acceleration:
    """Says what `accelerate` did to a network, what it left as it was, and why; `print` shows it."""

    network: str
    """the network's class"""
    regions: tuple[Region, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    """name and reason of each part that was left as it was"""
    untraced: tuple[tuple[str, str], ...] = ()
    """name and reason of each module whose own code could not be traced; modules inside it were"""
    counts: tuple[Counted, ...] = ()
    note: str = ""
    """why nothing was changed at all"""

    @property
    def norms(self) -> list[FusedNorm]:
        """Return the instance norms that were replaced."""
        return [norm for region in self.regions for norm in region.norms]

    def __str__(self) -> str:
        return "\n".join([f"accelerate: {self.network}: {self._result()}", *(f"  {line}" for line in self._details())])

    def _result(self) -> str:
        if self.note or not self.regions:
            return f"nothing changed: {self.note}" if self.note else "nothing changed: no instance norm to fuse"
        return f"{_counted(len(self.norms), 'instance norm')} fused"

    def _details(self) -> Iterable[str]:
        if self.regions:
            yield from self._fused()
        yield from _by_reason("left as it was", self.left)
        yield from _by_reason("not traced, only what is inside", self.untraced)
        if self.counts:
            yield "between the convolutions, each launch moving its operands once:"
            yield from (f"  {count}" for count in self.counts)

    def _fused(self) -> Iterable[str]:
        norms, regions = self.norms, self.regions
        taken_in = [
            _counted(sum(norm.activation != "none" for norm in norms), "activation"),
            _counted(sum(norm.has_residual for norm in norms), "sum"),
            _counted(sum(norm.pad > 0 for norm in norms), "reflection pad"),
        ]
        yield f"they took in {', '.join(taken_in[:2])} and {taken_in[2]}"
        if blocks := sum(region.blocks for region in regions):
            yield f"{_counted(blocks, 'residual block')} as one operator each"
        if pads := sum(region.pads for region in regions):
            yield f"{_counted(pads, 'reflection pad')} replaced where no norm is in front"
        if biases := sum(region.biases for region in regions):
            yield f"{_counted(biases, 'bias', 'biases')} left out, which a norm subtracts again"
        if len(regions) > 1 or regions[0].name:
            yield f"in {', '.join(f'{region.name} ({region.kind})' for region in regions)}"


def _by_reason(title: str, named: Iterable[tuple[str, str]]) -> Iterable[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in named:
        reasons.setdefault(reason, []).append(name or "the network itself")
    for reason, names in reasons.items():
        further = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        yield f"{title}: {', '.join(names[:MOST_NAMES])}{further}: {reason}"


def _counted(number: int, thing: str, things: str = "") -> str:
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"
