"""Training steps on an NVIDIA GPU: replayed against eager, and what they may not wait for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cyclegan_fast.config.options import (
    Config,
    CudaGraph,
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from cyclegan_fast.system.device import set_determinism
from cyclegan_fast.training.cuda_graph import WARM_UP
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.update.choice import streams_of
from tests.cyclegan_fast.training.test_cuda_graph import SIDE, batch, state_of, step_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here"),
]

DEVICE = torch.device("cuda")
CONFIG = Config(
    data=DataConfig(load_size=SIDE + 6, crop_size=SIDE, batch_size=4),
    networks=NetworkConfig(generator="resnet_6", ngf=16, ndf=16),
    loss=LossConfig(pool_size=3),
    optimizer=OptimizerConfig(ema=0.5),
    run=RunConfig(cuda_graph="on"),
)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_determinism(True)
    yield
    set_determinism(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", ["as it is", "two streams eagerly", "two parts, blocks computed again", "paired"])
def test_replayed_steps_have_the_bits_of_eager_ones(dtype: torch.dtype, change: str) -> None:
    """Holds a graph, whose directions run on two streams, against steps on one stream, or on two."""
    config, eagerly = CONFIG, RunConfig(cuda_graph="off", streams="2" if change == "two streams eagerly" else "1")
    assert streams_of(config, DEVICE) == 2
    if change == "two parts, blocks computed again":
        config = replace(
            config,
            networks=replace(config.networks, checkpoint_blocks=True),
            optimizer=replace(config.optimizer, accumulate=2),
        )
    if change == "paired":
        config, eagerly = replace(config, run=replace(config.run, paired=True)), replace(eagerly, paired=True)
    plain, recorded = step_of(replace(config, run=eagerly), dtype, DEVICE), step_of(config, dtype, DEVICE)
    eager = TrainingEngine(plain, replace(config, run=eagerly), print)
    graphed = TrainingEngine(recorded, config, pytest.fail)
    for number in range(4 * WARM_UP + 4):
        for step in (plain, recorded):
            step.set_learning_rate(2e-4 / (1 + number))
        images = batch(2 if number % 3 == 2 else 4, number)  # both shapes are recorded, in one pool of memory
        expected, found = eager(images), graphed(images)
        for name, loss in found.items():
            assert torch.equal(loss, expected[name]), (number, name)
    assert graphed._graphed is not None
    assert len(graphed._graphed.recordings) == 2
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)


@pytest.mark.parametrize("cuda_graph", ["on", "off"])
def test_between_reports_no_step_waits_for_the_device(
    cuda_graph: CudaGraph, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for library in ("tensorboard", "tqdm"):  # python -m bench.gpu runs where neither is installed
        pytest.importorskip(library)
    from cyclegan_fast.training.log import RunLog

    config = replace(CONFIG, run=RunConfig(cuda_graph=cuda_graph))
    engine = TrainingEngine(step_of(config, torch.bfloat16, DEVICE), config, pytest.fail)
    log = RunLog(tmp_path, 100, None)
    for number in range(WARM_UP + 2):
        log.add(engine(batch(4, number)))
    batches = [batch(4, number) for number in range(10)]
    request.addfinalizer(lambda: torch.cuda.set_sync_debug_mode("default"))
    torch.cuda.set_sync_debug_mode("error")
    for images in batches:
        log.add(engine(images))
    torch.cuda.set_sync_debug_mode("default")
    log.close()


def test_an_adam_that_was_saved_on_the_cpu_continues_on_the_gpu() -> None:
    config = replace(CONFIG, run=RunConfig(cuda_graph="off"))
    on_cpu = step_of(config, torch.float32)
    engine = TrainingEngine(on_cpu, config, print)
    for number in range(2):
        engine(batch(4, number))
    continued = step_of(config, torch.float32, DEVICE)
    continued.model.load_state_dict(on_cpu.model.state_dict())
    continued.load_state_dict(on_cpu.state_dict())
    continued.load_rank_state_dict(on_cpu.rank_state_dict())
    expected, found = engine(batch(4, 2)), TrainingEngine(continued, config, print)(batch(4, 2))
    for name, loss in found.items():
        assert float(loss) == pytest.approx(float(expected[name]), rel=2e-3), name  # convolutions in TF32
    for name, weight in continued.model.named_parameters():
        moved = on_cpu.model.get_parameter(name)
        torch.testing.assert_close(weight.cpu(), moved, rtol=0, atol=5e-4, msg=name)  # Adam moves by 2e-4 a step
