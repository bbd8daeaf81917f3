"""Lists the options of the original implementation's train.py and test.py, and what takes their place here.

One list answers command lines in the original's spelling, makes the table of `docs/from-the-original.md`, and is what
the tests try.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cyclegan_fast.system.errors import UserError


@dataclass(frozen=True)
class Option:
    """Says what takes the place of one option of the original.

    Args:
        names: the option as the original spells it, then as its older versions did.
        value: the placeholder of its value, in capitals; "" for a switch.
        ours: our flag with {} for the value; "" where nothing takes the option's place.
        values: our flags for single values, where they are not `ours`.
        note: a clause on what to know.
        is_ours: whether our flag has the same name and takes all values but `values`, so that it needs no answer.
        behind: our flag to whose value this one is appended; "" for an option that stands by itself.
    """

    names: tuple[str, ...]
    value: str = ""
    ours: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    is_ours: bool = False
    behind: str = ""

    def here(self, value: str) -> str:
        """Return our flags for a value; "" where none takes its place."""
        return self.values.get(value, self.ours.format(shlex.quote(value)))


def _same(name: str, value: str = "", *older: str, note: str = "") -> Option:
    flag = f"--{name.replace('_', '-')}"
    return Option((name, *older), value, f"{flag} {{}}" if value else flag, note=note, is_ours=True)


_NO_VISDOM = "the gallery, index.html in the run's folder, takes visdom's place"
_KNOWN_FROM_FILE = "read from the file of weights"
_CHANNELS = "the files say it where no flag does; with `--direction BtoA` it is the other domain's"

TRAIN: tuple[Option, ...] = (
    Option(("dataroot",), "FOLDER", "--data {}"),
    _same("name", "NAME"),
    Option(("checkpoints_dir",), "FOLDER", "--runs {}"),
    Option(
        ("gpu_ids",),
        "IDS",
        values={"-1": "--device cpu", "0": "--device cuda:0", "1": "--device cuda:1"},
        note="several GPUs are trained on with torchrun, see [Several GPUs](several-gpus.md)",
    ),
    Option(
        ("model",),
        "MODEL",
        "--method {}",
        {"cycle_gan": "--method cyclegan", "colorization": "", "test": ""},
        "there is no colorization",
    ),
    Option(("input_nc",), "N", "--channels-a {}", note=_CHANNELS),
    Option(("output_nc",), "N", "--channels-b {}", note=_CHANNELS),
    _same("ngf", "N"),
    _same("ndf", "N"),
    Option(
        ("netD", "which_model_netD"),
        "NET",
        "--discriminator {}",
        {"basic": "--discriminator patch"},
    ),
    Option(
        ("netG", "which_model_netG"),
        "NET",
        "--generator {}",
        {"resnet_9blocks": "--generator resnet_9", "resnet_6blocks": "--generator resnet_6"},
    ),
    Option(("n_layers_D",), "N", "--n-layers {}", note="with `--discriminator n_layers`"),
    _same("norm", "NORM"),
    _same("init_type", "TYPE"),
    _same("init_gain", "GAIN"),
    _same("no_dropout"),
    Option(
        ("dataset_mode",),
        "MODE",
        note="the folders say it: trainA and trainB, or train with pairs side by side; `--method pix2pix` needs pairs",
    ),
    Option(
        ("direction", "which_direction"),
        "AtoB",
        note="every method trains both directions; `translate` takes `--direction a2b` or `b2a`",
    ),
    Option(("serial_batches",), "", "--serial"),
    Option(("num_threads", "nThreads"), "N", "--workers {}"),
    _same("batch_size", "N", "batchSize"),
    _same("load_size", "SIDE", "loadSize"),
    _same("crop_size", "SIDE", "fineSize"),
    Option(("max_dataset_size",), "N", "--max-images {}", note="of each domain, the first ones by name"),
    _same("preprocess", "MODE", "resize_or_crop"),
    _same("no_flip"),
    Option(("display_winsize",), "SIDE", note=_NO_VISDOM),
    Option(("display_freq",), "N", "--sample-every {}", note="counts steps, where the original counts images"),
    Option(("display_ncols",), "N", note=_NO_VISDOM),
    Option(("display_id",), "ID", note=_NO_VISDOM),
    Option(("display_server",), "URL", note=_NO_VISDOM),
    Option(("display_env",), "NAME", note=_NO_VISDOM),
    Option(("display_port",), "PORT", note=_NO_VISDOM),
    Option(("update_html_freq",), "N", "--sample-every {}", note="counts steps, where the original counts images"),
    Option(("no_html",), note="the gallery is always written"),
    Option(("print_freq",), "N", "--report-every {}", note="counts steps, where the original counts images"),
    Option(("save_latest_freq",), "N", "--checkpoint-every {}", note="counts steps, where the original counts images"),
    Option(
        ("save_epoch_freq",),
        "N",
        "--keep-every-epochs {}",
        note="`--checkpoint runs/NAME@EPOCH` takes what is kept; by default only the two newest are",
    ),
    Option(("save_by_iter",), note="`--keep-every-epochs` keeps checkpoints for good"),
    Option(
        ("continue_train",),
        note="the same command continues a run; `--init-from latest_net_G_A.pth` begins one with its networks",
    ),
    Option(("epoch_count",), "N", note="a run knows its epoch"),
    Option(
        ("epoch", "which_epoch"),
        "EPOCH",
        note="a run continues from its newest checkpoint; `--init-from runs/NAME@EPOCH` begins another with a kept one",
    ),
    Option(("load_iter",), "N", note="a run continues from its newest checkpoint"),
    Option(("phase",), "PHASE", note="the folders train* are trained on, and test* scored"),
    Option(("n_epochs", "niter"), "N", "--epochs {}"),
    Option(("n_epochs_decay", "niter_decay"), "N", "--decay-epochs {}"),
    _same("beta1", "X"),
    Option(("lr",), "X", "--learning-rate {}"),
    Option(
        ("gan_mode",),
        "MODE",
        "--gan-loss {}",
        {"wgangp": "--gan-loss wgan-gp --lambda-penalty 0"},
        "without `--lambda-penalty 0` wgan-gp has its gradient penalty",
    ),
    Option(("no_lsgan",), "", "--gan-loss vanilla"),
    _same("pool_size", "N"),
    Option(
        ("lr_policy",),
        "POLICY",
        "--learning-rate-policy {}",
        {"lambda": "--learning-rate-policy linear"},
        "plateau watches the generators' losses; the original's watches a 0",
    ),
    Option(("lr_decay_iters",), "N", "--step-epochs {}", note="with `--learning-rate-policy step`"),
    Option(("lambda_A",), "X", "--lambda-cycle-a {}", note="`--lambda-cycle` is both"),
    Option(("lambda_B",), "X", "--lambda-cycle-b {}", note="`--lambda-cycle` is both"),
    _same("lambda_identity", "X", "identity"),
    Option(("lambda_L1",), "X", "--lambda-paired {}", note="with `--method pix2pix`"),
    Option(("verbose",), note="the networks are described in [the contract](contract.md)"),
    Option(("suffix",), "SUFFIX", note="say it in `--name`"),
    Option(("use_wandb",), note="losses go to metrics.jsonl and TensorBoard"),
    Option(("wandb_project_name",), "NAME", note="losses go to metrics.jsonl and TensorBoard"),
)

TEST: tuple[Option, ...] = (
    Option(("dataroot",), "FOLDER", "{}", note="a folder, files, or a pattern"),
    Option(("name",), "NAME", "--checkpoint runs/{}", note="or a file of weights"),
    Option(("checkpoints_dir",), "FOLDER", note="part of `--checkpoint`"),
    Option(("model",), "MODEL", note=_KNOWN_FROM_FILE),
    Option(("model_suffix",), "SUFFIX", note="give the file itself: `--checkpoint latest_net_G_A.pth`"),
    Option(("results_dir",), "FOLDER", "--out {}"),
    Option(
        ("direction", "which_direction"),
        "AtoB",
        "--direction {}",
        {"AtoB": "--direction a2b", "BtoA": "--direction b2a"},
        is_ours=True,
    ),
    Option(("gpu_ids",), "IDS", values={"-1": "--device cpu", "0": "--device cuda:0"}, note="one device translates"),
    Option(
        ("preprocess", "resize_or_crop"),
        "MODE",
        note="every image keeps its own size, or becomes a square with `--size`",
    ),
    Option(("load_size", "loadSize"), "SIDE", "--size {}"),
    Option(("crop_size", "fineSize"), "SIDE", note="images are not cropped"),
    _same("batch_size", "N", "batchSize"),
    Option(("eval",), "", "--running-statistics", note="for generators with batch norm; dropout is always off"),
    Option(
        ("epoch", "which_epoch"),
        "EPOCH",
        "@{}",
        {"latest": ""},
        "behind the run, `--checkpoint runs/NAME@EPOCH`; the newest is taken by default",
        behind="--checkpoint",
    ),
    Option(("load_iter",), "N", note="epochs are kept, see `--epoch`"),
    Option(("num_test", "how_many", "ntest"), "N", note="all images that are given are translated"),
    Option(("aspect_ratio",), "X", note="the sides of a translation are those of its image"),
    *(
        Option(names, value, note=_KNOWN_FROM_FILE)
        for names, value in (
            (("netG", "which_model_netG"), "NET"),
            (("ngf",), "N"),
            (("norm",), "NORM"),
            (("no_dropout",), ""),
            (("input_nc",), "N"),
            (("output_nc",), "N"),
        )
    ),
    *(
        Option(names, value, note="of no effect on a translation")
        for names, value in (
            (("dataset_mode",), "MODE"),
            (("no_flip",), ""),
            (("serial_batches",), ""),
            (("num_threads", "nThreads"), "N"),
            (("max_dataset_size",), "N"),
            (("phase",), "PHASE"),
            (("display_winsize",), "SIDE"),
            (("verbose",), ""),
            (("suffix",), "SUFFIX"),
        )
    ),
)


def refuse_original_options(arguments: Sequence[str], options: Iterable[Option], program: str) -> None:
    """Raise UserError where a command line is in the original's spelling, with the flags and the command in ours.

    Args:
        program: how the command is called here.
    """
    by_name = {name: option for option in options for name in option.names}
    answers, translated = [], []
    behind: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag, has_value, value = argument.partition("=")
        option = by_name.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        if option is None:
            translated.append(shlex.quote(argument))
            continue
        given = [argument]
        if option.value and not has_value and waiting:
            value = waiting.pop(0)
            given.append(value)
        is_ours = option.is_ours and flag.removeprefix("--").replace("-", "_") == option.names[0]
        if is_ours and value not in option.values:
            translated.extend(map(shlex.quote, given))
            continue
        here = option.here(value)
        if option.behind:
            behind[option.behind] = here
        else:
            translated.extend([here] if here else [])
        note = re.sub(r"\[(.*?)\]\((.*?)\)", r"\1 in docs/\2", option.note)  # a link there
        if here:
            answers.append(f"{' '.join(given)} is {here}{f' ({note})' if note else ''}")
        else:
            answers.append(f"{flag} is not needed: {note}")
    translated = [words + behind.get(words.partition(" ")[0], "") if " " in words else words for words in translated]
    if answers:
        raise UserError(
            f"options of the original implementation: {'; '.join(answers)}. "
            f"Here the command is: {' '.join([program, *translated])}"
        )


def markdown(options: Iterable[Option]) -> str:
    """Return the table of docs/from-the-original.md."""
    lines = ["| the original | here | |", "| --- | --- | --- |"]
    for option in options:
        name, *older = option.names
        theirs = " ".join(filter(None, (f"--{name}", option.value)))
        ours = [f"`{option.ours.format(option.value)}`"] if option.ours else []
        ours += [f"`{value}`: `{flags}`" for value, flags in option.values.items() if flags]
        cells = f"`{theirs}`" + "".join(f", `--{other}`" for other in older), "; ".join(ours) or "-", option.note
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)
