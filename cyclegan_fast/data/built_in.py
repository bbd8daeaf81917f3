"""Opens the data sets that are made rather than read from a folder: the embedded photographs, and the Earth."""

from cyclegan_fast.config.data_options import PIXEL_OPTIONS, DataConfig
from cyclegan_fast.data import earth, sample_photos
from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.data.scenes.checks import scene_flags
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import waiting


def check_built_in(config: DataConfig, *, paired: bool) -> None:
    """Raise UserError where a built-in data set does not have what is asked of it, or what it is made from lacks."""
    name = "images of the Earth" if config.is_earth else "embedded photographs"
    if paired:
        raise UserError(
            f"the {name} have no pairs to train on: give --data FOLDER, with pairs of one name in trainA and trainB, "
            "or side by side in the images of train"
        )
    given = [name for name in PIXEL_OPTIONS if getattr(config, name) not in (None, (), getattr(DataConfig, name))]
    if given:
        raise UserError(f"the {name} are 8-bit RGB: --{given[0].replace('_', '-')} needs --data FOLDER")
    if flags := scene_flags(config):
        raise UserError(f"the {name} are no scenes: {flags[0]} needs --data FOLDER")
    if config.preprocess != "resize_and_crop":
        raise UserError(f"the {name} come at one size: --preprocess {config.preprocess} needs --data FOLDER")
    if config.is_earth:
        earth.check_side(config.load_size)
        earth.find_world()


def built_in_training(config: DataConfig) -> tuple[ImageArray, ImageArray]:
    """Make the training images of A and of B, `load_size` x `load_size`; raises UserError as `check_built_in` does."""
    if config.is_earth:
        with waiting("cutting out photographs and maps of the Earth"):
            count = min(earth.TRAINING_IMAGES, config.max_images or earth.TRAINING_IMAGES)
            made = earth.cut_training_images(config.load_size, count)
        return ImageArray(made.photographs, "A"), ImageArray(made.maps, "B")
    with waiting("drawing the embedded images"):
        photos = sample_photos.make_training(config.load_size)
    first = slice(config.max_images)
    return ImageArray(photos.photographs[first], "A"), ImageArray(photos.drawings[first], "B")


def built_in_tests(config: DataConfig) -> TestSets:
    """Make the test images, `crop_size` x `crop_size`, with the true translations where they are scored.

    Drawings of the embedded photographs hold less than these do: nothing says what their translation should be.
    """
    if config.is_earth:
        views = earth.cut_test_images(config.crop_size)
        photographs, maps = ImageArray(views.photographs, "A"), ImageArray(views.maps, "B")
        return TestSets(HeldOut(photographs, truth=maps), HeldOut(maps, truth=photographs))
    held_out = sample_photos.make_test(config.crop_size)
    photographs, drawings = ImageArray(held_out.photographs, "A"), ImageArray(held_out.drawings, "B")
    return TestSets(HeldOut(photographs, truth=drawings), HeldOut(drawings))
