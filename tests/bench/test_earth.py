"""Tables and pictures of the runs on the data set Earth."""

import numpy as np

from bench.earth import score_rows, side_by_side
from cyclegan_fast.images.sheets import GRID_GAP_PX, LINE_PX


def test_scores_stand_beside_those_that_no_seed_changes() -> None:
    def found(translated: float) -> dict[str, float]:
        kinds = {"untranslated": 9.0, "lookup": 25.0, "truth": translated}
        return {
            f"{way}.{kind}.{value}": number / scale
            for way in ("a2b", "b2a")
            for kind, number in kinds.items()
            for value, scale in (("psnr_db", 1), ("ssim", 50))
        }

    rows = score_rows({0: found(18.0), 1: found(20.5)})
    assert rows[:3] == [
        ["photograph -> map", "untranslated", "9.0 dB, 0.180"],
        ["photograph -> map", "best lookup of colours", "25.0 dB, 0.500"],
        ["photograph -> map", "translated", "18.0 dB, 0.360; 20.5 dB, 0.410"],
    ]
    assert [row[0] for row in rows[3:]] == ["map -> photograph"] * 3


def test_pictures_stand_side_by_side_under_their_captions() -> None:
    one, other = (np.full((30, 200, 3), grey, np.uint8) for grey in (50, 200))
    shown = side_by_side({"photograph": one, "map": other})
    assert shown.shape == (LINE_PX + 30, 400 + GRID_GAP_PX, 3)
    assert (shown[LINE_PX:, :200] == 50).all()
    assert (shown[LINE_PX:, 200 + GRID_GAP_PX :] == 200).all()
    assert shown[:LINE_PX, :200].std() > 0  # a caption
