"""Scores of images that are not 8-bit RGB: against formulas in float64, in their own units, and what is left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.evaluation.base_metric import Metric
from cyclegan_fast.evaluation.colour_lookup import Lookup
from cyclegan_fast.evaluation.distances import FeatureDistance, distances
from cyclegan_fast.evaluation.lpips import Lpips
from cyclegan_fast.evaluation.metrics import MetricMaker
from cyclegan_fast.evaluation.passes import Evaluation, evaluate
from cyclegan_fast.evaluation.score_table import scalars, table
from cyclegan_fast.evaluation.similarity import Reconstruction, Truth, similarity
from cyclegan_fast.evaluation.worst_and_best import pictures, write_sheets
from cyclegan_fast.images.display import Display, DomainView, DomainViews
from cyclegan_fast.images.pixel_type import RGB, PixelType, PixelTypes, SampleArray
from cyclegan_fast.images.pixels import as_tensor, to_signed
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.on_device import translate_pixels

CPU = torch.device("cpu")
DEEP = PixelType(1, "uint16", 0, 4095)
BANDS = PixelType(6, "float32", -1, 3)
SIDE = 16


def noise(kind: PixelType, count: int, seed: int = 0) -> SampleArray:
    shape = (count, SIDE, SIDE, kind.channels)
    samples: SampleArray = np.random.default_rng(seed).uniform(kind.low, kind.high, shape).astype(kind.as_numpy)
    return samples


@pytest.mark.parametrize(
    "kind",
    [DEEP, PixelType(4, "uint16", 0, 65535), PixelType(2, "int16", -1000, 1000), BANDS, PixelType(2)],
    ids=str,
)
def test_psnr_l1_mae_and_ssim_are_the_formulas_in_float64(kind: PixelType) -> None:
    one, other = noise(kind, 3, 0), noise(kind, 3, 1)
    found = similarity(as_tensor(one), as_tensor(other), kind)
    error, span = one.astype(np.float64) - other, kind.high - kind.low
    axes = (1, 2, 3)
    np.testing.assert_allclose(found.psnr_db, 10 * np.log10(span**2 / np.square(error).mean(axes)), rtol=1e-12)
    assert found.mae is not None
    np.testing.assert_allclose(found.mae, np.abs(error).mean(axes), rtol=1e-12)
    np.testing.assert_allclose(found.l1, np.abs(error).mean(axes) / span, rtol=1e-12)
    expected = [ssim_of(a - kind.low, b - kind.low, span) for a, b in zip(*map(np.float64, (one, other)), strict=True)]
    np.testing.assert_allclose(found.ssim, expected, rtol=1e-7)


def ssim_of(one: SampleArray, other: SampleArray, span: float) -> float:
    """Return SSIM of [H, W, C] by the formula of Wang et al. 2004, with windows that are continued by reflection."""

    def mean(values: SampleArray) -> SampleArray:
        return gaussian_filter(values, 1.5, mode="mirror", truncate=3.5, axes=(0, 1))  # type: ignore[no-any-return]

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_1, mean_2 = mean(one), mean(other)
    variance_1, variance_2 = mean(one**2) - mean_1**2, mean(other**2) - mean_2**2
    covariance = mean(one * other) - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variance_1 + variance_2 + c2)).mean())


def test_scores_of_8_bit_rgb_keep_their_bits_and_names() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    samples, others = as_tensor(noise(RGB, 3, 0)), as_tensor(noise(RGB, 3, 1))
    found = similarity(samples, others)
    assert found.means().keys() == {"psnr_db", "ssim", "l1"}
    for place in range(3):
        one, other = samples[[place]].double() / 255, others[[place]].double() / 255
        error = (one - other).square().mean(dim=(1, 2, 3))
        ssim = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        assert found.psnr_db[place] == float(-10 * torch.log10(error.clamp_min(1e-10)))
        assert found.ssim[place] == float(ssim)
        assert found.l1[place] == float((one - other).abs().mean(dim=(1, 2, 3)))


def test_values_beyond_the_range_count_as_they_are() -> None:
    narrow = PixelType(1, "uint16", 1000, 2000)
    one, other = np.full((1, SIDE, SIDE, 1), 2000, np.uint16), np.full((1, SIDE, SIDE, 1), 5000, np.uint16)
    found = similarity(as_tensor(one), as_tensor(other), narrow).means()
    assert found["mae"] == pytest.approx(3000)
    assert found["l1"] == pytest.approx(3)
    assert found["psnr_db"] == pytest.approx(-20 * np.log10(3))


def test_what_has_no_value_is_left_out_of_scores() -> None:
    one, other = noise(BANDS, 3, 0), noise(BANDS, 3, 1)
    one[1, :, :4] = np.nan
    other[1, 0, 7, 2] = np.inf
    other[2] = np.nan
    found = similarity(as_tensor(one), as_tensor(other), BANDS)
    known = np.isfinite(one[1]) & np.isfinite(other[1])
    assert found.mae is not None
    assert found.mae[1] == pytest.approx(np.abs(one[1].astype(float) - other[1])[known].mean(), rel=1e-12)
    whole = similarity(as_tensor(one), as_tensor(one), BANDS)
    assert whole.ssim[1] == pytest.approx(1)
    assert whole.psnr_db[1] == 100
    for values in vars(found).values():
        assert np.isfinite(values).tolist() == [True, True, False]


# --- a pass --------------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Stands in for a generator: each channel that it gives is the mean of those that it takes, times a factor."""

    def __init__(self, channels: int, factor: float = 0.5) -> None:
        super().__init__()
        self.channels, self.factor = channels, nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(1, keepdim=True) * self.factor).expand(-1, self.channels, -1, -1)


