"""Writes what the model predicts: a table by groups of nodes, and a list of the nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.modelling.assumptions import NODE_GAP_US, GpuFacts
from bench.modelling.cost import NodeCost
from bench.modelling.nodes import StepNode
from bench.modelling.schedule import critical_path_us, one_stream_us, streams_us
from bench.reporting.markdown import markdown_table

NODE_GROUPS = (
    "block convolutions",
    "stem, head, down, up",
    "norms and pads",
    "discriminators' convolutions",
    "elementwise, copies",
    "Adam",
)


def group_of(node: StepNode) -> str:
    """Return the group of a node, one of `NODE_GROUPS`."""
    if node.kind in ("norm", "pad"):
        return "norms and pads"
    if node.kind == "update":
        return "Adam"
    if node.kind != "convolution":
        return "elementwise, copies"
    if node.network.startswith("D_"):
        return "discriminators' convolutions"
    return "block convolutions" if node.layer.startswith("blocks.") else "stem, head, down, up"


@dataclass(frozen=True)
class StepModel:
    """Holds a traced step and the predicted cost of each of its nodes."""

    facts: GpuFacts
    batch: int
    side: int
    streams: int
    nodes: list[StepNode]
    costs: list[NodeCost]

    @property
    def operations(self) -> int:
        return sum(node.operations for node in self.nodes)

    @property
    def floor_us(self) -> float:
        """Return the time of the convolutions' operations alone at the speed of a large matrix product."""
        return self.operations / (self.facts.matrix_tflops * 1e6)

    @property
    def durations_us(self) -> list[float]:
        return [cost.us for cost in self.costs]

    @property
    def critical_us(self) -> float:
        return critical_path_us(self.durations_us, [node.depends_on for node in self.nodes])

    @property
    def step_us(self) -> float:
        """Return the time of the step, its nodes on the streams that it puts them on."""
        if self.streams == 1:
            return one_stream_us(self.durations_us)
        return self._on_streams_us([node.waits_for for node in self.nodes])

    @property
    def ideal_us(self) -> float:
        """Return the time of the step if every node ran on the stream that has the first place for it."""
        return self._on_streams_us([node.depends_on for node in self.nodes])

    def _on_streams_us(self, waits_for: Sequence[Sequence[int]]) -> float:
        return streams_us(self.durations_us, waits_for, [cost.shares for cost in self.costs], self.streams)

    def table(self) -> str:
        """Return a Markdown table: a row for each group, for the gaps between nodes, and for the step."""
        ms = "ms" if self.streams == 1 else "ms, one after the other"
        titles = ["group", "nodes", "GFLOP", "MB touched", "MB from memory", ms]
        rows = [["floor", "", f"{self.operations / 1e9:.0f}", "", "", f"{self.floor_us / 1e3:.2f}"]]
        for group in NODE_GROUPS:
            found = [(n, c) for n, c in zip(self.nodes, self.costs, strict=True) if group_of(n) == group]
            rows.append(
                [
                    group,
                    str(len(found)),
                    f"{sum(node.operations for node, _ in found) / 1e9:.0f}",
                    f"{sum(node.read_bytes + node.written_bytes for node, _ in found) / 1e6:.0f}",
                    f"{sum(cost.memory_bytes for _, cost in found) / 1e6:.0f}",
                    f"{sum(cost.us for _, cost in found) / 1e3:.2f}",
                ]
            )
        rows.append(["gaps between nodes", "", "", "", "", f"{len(self.nodes) * NODE_GAP_US / 1e3:.2f}"])
        rows.append(["longest path", "", "", "", "", f"{self.critical_us / 1e3:.2f}"])
        if self.streams > 1:
            rows.append(["launches where there is a place first", "", "", "", "", f"{self.ideal_us / 1e3:.2f}"])
        what = "step" if self.streams == 1 else f"step, {self.streams} streams"
        rows.append([f"**{what}**", f"{len(self.nodes)}", "", "", "", f"**{self.step_us / 1e3:.2f}**"])
        return markdown_table(titles, rows)

    def node_lines(self) -> list[str]:
        """Return a line for each node, in the order of launches."""
        lines = []
        for index, (node, cost) in enumerate(zip(self.nodes, self.costs, strict=True)):
            where = ".".join(name for name in (node.network, node.layer) if name)
            lines.append(
                f"{index:5} {cost.us:8.2f} us  {node.name:<30} {where:<24} {node.part:<8} "
                f"{node.operations / 1e9:8.2f} GFLOP {(node.read_bytes + node.written_bytes) / 1e6:8.2f} MB "
                f"{cost.memory_bytes / 1e6:8.2f} from memory  {cost.waves.programs:6} programs, "
                f"{cost.waves.resident:2} a multiprocessor, {cost.waves.programs / cost.waves.places:6.2f} waves"
            )
        return lines

    def rows(self) -> list[dict[str, object]]:
        """Return what is known of each node, for JSON."""
        return [
            {
                "name": node.name,
                "group": group_of(node),
                "network": node.network,
                "layer": node.layer,
                "part": node.part,
                "phase": node.phase,
                "operations": node.operations,
                "read_bytes": node.read_bytes,
                "written_bytes": node.written_bytes,
                "memory_bytes": cost.memory_bytes,
                "grid": list(node.launch.grid) if node.launch else None,
                "programs": cost.waves.programs,
                "resident": cost.waves.resident,
                "waves": cost.waves.programs / cost.waves.places,
                "us": cost.us,
                "depends_on": list(node.depends_on),
            }
            for node, cost in zip(self.nodes, self.costs, strict=True)
        ]
