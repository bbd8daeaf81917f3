"""Opens the domains of a data set: finds which images they have, prepares them, and matches pairs.

layouts.py knows in which folders they are, image_folder.py decodes them, and pairs.py tells pairs by their names.
"""

from collections.abc import Iterator, Sequence

from cyclegan_fast.config.options import DataConfig, Preprocess
from cyclegan_fast.data.built_in import built_in_tests
from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.image_lists import Images, Selected
from cyclegan_fast.data.layouts import STREETS_MARK, TRAINING_LABELS, Place, is_cityscapes, place_of, training_places
from cyclegan_fast.data.pairs import match, names_say_pairs, pair_key
from cyclegan_fast.data.pixel_cache import default_cache_dir
from cyclegan_fast.data.preparation import Preparation, held_out_preparation
from cyclegan_fast.data.scenes.checks import check_scene_options
from cyclegan_fast.data.scenes.crops import GridCrops, RandomCrops
from cyclegan_fast.data.scenes.finding import find_scenes_in
from cyclegan_fast.data.scenes.scene_folder import SceneDomain, SceneFolder
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.images.folders import Found
from cyclegan_fast.images.levels import SUGGESTS_A_RANGE
from cyclegan_fast.images.pixel_type import DomainName
from cyclegan_fast.images.scenes.scene import TileCache
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import available_bytes
from cyclegan_fast.system.words import counted

_DOMAINS: tuple[DomainName, ...] = ("A", "B")


class DomainReader:
    """Opens the domains of a data set one after another, within one budget of memory.

    Args:
        config: its `data`, `cache_gib`, `cache_dir`, `workers` and `strict` count.
        sharers: processes that share the memory of the machine.
    """

    def __init__(self, config: DataConfig, sharers: int = 1) -> None:
        assert config.data is not None
        self.root, self.config = config.data, config
        gib = config.cache_gib
        self.cache_bytes = available_bytes() // 2 // sharers if gib is None else int(gib * 2**30)
        self.opened: list[ImageFolder | SceneFolder] = []
        self.remarks: list[str] = []

    def training_images(self) -> tuple[Images, Images]:
        """Return the training images of A and of B, or crops of their scenes; raises UserError."""
        places = training_places(self.root, paired=False)
        limit = self.config.max_images
        crops: dict[DomainName, RandomCrops] = {}
        for domain, place in zip(_DOMAINS, places, strict=True):
            found = find_scenes_in(place, self.config)
            if found is not None:
                scenes = self._open_scenes(place, found, domain, limit)
                crops[domain] = RandomCrops(scenes, self.config.crops_per_epoch)
        check_scene_options(self.config, is_of_scenes=bool(crops))
        A, B = (
            crops[domain] if domain in crops else self._open_to_train(place, domain, limit)
            for domain, place in zip(_DOMAINS, places, strict=True)
        )
        return A, B

    def training_pairs(self) -> tuple[Images, Images]:
        """Return the training images that have a partner, and their partners, in the order of A.

        Raises UserError where the names are not of pairs, or two partners differ in size once they are prepared.
        """
        place_A, place_B = training_places(self.root, paired=True)
        A, B = self._open_to_train(place_A, "A"), self._open_to_train(place_B, "B")
        if B.folder == self.root / TRAINING_LABELS:
            self.remarks.append(
                f"the partners of {A.folder} are taken from {B.folder}: where that is, trainB has the "
                "label maps of other views"
            )
        pairs = self._pairs(A, B)[: self.config.max_images]
        _check_sizes(A, B, pairs, self.config.preprocess)
        return _selected(A, B, pairs)

    def _open_to_train(self, place: Place, domain: DomainName, limit: int | None = None) -> ImageFolder:
        prepare = Preparation(self.config.preprocess, self.config.load_size, self.config.crop_size)
        return self._open(place, prepare, domain, limit, flags_of=domain)

    def _open_scenes(self, place: Place, found: Found, domain: DomainName, limit: int | None = None) -> SceneFolder:
        kept_bytes = self.cache_bytes // 2  # of decoded tiles; the other half is for what is opened after this
        kind, side = self.config.pixel_type(domain), self.config.crop_size
        opened = SceneFolder(
            place.folder, found, SceneDomain(self.config, domain, kind, side), TileCache(kept_bytes), limit
        )
        self.cache_bytes -= kept_bytes
        self.opened.append(opened)
        return opened

    def _open(
        self,
        place: Place,
        prepare: Preparation,
        domain: DomainName,
        limit: int | None = None,
        *,
        flags_of: DomainName | None = None,
    ) -> ImageFolder:
        opened = ImageFolder(
            place.folder,
            prepare,
            cache_bytes=self.cache_bytes,
            cache_dir=self.config.cache_dir or default_cache_dir(),
            workers=self.config.workers,
            strict=self.config.strict,
            kind=self.config.pixel_type(domain),
            frames=self.config.frames,
            axis=self.config.slice_axis,
            value_range=self.config.range_of_deep(domain),
            range_flag=f"--range-{domain.lower()}",
            flags_of=flags_of,
            ending=place.ending,
            half=place.half,
            limit=limit,
        )
        self.cache_bytes -= opened.memory_bytes
        self.opened.append(opened)
        return opened

    def warnings(self) -> list[str]:
        """Return lines for the user on images that are left out, on deep samples, and on where pixels are kept."""
        # A file of which two halves are opened is named once.
        unreadable = list(dict.fromkeys(line for folder in self.opened for line in folder.unreadable))
        warnings = [f"skipped {line}" for line in unreadable]
        if unreadable:
            warnings.append(f"skipped {counted(len(unreadable), 'unreadable image')} (--strict refuses such files)")
        left_out = list(dict.fromkeys(line for folder in self.opened for line in folder.remarks))
        values = list(dict.fromkeys(self._notes_on_values()))
        return warnings + left_out + self.remarks + values + [folder.note for folder in self.opened if folder.note]

    def _notes_on_values(self) -> Iterator[str]:
        """Yield notes on the values of images; a range is suggested once for a domain, by its training images."""
        suggested = set()
        for folder in self.opened:
            for note in folder.values_notes:
                if SUGGESTS_A_RANGE in note:
                    if folder.range_flag in suggested:
                        continue
                    suggested.add(folder.range_flag)
                yield note

    def test_sets(self) -> TestSets:
        """Return testA and testB where they are there, resized to the crop's square, with the truth if they are pairs.

        Of scenes they are crops side by side.

        Raises UserError where they must be pairs (`pairs` is "yes") and are not.
        """
        A, B = (self._open_test_set(domain) for domain in _DOMAINS)
        if isinstance(A, GridCrops) or isinstance(B, GridCrops):
            if self.config.pairs == "yes":
                raise UserError(f"crops of the scenes in {self.root} are no pairs: leave --pairs yes out")
            return TestSets(HeldOut(A) if A else None, HeldOut(B) if B else None)
        paired, note = self._are_pairs(A, B)
        if A is None or B is None or not paired:
            return TestSets(HeldOut(A) if A else None, HeldOut(B) if B else None, note)
        images, partners = _selected(A, B, self._pairs(A, B))
        return TestSets(HeldOut(images, partners), HeldOut(partners, images), note)  # both in the order of A

    def _open_test_set(self, domain: DomainName) -> ImageFolder | GridCrops | None:
        place = place_of(self.root, f"test{domain}")
        found = find_scenes_in(place, self.config)
        if found is not None:
            return GridCrops(self._open_scenes(place, found, domain))
        return self._open(place, held_out_preparation(self.config.crop_size), domain) if place.has_images() else None

    def _pairs(self, A: ImageFolder, B: ImageFolder) -> list[tuple[int, int]]:
        """Return the indices of partners in A and in B, in the order of A: by name, or by file where one shows both.

        An image whose partner cannot be read is left out, with a remark. Raises UserError where the names are not of
        pairs, or no pair is left.
        """
        names_A, names_B = A.candidates, B.candidates
        names_B = names_A if A.half else [names_B[place] for place in match(names_A, names_B, A.folder, B.folder)]
        place_A, place_B = ({name: place for place, name in enumerate(folder.files)} for folder in (A, B))
        pairs = []
        for name_A, name_B in zip(names_A, names_B, strict=True):
            if name_A in place_A and name_B in place_B:
                pairs.append((place_A[name_A], place_B[name_B]))
            elif name_A in place_A:
                self.remarks.append(f"left out {A.folder / name_A}: its partner {B.folder / name_B} cannot be read")
            elif name_B in place_B:
                self.remarks.append(f"left out {B.folder / name_B}: its partner {A.folder / name_A} cannot be read")
        if not pairs:
            raise UserError(f"of none of the {len(names_A)} pairs in {A.folder} and {B.folder} both images can be read")
        return pairs

    def _are_pairs(self, A: ImageFolder | None, B: ImageFolder | None) -> tuple[bool, str | None]:
        wanted = self.config.pairs
        if A is None or B is None:
            if wanted == "yes":
                raise UserError(f"{self.root} needs images in both testA and testB, which are to be pairs")
            return False, None
        if wanted != "auto":
            return wanted == "yes", None
        if A.half or is_cityscapes(self.root) or (self.root / STREETS_MARK).exists():
            return True, None
        if names_say_pairs(A.candidates, B.candidates):
            return True, None
        if {*map(pair_key, A.candidates)} == {*map(pair_key, B.candidates)}:
            return (
                False,
                f"testA and testB of {self.root} hold files of the same names; if they are pairs, give --pairs yes",
            )
        return False, None