class Case:
    """Holds domains of two types, paired in A, with generators that are known."""

    def __init__(self, A: PixelType, B: PixelType) -> None:
        self.kinds = PixelTypes(A, B)
        self.A, self.true_B, self.B = noise(A, 3, 0), noise(B, 3, 1), noise(B, 2, 2)
        self.sets = TestSets(
            HeldOut(ImageArray(self.A, "A"), ImageArray(self.true_B, "B")), HeldOut(ImageArray(self.B, "B"))
        )
        self.generators: dict[Any, nn.Module] = {"a2b": Mixed(B.channels), "b2a": Mixed(A.channels, 2.0)}

    def passed(self, *metrics: Metric) -> Evaluation:
        return evaluate(self.generators, self.sets, metrics, device=CPU, kinds=self.kinds)

    def maker(self, *names: Any, **options: Any) -> MetricMaker:
        return MetricMaker(names, CPU, self.sets, size=SIDE, kinds=self.kinds, **options)


STAINING, FUSION = Case(DEEP, RGB), Case(BANDS, DEEP)


@pytest.mark.parametrize("case", [STAINING, FUSION], ids=["1 to 3", "6 to 1"])
def test_a_pass_scores_each_domain_in_its_own_units(case: Case) -> None:
    A, B = case.kinds
    maker = case.maker("truth", "reconstruction", "lookup")
    found = case.passed(*maker())
    values = scalars(found.scores)
    assert {*maker.names_of_values()} == values.keys()
    made = translate_pixels(case.generators["a2b"], case.A, A, B)
    assert made.dtype == B.as_numpy
    error = made.astype(np.float64) - case.true_B
    assert values["a2b.truth.l1"] == pytest.approx(np.abs(error).mean() / (B.high - B.low))
    again = translate_pixels(case.generators["b2a"], made, B, A)
    assert values["a2b.reconstruction.mae"] == pytest.approx(np.abs(again.astype(np.float64) - case.A).mean())
    assert ("a2b.truth.mae" in values) == (not B.is_rgb)
    assert "a2b.untranslated.l1" not in values
    assert any("the colour lookup is left out" in note for note in found.notes)
    assert f"A: {A}; B: {B}: PSNR, SSIM and L1 take this range" in found.notes[-1]
    header, *rows = table(found.scores).splitlines()
    assert header.endswith("MAE, own units")
    assert rows[0].endswith(" -") == B.is_rgb


def test_images_of_one_type_are_compared_untranslated_too() -> None:
    case = Case(DEEP, DEEP)
    values = scalars(case.passed(Truth()).scores)
    assert values["a2b.untranslated.mae"] == pytest.approx(np.abs(case.A.astype(float) - case.true_B).mean())


