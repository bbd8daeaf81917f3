"""Registers every method under its name on the command line, which `config.options.MethodName` lists as well."""

from cyclegan_fast.config.options import Config, MethodName
from cyclegan_fast.methods.base import Method
from cyclegan_fast.methods.bigan import BiGan
from cyclegan_fast.methods.cogan import CoGan
from cyclegan_fast.methods.cyclegan import CycleGan
from cyclegan_fast.methods.feature_loss.objective import FeatureLoss
from cyclegan_fast.methods.pix2pix import Pix2Pix
from cyclegan_fast.methods.simgan import SimGan

METHODS: dict[MethodName, type[Method]] = {
    "cyclegan": CycleGan,
    "simgan": SimGan,
    "feature-loss": FeatureLoss,
    "bigan": BiGan,
    "cogan": CoGan,
    "pix2pix": Pix2Pix,
}


def method_of(config: Config) -> Method:
    """Make the method that a configuration names."""
    return METHODS[config.loss.method](config)
