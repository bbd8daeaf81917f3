"""Trainings that cannot fit in memory are refused by what they take at the least, before anything is allocated."""

import resource
from dataclasses import replace
from typing import get_args

import pytest
import torch

from cyclegan_fast.config.options import Config, DataConfig, MethodName, NetworkConfig
from cyclegan_fast.config.presets import PRESETS, of_method
from cyclegan_fast.methods import least_memory
from cyclegan_fast.methods.least_memory import check_memory, least_bytes_of_networks
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import installed_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_weight_and_its_two_moments_are_counted(method: MethodName) -> None:
    config = of_method(PRESETS["demo"], method)
    config = replace(config, networks=replace(config.networks, ngf=4, ndf=5))
    model = Model(replace(config, optimizer=replace(config.optimizer, ema=0.0)))
    moments = torch.optim.Adam(model.parameters())
    model.zero_grad()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    moments.step()
    states = [value for state in moments.state.values() for name, value in state.items() if name != "step"]
    held = sum(value.nbytes for value in [*model.parameters(), *states])
    assert least_bytes_of_networks(config) == held


def test_networks_and_images_that_cannot_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_memory, "installed_bytes", lambda: 4 << 30)
    check_memory(Config(), CPU)
    check_memory(Config(networks=NetworkConfig(ngf=128)), CPU)
    with pytest.raises(UserError, match=r"^the memory does not suffice: the networks alone take \d+\.\d GiB, and "):
        check_memory(Config(networks=NetworkConfig(ngf=1024)), CPU)
    check_memory(Config(data=DataConfig(load_size=26000)), CPU)
    with pytest.raises(
        UserError, match=r"two images alone take 4\.2 GiB, and there are 4\.0; give a lower --load-size"
    ):
        check_memory(Config(data=DataConfig(load_size=27500)), CPU)
    check_memory(Config(data=DataConfig(load_size=27500, preprocess="crop")), CPU)
    check_memory(Config(data=DataConfig(load_size=27500, channels_a=1, channels_b=1, dtype_a="uint16")), CPU)
    with pytest.raises(UserError, match=r"two images alone take 4\.2 GiB"):
        check_memory(Config(data=DataConfig(load_size=27500, channels_a=1, dtype_a="uint16", channels_b=4)), CPU)


def test_the_limit_of_a_process_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_bytes() > 1 << 28
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 28, resource.RLIM_INFINITY))
    assert installed_bytes() == 1 << 28