def open_test_sets(config: DataConfig) -> tuple[TestSets, list[str]]:
    """Return the test images of `config.data`, or of a built-in data set, and lines for the user on them.

    Raises UserError where there are none.
    """
    if config.data is None or config.is_earth:
        return built_in_tests(config), []
    if not config.data.is_dir():
        raise UserError(f"--data {config.data}: no such folder")
    reader = DomainReader(config)
    tests = reader.test_sets()
    if tests.A is None and tests.B is None:
        raise UserError(f"--data {config.data} has no images in testA or testB: nothing to score")
    return tests, [*reader.warnings(), *([tests.note] if tests.note else [])]


def _selected(A: ImageFolder, B: ImageFolder, pairs: Sequence[tuple[int, int]]) -> tuple[Selected, Selected]:
    places_A, places_B = zip(*pairs, strict=True)
    return Selected(A, places_A), Selected(B, places_B)


def _check_sizes(A: ImageFolder, B: ImageFolder, pairs: Sequence[tuple[int, int]], preprocess: Preprocess) -> None:
    differing = [(a, b) for a, b in pairs if A.sizes[a] != B.sizes[b]]
    if not differing:
        return
    a, b = differing[0]
    (width_A, height_A), (width_B, height_B) = A.sizes[a], B.sizes[b]
    raise UserError(
        f"{A.paths[a]} is {width_A}x{height_A} and its partner {B.paths[b]} is {width_B}x{height_B}, prepared by "
        f"--preprocess {preprocess}; {len(differing)} of {len(pairs)} pairs differ so, but both need one window: give "
        "them one size, or use --preprocess resize_and_crop"
    )
