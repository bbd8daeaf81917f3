"""Metrics against independent computations, and what each sees of one pass over a test set."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from cyclegan_fast.config.options import MetricName
from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.base_metric import Metric
from cyclegan_fast.evaluation.colour_lookup import Lookup
from cyclegan_fast.evaluation.distance_networks import INCEPTION_WEIGHTS, distance_network
from cyclegan_fast.evaluation.distances import FeatureDistance, distances
from cyclegan_fast.evaluation.fcn.metric import FcnScore, RealPhotographs
from cyclegan_fast.evaluation.fcn.scores import SegmentationScores
from cyclegan_fast.evaluation.fcn.segmentation import SegmentationNetwork
from cyclegan_fast.evaluation.lpips import Lpips
from cyclegan_fast.evaluation.metrics import METRIC_CLASSES, MetricMaker
from cyclegan_fast.evaluation.passes import Evaluation, deciding, evaluate
from cyclegan_fast.evaluation.score_table import scalars
from cyclegan_fast.evaluation.similarity import Reconstruction, Truth
from cyclegan_fast.images.labels import VOID, Labels, colours_of
from cyclegan_fast.images.pixel_type import BOTH_RGB
from cyclegan_fast.images.pixels import Pixels, to_pixels, to_signed
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.on_device import translate_batch

CPU = torch.device("cpu")


def gaussian(count: int, mean: list[float], deviations: list[float], seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.tensor(mean) + torch.tensor(deviations) * torch.randn(count, len(mean), generator=random)


def test_fid_of_gaussians_is_the_closed_form() -> None:
    """Expects |m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances (Dowson & Landau 1982)."""
    one, other = ([0.0, 1.0, -2.0], [1.0, 2.0, 0.5]), ([0.5, 1.0, 0.0], [1.5, 1.0, 0.5])
    expected = 0.5**2 + 2.0**2 + 0.5**2 + 1.0**2
    real, fake = gaussian(200_000, *one, seed=0), gaussian(200_000, *other, seed=1)
    assert distances(real, fake, ["fid"])["fid"] == pytest.approx(expected, rel=0.01)


def test_fid_of_samples_is_the_formula_with_another_square_root() -> None:
    real, fake = gaussian(300, [0, 0, 0, 0], [1, 2, 3, 1], seed=0), gaussian(200, [1, 0, 0, 2], [2, 1, 1, 1], seed=1)
    fake = fake @ torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    (m1, c1), (m2, c2) = ((x.double().mean(0).numpy(), np.cov(x.double().numpy().T)) for x in (real, fake))
    expected = np.square(m1 - m2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert distances(real, fake, ["fid"])["fid"] == pytest.approx(float(expected), rel=1e-6)
    assert distances(real, real, ["fid"])["fid"] == pytest.approx(0, abs=1e-6)


def test_kid_is_the_unbiased_estimate_over_pairs() -> None:
    """Bińkowski et al. 2018, eq. 4, with the kernel (x.y / d + 1)^3, by loops over all pairs."""
    real, fake = gaussian(12, [0, 0], [1, 2], seed=0).double(), gaussian(12, [1, 0], [1, 1], seed=1).double()

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 2 + 1) ** 3)

    within = sum(kernel(a, b) for x in (real, fake) for i, a in enumerate(x) for j, b in enumerate(x) if i != j)
    across = sum(kernel(a, b) for a in real for b in fake)
    found = distances(real, fake, ["kid"])
    assert found == {"kid": pytest.approx(within / (12 * 11) - 2 * across / 144)}  # one subset: no deviation


def test_kid_leaves_the_random_numbers_of_a_training_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = distances(gaussian(40, [0.0], [1.0], 0), gaussian(30, [0.0], [1.0], 1), ["kid"])
    assert found.keys() == {"kid", "kid_std"}
    torch.testing.assert_close(torch.rand(3), expected)


def test_a_distance_of_one_image_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2 images of each kind, got 1 real, 5 generated"):
        distances(torch.zeros(1, 3), torch.zeros(5, 3), ["fid"])


# --- a pass --------------------------------------------------------------------------------------------------------


class Darker(nn.Module):
    """Stands in for a generator and does what is known: it halves the light."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 1) * self.factor - 1).clamp(-1, 1)


def images(count: int, seed: int, side: int = 16) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


