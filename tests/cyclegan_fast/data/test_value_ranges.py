"""Percentiles of all values of a domain are those of NumPy on all of them at once, exactly."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cyclegan_fast.data import value_ranges
from cyclegan_fast.data.value_ranges import DomainFiles, sorting_keys, value_range_of

PERCENTILES = [(0.0, 100.0), (0.1, 99.9), (2.0, 50.0), (0.0, 99.0), (33.3, 100.0)]
RANDOM = np.random.default_rng(5)


def drawn(dtype: str) -> list[np.ndarray]:
    """Return images of different sizes; those of float32 have both zeros, tiny values, and NaN, which is no value."""
    images = []
    for height, width in ((7, 9), (80, 70), (1, 200)):
        if dtype == "float32":
            image = (RANDOM.normal(size=(height, width)) * 10.0 ** RANDOM.integers(-30, 30)).astype(np.float32)
            image[0, :5] = [0.0, -0.0, 1e-42, np.nan, np.nan]
        else:
            held = np.iinfo(dtype)
            image = RANDOM.integers(held.min, held.max + 1, (height, width)).astype(dtype)
        images.append(image)
    return images


@pytest.mark.parametrize("few", [0, 1 << 12], ids=["counters", "sorted"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_percentiles_are_those_of_all_values_at_once(
    tmp_path: Path, dtype: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_ranges, "FEW_VALUES", few)
    images = drawn(dtype)
    paths = [tmp_path / f"{index}.tif" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    (tmp_path / "no image.tif").write_text("nothing")
    values = np.concatenate([image.ravel() for image in images])
    values = values[~np.isnan(values)]
    files = DomainFiles([*paths, tmp_path / "no image.tif"], 1, dtype, workers=2)  # type: ignore[arg-type]
    for percentiles in PERCENTILES:
        expected = np.percentile(values, percentiles, method="inverted_cdf")
        assert value_range_of(files, percentiles, "trainA") == tuple(float(value) for value in expected)
    assert [str(error) for error in files.unreadable] == [f"{tmp_path / 'no image.tif'}: not an image"]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_keys_are_in_the_order_of_values(dtype: str) -> None:
    values = drawn(dtype)[1].ravel()
    values = values[~np.isnan(values)]
    order = np.argsort(sorting_keys(values), kind="stable")
    np.testing.assert_array_equal(values[order], np.sort(values))


def test_where_there_is_no_range_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((4, 4), 3, np.uint16))
    with pytest.raises(ValueError, match="percentiles 1 99 of their values are both 3"):
        value_range_of(DomainFiles([path], 1, "uint16"), (1, 99), "trainA")
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"a\.tif: not an image"):
        value_range_of(DomainFiles([path], 1, "uint16"), (1, 99), "trainA")
