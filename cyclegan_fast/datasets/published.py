"""Lists what the authors of CycleGAN publish: their data sets and their trained generators, by their files' names.

Numbers of images and checksums are those that TensorFlow Datasets counted and recorded for the same archives
(cycle_gan 2.0.0); the authors publish none. They count the files, and differ from the paper's in some places.
"""

from dataclasses import dataclass

AUTHORS = "http://efrosgans.eecs.berkeley.edu/cyclegan"
CITYSCAPES = "cityscapes"
FOLDERS = ("trainA", "trainB", "testA", "testB")


@dataclass(frozen=True)
class PublishedDataSet:
    """Describes a data set: two unpaired sets of images."""

    name: str
    a: str
    b: str
    images: tuple[int, int, int, int]  # numbers of images in FOLDERS
    size_bytes: int
    sha256: str

    @property
    def path(self) -> str:
        """Path of the file below the authors' address."""
        return f"datasets/{self.name}.zip"

    @property
    def most_bytes(self) -> int:
        """Size above which a file cannot be this data set, not even as somebody has packed it anew."""
        return 10 * self.size_bytes


@dataclass(frozen=True)
class PublishedGenerator:
    """Describes a generator that makes images of `result` from images of `source`."""

    name: str
    source: str
    result: str

    @property
    def path(self) -> str:
        """Path of the file below the authors' address."""
        return f"pretrained_models/{self.name}.pth"

    @property
    def most_bytes(self) -> int:
        """Size above which a file is no generator: those that are published have 46 MB."""
        return 10**9


_DATA_SETS = (
    PublishedDataSet(
        "apple2orange",
        "apples",
        "oranges",
        (995, 1019, 266, 248),
        78456409,
        "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    ),
    PublishedDataSet(
        "summer2winter_yosemite",
        "Yosemite in summer",
        "Yosemite in winter",
        (1231, 962, 309, 238),
        132640856,
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    ),
    PublishedDataSet(
        "horse2zebra",
        "horses",
        "zebras",
        (1067, 1334, 120, 140),
        116867962,
        "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    ),
    PublishedDataSet(
        "monet2photo",
        "paintings by Monet",
        "photographs",
        (1072, 6287, 121, 751),
        305231073,
        "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    ),
    PublishedDataSet(
        "cezanne2photo",
        "paintings by Cezanne",
        "photographs",
        (525, 6287, 58, 751),
        279885071,
        "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    ),
    PublishedDataSet(
        "ukiyoe2photo",
        "ukiyo-e prints",
        "photographs",
        (562, 6287, 263, 751),
        292946532,
        "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    ),
    PublishedDataSet(
        "vangogh2photo",
        "paintings by Van Gogh",
        "photographs",
        (400, 6287, 400, 751),
        306590349,
        "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
    ),
    PublishedDataSet(
        "maps",
        "aerial photographs",
        "maps",
        (1096, 1096, 1098, 1098),
        1476754427,
        "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
    ),
    PublishedDataSet(
        "facades",
        "photographs of facades",
        "label maps",
        (400, 400, 106, 106),
        35135868,
        "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
    ),
    PublishedDataSet(
        "iphone2dslr_flower",
        "flowers by iPhones",
        "flowers by DSLRs",
        (1812, 3325, 569, 480),
        339964458,
        "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
    ),
)
DATA_SETS = {row.name: row for row in _DATA_SETS}

_MODELS = (
    PublishedGenerator("apple2orange", "apples", "oranges"),
    PublishedGenerator("orange2apple", "oranges", "apples"),
    PublishedGenerator("summer2winter_yosemite", "Yosemite in summer", "Yosemite in winter"),
    PublishedGenerator("winter2summer_yosemite", "Yosemite in winter", "Yosemite in summer"),
    PublishedGenerator("horse2zebra", "horses", "zebras"),
    PublishedGenerator("zebra2horse", "zebras", "horses"),
    PublishedGenerator("monet2photo", "paintings by Monet", "photographs"),
    PublishedGenerator("style_monet", "photographs", "paintings by Monet"),
    PublishedGenerator("style_cezanne", "photographs", "paintings by Cezanne"),
    PublishedGenerator("style_ukiyoe", "photographs", "ukiyo-e prints"),
    PublishedGenerator("style_vangogh", "photographs", "paintings by Van Gogh"),
    PublishedGenerator("sat2map", "aerial photographs", "maps"),
    PublishedGenerator("map2sat", "maps", "aerial photographs"),
    PublishedGenerator("cityscapes_photo2label", "photographs of streets", "label maps"),
    PublishedGenerator("cityscapes_label2photo", "label maps", "photographs of streets"),
    PublishedGenerator("facades_photo2label", "photographs of facades", "label maps"),
    PublishedGenerator("facades_label2photo", "label maps", "photographs of facades"),
    PublishedGenerator("iphone2dslr_flower", "flowers by iPhones", "flowers by DSLRs"),
)
MODELS = {row.name: row for row in _MODELS}

CITYSCAPES_BY_HAND = """\
Cityscapes must be fetched by hand: its licence allows no copies elsewhere.
  1. Register at https://www.cityscapes-dataset.com/register/ and agree to the terms.
  2. From https://www.cityscapes-dataset.com/downloads/ fetch leftImg8bit_trainvaltest.zip (photographs, 11 GB)
     and gtFine_trainvaltest.zip (labels, 241 MB).
  3. Unpack both into one folder:
       unzip -n leftImg8bit_trainvaltest.zip -d {root}
       unzip -n gtFine_trainvaltest.zip -d {root}
     so that there are the files
       {root}/leftImg8bit/train/CITY/*_leftImg8bit.png    {root}/gtFine/train/CITY/*_gtFine_labelIds.png
       {root}/leftImg8bit/val/CITY/*_leftImg8bit.png      {root}/gtFine/val/CITY/*_gtFine_labelIds.png
  4. The same command then checks them:
       python -m cyclegan_fast.download cityscapes --out {root}"""


def list_published() -> str:
    """Return the list of all names with what they are, one a line."""
    lines = ["data sets (python -m cyclegan_fast.download NAME): domain A, domain B; images to train on + to test with"]
    for row in _DATA_SETS:
        train_a, train_b, test_a, test_b = row.images
        size = f"{row.size_bytes / 1e6:,.0f} MB"
        a, b = f"{row.a} ({train_a} + {test_a})", f"{row.b} ({train_b} + {test_b})"
        lines.append(f"  {row.name:<24}{size:>9}   {a}, {b}")
    lines.append(f"  {CITYSCAPES:<24}{'by hand':>9}   photographs of streets (2975 + 500), label maps (2975 + 500)")
    lines += ["", "trained generators (python -m cyclegan_fast.download --model NAME): what they make of what"]
    lines += [f"  {row.name:<24}{row.source} -> {row.result}" for row in _MODELS]
    return "\n".join(lines)
