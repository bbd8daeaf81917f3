"""Translates batches on a GPU so that the host, the copies both ways and the network work at the same time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import levels, signed
from cyclegan_fast.translation.graphs import GraphedNetwork, graphed
from cyclegan_fast.translation.on_device import TorchTranslator, check_finite, run_network


class CudaTranslator(TorchTranslator):
    """Translates as `TorchTranslator` does, by CUDA graphs (`graphs.py`), and can begin a batch before another ends.

    Samples are copied from and to pinned memory, on streams of their own, and converted on the GPU. Several threads may
    call it.

    Args:
        tell: told why there are no graphs, once.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        tell: Callable[[str], None],
        source: PixelType = RGB,
        target: PixelType = RGB,
    ) -> None:
        super().__init__(network, device, dtype, source, target)
        self.network = graphed(self.network, device, tell)
        self._inward, self._outward = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def __call__(self, samples: SampleArray) -> SampleArray:
        """Translate samples [N, H, W, C]; raises what `TorchTranslator` raises."""
        return self.begin(samples)()

    def begin(self, samples: SampleArray) -> Callable[[], SampleArray]:
        """Give the GPU samples [N, H, W, C] to translate, and return at once what waits for the result and returns it.

        Both raise what `TorchTranslator` raises.
        """
        count, height, width, _ = samples.shape
        with self._memory_for(count, height, width), torch.inference_mode(), torch.cuda.device(self.device):
            on_host = torch.empty(samples.shape, dtype=getattr(torch, self.source.dtype), pin_memory=True)
            on_host.numpy()[...] = samples
            stream = torch.cuda.current_stream(self.device)
            with torch.cuda.stream(self._inward):
                images = on_host.to(self.device, non_blocking=True)
            stream.wait_stream(self._inward)
            images.record_stream(stream)
            translated, finite = run_network(self.network, signed(images.permute(0, 3, 1, 2), self.source))
            results = levels(translated, self.target).permute(0, 2, 3, 1).contiguous(), finite
            self._outward.wait_stream(stream)
            with torch.cuda.stream(self._outward):
                copies = [_begin_copy_to_host(result) for result in results]
            for result in results:
                result.record_stream(self._outward)
            copied = self._outward.record_event()

        def finish() -> SampleArray:
            copied.synchronize()
            check_finite(copies[1])
            returned: SampleArray = copies[0].numpy()
            return returned

        return finish

    def close(self) -> None:
        """Free the graphs."""
        if isinstance(self.network, GraphedNetwork):
            self.network.forget_graphs()


def _begin_copy_to_host(values: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def new_translator(
    network: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[str], None],
    source: PixelType = RGB,
    target: PixelType = RGB,
) -> TorchTranslator:
    """Return what translates samples of `source` to those of `target` by a generator in PyTorch, see `CudaTranslator`.

    It computes on `device` in `dtype`.
    """
    if device.type == "cuda":
        return CudaTranslator(network, device, dtype, tell, source, target)
    return TorchTranslator(network, device, dtype, source, target)
