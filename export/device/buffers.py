"""Holds the memory that a call fills and empties: it is grown when it is too small, and kept otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt

from export.device.driver import Bytes, Driver, Stream

BLOCK = 2 << 20  # bytes; CUDA hands out memory in pieces of this size


def grown(capacity: int, needed: int) -> int:
    """Return the capacity that a buffer of `capacity` bytes must have to hold `needed`: the same, or whole blocks.

    Not twice as large: one batch of large images is a good part of a small GPU's memory.
    """
    return capacity if needed <= capacity else -(-needed // BLOCK) * BLOCK


class Buffer:
    """Holds memory on the GPU and as much on the host, which is pinned: only then are copies asynchronous.

    Every method needs the GPU's context to be current; `grow_to` and `free` need what uses the memory to have ended.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.capacity = 0
        self._host: Any = None  # PinnedMemory, and
        self._device: Any = None  # DeviceMemory, once it is grown

    @property
    def address(self) -> int:
        """Return the memory's address on the GPU, which changes only when it grows."""
        address: int = self._device.address
        return address

    def grow_to(self, needed: int) -> None:
        """Make room for `needed` bytes. After a DeviceMemoryError the buffer is empty and can be grown again."""
        capacity = grown(self.capacity, needed)
        if capacity == self.capacity:
            return
        self.free()  # the old memory is freed first, so that both never exist at once
        try:
            self._device = self._driver.allocate(capacity)
            self._host = self._driver.allocate_pinned(capacity)
        except BaseException:
            self.free()
            raise
        self.capacity = capacity

    def view(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the beginning of the host's memory as an array, which is valid until the buffer grows or is freed."""
        wanted = np.dtype(dtype)
        flat: Bytes = self._host.array[: int(np.prod(shape)) * wanted.itemsize]
        return flat.view(wanted).reshape(shape)

    def upload(self, size: int, stream: Stream) -> None:
        self._driver.upload(self._device, self._host, size, stream)

    def download(self, size: int, stream: Stream) -> None:
        self._driver.download(self._host, self._device, size, stream)

    def free(self) -> None:
        """Give all memory back. Does nothing the second time."""
        host, device = self._host, self._device
        self._host = self._device = None
        self.capacity = 0
        try:
            if host is not None:
                host.free()
        finally:
            if device is not None:
                device.free()
