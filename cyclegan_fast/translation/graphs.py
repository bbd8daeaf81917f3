"""Replays a generator as CUDA graphs, one for each shape of images that comes again.

On a GPU a translation waits for the host, which launches some fifty operators one by one; a graph launches them at
once. The bits are the same, which is checked once for each graph.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor, nn

from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.cuda_graph import CudaRecorder, GraphRecorder, Recording
from cyclegan_fast.system.device import first_line
from cyclegan_fast.system.shortage import is_out_of_memory

GRAPHS_VARIABLE = "CYCLEGAN_FAST_CUDA_GRAPH"
"""The environment variable that is "off" where translations are to go without graphs."""

MOST_GRAPHS = 8
"""The most graphs that a generator keeps; of the others the one that was used last the longest ago goes."""

MOST_OF_MEMORY = 1 / 8
"""The largest share of a GPU's memory that the graphs of a generator keep together."""

_MOST_SHAPES = 64
"""The most shapes that are remembered as seen: a folder whose images all differ has no end of them."""


@dataclass
class _Shape:
    """Holds what is known of a shape that was translated once at least."""

    recording: Recording | None = None
    recorded_bytes: int = 0
    is_too_large: bool = False


class GraphedNetwork(nn.Module):
    """Calls a network that only translates: eagerly for the first images of a shape, and by a graph from the third on.

    With the second images of a shape the graph is recorded, replayed once and compared. Where a recording fails or
    differs, the user is told, and all goes on eagerly; one that does not fit into memory concerns its shape alone. A
    graph reads weights where they were: where one lies elsewhere since, they are recorded anew. Several threads may
    call it, on any streams.

    Args:
        network: a generator in evaluation mode; its weights stay where they are.
        recorder: records on the network's device.
        most_bytes: of the device's memory, for all graphs together.
        memory: returns the bytes that graphs and all else hold of the device's memory.
        tell: told why there are no graphs, once.
    """

    def __init__(
        self,
        network: nn.Module,
        recorder: GraphRecorder,
        most_bytes: int,
        memory: Callable[[], int],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.network = network
        self.recorder = recorder
        self.most_bytes = most_bytes
        self.memory = memory
        self.tell = tell
        self._shapes: OrderedDict[tuple[torch.Size, torch.dtype], _Shape] = OrderedDict()
        self._lock = Lock()
        self._is_given_up = False
        self._last_use: torch.cuda.Event | None = None
        self._addresses = self._addresses_of_weights()
        self.eval()

    @property
    def graphs(self) -> int:
        """Return how many graphs it holds."""
        return sum(shape.recording is not None for shape in self._shapes.values())

    def forward(self, images: Tensor) -> Tensor:
        """Map [N, C, H, W] as the network does, to the same bits; the result is the caller's own."""
        if self._is_given_up or self.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
            return self._eagerly(images)
        key = (images.shape, images.dtype)
        with self._lock:
            self._follow_weights()
            shape = self._shapes.get(key)
            if shape is None:
                self._shapes[key] = _Shape()
                while len(self._shapes) > _MOST_SHAPES:
                    self._free(self._shapes.popitem(last=False)[1])
            else:
                self._shapes.move_to_end(key)
                if shape.recording is not None:
                    return self._replayed(shape.recording, images)
                if not shape.is_too_large:
                    return self._recorded(shape, images)
        return self._eagerly(images)

    def forget_graphs(self) -> bool:
        """Free the graphs and their memory; returns whether there were any."""
        with self._lock:
            return self._forget()

    def _forget(self) -> bool:
        had = self.graphs > 0
        self._wait_for_replays()
        self._shapes.clear()
        return had

    def _free(self, shape: _Shape) -> None:
        """Free the graph of a shape, if it has one."""
        if shape.recording is not None:
            self._wait_for_replays()
            shape.recording = None

    def _wait_for_replays(self) -> None:
        """Wait for the last replay, in front of freeing a graph: its memory may go to another stream at once."""
        if self._last_use:
            self._last_use.synchronize()

    def _follow_weights(self) -> None:
        """Forget the graphs where somebody put other tensors into the place of weights."""
        addresses = self._addresses_of_weights()
        if addresses != self._addresses:
            self._forget()
            self._addresses = addresses

    def _addresses_of_weights(self) -> tuple[int, ...]:
        return tuple(tensor.data_ptr() for tensor in (*self.network.parameters(), *self.network.buffers()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Forget the graphs where weights go elsewhere: they read them where they were."""
        self.forget_graphs()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def _eagerly(self, images: Tensor) -> Tensor:
        try:
            result: Tensor = self.network(images)
        except RuntimeError as error:
            # What fitted before there were graphs must fit beside them.
            if not is_out_of_memory(error) or not self.forget_graphs():
                raise
        else:
            return result
        again: Tensor = self.network(images)
        return again

    def _warmed_up(self, images: Tensor) -> Tensor:
        """Translate eagerly on the stream of recordings; the caller has the lock."""
        try:
            return self.recorder.warm_up(lambda: {"translated": self.network(images)})["translated"]
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._forget():
                raise
        return self.recorder.warm_up(lambda: {"translated": self.network(images)})["translated"]

    def _replayed(self, recording: Recording, images: Tensor) -> Tensor:
        """Replay on the caller's stream, behind the replay before, which may have been on another one."""
        stream = torch.cuda.current_stream(images.device) if images.is_cuda else None
        if stream and self._last_use:
            stream.wait_event(self._last_use)
        try:
            return recording({"images": images})["translated"].clone()
        finally:  # also where there is no memory for the result: the replay was launched
            if stream:
                self._last_use = stream.record_event()

    def _recorded(self, shape: _Shape, images: Tensor) -> Tensor:
        """Translate eagerly, and record the same; keep the recording where it gives the same bits."""
        expected = self._warmed_up(images)
        before = self.memory()
        try:
            # Buffers made in inference mode could not be written to outside of it.
            with torch.inference_mode(False), torch.no_grad():
                place = torch.zeros_like(images)
                replay, outputs = self.recorder.record(lambda: {"translated": self.network(place)})
            recording = Recording({"images": place}, replay, outputs)
            found = self._replayed(recording, images)
        except RuntimeError as error:
            if is_out_of_memory(error):
                shape.is_too_large = True
            else:
                self._give_up(first_line(error))
            return expected
        if not torch.equal(found.nan_to_num(), expected.nan_to_num()):
            self._give_up("replayed, a translation differs from what it is")
            return expected
        shape.recording, shape.recorded_bytes = recording, max(0, self.memory() - before)
        if shape.recorded_bytes > self.most_bytes:
            self._free(shape)
            shape.is_too_large = True
        self._make_room()
        return expected

    def _make_room(self) -> None:
        """Let graphs go until few enough are left, those first that were used last the longest ago."""
        for shape in list(self._shapes.values()):
            total = sum(one.recorded_bytes for one in self._shapes.values() if one.recording)
            if self.graphs <= MOST_GRAPHS and total <= self.most_bytes:
                break
            self._free(shape)

    def _give_up(self, reason: str) -> None:
        self._is_given_up = True
        self._forget()
        self.tell(f"translating without CUDA graphs: {reason}")


def graphed(network: nn.Module, device: torch.device, tell: Callable[[str], None]) -> nn.Module:
    """Return a generator that replays CUDA graphs, where it is on a GPU, or else the network as it is.

    A CoGAN's search for a code stays as it is: the host decides about its steps.

    Args:
        network: on its device, in its precision, in evaluation mode.
        tell: told why there are no graphs, where that is not the user's wish.
    """
    if device.type != "cuda" or os.environ.get(GRAPHS_VARIABLE) == "off":
        return network
    if not isinstance(network, ResnetGenerator | UnetGenerator):
        return network

    def memory() -> int:
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)

    recorder = CudaRecorder(device, f"{GRAPHS_VARIABLE}=off in its environment", shares_memory=False)
    total: Any = torch.cuda.get_device_properties(device).total_memory
    return GraphedNetwork(network, recorder, int(MOST_OF_MEMORY * total), memory, tell)
