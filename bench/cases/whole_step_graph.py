"""Records plain PyTorch's whole step as one CUDA graph: both passes, Adam, and the pools.

`torch.compile` with CUDA graphs of its own records each network, and its backward pass writes a gradient where the one
of the network's last pass still is: several passes through a network in one step are an error, or wrong
(https://github.com/pytorch/pytorch/issues/169545, .../96693). Compiled without them, its code can be recorded as ours
is, which also saves it the launches between networks. One replay is compared with one launched step, by losses and
weights (`cyclegan_fast.training.rehearsal`), before it takes part.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.cases.plain_cyclegan import PlainCycleGAN, PlainImagePool
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.kernels.elementwise.signed_windows import signed_windows
from cyclegan_fast.system.cuda_graph import GraphRecorder, Inputs, Outputs
from cyclegan_fast.system.device import ready_to_copy
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.cuda_graph import GraphedFunction
from cyclegan_fast.training.rehearsal import Rehearsal

IN_A_GRAPH = "in a whole-step graph"
"""The names of such contenders end with this."""


class NotRecorded(RuntimeError):
    """Says why a step is not replayed from a graph: it could not be recorded, or a replay computes something else."""


class RecordedPool(PlainImagePool):
    """Decides on the host which images are kept and returned, as a `PlainImagePool` does, and moves them by indices.

    A graph repeats what it does on the device: what differs from step to step must come to it in tensors.

    Attributes:
        choice: Rows of indices [4, N], int64, for the N images of the next query: the slot that is read, the image that
            is returned otherwise, whether it is the slot that is returned, and the slot that is written.
    """

    choice: Tensor

    def __init__(self, size: int, random_source: random.Random) -> None:
        super().__init__(size, random_source)
        self.filled = 0
        self.kept: Tensor | None = None  # [size + 1, ...], as images lie in memory; what is written last is not kept

    def decide(self, count: int) -> Tensor:
        """Draw for the next `count` images, in the order of `PlainImagePool.query`; return their `choice`."""
        rows: list[list[int]] = []
        latest: dict[int, int] = {}  # which of these images is in a slot
        for number in range(count):
            slot, read, image, is_read = self.size, self.size, number, False
            if self.filled < self.size:
                slot, self.filled = self.filled, self.filled + 1
            elif self.size and self.random_source.random() < 0.5:
                slot = self.random_source.randrange(self.size)
                is_read = slot not in latest
                read, image = slot, latest.get(slot, number)
            if slot in latest:
                rows[latest[slot]][3] = self.size  # it has left already
            if slot < self.size:
                latest[slot] = number
            rows.append([read, image, int(is_read), slot])
        return torch.tensor(rows).t().contiguous()

    def query(self, images: Tensor) -> Tensor:
        """Return as many images as [N, C, H, W] has, by `choice`."""
        if self.size == 0:
            return images
        is_channels_last = images.is_contiguous(memory_format=torch.channels_last)
        lying = images.detach().permute(0, 2, 3, 1) if is_channels_last else images.detach()
        if self.kept is None:
            self.kept = torch.zeros(self.size + 1, *lying.shape[1:], dtype=lying.dtype, device=lying.device)
        read, image, is_read, written = self.choice
        old, new = self.kept.index_select(0, read), lying.index_select(0, image)
        chosen = torch.where(is_read.bool().view(-1, 1, 1, 1), old, new)
        self.kept.index_copy_(0, written, lying)
        return chosen.permute(0, 3, 1, 2) if is_channels_last else chosen


class WholeStepGraph:
    """Carries out one update each call: launched at first, then compared, recorded and replayed.

    Args:
        plain: What is trained; its Adams must be fit for a graph, and its pools are replaced.
        device: The device that computes.
        recorder: Records on the device.
    """

    def __init__(self, plain: PlainCycleGAN, device: torch.device, recorder: GraphRecorder) -> None:
        self.plain = plain
        self.device = device
        pool = plain.pool_A
        self.pool_A, self.pool_B = (RecordedPool(pool.size, pool.random_source) for _ in range(2))
        plain.pool_A, plain.pool_B = self.pool_A, self.pool_B
        self._graphed = GraphedFunction(self._update, recorder, device, _refuse, rehearse=self._rehearsal)

    def __call__(self, batch: Batch) -> Outputs:
        """Update the networks by a batch from the host; return the losses. Raises NotRecorded."""
        self.size = batch.size_A
        choice_B = self.pool_B.decide(len(batch.pixels_B))  # the first one that draws
        inputs = {
            "pixels_A": batch.pixels_A,
            "pixels_B": batch.pixels_B,
            "crops_A": batch.crops_A,
            "crops_B": batch.crops_B,
            "choice_B": choice_B,
            "choice_A": self.pool_A.decide(len(batch.pixels_A)),
        }
        try:
            return self._graphed({name: ready_to_copy(values, self.device) for name, values in inputs.items()})
        except UserError as error:
            raise NotRecorded(str(error)) from error

    def _update(self, inputs: Inputs) -> Outputs:
        self.pool_A.choice, self.pool_B.choice = inputs["choice_A"], inputs["choice_B"]
        real_A, real_B = (
            signed_windows(inputs[f"pixels_{side}"], inputs[f"crops_{side}"], *self.size, impl="reference")
            for side in "AB"
        )
        return self.plain.update(real_A, real_B)

    @contextmanager
    def _rehearsal(self) -> Iterator[Rehearsal]:
        rehearsal = Rehearsal(self._written(), self.device)
        yield rehearsal
        rehearsal.put_back()

    def _written(self) -> dict[str, list[Tensor]]:
        """Return what a step writes and a later one reads, once it has been launched."""
        optimizers = (self.plain.generator_optimizer, self.plain.discriminator_optimizer)
        of_adam = [each for optimizer in optimizers for state in optimizer.state.values() for each in state.values()]
        kept = [pool.kept for pool in (self.pool_A, self.pool_B) if pool.kept is not None]
        weights = {f"weights of {name}": _weights(network) for name, network in self.plain.networks().items()}
        return {**weights, "averages of Adam": of_adam, "images of the pools": kept}


def _weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in network.parameters()]


def _refuse(reason: str) -> None:
    raise NotRecorded(reason)