A, B, TRUE_B = images(5, 0), images(3, 1), images(5, 2)
SETS = TestSets(HeldOut(ImageArray(A, "A"), ImageArray(TRUE_B, "B")), HeldOut(ImageArray(B, "B")))
GENERATORS: dict[Any, nn.Module] = {"a2b": Darker(0.5), "b2a": Darker(2.0)}


def passed(metrics: list[Metric], **options: Any) -> Evaluation:
    return evaluate(GENERATORS, SETS, metrics, device=CPU, **options)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_one_pass_feeds_every_metric_whatever_the_batches(batch_size: int | None) -> None:
    found = passed([Truth(), Reconstruction(), Lookup()], batch_size=batch_size)
    values = scalars(found.scores)
    halved = np.rint(A / 2).astype(np.uint8)
    np.testing.assert_allclose(np.rint(A / 2), A / 2, atol=0.5)
    psnr = np.mean([peak_signal_noise_ratio(t, f) for t, f in zip(TRUE_B, halved, strict=True)])
    assert values["a2b.truth.psnr_db"] == pytest.approx(psnr, abs=2e-3)
    assert values["a2b.untranslated.l1"] == pytest.approx(np.abs(A.astype(float) - TRUE_B).mean() / 255)
    assert values["a2b.reconstruction.l1"] <= 1 / 255  # halved and doubled, but for rounding
    twice = np.minimum(B.astype(int) * 2, 255)
    assert values["b2a.reconstruction.l1"] == pytest.approx(np.abs(np.rint(twice / 2) - B).mean() / 255, abs=1e-3)
    assert not any(name.startswith("b2a.truth") for name in values)
    assert [score.name[:3] for score in found.scores] == sorted(score.name[:3] for score in found.scores)
    assert found.counts == {"a2b": 5, "b2a": 3}
    assert "testA holds no true translations of testB, so they are not compared" in found.notes
    quality = found.quality("a2b")
    assert quality is not None
    assert quality[1].shape == (5,)


