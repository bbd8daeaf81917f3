"""Feature networks learn from rotations and come back as they were, and their loss teaches the translation only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.methods.feature_loss import network as module
from cyclegan_fast.methods.feature_loss.network import FeatureNetwork, feature_loss, feature_network
from cyclegan_fast.methods.feature_loss.rotation import (
    Crops,
    Domains,
    RotationNetwork,
    RotationTraining,
    accuracy,
    load_features,
    origin_of,
    rotated,
    train_on_rotations,
)
from cyclegan_fast.methods.feature_loss.vgg import Vgg, blank
from cyclegan_fast.system.errors import UserError

CPU = torch.device("cpu")
TINY = RotationTraining(widths=(4, 4, 8, 8), steps=2, images_per_step=2)


def landscapes(count: int, seed: int, side: int = 32) -> ImageArray:
    """Bright sky above dark ground, at a height of its own in each, in a colour of its own: upright is bright above."""
    random = np.random.default_rng(seed)
    pixels = np.empty((count, side, side, 3), np.uint8)
    for image in pixels:
        horizon = int(random.integers(side * 3 // 8, side * 5 // 8))
        image[:horizon], image[horizon:] = 170, 60
        image[:] = (image * random.uniform(0.8, 1.2, 3) + random.normal(0, 8, image.shape)).clip(0, 255)
    return ImageArray(pixels, f"landscape{seed}")


DOMAINS: Domains = (landscapes(20, 0), landscapes(14, 1))


def made(keep_as: Path, images: Domains = DOMAINS, **changes: Any) -> FeatureNetwork:
    settings = {"size": 32, "seed": 0, "device": CPU, "dtype": torch.float32, "progress": False, "training": TINY}
    return feature_network(None, images=images, keep_as=keep_as, **settings | changes)


def test_it_learns_to_tell_rotations_apart() -> None:
    training = RotationTraining(widths=(4, 8, 8, 8), steps=60, images_per_step=4)
    _, held_out = train_on_rotations(DOMAINS, 32, training, 0, CPU, progress=False)
    assert min(held_out) > 0.8, held_out
    blind = blank(RotationNetwork, training.stages, training.widths)
    blind.initialise(0)
    assert accuracy(blind, Crops(DOMAINS, 32, 8, 0).held_out_of(0, 0)) < 0.6


def test_what_was_trained_comes_back_to_the_bit_and_global_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = made(tmp_path / "deep" / "features.pt")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    anew = made(tmp_path / "other.pt")
    images = torch.rand(2, 3, 32, 40) * 2 - 1
    features = first.network(images)
    assert features.shape == (2, 8, 4, 5)
    assert torch.equal(features, anew.network(images))
    assert "25% by chance" in first.description
    assert first.description.startswith("relu4_2 of a small VGG")
    content = (tmp_path / "deep" / "features.pt").read_bytes()
    again = made(tmp_path / "deep" / "features.pt")
    assert again.description == first.description
    assert torch.equal(again.network(images), features)
    assert (tmp_path / "deep" / "features.pt").read_bytes() == content
    assert not torch.equal(made(tmp_path / "seed.pt", seed=1).network(images), features)


def test_a_kept_network_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "features.pt")
    monkeypatch.setattr(module, "train_on_rotations", None)
    made(tmp_path / "features.pt")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": (landscapes(20, 2), DOMAINS[1])}, "images"),
        ({"images": (DOMAINS[1], DOMAINS[0])}, "images, numbers"),
        ({"size": 40}, "size"),
        ({"seed": 3}, "seed"),
        ({"training": RotationTraining(widths=(4, 4, 8, 8), steps=3, images_per_step=2)}, "training"),
    ],
)
def test_one_that_was_made_from_something_else_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    made(tmp_path / "features.pt")
    with pytest.raises(UserError, match=rf"features\.pt was trained from other {named}: delete it"):
        made(tmp_path / "features.pt", **change)


def test_it_is_frozen_and_gradients_reach_the_translation_only(tmp_path: Path) -> None:
    network = made(tmp_path / "features.pt").network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    image = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    translation = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    loss = feature_loss(network, image, translation)
    loss.backward()
    assert image.grad is None
    assert translation.grad is not None
    assert translation.grad.abs().sum() > 0
    of_image, of_translation = (network(x).detach().numpy().astype(np.float64) for x in (image, translation))
    shares = [np.abs(y - x).mean() / np.abs(x).mean() for x, y in zip(of_image, of_translation, strict=True)]
    assert loss.item() == pytest.approx(np.mean(shares), rel=1e-6)
    assert feature_loss(network, image, image).item() == 0


def test_an_image_has_the_same_features_in_any_batch(tmp_path: Path) -> None:
    network = made(tmp_path / "features.pt").network.double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_loss_is_that_of_its_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = made(tmp_path / "features.pt", dtype=torch.float64).network
    image, translation = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64) * 2 - 1
    translation.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: feature_loss(network, image, x), translation, fast_mode=True)


def test_low_precision_features_give_a_loss_in_float32(tmp_path: Path) -> None:
    network = made(tmp_path / "features.pt", dtype=torch.bfloat16).network
    image, translation = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    loss = feature_loss(network, image, translation)
    assert loss.dtype == torch.float32
    exact = feature_loss(made(tmp_path / "features.pt").network, image, translation)
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


def read_from(file: Path, images: Domains, seed: int) -> FeatureNetwork:
    """Takes the network of a file that is given, whatever the images."""
    unused = file.with_name("unused.pt")
    return feature_network(file, images=images, size=32, seed=seed, device=CPU, dtype=torch.float32, keep_as=unused)


def test_a_network_that_another_run_trained_is_used_where_it_is_given(tmp_path: Path) -> None:
    trained = made(tmp_path / "features.pt")
    others = landscapes(3, 50), landscapes(3, 51)
    given = read_from(tmp_path / "features.pt", others, seed=9)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(given.network(images), trained.network(images))
    assert (given.digest, given.description) == (trained.digest, trained.description)
    assert not (tmp_path / "unused.pt").exists()
    (tmp_path / "features.pt").unlink()
    assert made(tmp_path / "features.pt", seed=1).digest != given.digest


def test_a_file_of_vgg_16_is_used_where_it_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vgg = Vgg((2, 2, 3, 3, 3), (2, 2, 3, 4, 2))
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    state = {}
    for index, convolution in zip(indices, vgg.convolutions.values(), strict=True):
        state |= {f"features.{index}.{kind}": value for kind, value in convolution.state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    given = read_from(tmp_path / "vgg16.pth", DOMAINS, seed=0)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(given.network(images), vgg(images, ["relu4_2"])["relu4_2"])
    assert given.description == f"relu4_2 of a VGG-16, {tmp_path / 'vgg16.pth'}"
    assert not (tmp_path / "unused.pt").exists()


def test_rotations_are_quarter_turns_to_the_left() -> None:
    images = torch.rand(3, 3, 4, 4)
    turned, turns = rotated(images)
    assert turns.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for index, (image, number) in enumerate(zip(turned.numpy(), turns.tolist(), strict=True)):
        np.testing.assert_array_equal(image, np.rot90(images[index % 3].numpy(), number, (1, 2)))


def test_training_does_not_see_what_is_held_out_and_any_size_is_read() -> None:
    """Each image is of one grey that says which it is."""
    pixels = [np.full((40, 24, 3), 6 * index, np.uint8) for index in range(30)]

    class Mixed:
        names = ["x"] * 30

        def __len__(self) -> int:
            return 30

        def __getitem__(self, index: int) -> Any:
            return pixels[index][: 30 + index % 3]

    crops = Crops((Mixed(), landscapes(2, 0)), 32, 8, seed=0)
    assert crops.side == 24
    held = {round(float((crop.mean() + 1) * 127.5)) for crop in crops.held_out_of(0, 0)}
    assert held == {6 * place for place in crops.held_out[0]}
    assert len(held) == 3
    assert not {*crops.held_out[0]} & {*crops.training[0]}
    assert len(crops.held_out[1]) == len(crops.training[1]) == 1
    assert crops.batch(0, 4, 0).shape == (4, 3, 24, 24)
    assert torch.equal(crops.batch(3, 4, 0), crops.batch(3, 4, 0))
    assert not torch.equal(crops.batch(3, 4, 0), crops.batch(4, 4, 0))


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="domain B has 1 image: the feature network needs two"):
        made(tmp_path / "features.pt", (DOMAINS[0], landscapes(1, 0)))
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no feature network"):
        load_features(tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no feature network"):
        made(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="images_per_step must be a multiple of 2"):
        RotationTraining(images_per_step=3)
    with pytest.raises(ValueError, match="steps must be a whole number from 1"):
        RotationTraining(steps=0)
    with pytest.raises(ValueError, match="learning_rate must be a number above 0"):
        RotationTraining(learning_rate=0)
    with pytest.raises(UserError, match="loss is nan"):
        train_on_rotations(
            DOMAINS, 32, RotationTraining(widths=(2, 2, 2, 2), steps=6, learning_rate=1e30), 0, CPU, False
        )


def test_the_module_of_the_loss_knows_no_state() -> None:
    """Uses any function of images as the network."""
    image, translation = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.75, requires_grad=True)
    loss = feature_loss(nn.Identity(), image, translation)
    assert loss.item() == 0.5
    for scale in (1e-3, 1e3):  # of a network's activations does not matter
        assert feature_loss(lambda x, scale=scale: scale * x, image, translation).item() == pytest.approx(0.5)
    assert feature_loss(torch.relu, -image, -translation).item() == 0  # nor does a network that sees nothing
    assert origin_of(DOMAINS, 32, TINY, 0) == origin_of(DOMAINS, 32, TINY, 0)
