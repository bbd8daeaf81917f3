"""Neural style transfer: its losses are the paper's equations, both fall, and the command continues what was cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from cyclegan_fast.baselines import gatys
from cyclegan_fast.baselines.neural_style import (
    SMALLEST_SCALE,
    Objective,
    average_style,
    content_loss,
    gram_matrix,
    minimise,
    noise_like,
    style_layer_loss,
    style_loss,
)
from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.pixels import to_signed
from cyclegan_fast.methods.feature_loss.rotation import RotationNetwork, RotationTraining, origin_of, write_features
from cyclegan_fast.methods.feature_loss.vgg import STAGES, Vgg, blank
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.methods.feature_loss.test_network import DOMAINS
from tests.cyclegan_fast.pictures import draw_all, photo

Array = npt.NDArray[np.float64]
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 0}


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(1, *shape))).relu()


def tiny_vgg(seed: int = 0, pooling: Any = "average") -> Vgg:
    torch.manual_seed(seed)
    network = Vgg(STAGES[19], (3, 4, 4, 5, 4), pooling)
    for name, parameter in network.named_parameters():  # as He et al. draw them: so that depth keeps a signal
        torch.nn.init.kaiming_normal_(parameter) if name.endswith("weight") else torch.nn.init.constant_(parameter, 0.1)
    return network.double().requires_grad_(False)


def picture(side: int, seed: int, height: int | None = None) -> torch.Tensor:
    pixels = np.array(photo(side, seed).crop((0, 0, side, height or side)))
    return to_signed(torch.from_numpy(pixels[None])).double()


# --- the equations, written out in numpy -----------------------------------------------------------------------------


def gram(F: Array) -> Array:
    """Eq. 3, index by index."""
    N, M = F.shape
    G = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            for k in range(M):
                G[i, j] += F[i, k] * F[j, k]
    return G


def flat(features: torch.Tensor) -> Array:
    return features[0].flatten(1).numpy()


def test_losses_are_the_papers_equations() -> None:
    F, P, S = (activations(4, 3, 5, seed=seed) for seed in range(3))
    N, M = 4, 15
    np.testing.assert_allclose(gram_matrix(F)[0].numpy(), gram(flat(F)), **TIGHT)
    np.testing.assert_allclose(content_loss(F, P).item(), 0.5 * ((flat(F) - flat(P)) ** 2).sum(), **TIGHT)
    E = ((gram(flat(F)) - gram(flat(S))) ** 2).sum() / (4 * N**2 * M**2)
    np.testing.assert_allclose(style_layer_loss(F, gram_matrix(S) / M).item(), E, **TIGHT)
    other, target = activations(2, 4, 4, seed=3), activations(2, 4, 4, seed=4)
    E2 = ((gram(flat(other)) - gram(flat(target))) ** 2).sum() / (4 * 2**2 * 16**2)
    found = style_loss({"a": F, "b": other}, {"a": gram_matrix(S) / M, "b": gram_matrix(target) / 16})
    np.testing.assert_allclose(found.item(), 0.5 * E + 0.5 * E2, **TIGHT)


def test_the_total_is_eq_7_of_activations_brought_to_one_scale() -> None:
    network = tiny_vgg()
    content, style, image = picture(32, 1, 20), picture(32, 2), picture(32, 3, 20)
    objective = Objective(network, content, average_style(network, [style]), content_weight=3.0, style_weight=7.0)
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    of = {
        key: {name: flat(value) for name, value in network(x, [*layers, "relu4_2"]).items()}
        for key, x in (("content", content), ("style", style), ("image", image))
    }

    def scaled(key: str, name: str) -> Array:
        squares = ((of["content"][name] ** 2).mean(1) + (of["style"][name] ** 2).mean(1)) / 2
        usual = np.sqrt(squares.mean())
        by: Array = of[key][name] / np.maximum(np.sqrt(squares), SMALLEST_SCALE * usual)[:, None]
        return by

    F, P = scaled("image", "relu4_2"), scaled("content", "relu4_2")
    L_content = 0.5 * ((F - P) ** 2).sum()
    L_style = 0.0
    for name in layers:
        F, S = scaled("image", name), scaled("style", name)
        difference = gram(F) / F.shape[1] - gram(S) / S.shape[1]  # another size than the picture's
        L_style += (difference**2).sum() / (4 * len(F) ** 2) / 5
    alpha = 3.0 / P.size
    np.testing.assert_allclose(objective.total(image).item(), alpha * L_content + 7.0 * L_style, **TIGHT)
    losses = objective.losses(image)
    np.testing.assert_allclose([losses.content, losses.style], [L_content, L_style], **TIGHT)
    assert objective.losses(content).content == 0


def test_the_style_of_several_images_is_their_mean_gram_matrix() -> None:
    network = tiny_vgg()
    images = [picture(32, 1), picture(24, 2), picture(40, 3, 24)]
    found = average_style(network, iter(images))
    assert [*found.grams] == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    for layer, average in found.grams.items():
        of_each = [flat(network(image, [layer])[layer]) for image in images]
        np.testing.assert_allclose(average[0].numpy(), sum(gram(F) / F.shape[1] for F in of_each) / 3, **TIGHT)
        np.testing.assert_allclose(found.squares[layer].numpy(), sum((F**2).mean(1) for F in of_each) / 3, **TIGHT)
    with pytest.raises(ValueError, match="one image at least"):
        average_style(network, [])


def test_both_losses_fall_from_noise_and_the_style_falls_from_the_content() -> None:
    network = tiny_vgg()
    content, style = picture(32, 1), average_style(network, [picture(32, 2)])
    objective = Objective(network, content, style, 1.0, 10.0)
    told: list[int] = []
    noise = noise_like(content, 0)
    styled = minimise(objective, noise, 20, told.append)
    assert styled.last.content < 0.5 * styled.first.content
    assert styled.last.style < 0.5 * styled.first.style
    assert told == sorted(told)
    assert told[-1] == 20
    assert torch.equal(noise, noise_like(content, 0))
    assert not torch.equal(noise, noise_like(content, 1))
    styled = minimise(objective, content, 12)
    assert styled.first.content == 0
    assert styled.last.style < 0.5 * styled.first.style
    assert torch.equal(styled.picture, minimise(objective, content, 12).picture)


def test_a_picture_that_is_not_finite_is_an_error() -> None:
    network = tiny_vgg()
    content = picture(32, 1)
    objective = Objective(network, content, average_style(network, [picture(32, 2)]), 1.0, float("nan"))
    with pytest.raises(UserError, match="not finite: lower --style-weight"):
        minimise(objective, content, 2)


# --- the command -----------------------------------------------------------------------------------------------------

Run = Callable[..., int]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = tiny_vgg().float()
    indices = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    state = {}
    for index, convolution in zip(indices, network.convolutions.values(), strict=True):
        state |= {f"features.{index}.{kind}": value for kind, value in convolution.state_dict().items()}
    torch.save(state, tmp_path / "vgg19.pth")
    return tmp_path / "vgg19.pth"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw_all(tmp_path / "styles", {"3.png": (40, 40), "4.png": (40, 40)})
    return draw_all(tmp_path / "photos", {"one.png": (48, 48), "deep/two.jpg": (48, 30)})


@pytest.fixture
def run(tmp_path: Path, photos: Path, weights: Path) -> Run:
    def command(
        *more: object, content: Path = photos, out: Path = tmp_path / "out", style: bool = True, network: bool = True
    ) -> int:
        fixed = ["--content", content, "--out", out, "--size", 32, "--steps", 3, "--device", "cpu"]
        fixed += ["--style", tmp_path / "styles" / "3.png"] if style else []
        fixed += ["--weights", weights] if network else []
        return gatys.main([*map(str, fixed), *map(str, more)])

    return command


def results(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "out" / "losses.json").read_text())
    return content


def times(tmp_path: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}


def test_the_command_writes_what_the_functions_compute(tmp_path: Path, run: Run, photos: Path) -> None:
    assert run() == 0
    network = tiny_vgg().float()

    def read(path: Path, width: int, height: int) -> torch.Tensor:
        image = read_image(path).resize((width, height), Image.Resampling.BICUBIC)
        return to_signed(torch.from_numpy(np.array(image))[None])

    style = average_style(network, [read(tmp_path / "styles" / "3.png", 32, 32)])
    content = read(photos / "deep" / "two.jpg", 32, 20)
    styled = minimise(Objective(network, content, style, 1.0, 3.0), content, 3)
    pixels = np.asarray(read_image(tmp_path / "out" / "deep" / "two.png"))
    expected = ((styled.picture[0].permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=0.51)
    found = results(tmp_path)
    assert found["network"].startswith("VGG-19")
    entry = found["results"]["deep/two.png"]
    assert entry["first"] == {"content": 0.0, "style": pytest.approx(styled.first.style, rel=1e-5)}
    assert entry["last"]["style"] == pytest.approx(styled.last.style, rel=1e-4)
    sheet = read_image(tmp_path / "out" / "contact_sheet.jpg")
    assert sheet.height > 3 * 192


def test_the_command_continues_and_what_changed_is_done_anew(
    tmp_path: Path, run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    first = times(tmp_path)
    (tmp_path / "out" / "one.png").unlink()
    assert run() == 0
    assert "styled 1 image in" in capsys.readouterr().out
    second = times(tmp_path)
    assert second["two"] == first["two"]
    assert run() == 0
    assert times(tmp_path) == second
    photo(48, 9).save(photos / "one.png")
    assert run() == 0
    third = times(tmp_path)
    assert third["one"] != second["one"]
    assert third["two"] == second["two"]
    assert run("--style-weight", 20) == 0
    fourth = times(tmp_path)
    assert all(fourth[name] != third[name] for name in fourth)


def test_a_kill_between_record_and_picture_leaves_nothing_that_is_taken_for_done(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gatys, "write_translation", dies)
    assert run("--style-weight", 20) == 130
    monkeypatch.undo()
    before = times(tmp_path)
    assert run("--style-weight", 20) == 0
    after = times(tmp_path)
    assert all(after[name] != before.get(name) for name in after)
    assert len(after) == 2


def test_styles_of_several_images_and_of_a_folder_are_the_same(tmp_path: Path, run: Run, photos: Path) -> None:
    styles = tmp_path / "styles"
    one = photos / "one.png"
    assert run("--style", styles / "3.png", styles / "4.png", content=one, style=False) == 0
    of_two = np.asarray(read_image(tmp_path / "out" / "one.png"))
    assert run("--style-folder", styles, content=one, style=False, out=tmp_path / "other") == 0
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "other" / "one.png")), of_two)
    assert run(content=one, out=tmp_path / "third") == 0
    assert not np.array_equal(np.asarray(read_image(tmp_path / "third" / "one.png")), of_two)


def test_a_network_that_was_trained_on_the_data_takes_vgg_s_place(tmp_path: Path, run: Run) -> None:
    training = RotationTraining(widths=(4, 4, 4, 4))
    network = blank(RotationNetwork, training.stages, training.widths)
    network.initialise(0)
    write_features(tmp_path / "features.pt", network, origin_of(DOMAINS, 32, training, 0), [0.5, 0.75])
    assert run("--features", tmp_path / "features.pt", "--start", "noise", network=False) == 0
    found = results(tmp_path)
    assert "50% right on held-out images of A, 75% on B" in found["network"]
    assert found["settings"]["style_layers"] == ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    assert found["results"]["one.png"]["first"]["content"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--style-folder", "nowhere"], "give either --style IMAGE"),
        (["--features", "x.pt"], "--weights and --features contradict"),
        (["--size", "8"], "--size must be a whole number from 32"),
        (["--steps", "0"], "--steps must be a whole number from 1"),
        (["--style-weight", "-1"], "--style-weight must be a number from 0"),
        (["--style", "nowhere.png"], "--style nowhere.png: no such file"),
        (["--weights", "nowhere.pth"], "no file nowhere.pth: the weights of VGG-19 are https://"),
        (["--content", "nowhere"], "no file or folder nowhere"),
        (["--device", "tpu"], "--device must be auto, cpu"),
    ],
)
def test_errors_say_what_to_do(run: Run, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: Any = run(*flags)
    except SystemExit as refused:  # a value that the dataclass refuses ends as argparse does
        status = refused.code
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_more_errors(tmp_path: Path, run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*flags: object, **options: Any) -> str:
        assert run(*flags, **options) == 2
        return capsys.readouterr().err

    assert "fetch https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in error(network=False)
    assert "no such file" in error("--features", "nowhere.pt", network=False)
    assert "no such folder" in error("--style-folder", "nowhere", style=False)
    (tmp_path / "empty").mkdir()
    assert "no images there" in error("--style-folder", tmp_path / "empty", style=False)
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert "none of the style images can be read" in error("--style", tmp_path / "bad.png", style=False)
    assert "error: " + str(tmp_path / "bad.png: not an image") in error(content=tmp_path / "bad.png")
    Image.new("RGB", (400, 40)).save(tmp_path / "long.png")
    assert "becomes 32x3, too narrow" in error(content=tmp_path / "long.png")
    (tmp_path / "out").mkdir(exist_ok=True)
    photo(32, 0).save(tmp_path / "out" / "one.png")
    assert "one.png is there and not in" in error()
    (tmp_path / "out" / "losses.json").write_text("{")
    assert "losses.json is damaged" in error()
    (tmp_path / "out" / "losses.json").unlink()
    (tmp_path / "out" / "one.png").unlink()
    (photos / "broken.jpg").write_bytes(b"no image")
    assert run() == 0
    assert "skipped" in capsys.readouterr().err
