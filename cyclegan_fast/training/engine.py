"""Runs training steps on batches from the host, eagerly or as CUDA graphs, and decides which of the two."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.batch import Batch, windows_of
from cyclegan_fast.methods.base import LossesByName
from cyclegan_fast.system.cuda_graph import CudaRecorder, GraphRecorder, Inputs
from cyclegan_fast.system.device import ready_to_copy
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.cuda_graph import GraphedFunction
from cyclegan_fast.training.rehearsal import Rehearsal
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.choice import reason_against_a_graph
from cyclegan_fast.training.update.decisions import Decisions


class TrainingEngine:
    """Updates the networks once a call.

    Args:
        step: computes a step.
        config: says whether graphs are wanted, `config.run.cuda_graph`.
        announce: is told once why steps are not recorded on a device that can record them.
        recorder: records on the step's device; by default a CUDA graph where `reason_against_a_graph` has no reason.
    """

    def __init__(
        self,
        step: TrainingStep,
        config: Config,
        announce: Callable[[str], None],
        recorder: GraphRecorder | None = None,
    ) -> None:
        self.step = step
        self.config = config
        self.announce = announce
        self._graphed: GraphedFunction | None = None
        wants_graph, reason = config.run.cuda_graph != "off", reason_against_a_graph(config, step.device)
        if recorder is None and wants_graph and reason is None:
            recorder = CudaRecorder(step.device, "--cuda-graph off", shares_memory=True)
        elif recorder is None and wants_graph and step.device.type == "cuda":
            announce(f"no CUDA graph: {reason}")
        if recorder:
            self._graphed = GraphedFunction(
                self._update, recorder, step.device, self._give_up, step.capturable, self._rehearsal, step.ranks.any
            )

    def __call__(self, batch: Batch) -> LossesByName:
        """Update the networks by one batch; returns the losses, which the next call of a graph overwrites."""
        if self._graphed is None:
            return self.step(*batch.to(self.step.device, self.config.networks.impl, self.config.data.pixel_types))
        decisions = self.step.draw(len(batch.pixels_A))
        inputs = {
            "pixels_A": batch.pixels_A,
            "pixels_B": batch.pixels_B,
            "crops_A": batch.crops_A,
            "crops_B": batch.crops_B,
            **decisions.tensors(),
        }
        return self._graphed({name: ready_to_copy(values, self.step.device) for name, values in inputs.items()})

    def close(self) -> None:
        """Free the graphs, before the ranks part."""
        if self._graphed:
            self._graphed.forget_recordings()

    def _update(self, inputs: Inputs) -> LossesByName:
        kinds, side, impl = self.config.data.pixel_types, self.config.data.crop_size, self.config.networks.impl
        return self.step.update(
            windows_of(inputs["pixels_A"], inputs["crops_A"], (side, side), kinds.A, impl),
            windows_of(inputs["pixels_B"], inputs["crops_B"], (side, side), kinds.B, impl),
            Decisions(inputs["pool_A"], inputs["pool_B"], inputs.get("mixes"), inputs.get("latents")),
        )

    @contextmanager
    def _rehearsal(self) -> Iterator[Rehearsal]:
        with self.step.calm():
            rehearsal = Rehearsal(self.step.written(), self.step.device, self.step.networks.kept_copies())
            yield rehearsal
            rehearsal.put_back()

    def _give_up(self, reason: str) -> None:
        if self.config.run.cuda_graph == "on":
            raise UserError(f"--cuda-graph on: {reason}; leave it at auto to train without")
        # Without a graph the host is busy launching for one stream: see `streams_of`.
        leaves_streams = self.config.run.streams == "auto" and self.step.leave_streams()
        self.announce(f"no CUDA graph: {reason}" + ("; steps go on on one stream" if leaves_streams else ""))
        self.step.forget_interrupted_update()
