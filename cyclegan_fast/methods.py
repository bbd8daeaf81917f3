"""All methods by the names that the command line has for them."""

from cyclegan_fast.baselines.bigan import BiGan
from cyclegan_fast.baselines.cogan import CoGan
from cyclegan_fast.baselines.feature_loss import FeatureLoss
from cyclegan_fast.baselines.pix2pix import Pix2Pix
from cyclegan_fast.baselines.simgan import SimGan
from cyclegan_fast.config import Config, MethodName
from cyclegan_fast.cyclegan import CycleGan
from cyclegan_fast.method import Method

METHODS: dict[MethodName, type[Method]] = {
    "cyclegan": CycleGan,
    "simgan": SimGan,
    "feature-loss": FeatureLoss,
    "bigan": BiGan,
    "cogan": CoGan,
    "pix2pix": Pix2Pix,
}


def method_of(config: Config) -> Method:
    return METHODS[config.loss.method](config)
