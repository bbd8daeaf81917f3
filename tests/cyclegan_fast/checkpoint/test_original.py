"""Files of the original implementation: translated there and back without loss, and anything else refused by name.

The state dicts come from `bench.cases.plain_cyclegan`, whose modules stand in a row as the original's do; two tests
hold the keys themselves against a list written out here.
"""

import pytest
import torch
from torch import Tensor, nn

from bench.cases.plain_cyclegan import PlainDiscriminator, PlainGenerator
from cyclegan_fast.checkpoint.original import from_original, to_original
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError

StateDict = dict[str, Tensor]


def filled(network: nn.Module) -> nn.Module:
    """Every parameter random, biases too, so that no two tensors are alike."""
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def assert_identical(found: StateDict, expected: StateDict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def keys(*modules: str) -> set[str]:
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


def test_the_keys_of_a_nine_block_generator_are_the_originals() -> None:
    blocks = [f"model.{i}.conv_block.{j}" for i in range(10, 19) for j in (1, 5)]
    expected = keys("model.1", "model.4", "model.7", *blocks, "model.19", "model.22", "model.26")
    assert set(PlainGenerator(width=2).state_dict()) == expected
    assert set(to_original(ResnetGenerator(width=2).state_dict())) == expected


def test_the_keys_of_six_blocks_dropout_and_the_discriminator_are_the_originals() -> None:
    blocks = [f"model.{i}.conv_block.{j}" for i in range(10, 16) for j in (1, 6)]
    expected = keys("model.1", "model.4", "model.7", *blocks, "model.16", "model.19", "model.23")
    assert set(PlainGenerator(width=2, blocks=6, use_dropout=True).state_dict()) == expected
    assert set(to_original(ResnetGenerator(width=2, blocks=6).state_dict(), dropout=True)) == expected
    expected = keys("model.0", "model.2", "model.5", "model.8", "model.11")
    assert set(PlainDiscriminator(width=2).state_dict()) == expected
    assert set(to_original(PatchDiscriminator(width=2).state_dict())) == expected


@pytest.mark.parametrize("dropout", [False, True], ids=["without dropout", "with dropout"])
@pytest.mark.parametrize("blocks", [6, 9])
def test_a_generator_goes_there_and_back_without_loss_and_computes_the_same(blocks: int, dropout: bool) -> None:
    torch.manual_seed(0)
    original = filled(PlainGenerator(width=3, blocks=blocks, use_dropout=dropout)).double().eval()
    translated = from_original(original.state_dict())
    assert_identical(to_original(translated, dropout=dropout), original.state_dict())

    ours = ResnetGenerator(width=3, blocks=blocks).double()
    ours.load_state_dict(translated)  # strict: every key, every shape
    assert_identical(from_original(to_original(ours.state_dict(), dropout=dropout)), ours.state_dict())
    image = torch.rand(1, 3, 16, 20, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(ours(image), original(image), rtol=1e-9, atol=1e-11)


def test_a_discriminator_goes_there_and_back_without_loss_and_computes_the_same() -> None:
    torch.manual_seed(0)
    original = filled(PlainDiscriminator(width=3)).double()
    translated = from_original(original.state_dict())
    assert_identical(to_original(translated), original.state_dict())
    ours = PatchDiscriminator(width=3).double()
    ours.load_state_dict(translated)
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(ours(image), original(image), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PlainGenerator(width=2, blocks=9, track_running_stats=True), PlainGenerator(width=2, blocks=9)),
        (
            PlainGenerator(width=2, blocks=6, use_dropout=True, track_running_stats=True),
            PlainGenerator(width=2, blocks=6, use_dropout=True),
        ),
        (PlainDiscriminator(width=2, track_running_stats=True), PlainDiscriminator(width=2)),
    ],
    ids=["9 blocks", "6 blocks with dropout", "discriminator"],
)
def test_running_statistics_of_early_versions_are_dropped(old: nn.Module, new: nn.Module) -> None:
    state = filled(old).state_dict()
    dropped = {
        name for name in state if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert dropped
    assert set(state) - dropped == set(new.state_dict())
    new.load_state_dict({name: value for name, value in state.items() if name not in dropped})
    assert_identical(from_original(state), from_original(new.state_dict()))


def shallow_unet_state() -> StateDict:
    """Keys as nested skip connections in the manner of the original give them, of a depth that it does not build."""
    modules = ["model.model.0", "model.model.3"]
    prefix = "model.model.1.model"
    for _ in range(3):
        modules += [f"{prefix}.1", f"{prefix}.5"]
        prefix += ".3.model"
    return {key: torch.zeros(1) for key in keys(*modules)}


def batch_norm_state() -> StateDict:
    """Return a generator trained with batch norm: scale and shift of every norm, and no biases in front of them."""
    state = dict(PlainGenerator(width=2, blocks=6).state_dict())
    return {name: v for name, v in state.items() if name != "model.1.bias"} | {"model.2.weight": torch.ones(2)}


def test_a_generator_that_the_original_has_not_is_not_written_as_its() -> None:
    with pytest.raises(UserError, match="the original has no generator with --upsampling resize"):
        to_original(ResnetGenerator(width=2, blocks=6, upsampling="resize").state_dict())


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (shallow_unet_state(), "halves 4 times, and those at least 5"),
        (batch_norm_state(), r"model\.2\.weight.*missing.*model\.1\.bias"),
        (
            {k: v for k, v in PlainGenerator(width=2).state_dict().items() if "model.26" not in k},
            r"missing.*model\.26\.bias",
        ),
        (
            dict(PlainDiscriminator(width=2).state_dict()) | {"model.14.bias": torch.zeros(1)},
            r"unknown model\.14\.bias",
        ),
        (ResnetGenerator(width=2, blocks=6).state_dict(), r"blocks\.0\.conv1\.bias"),
        ({"epoch": torch.tensor(3)}, "epoch"),
        ({}, r"no keys, in place of model\.1\.weight"),
    ],
    ids=["shallow u-net", "batch norm", "a tensor too few", "a tensor too many", "already ours", "no weights", "empty"],
)
def test_a_foreign_state_dict_is_refused_with_its_keys(state: StateDict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        from_original(state)
