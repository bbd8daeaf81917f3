"""Defines settings by name: presets of sizes, the paper's applications as tasks, and what each method changes."""

from dataclasses import replace
from typing import Literal

from cyclegan_fast.config.options import (
    WEIGHTS_OF,
    Config,
    DataConfig,
    GanLoss,
    GeneratorName,
    LossConfig,
    MethodName,
    NetworkConfig,
    OptimizerConfig,
    Preprocess,
    RunConfig,
)

Preset = Literal["demo", "earth", "paper128", "paper256"]
Task = Literal[
    "style-transfer", "object-transfiguration", "season-transfer", "photo-from-painting", "photo-enhancement"
]
PRESETS: dict[Preset, Config] = {
    "demo": Config(
        data=DataConfig(load_size=72, crop_size=64),
        networks=NetworkConfig(generator="resnet_6", ngf=32, ndf=32),
        optimizer=OptimizerConfig(learning_rate=5e-4, epochs=1, decay_epochs=2, ema=0.995),
        run=RunConfig(report_every=25, sample_every=250, checkpoint_every=250),
    ),
    # Discriminators without a norm see colours, which keeps seas blue; an identity loss as heavy as the cycle's keeps
    # land and sea from being exchanged. A map is lit from the north-west: mirrored, its mountains would be valleys.
    "earth": Config(
        data=DataConfig(load_size=72, crop_size=64, flip=False),
        networks=NetworkConfig(
            generator="resnet_6",
            ngf=32,
            ndf=64,
            discriminator="n_layers",
            n_layers=2,
            discriminator_norm="none",
            upsampling="resize",
        ),
        loss=LossConfig(lambda_identity=1.0),
        optimizer=OptimizerConfig(learning_rate=3e-4, epochs=2, decay_epochs=2, ema=0.995),
        run=RunConfig(report_every=25, sample_every=200, checkpoint_every=200),
    ),
    "paper128": Config(data=DataConfig(load_size=143, crop_size=128), networks=NetworkConfig(generator="resnet_6")),
    "paper256": Config(),
}


def _task(*, identity: float, preprocess: Preprocess = "resize_and_crop", load_size: int = 286) -> Config:
    return Config(
        data=DataConfig(preprocess=preprocess, load_size=load_size), loss=LossConfig(lambda_identity=identity)
    )


TASKS: dict[Task, Config] = {
    "style-transfer": _task(identity=0.0),
    "object-transfiguration": _task(identity=0.0),
    "season-transfer": _task(identity=0.0),
    "photo-from-painting": _task(identity=0.5, preprocess="crop"),
    "photo-enhancement": _task(identity=0.5, load_size=360),
}
"""The applications of Zhu et al. 2017, section 5.2, with the settings of their appendix 7.1.

All train 9 blocks on 256x256 for 100 epochs and 100 more of decay, with a cycle weight of 10. Paintings and photographs
are cropped from the originals at random and have an identity loss of half the cycle weight; so have flower photographs,
which are scaled to 360x360; the others have none. (The generators that the authors published were trained later, with
an identity loss of 0.5 throughout: --lambda-identity 0.5.)
"""


def of_method(start: Config, method: MethodName) -> Config:
    """Return the configuration `start` with what a method of the paper's comparison minimises.

    A baseline has no weights of CycleGAN; pix2pix has no history of generated images (Isola et al. 2017).
    """
    if method == start.loss.method:
        return start
    defaults = LossConfig()
    own = {name: getattr(defaults, name) for name in (*WEIGHTS_OF, "cycle_from", "feature_network")}
    pool_size = start.loss.pool_size
    if "pix2pix" in (method, start.loss.method):
        pool_size = 0 if method == "pix2pix" else defaults.pool_size
    return replace(start, loss=replace(start.loss, method=method, pool_size=pool_size, **own))


def as_published(start: Config, method: MethodName, generator: GeneratorName | None = None) -> Config:
    """Return `of_method`'s configuration with the networks and the adversarial loss of the method's authors.

    pix2pix has a U-Net, of 256x256 or of 128x128 as the crop allows, with dropout, batch norm in generators and
    discriminators, and the cross entropy (Isola et al. 2017, section 3.3, and the authors' code). `generator` is the
    one that the user asked for, which has dropout and batch norm then.
    """
    config = of_method(start, method)
    if method == start.loss.method or "pix2pix" not in (method, start.loss.method):
        return config
    gan_loss: GanLoss = "vanilla" if method == "pix2pix" else LossConfig.gan_loss
    config = replace(config, loss=replace(config.loss, gan_loss=gan_loss))
    fitting: dict[int, GeneratorName] = {256: "unet_256", 128: "unet_128"}
    own = generator or next((name for side, name in fitting.items() if config.data.crop_size % side == 0), None)
    if method != "pix2pix":
        return config
    networks = replace(config.networks, norm="batch", dropout=True, checkpoint_blocks=False)
    return replace(config, networks=replace(networks, generator=own or networks.generator))
