"""Lists the rows of the paper's tables 2 to 5: how each is trained here, and which figures it has there.

Zhu et al. 2017, sections 5.1.2 to 5.1.4, on Cityscapes at 128x128, read by an FCN-8s. Here domain A is photographs and
B label maps; in the paper's figure 7 X is label maps and Y photographs, so that its forward cycle F(G(x)) = x starts
from B here. (That reading is ours, from the figure's caption: GAN alone and GAN + forward collapse in photo -> labels.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclegan_fast.config.options import MethodName

RowName = Literal[
    "cogan",
    "bigan",
    "simgan",
    "feature-loss",
    "cyclegan",
    "pix2pix",
    "cycle-alone",
    "gan-alone",
    "gan-forward",
    "gan-backward",
    "cyclegan-identity",
]
Figures = tuple[float, float, float]
"""the values of fcn.scores.MEASURES, in their order"""

WAYS = {"b2a": "labels -> photo", "a2b": "photo -> labels"}
"""The directions in the paper's order."""


@dataclass(frozen=True)
class TableRow:
    """Says what a row is called, how it is trained, and what the paper found."""

    title: str
    method: MethodName
    changes: Mapping[str, Any] = field(default_factory=dict)
    """the fields of config.options.LossConfig in which it differs from its method"""
    paper: Mapping[str, Figures] = field(default_factory=dict)
    """the paper's figures by direction"""
    confirmed: frozenset[str] = frozenset()
    """the directions of which another text was found to repeat the figures; the others are from memory"""


def _both(labels_to_photo: Figures, photo_to_labels: Figures) -> dict[str, Figures]:
    return {"b2a": labels_to_photo, "a2b": photo_to_labels}


BOTH = frozenset({"b2a", "a2b"})

# Table 3 (photo -> labels) is repeated by two summaries of the paper. Of table 4 one has all rows but GAN + backward,
# of table 5 all but cycle alone and GAN + forward. None was found that repeats table 2 for the other unpaired methods.
ROWS: dict[RowName, TableRow] = {
    "cogan": TableRow(
        "CoGAN",
        "cogan",
        paper=_both((0.40, 0.10, 0.06), (0.45, 0.11, 0.08)),
        confirmed=frozenset({"a2b"}),
    ),
    "bigan": TableRow(
        "BiGAN/ALI",
        "bigan",
        paper=_both((0.19, 0.06, 0.02), (0.41, 0.13, 0.07)),
        confirmed=frozenset({"a2b"}),
    ),
    "simgan": TableRow(
        "SimGAN",
        "simgan",
        paper=_both((0.20, 0.10, 0.04), (0.47, 0.11, 0.07)),
        confirmed=frozenset({"a2b"}),
    ),
    "feature-loss": TableRow(
        "feature loss + GAN",
        "feature-loss",
        paper=_both((0.06, 0.04, 0.01), (0.50, 0.10, 0.06)),
        confirmed=frozenset({"a2b"}),
    ),
    "cyclegan": TableRow(
        "CycleGAN",
        "cyclegan",
        paper=_both((0.52, 0.17, 0.11), (0.58, 0.22, 0.16)),
        confirmed=BOTH,
    ),
    "pix2pix": TableRow(
        "pix2pix, from pairs",
        "pix2pix",
        paper=_both((0.71, 0.25, 0.18), (0.85, 0.40, 0.32)),
        confirmed=BOTH,
    ),
    "cycle-alone": TableRow(
        "cycle alone",
        "cyclegan",
        {"lambda_gan": 0.0},
        paper=_both((0.22, 0.07, 0.02), (0.10, 0.05, 0.02)),
        confirmed=frozenset({"b2a"}),
    ),
    "gan-alone": TableRow(
        "GAN alone",
        "cyclegan",
        {"lambda_cycle": 0.0},
        paper=_both((0.51, 0.11, 0.08), (0.53, 0.11, 0.07)),
        confirmed=BOTH,
    ),
    "gan-forward": TableRow(
        "GAN + forward cycle",
        "cyclegan",
        {"cycle_from": "B"},
        paper=_both((0.55, 0.18, 0.12), (0.49, 0.11, 0.06)),
        confirmed=frozenset({"b2a"}),
    ),
    "gan-backward": TableRow(
        "GAN + backward cycle",
        "cyclegan",
        {"cycle_from": "A"},
        paper=_both((0.39, 0.14, 0.06), (0.01, 0.06, 0.01)),
        confirmed=frozenset({"a2b"}),
    ),
    "cyclegan-identity": TableRow("CycleGAN with identity loss 0.5", "cyclegan", {"lambda_identity": 0.5}),
}

DEFAULT: tuple[RowName, ...] = tuple(name for name in ROWS if name != "cyclegan-identity")

GROUPS: dict[str, tuple[RowName, ...]] = {
    "methods": ("cogan", "bigan", "simgan", "feature-loss", "cyclegan", "cyclegan-identity", "pix2pix"),
    "ablations": ("cycle-alone", "gan-alone", "gan-forward", "gan-backward", "cyclegan"),
}
"""The rows of tables 2 and 3, and of 4 and 5, in the paper's order."""

NUMBERS = {
    ("methods", "b2a"): "table 2",
    ("methods", "a2b"): "table 3",
    ("ablations", "b2a"): "table 4",
    ("ablations", "a2b"): "table 5",
}