class MeansOfChannels(nn.Module):
    """Stands in for a network of features, and says what it was given."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == self.dtype
        return images.double().mean(dim=(2, 3))


def test_distances_of_features_are_of_domains_with_three_channels() -> None:
    metric = FeatureDistance(MeansOfChannels(torch.uint8), "means", ["kid"])
    found = STAINING.passed(metric)
    made = as_tensor(translate_pixels(STAINING.generators["a2b"], STAINING.A, DEEP, RGB))
    expected = distances(as_tensor(STAINING.B).double().mean((2, 3)), made.double().mean((2, 3)), ["kid"])["kid"]
    assert scalars(found.scores)["a2b.features.kid"] == pytest.approx(expected, rel=1e-5)
    assert not any(name.startswith("b2a") for name in scalars(found.scores))
    assert any(
        "kid of b2a are left out: means takes images of 3 channels, and these have 1 channel, uint16" in note
        for note in found.notes
    )
    for direction, names in (("a2b", ["features.kid"]), ("b2a", [])):
        assert metric.value_names(direction, truth_is_known=True, kinds=STAINING.kinds) == names  # type: ignore[arg-type]


def test_three_channels_of_16_bits_are_seen_as_their_range() -> None:
    deep = PixelType(3, "uint16", 0, 65535)
    samples = as_tensor(noise(deep, 2))
    found = FeatureDistance(MeansOfChannels(torch.uint8), "means", ["fid"]).features(samples, deep)
    expected = torch.round(samples.double() / 257).mean((2, 3))
    torch.testing.assert_close(found.double(), expected, atol=0.01, rtol=0)


def test_a_program_of_features_may_take_other_channels(tmp_path: Path) -> None:
    network = MeansOfChannels(torch.float32)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 6, SIDE, SIDE),)), tmp_path / "six.pt2")
    case = Case(BANDS, BANDS)
    case.sets = TestSets(case.sets.B, case.sets.B)  # two images of each domain, as the program takes them
    values = scalars(case.passed(*case.maker("kid", feature_source=str(tmp_path / "six.pt2"))()).scores)
    made = translate_pixels(case.generators["a2b"], case.B, BANDS, BANDS)
    real, fake = (to_signed(torch.from_numpy(samples), BANDS).mean((2, 3)) for samples in (case.B, made))
    assert values["a2b.features.kid"] == pytest.approx(distances(real, fake, ["kid"])["kid"], rel=1e-4)


class SquaredDistance:
    """Stands for LPIPS as torchmetrics has it, whose weights cannot be had here."""

    def reset(self) -> None:
        self.total = 0.0

    def update(self, images: Tensor, others: Tensor) -> None:
        assert images.shape[1] == 3
        self.total += float((images - others).square().mean(dim=(1, 2, 3)).sum())

    def compute(self) -> float:
        return self.total


def test_lpips_is_of_domains_with_three_channels() -> None:
    metric = Lpips(SquaredDistance())
    found = STAINING.passed(metric)
    made = translate_pixels(STAINING.generators["a2b"], STAINING.A, DEEP, RGB)
    expected = np.square((made.astype(float) - STAINING.true_B) / 127.5).mean()
    assert scalars(found.scores)["a2b.truth.lpips"] == pytest.approx(expected, rel=1e-5)
    assert scalars(found.scores).keys() == {"a2b.truth.lpips", "b2a.reconstruction.lpips"}  # both of B
    other = Case(RGB, DEEP).passed(Lpips(SquaredDistance()))
    assert not other.scores
    assert any("LPIPS of a2b is left out" in note for note in other.notes)
    assert metric.value_names("a2b", truth_is_known=True, kinds=PixelTypes(RGB, DEEP)) == []


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (
            ["fid", "kid"],
            r"fid and kid look at images of 3 channels, and A has 6 .*, and B has 1 .*--features FILE.pt2",
        ),
        (["lpips"], r"lpips is of images of 3 channels, and A has 6 .*: leave it out"),
    ],
)
def test_metrics_of_photographs_are_refused_where_no_domain_has_colours(names: list[str], advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        FUSION.maker(*names)


def test_labels_are_read_out_of_8_bit_rgb_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels are read out of 8-bit RGB, and A has 1 channel"):
        STAINING.maker("fcn", segmentation_file=tmp_path / "any.pt")
    assert [type(metric) for metric in STAINING.maker("lookup")()] == [Lookup]


def test_sheets_show_both_domains_in_their_own_way(tmp_path: Path) -> None:
    views = DomainViews(DomainView(BANDS, Display(bands=(6, 5, 4))), DomainView(DEEP, Display(colours="hot")))
    held, (A, B) = FUSION.sets.A, FUSION.kinds
    assert held is not None
    found = pictures("a2b", held, [2, 0], FUSION.generators, CPU, views)
    made = translate_pixels(FUSION.generators["a2b"], FUSION.A, A, B)
    again = translate_pixels(FUSION.generators["b2a"], made, B, A)
    for place, shown_of in zip([2, 0], found, strict=True):
        expected = [views.A(FUSION.A), views.B(made), views.A(again), views.B(FUSION.true_B)]
        np.testing.assert_array_equal(shown_of, [each[place] for each in expected])
    paths = write_sheets(tmp_path, FUSION.passed(Truth(), Reconstruction()), FUSION.generators, FUSION.sets, CPU, views)
    assert [path.name for path in paths] == ["a2b.jpg", "b2a.jpg"]
    alone = pictures("a2b", held, [0], {"a2b": FUSION.generators["a2b"]}, CPU, views)
    np.testing.assert_array_equal(alone[0][2], np.full((SIDE, SIDE, 3), 60))  # nothing translates back