def test_translations_are_rounded_as_files_are() -> None:
    pixels = torch.from_numpy(images(2, 3))
    network = Darker(0.37)
    expected = to_pixels(network(to_signed(pixels)))
    found = translate_batch(network, pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(found.numpy(), expected)
    with pytest.raises(UserError, match="not finite"):
        translate_batch(Darker(float("nan")), pixels.permute(0, 3, 1, 2))


def test_the_first_images_alone_can_be_used() -> None:
    found = passed([Truth()], count=2)
    assert found.counts == {"a2b": 2, "b2a": 2}
    l1 = np.abs(A[:2].astype(float) - TRUE_B[:2]).mean() / 255
    assert scalars(found.scores)["a2b.untranslated.l1"] == pytest.approx(l1)
    assert "only the first 2 of the 5 images in testA are scored" in found.notes


def test_one_generator_alone_is_scored_without_reconstructions() -> None:
    found = evaluate({"a2b": Darker(0.5)}, SETS, [Truth(), Reconstruction()], device=CPU)
    assert {score.name for score in found.scores} == {"a2b.truth", "a2b.untranslated"}
    assert "there is no generator for b2a, so the images in testB are not translated" in found.notes


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.double().mean(dim=(2, 3))


def test_features_of_translations_meet_those_of_the_domain_they_should_look_like() -> None:
    found = passed([FeatureDistance(Means(), "means", ["fid", "kid"])], batch_size=2)
    values = scalars(found.scores)
    halved, doubled = (
        translate_batch(GENERATORS[way], torch.from_numpy(x).permute(0, 3, 1, 2)) for way, x in (("a2b", A), ("b2a", B))
    )
    real = {"A": torch.from_numpy(A).permute(0, 3, 1, 2), "B": torch.from_numpy(B).permute(0, 3, 1, 2)}
    for way, fake, domain in (("a2b", halved, "B"), ("b2a", doubled, "A")):
        expected = distances(Means()(real[domain]).float(), Means()(fake).float(), ["fid", "kid"])
        assert values[f"{way}.features.fid"] == pytest.approx(expected["fid"], rel=1e-5)
        assert values[f"{way}.features.kid"] == pytest.approx(expected["kid"], rel=1e-5)
    assert any("FID of 3 images is biased upwards" in note for note in found.notes)


def test_real_images_are_looked_at_once_in_all_passes() -> None:
    seen = 0

    class Counted(Means):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal seen
            seen += len(images)
            return super().forward(images)

    known: dict[str, Tensor] = {}
    one, other = (scalars(passed([FeatureDistance(Counted(), "means", ["kid"], known)]).scores) for _ in range(2))
    assert one == other
    assert seen == 8 + 8 + 8  # 5 + 3 translations in each pass, and 3 + 5 real images


class ReadsColours(SegmentationNetwork):
    """Reads the class of the nearest colour, as if photographs were label maps."""

    def forward(self, photographs: Tensor) -> Tensor:
        from cyclegan_fast.images.labels import nearest_labels

        labels = torch.from_numpy(nearest_labels(photographs.permute(0, 2, 3, 1).numpy()))
        return nn.functional.one_hot(labels.long(), 19).permute(0, 3, 1, 2).float()


def test_labels_are_read_out_of_translations_in_the_order_of_the_images() -> None:
    random = np.random.default_rng(4)
    maps: Labels = random.integers(0, 19, (5, 16, 16)).astype(np.uint8)
    maps[:, 0] = VOID
    pixels = colours_of(maps)
    sets = TestSets(HeldOut(ImageArray(pixels, "A")), HeldOut(ImageArray(pixels, "B")))
    same: dict[Any, nn.Module] = {"a2b": Darker(1.0), "b2a": Darker(1.0)}
    for truth, expected in (({"A": maps, "B": maps}, 1.0), ({"B": np.roll(maps, 1, axis=0)}, None)):
        metric = FcnScore(ReadsColours(), truth)
        values = scalars(evaluate(same, sets, [metric], device=CPU, batch_size=2).scores)
        counted = maps != VOID
        rolled = (np.roll(maps, 1, axis=0)[counted] == maps[counted]).mean()
        assert values["b2a.fcn.per_pixel"] == pytest.approx(rolled if expected is None else expected)
        assert ("a2b.fcn.per_pixel" in values) == ("A" in truth)
    real = RealPhotographs(ReadsColours(), maps)
    evaluate(same, sets, [real], device=CPU, batch_size=2)
    assert SegmentationScores(real.matrices["real"]).per_pixel == 1
    assert SegmentationScores(real.matrices["shuffled"]).per_pixel == pytest.approx(rolled)


def test_the_value_that_decides_is_the_strongest_that_there_is() -> None:
    assert deciding({"a2b.truth.ssim": 1, "b2a.features.kid": 2}, None) == "b2a.features.kid"
    assert deciding({"x": 1}, None) is None
    assert deciding({"x": 1}, "x") == "x"
    with pytest.raises(UserError, match="--best-by y: no such value; the metrics give x"):
        deciding({"x": 1}, "y")


def test_what_a_pass_gives_is_known_before_it() -> None:
    maker = MetricMaker(["truth", "reconstruction", "lookup"], CPU, SETS, size=16)
    assert {*maker.names_of_values()} == scalars(passed(maker()).scores).keys()


def test_what_a_metric_gives_is_known_before_it() -> None:
    """Asks the metrics whose networks the maker loads, which can be made without it here."""
    maps: Labels = np.zeros((5, 16, 16), np.uint8)
    for metric in (
        FeatureDistance(Means(), "means", ["fid", "kid"]),
        Lpips(SquaredDistance()),
        FcnScore(ReadsColours(), {"B": maps}),
    ):
        expected = {
            f"{direction}.{name}"
            for direction, held in (("a2b", SETS.A), ("b2a", SETS.B))
            for name in metric.value_names(
                direction, truth_is_known=held is not None and held.truth is not None, kinds=BOTH_RGB
            )
        }
        given = {name for name in scalars(passed([metric]).scores) if not name.endswith("kid_std")}
        assert expected == given


def test_every_name_that_a_command_line_takes_is_a_metric() -> None:
    assert METRIC_CLASSES.keys() == {*get_args(MetricName)}


# --- what may be missing -------------------------------------------------------------------------------------------


def test_without_a_library_or_weights_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchmetrics.image.fid as fid

    def without_library(**_: Any) -> None:
        raise ModuleNotFoundError("NoTrainInceptionV3 module requires that `Torch-fidelity` is installed.")

    monkeypatch.setattr(fid, "NoTrainInceptionV3", without_library)
    with pytest.raises(UserError, match=r"pip install torch-fidelity, or give another network with --features FILE"):
        MetricMaker(["fid"], CPU, SETS, size=16)

    def without_network(**_: Any) -> None:
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(fid, "NoTrainInceptionV3", without_network)
    with pytest.raises(UserError, match=rf"put https://.*{INCEPTION_WEIGHTS} into .*checkpoints, or give"):
        MetricMaker(["kid"], CPU, SETS, size=16)


def test_weights_that_lie_where_they_should_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torchmetrics.image.fid as fid

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = tmp_path / "hub" / "checkpoints" / INCEPTION_WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.touch()
    asked: dict[str, Any] = {}

    def build(**options: Any) -> nn.Module:
        asked.update(options)
        return Means()

    monkeypatch.setattr(fid, "NoTrainInceptionV3", build)
    assert isinstance(distance_network("inception", CPU), Means)
    assert asked["feature_extractor_weights_path"] == str(weights)


def test_lpips_without_torchvision_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchmetrics.image.lpip as lpip

    def without(**_: Any) -> None:
        raise ModuleNotFoundError("LPIPS metric requires that torchvision is installed.")

    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", without)
    with pytest.raises(UserError, match=r"pip install torchvision for this build of torch.*or leave lpips out"):
        MetricMaker(["lpips"], CPU, SETS, size=16)


class SquaredDistance:
    """Stands for LPIPS as torchmetrics has it, summed over images; its weights cannot be had here."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total = 0.0

    def update(self, images: Tensor, others: Tensor) -> None:
        assert images.min() >= -1
        self.total += float((images - others).square().mean(dim=(1, 2, 3)).sum())

    def compute(self) -> float:
        return self.total


def test_lpips_is_the_mean_over_images_of_every_batch() -> None:
    values = scalars(passed([Lpips(SquaredDistance())], batch_size=2).scores)
    halved = translate_batch(GENERATORS["a2b"], torch.from_numpy(A).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    expected = np.square((halved.astype(float) - TRUE_B) / 127.5).mean()
    assert values["a2b.truth.lpips"] == pytest.approx(expected, rel=1e-5)
    assert values.keys() == {"a2b.truth.lpips", "b2a.reconstruction.lpips"}


def test_other_feature_networks_come_from_files(tmp_path: Path) -> None:
    program = torch.export.export(
        Means(),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),),
        dynamic_shapes={"images": {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}},
    )
    torch.export.save(program, tmp_path / "means.pt2")
    network = distance_network(str(tmp_path / "means.pt2"), CPU)
    pixels = torch.from_numpy(A).permute(0, 3, 1, 2)
    torch.testing.assert_close(network(pixels), Means()(pixels))
    distance = FeatureDistance(network, "means", ["kid"])
    assert {score.name for score in passed([distance], batch_size=2).scores} == {"a2b.features", "b2a.features"}
    fixed = torch.export.export(Means(), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(fixed, tmp_path / "fixed.pt2")
    with pytest.raises(UserError, match=r"fixed does not take \[5, 3, 16, 16\] uint8 images"):
        passed([FeatureDistance(distance_network(str(tmp_path / "fixed.pt2"), CPU), "fixed", ["fid"])])
    with pytest.raises(UserError, match=r"gives \[5, 3, 16, 16\] for .* instead of features"):
        passed([FeatureDistance(nn.Identity(), "identity", ["fid"])])
    (tmp_path / "broken.pt2").write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a program of"):
        distance_network(str(tmp_path / "broken.pt2"), CPU)
    with pytest.raises(UserError, match=r"--features nowhere\.pt: no such file"):
        distance_network("nowhere.pt", CPU)


def test_too_few_test_images_are_refused_before_anything_is_translated(tmp_path: Path) -> None:
    program = torch.export.export(Means(), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(program, tmp_path / "means.pt2")
    options: dict[str, Any] = {"size": 16, "feature_source": str(tmp_path / "means.pt2")}
    MetricMaker(["fid"], CPU, SETS, **options)
    with pytest.raises(UserError, match="at least 2 test images of each domain; there is 1"):
        MetricMaker(["fid"], CPU, SETS, count=1, **options)
    with pytest.raises(UserError, match="one domain has none"):
        MetricMaker(["fid"], CPU, TestSets(SETS.A, None), **options)


def test_the_metric_fcn_needs_its_network() -> None:
    with pytest.raises(UserError, match="give --segmentation FILE"):
        MetricMaker(["fcn"], CPU, SETS, size=16)
