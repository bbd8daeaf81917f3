"""Keys of the original implementation's state dicts, translated to ours and back from one table."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.errors import UserError
from cyclegan_fast.unet import LEAST_HALVINGS

StateDict = dict[str, Tensor]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class _Layout:
    """What a network is called, and its keys: ours, and the original's for the same tensor, in the original's order."""

    name: str
    keys: dict[str, str]

    @classmethod
    def of(cls, name: str, modules: Iterable[tuple[str, str]], without_bias: Iterable[str] = ()) -> "_Layout":
        """From (our module, the original's), each with a weight and a bias but for ours that are `without_bias`."""
        lacking = {f"{module}.bias" for module in without_bias}
        pairs = ((f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in modules for kind in ("weight", "bias"))
        return cls(name, {ours: theirs for ours, theirs in pairs if ours not in lacking})


def _resnet_generator(blocks: int, second: int) -> _Layout:
    """`second` is the index of a block's second convolution."""

    def modules() -> Iterator[tuple[str, str]]:
        yield from (("stem", "model.1"), ("down.0", "model.4"), ("down.1", "model.7"))
        for block in range(blocks):
            yield f"blocks.{block}.conv1", f"model.{10 + block}.conv_block.1"
            yield f"blocks.{block}.conv2", f"model.{10 + block}.conv_block.{second}"
        tail = 10 + blocks
        yield from (("up.0", f"model.{tail}"), ("up.1", f"model.{tail + 3}"), ("head", f"model.{tail + 7}"))

    return _Layout.of(f"ResNet generator of {blocks} blocks", modules())


def _unet_generator(halvings: int, has_batch_norm: bool) -> _Layout:
    """Its blocks stand inside one another in the original: what goes up follows all that is further inside."""
    place = "model.model"
    down, up = [("down.0", f"{place}.0")], [(f"up.{halvings - 1}", f"{place}.3")]
    place += ".1.model"
    for level in range(1, halvings):
        # [leaky ReLU, convolution, norm, inner block, ReLU, transposed convolution, norm, dropout where it was used];
        # the innermost block has neither the first norm nor an inner block.
        is_innermost, mirrored = level == halvings - 1, halvings - 1 - level
        down.append((f"down.{level}", f"{place}.1"))
        if has_batch_norm and not is_innermost:
            down.append((f"down_norms.{level - 1}", f"{place}.2"))
        if has_batch_norm:
            up.append((f"up_norms.{mirrored}", f"{place}.{4 if is_innermost else 6}"))
        up.append((f"up.{mirrored}", f"{place}.{3 if is_innermost else 5}"))
        place += ".3.model"
    # A batch norm shifts by itself; only behind the last convolution stands none.
    convolutions = [ours for ours, _ in down + up[1:] if "norms" not in ours]
    norm = "batch" if has_batch_norm else "instance"
    return _Layout.of(
        f"U-Net generator of {halvings} halvings with {norm} norm",
        down + up[::-1],
        without_bias=convolutions if has_batch_norm else (),
    )


_LAYERS = [(f"layers.{i}", f"model.{j}") for i, j in enumerate((0, 2, 5, 8, 11))]
_DISCRIMINATOR = _Layout.of("PatchGAN discriminator", _LAYERS)
_DISCRIMINATOR_WITH_BATCH_NORM = _Layout.of(
    "PatchGAN discriminator with batch norm",
    # In the original's order, each norm behind its convolution.
    [*_LAYERS[:2], *(pair for i in range(3) for pair in ((f"norms.{i}", f"model.{3 * i + 3}"), _LAYERS[i + 2]))],
    without_bias=[ours for ours, _ in _LAYERS[1:4]],
)


def _layout_of_original(keys: Iterable[str]) -> _Layout:
    """That of the network which the original's keys look most like."""
    keys = list(keys)
    halvings = max((key.count(".model") for key in keys if key.startswith("model.model.")), default=0)
    if halvings:
        if halvings < LEAST_HALVINGS:
            raise UserError(
                f"not a U-Net generator of the original implementation: it halves {halvings} times, "
                f"and those at least {LEAST_HALVINGS} times"
            )
        return _unet_generator(halvings, has_batch_norm="model.model.0.bias" not in keys)
    convolutions = [match for key in keys if (match := re.fullmatch(r"model\.(\d+)\.conv_block\.(\d+)\.weight", key))]
    if not convolutions:
        return _DISCRIMINATOR_WITH_BATCH_NORM if "model.3.weight" in keys else _DISCRIMINATOR
    return _resnet_generator(len({match[1] for match in convolutions}), max(int(match[2]) for match in convolutions))


def _check(keys: Iterable[str], expected: Iterable[str], what: str) -> None:
    """Raises UserError where the keys are not those expected."""
    unknown, missing = sorted(set(keys) - set(expected)), sorted(set(expected) - set(keys))
    if unknown or missing:
        wrong = [f"{how} {', '.join(of[:4])}" for how, of in (("unknown", unknown), ("missing", missing)) if of]
        raise UserError(f"not {what}: {'; '.join(wrong)}")


def from_original(state: dict[str, Any]) -> StateDict:
    """Translate a generator's or discriminator's state dict from the original implementation's keys to ours.

    Recognises ResNet generators with their number of blocks, U-Nets with their depth and norm, and discriminators of
    any number of channels; files trained with dropout; and running statistics, of batch norms or of the instance norms
    of early versions, which are dropped. Raises UserError naming the keys that belong to no such network.
    """
    kept = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _STATISTICS}
    layout = _layout_of_original(kept)
    _check(kept, layout.keys.values(), f"a {layout.name} of the original implementation")
    return {ours: kept[theirs] for ours, theirs in layout.keys.items()}


def to_original(state: StateDict, *, dropout: bool = False) -> StateDict:
    """The inverse of `from_original`; `dropout` gives the names of ResNet generators trained with dropout.

    Weights that training keeps channels last come back as the original has them, which safetensors asks for. Batch
    norms get the running statistics that a new one has, without which the original refuses a file: it does not read
    them, unless it translates with --eval. Raises UserError naming the keys that belong to no network of ours.
    """
    if is_unet(state):
        layout = _unet_generator(count(state, "down"), has_batch_norm=count(state, "up_norms") > 0)
    elif blocks := count(state, "blocks"):
        layout = _resnet_generator(blocks, 6 if dropout else 5)
    else:
        layout = _DISCRIMINATOR_WITH_BATCH_NORM if count(state, "norms") else _DISCRIMINATOR
    _check(state, layout.keys, f"the weights of a {layout.name}")
    translated: StateDict = {}
    for ours, theirs in layout.keys.items():
        translated[theirs] = state[ours].contiguous()
        module, _, kind = theirs.rpartition(".")
        if "norms." in ours and kind == "bias":
            neutral = torch.zeros_like(state[ours]), torch.ones_like(state[ours]), torch.tensor(0)
            translated |= {f"{module}.{name}": value for name, value in zip(_STATISTICS, neutral, strict=True)}
    return translated


def count(state: dict[str, Any], modules: str) -> int:
    """How many entries of a list of modules have parameters in a state dict in our names."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{modules}.")})


def is_unet(state: dict[str, Any]) -> bool:
    """Whether a state dict in our names is that of a U-Net: a ResNet generator has two halvings."""
    return "down.2.weight" in state and "stem.weight" not in state


def is_original(state: dict[str, Any]) -> bool:
    """Whether a file's content is a bare state dict in the original implementation's names."""
    return bool(state) and all(str(key).startswith("model.") for key in state)
