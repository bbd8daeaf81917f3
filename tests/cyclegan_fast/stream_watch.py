"""Pretends that operators run on streams, and tells which of them no wait orders, on any device.

A stream does its work in order; between two streams only a wait orders anything. `Watch` notes for each piece of memory
which stream wrote and read it, below autograd, and when, by vector clocks (Fidge 1988). It also knows what PyTorch's
allocator does: memory that was freed goes at once to the next who asks on the stream that it was made on, whoever still
reads it elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FIRST, SECOND = 0, 1
"""The current stream, and the one beside it."""

Moment = tuple[int, int]  # a stream, and how much it had been given until then
Uses = dict[int, int]  # by stream, how much it had been given until its last use


class PretendStreams:
    """Keeps the clocks of two streams, and is a `StreamPair` for `DirectionStreams`.

    Args:
        without: "fork", "join" or "join_mark", a wait that is left out to prove that it would be missed.
    """

    def __init__(self, without: str | None = None) -> None:
        self.without = without
        self.current = FIRST
        self.clocks = [[0, 0], [0, 0]]  # of a stream: how much of each stream's work its next work comes after
        self.forks = 0

    def fork(self) -> None:
        self.forks += 1
        if self.without != "fork":
            self._wait(SECOND, FIRST)

    @contextmanager
    def second(self) -> Iterator[None]:
        assert self.current == FIRST
        self.current = SECOND
        try:
            yield
        finally:
            self.current = FIRST

    def join(self) -> None:
        if self.without != "join":
            self._wait(FIRST, SECOND)

    def mark(self) -> list[int]:
        return list(self.clocks[SECOND])

    def join_mark(self, mark: list[int]) -> None:
        if self.without != "join_mark":
            self._wait_until(FIRST, mark)

    def _wait(self, waiting: int, waited_for: int) -> None:
        self._wait_until(waiting, self.clocks[waited_for])

    def _wait_until(self, waiting: int, clock: list[int]) -> None:
        self.clocks[waiting] = [max(pair) for pair in zip(self.clocks[waiting], clock, strict=True)]

    def moment(self) -> Moment:
        """Give the current stream a piece of work."""
        self.clocks[self.current][self.current] += 1
        return self.current, self.clocks[self.current][self.current]

    def comes_after(self, stream: int, count: int) -> bool:
        """Tell whether the current stream's work comes after what that stream was given until then."""
        return self.clocks[self.current][stream] >= count


@dataclass
class Memory:
    """Holds who used a piece of memory; `owner` is the stream that it was made on."""

    alive: StorageWeakRef
    owner: int
    written: Moment | None = None
    read: Uses = field(default_factory=dict)

    def uses(self) -> Uses:
        found = dict(self.read)
        if self.written:
            stream, count = self.written
            found[stream] = max(count, found.get(stream, 0))
        return found


class Watch(TorchDispatchMode):
    """Notes what operators do on pretended streams; `reports` has a line for each use that no wait orders.

    What was there before the watch began belongs to the first stream.
    """

    def __init__(self, streams: PretendStreams) -> None:
        super().__init__()
        self.streams = streams
        self.reports: list[str] = []
        self.work = [0, 0]
        self._memory: dict[int, Memory] = {}  # by the address of what describes it, which stays taken by `alive`
        self._freed: list[Memory] = []  # in use by another stream than its owner when that freed it

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        result = operator(*arguments, **options)
        if operator.is_view:
            return result
        given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        written = _written(operator, arguments, options)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        addresses = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in given}
        fresh = [tensor for tensor in made if StorageWeakRef(tensor.untyped_storage()).cdata not in addresses]
        moment = self.streams.moment()
        self.work[moment[0]] += 1
        self._find_freed()
        for tensor in given:
            self._read(self._of(tensor, FIRST), moment, operator)
        for tensor in fresh:
            self._make(tensor, operator)
        if "empty" not in operator.__name__:
            for tensor in [*written, *fresh]:
                self._write(self._of(tensor, moment[0]), moment, operator)
        return result

    def _of(self, tensor: Tensor, owner: int) -> Memory:
        alive = StorageWeakRef(tensor.untyped_storage())
        return self._memory.setdefault(alive.cdata, Memory(alive, owner))

    def _read(self, memory: Memory, moment: Moment, operator: Any) -> None:
        if memory.written and not self.streams.comes_after(*memory.written):
            self._report(operator, "reads what was written by", memory.written)
        memory.read[moment[0]] = moment[1]

    def _write(self, memory: Memory, moment: Moment, operator: Any) -> None:
        for use in memory.uses().items():
            if not self.streams.comes_after(*use):
                self._report(operator, "writes over what is in use by", use)
        memory.written, memory.read = moment, {}

    def _make(self, tensor: Tensor, operator: Any) -> None:
        """Take memory on the current stream: any that was freed there may be it."""
        owner = self.streams.current
        for freed in [freed for freed in self._freed if freed.owner == owner]:
            self._freed.remove(freed)
            for use in freed.uses().items():
                if not self.streams.comes_after(*use):
                    self._report(operator, "gets memory that is in use by", use)
        self._of(tensor, owner)

    def _find_freed(self) -> None:
        for address in [address for address, memory in self._memory.items() if memory.alive.expired()]:
            memory = self._memory.pop(address)
            if any(stream != memory.owner for stream in memory.uses()):
                self._freed.append(memory)

    def _report(self, operator: Any, what: str, use: Moment) -> None:
        names = {FIRST: "first", SECOND: "second"}
        mine, other = names[self.streams.current], names[use[0]]
        self.reports.append(f"{operator} on the {mine} stream {what} the {other}, without a wait")


def _written(operator: Any, arguments: Any, options: Any) -> list[Tensor]:
    """Return the tensors that an operator writes in place, by its schema."""
    found: list[Tensor] = []
    for number, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = arguments[number] if number < len(arguments) else options.get(argument.name)
        found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found
