"""Opens a GPU, in the context that TensorRT and PyTorch use as well.

No line of this has run on a GPU yet.
"""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from cyclegan_fast.system.errors import UserError
from export.device.driver import WITHOUT_ENGINES, DeviceMemoryError, Driver, load_driver
from export.library_errors import explaining

_GIB = 1 << 30


class CudaDevice:
    """Holds one GPU and its primary context, which is current only inside `with gpu.current():`, on whatever thread."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver = driver
        self._device = driver.open_device(index)
        self.name = self._device.name
        self.capability = self._device.capability

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread."""
        self._device.push()
        try:
            yield
        finally:
            self._device.pop()

    def release(self) -> None:
        """Let go of the context. The thread that opened the GPU must call this: PyCUDA does nothing on another."""
        self._device.release()

    @contextmanager
    def explaining_exhaustion(self, wanted: str, error_of: Callable[[str], UserError] = UserError) -> Iterator[None]:
        """Turn a DeviceMemoryError into `error_of` a line on what was wanted; the context must be current."""
        try:
            yield
        except DeviceMemoryError as error:
            free_gib = self.driver.free_bytes() / _GIB
            raise error_of(
                f"{wanted} does not fit the memory of the {self.name}, of which {free_gib:.2f} GiB are free: translate "
                "fewer or smaller images at once, or end what else computes there"
            ) from error


_OPEN: dict[int, CudaDevice] = {}
_LOCK = Lock()


def open_gpu(index: int) -> CudaDevice:
    """Return the GPU of that index, counted from 0. Raises UserError where there is none.

    Each GPU is opened once and held until the process ends. PyCUDA lets go of a primary context only on the thread that
    took it, and leaves it there as the current one; nor would the memory come back, as TensorRT holds the same context.
    """
    with _LOCK:
        if index not in _OPEN:
            driver = load_driver()
            with explaining("the GPU cannot be used", "see what nvidia-smi says of it"):
                count = driver.device_count()
            if not 0 <= index < count:
                raise UserError(f"there is no GPU {index} here: {count} found, counted from 0. {WITHOUT_ENGINES}")
            with explaining(f"the GPU {index} cannot be used", "see what nvidia-smi says of it"):
                _OPEN[index] = CudaDevice(driver, index)
        return _OPEN[index]


@atexit.register  # before Python takes its modules apart, while CUDA is still there
def release_all() -> None:
    """Let go of every GPU; what was not closed before cannot be used afterwards."""
    with _LOCK:
        while _OPEN:
            _OPEN.popitem()[1].release()
