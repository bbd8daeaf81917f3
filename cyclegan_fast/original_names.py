"""Keys of the original implementation's state dicts, translated to ours and back from one table."""

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from cyclegan_fast.errors import UserError

StateDict = dict[str, Tensor]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _generator_table(blocks: int, second: int) -> Iterator[tuple[str, str]]:
    """(our module, the original's) of a generator; `second` is the index of a block's second convolution."""
    yield from (("stem", "model.1"), ("down.0", "model.4"), ("down.1", "model.7"))
    for block in range(blocks):
        yield f"blocks.{block}.conv1", f"model.{10 + block}.conv_block.1"
        yield f"blocks.{block}.conv2", f"model.{10 + block}.conv_block.{second}"
    tail = 10 + blocks
    yield from (("up.0", f"model.{tail}"), ("up.1", f"model.{tail + 3}"), ("head", f"model.{tail + 7}"))


_DISCRIMINATOR_TABLE = tuple((f"layers.{i}", f"model.{j}") for i, j in enumerate((0, 2, 5, 8, 11)))


def _table(blocks: int, second: int) -> list[tuple[str, str]]:
    """The pairs for a generator of that many blocks, or for a discriminator where there are none."""
    return list(_generator_table(blocks, second)) if blocks else list(_DISCRIMINATOR_TABLE)


def _renamed(state: StateDict, table: dict[str, str]) -> StateDict:
    renamed = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        renamed[f"{table[module]}.{kind}"] = value
    return renamed


def from_original(state: dict[str, Any]) -> StateDict:
    """Translate a generator's or discriminator's state dict from the original implementation's keys to ours.

    Recognises the number of blocks, files trained with dropout, and those of early versions, whose statistics of
    instance norms are dropped. Raises UserError naming the keys that belong to neither network.
    """
    kept = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _STATISTICS}
    convolutions = [match for key in kept if (match := re.fullmatch(r"model\.(\d+)\.conv_block\.(\d+)\.weight", key))]
    blocks = len({match[1] for match in convolutions})
    second = max((int(match[2]) for match in convolutions), default=0)
    table = {theirs: ours for ours, theirs in _table(blocks, second)}
    expected = {f"{module}.{kind}" for module in table for kind in ("weight", "bias")}
    if expected != set(kept):
        unknown, missing = sorted(set(kept) - expected), sorted(expected - set(kept))
        kind = f"ResNet generator of {blocks} blocks" if blocks else "PatchGAN discriminator"
        raise UserError(
            f"not a {kind} of the original implementation: "
            + "; ".join(
                f"{what} {', '.join(keys[:4])}" for what, keys in (("unknown", unknown), ("missing", missing)) if keys
            )
        )
    return _renamed(kept, table)


def to_original(state: StateDict, *, dropout: bool = False) -> StateDict:
    """The inverse of `from_original`; `dropout` gives the names of files trained with dropout.

    Weights that training keeps channels last come back as the original has them, which safetensors asks for.
    """
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    renamed = _renamed(state, dict(_table(blocks, 6 if dropout else 5)))
    return {key: value.contiguous() for key, value in renamed.items()}


def is_original(state: dict[str, Any]) -> bool:
    """Whether a file's content is a bare state dict in the original implementation's names."""
    return bool(state) and all(str(key).startswith("model.") for key in state)
