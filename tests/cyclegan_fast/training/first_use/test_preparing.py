"""Trainings say what they compile before their first step, once, and nothing where there is nothing to compile."""

import random

import pytest
import torch

from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.gpus import GPUS
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.training.first_use import launches, preparing, without_memory
from cyclegan_fast.training.first_use.launches import launched_by_training

WANTED = [
    Specialisation(90, f"module:kernel_{number}", (("x_ptr", "*bf16"),), (("BLOCK_CHANNELS", 8),), (), ())
    for number in range(3)
]


class Cache:
    """Stands in for Triton's cache on disk; what is in `refused` never gets there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: list[Specialisation]) -> None:
        self.there = list(there)
        self.refused: dict[Specialisation, str] = {}
        self.compiled: list[Specialisation] = []
        self.told: list[str] = []
        monkeypatch.setattr(preparing, "always_compiles", lambda: False)
        monkeypatch.setattr(preparing, "cache_folder", lambda: "CACHE")
        monkeypatch.setattr(preparing, "not_in_cache", lambda wanted: [w for w in wanted if w not in self.there])
        monkeypatch.setattr(preparing, "compile_in_workers", self.compile)

    def compile(self, wanted: list[Specialisation], processes: object, done: object) -> dict[Specialisation, str]:
        self.compiled += wanted
        self.there += [one for one in wanted if one not in self.refused]
        return {one: self.refused[one] for one in wanted if self.refused.get(one)}

    def fill(self) -> list[str]:
        preparing.fill_cache(WANTED, "a GPU", self.told.append)
        return self.told


def test_what_is_missing_is_compiled_after_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(monkeypatch, WANTED[:1])
    line = "compiling 2 kernels for a GPU, once: CACHE keeps them (`python -m kernels.prepare` does it ahead of time)"
    assert cache.fill() == [line]
    assert cache.compiled == WANTED[1:]
    assert cache.fill() == [line]  # all is there now, and nothing is said


@pytest.mark.parametrize("reason", ["PTXASError: no", ""])
def test_what_did_not_get_into_the_cache_is_said(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(monkeypatch, [])
    cache.refused = {WANTED[2]: reason}
    why = reason or "what was compiled is not what Triton looks for here"
    assert cache.fill()[1:] == [f"1 kernel not compiled ahead ({why}): each compiles at its first launch"]


def test_a_cache_that_triton_leaves_aside_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(monkeypatch, [])
    monkeypatch.setattr(preparing, "always_compiles", lambda: True)
    assert cache.fill() == []
    assert cache.compiled == []


def test_a_cpu_lists_and_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "wanted_by_training", pytest.fail)
    preparing.prepare_training(Config(), None, torch.device("cpu"), torch.float32, ALONE, pytest.fail)  # type: ignore[arg-type]  # no images are asked for


class Images:
    images_in_last_batch = 3


def prepare(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    monkeypatch.setattr(preparing, "_compiles_kernels", lambda config, device: True)
    preparing.prepare_training(Config(), Images(), torch.device("cpu"), torch.bfloat16, ALONE, told.append)  # type: ignore[arg-type]  # only their last batch is asked for


def test_a_training_has_the_kernels_of_its_last_batch_compiled_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, asked = Cache(monkeypatch, []), []

    def wanted(config: Config, gpu: object, dtype: torch.dtype, batches: list[int]) -> list[Specialisation]:
        asked.append((gpu, dtype, batches))
        return WANTED

    monkeypatch.setattr(preparing, "wanted_by_training", wanted)
    prepare(monkeypatch, cache.told)
    assert asked == [(GPUS[90], torch.bfloat16, sorted([Config().data.batch_size, 3], reverse=True))]
    assert cache.compiled == WANTED
    assert cache.told[0].startswith("compiling 3 kernels for NVIDIA H200, once: ")


def test_a_step_that_cannot_be_listed_is_said_and_trained_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(monkeypatch, [])

    def refuse(*_: object) -> None:
        raise NotImplementedError("no meta kernel\nand so on")

    monkeypatch.setattr(preparing, "wanted_by_training", refuse)
    prepare(monkeypatch, cache.told)
    assert cache.told == ["kernels are not compiled ahead (no meta kernel): each compiles at its first launch"]
    assert cache.compiled == []


@pytest.mark.parametrize("method", METHODS)
def test_steps_of_every_method_run_without_memory_and_leave_random_numbers_alone(method: str) -> None:
    networks = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="reference")
    config = of_method(Config(networks=networks, data=DataConfig(load_size=70, crop_size=64)), method)  # type: ignore[arg-type]  # the registry's names
    torch.manual_seed(0)
    random.seed(0)
    before = torch.get_rng_state(), random.getstate()
    seen = 0

    class Watch:
        def __enter__(self) -> None:
            nonlocal seen
            seen += 1

        def __exit__(self, *_: object) -> None: ...

    without_memory.run_step_without_memory(config, GPUS[90], torch.bfloat16, lambda step: Watch(), 2)
    assert seen == 2
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.mark.parametrize(
    "config",
    [
        Config(loss=LossConfig(gan_loss="wgan-gp"), optimizer=OptimizerConfig(ema=0.9)),
        Config(
            data=DataConfig(batch_size=4, channels_a=1, dtype_a="uint16", channels_b=6),
            optimizer=OptimizerConfig(accumulate=2),
        ),
        Config(networks=NetworkConfig(generator="resnet_6", norm="batch", dropout=True)),
        Config(networks=NetworkConfig(generator="resnet_6", checkpoint_blocks=True)),
    ],
)
def test_steps_of_many_settings_are_listed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpreter's kernels, which these tests have, do not know their variants.
    monkeypatch.setattr(launches, "recorded", lambda capability, kernel, arguments, options: kernel.fn.__name__)
    found = launched_by_training(config, GPUS[90], torch.bfloat16, config.data.batch_size)
    assert "reflection_pad_forward" in found
    assert any(str(name).startswith("instance_norm") for name in found) == (config.networks.norm == "instance")


def test_images_of_sizes_of_their_own_have_no_list() -> None:
    config = Config(data=DataConfig(preprocess="none"))
    assert launched_by_training(config, GPUS[90], torch.bfloat16, 1) == []
