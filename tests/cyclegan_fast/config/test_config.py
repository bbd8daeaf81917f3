"""Configurations are read from presets, files and command lines, and wrong ones are refused with a sentence."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from cyclegan_fast.config.command import parse_training
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.config.presets import PRESETS
from cyclegan_fast.config.values import differences, from_dict, load_config, save_config, to_dict
from cyclegan_fast.system.errors import UserError


def test_the_paper_presets_are_the_papers_settings() -> None:
    paper = PRESETS["paper256"]
    assert (paper.data.load_size, paper.data.crop_size, paper.data.batch_size) == (286, 256, 1)
    assert (paper.networks.blocks, paper.networks.ngf, paper.networks.ndf) == (9, 64, 64)
    assert (paper.loss.lambda_cycle, paper.loss.lambda_identity, paper.loss.pool_size) == (10, 0.5, 50)
    assert paper.optimizer == OptimizerConfig(learning_rate=2e-4, beta1=0.5, epochs=100, decay_epochs=100, ema=0)
    assert PRESETS["paper128"].networks.blocks == 6
    assert PRESETS["paper128"].data.crop_size == 128


def test_the_preset_follows_the_data() -> None:
    assert parse_training([]) == (PRESETS["demo"], "demo")
    config, origin = parse_training(["--data", "x"])
    assert (config.data.data, config.data.crop_size, origin) == (Path("x"), 256, "paper256")
    assert parse_training(["--data", "x", "--preset", "demo"])[0].data.crop_size == 64


def test_the_earth_has_a_preset_unless_a_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, origin = parse_training(["--data", "earth"])
    assert config == replace(PRESETS["earth"], data=replace(PRESETS["earth"].data, data=Path("earth")))
    assert origin == "earth"
    (tmp_path / "earth").mkdir()
    assert parse_training(["--data", "earth"])[1] == "paper256"


def test_discriminators_have_the_generators_norm_unless_another_is_given() -> None:
    assert NetworkConfig(norm="batch").norm_of_discriminators == "batch"
    assert NetworkConfig(norm="batch", discriminator_norm="none").norm_of_discriminators == "none"
    with pytest.raises(ValueError, match="discriminator_norm must be one of instance, batch, none, got 'layer'"):
        NetworkConfig(discriminator_norm="layer")  # type: ignore[arg-type]
    before = to_dict(Config())
    del before["networks"]["discriminator_norm"]  # a file that is older than the option
    assert from_dict(before, "here") == Config()
    batch = NetworkConfig(discriminator_norm="batch")
    with pytest.raises(ValueError, match="accumulate computes a batch in parts"):
        Config(data=DataConfig(batch_size=2), networks=batch, optimizer=OptimizerConfig(accumulate=2))
    with pytest.raises(ValueError, match="batch norm mixes them"):
        Config(networks=batch, loss=LossConfig(gan_loss="wgan-gp"))


def test_a_flag_replaces_a_value_of_the_preset() -> None:
    config, _ = parse_training(["--preset", "paper128", "--generator", "resnet_9", "--amp", "--amp-dtype", "bfloat16"])
    assert config == replace(
        PRESETS["paper128"],
        networks=NetworkConfig(generator="resnet_9"),
        run=RunConfig(amp=True, amp_dtype="bfloat16"),
    )


def test_every_field_is_a_flag_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_training(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for section in fields(Config):
        for field in fields(type(getattr(Config(), section.name))):
            assert f"--{field.name.replace('_', '-')}" in text, field.name


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_saved_configuration_reads_back_as_it_was(preset: Config, tmp_path: Path) -> None:
    changed = replace(
        preset, data=replace(preset.data, data=Path("some/where"), cache_gib=2), run=replace(preset.run, max_steps=7)
    )
    save_config(changed, tmp_path / "run.yaml")
    assert load_config(tmp_path / "run.yaml") == changed
    assert parse_training(["--config", str(tmp_path / "run.yaml")])[0] == changed
    assert from_dict(to_dict(changed), "here") == changed


def test_part_of_a_configuration_is_enough(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("loss:\n  pool_size: 3\noptimizer: {learning_rate: 1}\n")
    config, origin = parse_training(["--config", str(tmp_path / "run.yaml"), "--seed", "5"])
    assert config == Config(
        loss=LossConfig(pool_size=3), optimizer=OptimizerConfig(learning_rate=1.0), run=RunConfig(seed=5)
    )
    assert origin == "run"
    (tmp_path / "run.yaml").write_text("run: {streams: 2}\n")
    assert parse_training(["--config", str(tmp_path / "run.yaml")])[0].run.streams == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {pool: 3}", "unknown pool; known are .*pool_size"),
        ("loss: {pool_size: many}", "pool_size must be a whole number from 0 to 10\\^6, got 'many'"),
        ("loss: {pool_size: true}", "pool_size must be a whole number from 0 to 10\\^6, got True"),
        ("loss: {pool_size: -1}", "pool_size must be a whole number from 0 to 10\\^6, got -1"),
        ("loss: 3", "LossConfig must be a mapping"),
        ("networks: {generator: unet}", "generator must be one of resnet_9, .*, got 'unet'"),
        (": : :", r"not a readable YAML file: .* in line 1, column \d"),
        ("run:\n  seed: [1, 2\n", "not a readable YAML file: expected ',' or ']', .* in line 3, column 1"),
        ("run: {seed: " + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ("run: {name: 2026-13-45}", "not a readable YAML file: month must be in 1..12"),
        ("{a: " * 900 + "1" + "}" * 900, "its values are nested too deep"),
        ("run: &a {name: *a}", "name must be text, got {'name': "),
        ('run: {runs: "a\\0b"}', "runs is no text: it has a null character"),
        ("data: {cache_dir: 7}", "cache_dir must be the path of a file or folder, got 7"),
        ("!!python/object/apply:os.system ['true']", "not a readable YAML file"),
    ],
)
def test_a_bad_configuration_file_is_named_with_its_fault(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"run\.yaml.*{message}") as refused:
        load_config(tmp_path / "run.yaml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (DataConfig, {"crop_size": 62}, "crop_size must be a multiple of 4 from 24 to 65536, got 62"),
        (DataConfig, {"load_size": 200}, r"load_size must be at least crop_size \(256\), got 200"),
        (DataConfig, {"preprocess": "none", "batch_size": 2}, "needs batch_size 1, got 2"),
        (DataConfig, {"preprocess": "squash"}, "preprocess must be one of"),
        (DataConfig, {"workers": -1}, "workers must be a whole number from 0 to 256, got -1"),
        (NetworkConfig, {"upsampling": "bilinear"}, "upsampling must be one of transposed, resize"),
        (NetworkConfig, {"generator": "unet_256", "upsampling": "resize"}, "resize is of ResNet generators"),
        (NetworkConfig, {"ngf": 0}, "ngf must be a whole number from 1 to 1024, got 0"),
        (LossConfig, {"lambda_cycle": 0.0}, "with lambda_cycle 0 it must be 0 too"),
        (LossConfig, {"gan_loss": "wgan"}, "gan_loss must be one of"),
        (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate must be a number above 0 and at most 1000, got 0.0"),
        (OptimizerConfig, {"ema": 1.0}, "ema must be a number at least 0 and below 1, got 1.0"),
        (OptimizerConfig, {"accumulate": 0}, "accumulate must be a whole number from 1 to 65536, got 0"),
        (OptimizerConfig, {"epochs": 0, "decay_epochs": 0}, "must not both be 0"),
        (RunConfig, {"amp_dtype": "float16"}, "no effect without --amp"),
        (RunConfig, {"name": "../up"}, "name must be a plain folder name"),
        (
            RunConfig,
            {"bands_a": (1, 2, 3, 4)},
            "pictures of A: bands are up to 3 channels, counted from 1, got 1 2 3 4",
        ),
        (RunConfig, {"window_b": (5.0, 5.0)}, "pictures of B: window goes from a low to a high value, got 5 5"),
        (RunConfig, {"bands_b": (1, 2), "colours_b": "hot"}, "pictures of B: colours hot is of a single band"),
        (RunConfig, {"max_steps": 0}, "max_steps must be a whole number from 1 to 10\\^10, got 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(section: type, values: dict[str, object], message: str) -> None:
    assert is_dataclass(section)
    with pytest.raises(ValueError, match=message):
        section(**values)


def test_contradictory_flags_are_refused() -> None:
    with pytest.raises(UserError, match="gan_loss wgan-gp"):
        parse_training(["--data", "x", "--gan-loss", "wgan-gp", "--preprocess", "none"])
    with pytest.raises(UserError, match=r"batch_size must be a multiple of accumulate \(2\), got 3"):
        parse_training(["--data", "x", "--batch-size", "3", "--accumulate", "2"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method simgan", "method simgan has others than CycleGAN's: use method cyclegan"),
        ("--cycle-from A", "cycle_from A leaves one without a cycle: use both"),
        ("--lambda-cycle-a 5", "lambda_cycle_a and lambda_cycle_b weigh them differently: give lambda_cycle for both"),
        ("--gan-loss wgan-gp", "the gradient penalty of wgan-gp is that of one discriminator: use another gan_loss"),
        ("--generator unet_256", "generator unet_256 is none of those that can be: use resnet_9 or resnet_6"),
        ("--discriminator-norm batch", "batch norm has statistics of each: use norm instance or none"),
        ("--dropout", "dropout would draw other numbers: leave it out"),
        ("--preprocess scale_width", "preprocess scale_width gives them images of different sizes: use one of"),
    ],
)
def test_what_does_not_go_with_paired_is_named(flags: str, message: str) -> None:
    given = ["--data", "x", *flags.split()]
    parse_training(given)
    with pytest.raises(UserError, match=f"paired computes both directions alike, as one, and {message}"):
        parse_training([*given, "--paired"])


def test_paired_goes_with_the_same_weights_given_apart() -> None:
    weights = ["--lambda-cycle-a", "5", "--lambda-cycle-b", "5"]
    parse_training(["--data", "x", "--paired", *weights, "--gan-loss", "wgan-gp", "--lambda-penalty", "0"])


def test_differences_name_what_changed() -> None:
    other = replace(Config(), loss=LossConfig(pool_size=3))
    assert differences(Config(), other) == ["pool_size: 50 -> 3"]
