"""Refuses options of a training that do not go with scenes, or without them."""

from collections.abc import Iterable

from cyclegan_fast.config.data_options import CROPPING, SCENE_OPTIONS, DataConfig
from cyclegan_fast.data.layouts import Place
from cyclegan_fast.data.scenes.finding import find_scenes_in
from cyclegan_fast.system.errors import UserError


def check_scene_options(config: DataConfig, *, is_of_scenes: bool) -> None:
    """Raise UserError where options say how crops of scenes are cut and there are none, or say it in two ways."""
    given = scene_flags(config)
    if not is_of_scenes and given:
        advice = "leave it out"
        if config.scenes == "auto":
            advice += ", or give --scenes yes where smaller TIFF files are to be taken for scenes"
        raise UserError(f"{given[0]} is for scenes, and neither training folder in {config.data} holds any: {advice}")
    if is_of_scenes and config.preprocess not in CROPPING:
        raise UserError(
            f"crops are cut out of the scenes in {config.data}, and --preprocess {config.preprocess} takes images as a "
            "whole: leave it out, or give --scenes no"
        )


def check_pairs_are_no_scenes(places: Iterable[Place], config: DataConfig) -> None:
    """Raise UserError where pairs to be trained on are scenes."""
    for place in places:
        if find_scenes_in(place, config) is not None:
            raise UserError(
                f"{place.folder} holds scenes, whose crops are no pairs: train with --method cyclegan, or cut pairs of "
                "images out of them (--scenes no decodes them as a whole)"
            )


def scene_flags(config: DataConfig) -> list[str]:
    """Return the flags that are given of those that are for scenes."""
    given = [name for name in SCENE_OPTIONS if getattr(config, name) != getattr(DataConfig, name)]
    return [f"--{name.replace('_', '-')}" for name in given if (name, config.scenes) != ("scenes", "no")]
