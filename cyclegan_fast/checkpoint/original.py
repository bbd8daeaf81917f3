"""Translates the keys of the original implementation's state dicts to ours and back, by one table for each network."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.wrapped_weights import networks_in
from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.networks.unet import LEAST_HALVINGS
from cyclegan_fast.system.errors import UserError

StateDict = dict[str, Tensor]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_Modules = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class KeyTable:
    """Lists the keys of a network: ours, with the original's for the same tensor, in the original's order.

    `name` describes the network. `norms` holds the batch norms, ours with the original's; `keys` does not hold their
    running statistics.
    """

    name: str
    keys: dict[str, str]
    norms: dict[str, str]

    @classmethod
    def of(cls, name: str, norm: Norm, modules: _Modules, always_biased: Iterable[str]) -> "KeyTable":
        """Make the table of pairs (our module, the original's), given in the original's order.

        Norms, which have "norm" in their names, have keys with batch norm only. With instance norm all convolutions
        have a bias, and otherwise those that are `always_biased`.
        """
        norms = {ours: theirs for ours, theirs in modules if "norm" in ours} if norm == "batch" else {}
        keys = {}
        for ours, theirs in modules:
            if "norm" in ours and not norms:
                continue
            keys[f"{ours}.weight"] = f"{theirs}.weight"
            if ours in norms or ours in always_biased or norm == "instance":
                keys[f"{ours}.bias"] = f"{theirs}.bias"
        return cls(f"{name} with {'no' if norm == 'none' else norm} norm", keys, norms)

    def statistics(self) -> dict[str, str]:
        """Return the keys of running statistics, ours with the original's."""
        return {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in self.norms.items() for kind in STATISTICS}


def resnet_generator(blocks: int, norm: Norm, *, dropout: bool) -> KeyTable:
    """Return the keys of a ResNet generator; dropout in a block moves the block's second convolution by one place."""
    second = 6 if dropout else 5

    def modules() -> Iterator[tuple[str, str]]:
        yield from (("stem", "model.1"), ("stem_norm", "model.2"))
        for level in (0, 1):
            yield from ((f"down.{level}", f"model.{4 + 3 * level}"), (f"down_norms.{level}", f"model.{5 + 3 * level}"))
        for block in range(blocks):
            inside = f"model.{10 + block}.conv_block"
            yield from ((f"blocks.{block}.conv1", f"{inside}.1"), (f"blocks.{block}.norm1", f"{inside}.2"))
            yield f"blocks.{block}.conv2", f"{inside}.{second}"
            yield f"blocks.{block}.norm2", f"{inside}.{second + 1}"
        for level, tail in enumerate((10 + blocks, 13 + blocks)):
            yield from ((f"up.{level}", f"model.{tail}"), (f"up_norms.{level}", f"model.{tail + 1}"))
        yield "head", f"model.{17 + blocks}"

    return KeyTable.of(f"ResNet generator of {blocks} block{'' if blocks == 1 else 's'}", norm, [*modules()], ["head"])


def unet_generator(halvings: int, norm: Norm) -> KeyTable:
    """Return the keys of a U-Net, whose blocks stand inside one another in the original.

    There, the layers that go up follow everything that is further inside.
    """
    place = "model.model"
    down, up = [("down.0", f"{place}.0")], [(f"up.{halvings - 1}", f"{place}.3")]
    place += ".1.model"
    for level in range(1, halvings):
        # [leaky ReLU, convolution, norm, inner block, ReLU, transposed convolution, norm, dropout where it was used];
        # the innermost block has neither the first norm nor an inner block.
        is_innermost, mirrored = level == halvings - 1, halvings - 1 - level
        down.append((f"down.{level}", f"{place}.1"))
        if not is_innermost:
            down.append((f"down_norms.{level - 1}", f"{place}.2"))
        up.append((f"up_norms.{mirrored}", f"{place}.{4 if is_innermost else 6}"))
        up.append((f"up.{mirrored}", f"{place}.{3 if is_innermost else 5}"))
        place += ".3.model"
    modules = [*down, *reversed(up)]
    return KeyTable.of(f"U-Net generator of {halvings} halvings", norm, modules, [f"up.{halvings - 1}"])


def patch_discriminator(n_layers: int, norm: Norm) -> KeyTable:
    """Return the keys of a PatchGAN of `n_layers` convolutions of stride 2."""
    modules = [("layers.0", "model.0")]
    for layer in range(n_layers):
        modules += [(f"layers.{layer + 1}", f"model.{2 + 3 * layer}"), (f"norms.{layer}", f"model.{3 + 3 * layer}")]
    last = f"layers.{n_layers + 1}"
    modules.append((last, f"model.{2 + 3 * n_layers}"))
    return KeyTable.of(
        f"PatchGAN discriminator of {n_layers} layer{'' if n_layers == 1 else 's'}", norm, modules, ["layers.0", last]
    )


def pixel_discriminator(norm: Norm) -> KeyTable:
    """Return the keys of a pixel discriminator."""
    modules = [("layers.0", "net.0"), ("layers.1", "net.2"), ("norms.0", "net.3"), ("layers.2", "net.5")]
    return KeyTable.of("pixel discriminator", norm, modules, ["layers.0"])


NORMS: tuple[Norm, ...] = get_args(Norm)


def table_of_original(keys: Iterable[str]) -> KeyTable:
    """Return the keys of the network that the original's keys look most like.

    Raises UserError where they look like none.
    """
    keys = {key for key in keys if key.rpartition(".")[2] not in STATISTICS}
    places = [int(match[1]) for key in keys if (match := re.match(r"model\.(\d+)\.", key))]
    in_blocks = {match[1] for key in keys if (match := re.match(r"model\.(\d+)\.conv_block\.", key))}
    if halvings := max((key.count(".model") for key in keys if key.startswith("model.model.")), default=0):
        if halvings < LEAST_HALVINGS:
            raise UserError(
                f"not a U-Net generator of the original implementation: it halves {halvings} times, "
                f"and those at least {LEAST_HALVINGS} times"
            )
        tables = [unet_generator(halvings, norm) for norm in NORMS]
    elif any(key.startswith("net.") for key in keys):
        tables = [pixel_discriminator(norm) for norm in NORMS]
    elif 0 in places:  # a generator has a padding there
        last = max((int(match[1]) for key in keys if (match := re.fullmatch(r"model\.(\d+)\.weight", key))), default=0)
        tables = [patch_discriminator(max(1, (last - 2) // 3), norm) for norm in NORMS]
    elif places:
        blocks = len(in_blocks) or max(1, max(places) - 17)
        tables = [resnet_generator(blocks, norm, dropout=dropout) for norm, dropout in product(NORMS, (False, True))]
    else:
        shown = ", ".join(sorted(keys)[:4]) or "no keys"
        raise UserError(f"no network of the original implementation: {shown}, in place of model.1.weight and the like")

    def differing(table: KeyTable) -> int:
        # Where blocks have other names, missing keys of theirs say nothing of the norm.
        return len(keys ^ {key for key in table.keys.values() if in_blocks or "conv_block" not in key})

    return min(tables, key=differing)


def table_of_ours(state: StateDict, *, dropout: bool) -> KeyTable:
    """Return the keys of the network that a state dict of our keys looks most like."""
    keys = {key for key in state if key.rpartition(".")[2] not in STATISTICS}
    if is_unet(state):
        tables = [unet_generator(count(state, "down"), norm) for norm in NORMS]
    elif blocks := count(state, "blocks"):
        tables = [resnet_generator(blocks, norm, dropout=dropout) for norm in NORMS]
    elif "layers.0.weight" in state and state["layers.0.weight"].shape[2:] == (1, 1):
        tables = [pixel_discriminator(norm) for norm in NORMS]
    elif layers := count(state, "layers"):
        tables = [patch_discriminator(max(1, layers - 2), norm) for norm in NORMS]
    else:
        raise UserError(f"not the weights of a generator or discriminator: unknown {_shown(sorted(keys)) or 'keys'}")
    return min(tables, key=lambda table: len(keys ^ set(table.keys)))


def _check(keys: Iterable[str], expected: Iterable[str], what: str) -> None:
    """Raise UserError where the keys are not those expected of `what`."""
    unknown, missing = sorted(set(keys) - set(expected)), sorted(set(expected) - set(keys))
    if unknown or missing:
        wrong = [f"{how} {_shown(of)}" for how, of in (("unknown", unknown), ("missing", missing)) if of]
        raise UserError(f"not {what}: {'; '.join(wrong)}")


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def from_original(state: dict[str, Any]) -> StateDict:
    """Translate a generator's or discriminator's state dict from the original implementation's keys to ours.

    Recognises ResNet generators with their number of blocks, U-Nets with their depth, PatchGANs of any number of layers
    and pixel discriminators, each with its norm and any width; files trained with dropout; and the running statistics
    of the instance norms of early versions, which are dropped. Those of batch norms are kept; a file without any gets
    those of a new network. Wrapped weights are unwrapped, see wrapped_weights.py. Raises UserError naming the keys that
    belong to no such network.
    """
    inside = list(networks_in(state).values())
    if len(inside) == 1:
        state = inside[0]
    table = table_of_original(state)
    statistics = table.statistics()
    ours_of = {theirs: ours for ours, theirs in statistics.items()}
    absent = {kind for kind in STATISTICS if not any(key in ours_of and key.endswith(kind) for key in state)}
    needed = {theirs for theirs in ours_of if theirs.rpartition(".")[2] not in absent}
    given = {key for key in state if key.rpartition(".")[2] not in STATISTICS or key in ours_of}
    _check(given, {*table.keys.values(), *needed}, f"a {table.name} of the original implementation")
    translated: StateDict = {ours: state[theirs] for ours, theirs in table.keys.items()}
    for ours, theirs in statistics.items():
        norm, _, kind = ours.rpartition(".")
        translated[ours] = _neutral(translated[f"{norm}.weight"])[kind] if kind in absent else state[theirs]
    return translated


def to_original(state: StateDict, *, dropout: bool = False) -> StateDict:
    """Translate a state dict from our keys to the original implementation's, as the inverse of `from_original`.

    With `dropout`, the keys are those of a ResNet generator trained with dropout. Weights that training keeps channels
    last come back as the original has them, as safetensors asks for. Batch norms of older versions here have no running
    statistics, without which the original refuses a file: they get those of a new network. Raises UserError naming the
    keys that belong to no network of ours.
    """
    table = table_of_ours(state, dropout=dropout)
    if not is_unet(state) and upsampling_of(state) == "resize":
        raise UserError("the original has no generator with --upsampling resize: it doubles by transposed convolutions")
    statistics = table.statistics()
    has_statistics = any(key in state for key in statistics)
    _check(state, {*table.keys, *(statistics if has_statistics else ())}, f"the weights of a {table.name}")
    translated: StateDict = {}
    for ours, theirs in table.keys.items():
        translated[theirs] = state[ours].contiguous()
        norm, _, parameter = ours.rpartition(".")
        if norm in table.norms and parameter == "bias":
            of_norm = _neutral(state[f"{norm}.weight"])
            if has_statistics:
                of_norm = {kind: state[f"{norm}.{kind}"] for kind in STATISTICS}
            translated |= {f"{table.norms[norm]}.{kind}": value for kind, value in of_norm.items()}
    return translated


def _neutral(weight: Tensor) -> StateDict:
    """Return the running statistics of a new batch norm with this weight."""
    return dict(zip(STATISTICS, (torch.zeros_like(weight), torch.ones_like(weight), torch.tensor(0)), strict=True))


def count(state: dict[str, Any], modules: str) -> int:
    """Count the entries of a list of modules that have parameters in a state dict of our keys."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{modules}.")})


def is_unet(state: dict[str, Any]) -> bool:
    """Tell whether a state dict of our keys is that of a U-Net: a ResNet generator has only two halvings."""
    return "down.2.weight" in state and "stem.weight" not in state


def norm_of(state: dict[str, Any]) -> Norm:
    """Return the kind of norm of a generator, from its state dict of our keys."""
    if any("norm" in key for key in state):
        return "batch"
    # Without a norm the last convolution alone has a bias.
    return "instance" if sum(key.endswith(".bias") for key in state) > 1 else "none"


def upsampling_of(state: dict[str, Any]) -> Upsampling:
    """Return how a ResNet generator doubles sides, from its state dict of our keys.

    It halves the channels where it does, and a transposed convolution's weight has its inputs first.
    """
    weight = state.get("up.0.weight")
    if weight is None or weight.dim() != 4:
        return "transposed"
    return "resize" if weight.size(0) < weight.size(1) else "transposed"


def channels_by_shapes(state: StateDict) -> tuple[int, int]:
    """Return the channels of the images that a generator takes, and of those that it gives, by its weights' shapes.

    Its keys are ours. The original has them as `input_nc` and `output_nc`.
    """
    if is_unet(state):  # whose last convolution is a transposed one
        return state["down.0.weight"].size(1), state[f"up.{count(state, 'up') - 1}.weight"].size(1)
    return state["stem.weight"].size(1), state["head.weight"].size(0)


def is_original(state: dict[str, Any]) -> bool:
    """Tell whether the keys of a state dict are the original implementation's."""
    return any(str(key).startswith(("model.", "net.")) for key in state)


def is_discriminator(state: dict[str, Any]) -> bool:
    """Tell whether keys, ours or the original's, are a discriminator's: a generator has a padding at `model.0`."""
    return any(key.startswith(("model.0.", "net.", "layers.")) for key in state)
