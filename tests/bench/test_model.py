"""Tables of the model of a step add up, stand beside what was measured, and are refused in the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure.limits import Limits
from bench.measure.records import RecordedRun
from bench.model import main
from bench.modelling.assumptions import GPU_FACTS
from bench.modelling.cost import costs
from bench.modelling.measured import against_measurements
from bench.modelling.nodes import StepNode, StorageRange
from bench.modelling.table import StepModel, group_of
from bench.reporting.device_results import Device
from cyclegan_fast.kernels.triton_language import INTERPRETED
from tests.bench.result_samples import comparison, stamp

ROOT = Path(__file__).parents[2]


def small_model(streams: int = 1) -> StepModel:
    regions = [StorageRange(storage, 0, 1 << 30, 1 << 30) for storage in range(3)]
    nodes = [
        StepNode("fill_", "copy", "", "", "forward", "pool", (), (regions[0],)),
        StepNode(
            "mul",
            "elementwise",
            "G_A",
            "head",
            "forward",
            "G forward",
            (regions[0],),
            (regions[1],),
            0,
            None,
            None,
            (0,),
            waits_for=(0,),
        ),
        StepNode(
            "_fused_adam_",
            "update",
            "",
            "",
            "update",
            "D update",
            (regions[1],),
            (regions[2],),
            0,
            None,
            None,
            (1,),
            waits_for=(1,),
        ),
    ]
    facts = GPU_FACTS["h200"]
    return StepModel(facts, 1, 256, streams, nodes, costs(nodes, facts, {}))


def test_the_table_adds_up() -> None:
    model = small_model()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in model.table().splitlines()[2:]}
    assert rows["elementwise, copies"][0] == "2"
    assert rows["Adam"][0] == "1"
    assert rows["**step**"][0] == str(len(model.nodes))
    parts_ms = [float(cells[-1].strip(" |")) for what, cells in rows.items() if what[0] not in "*fl"]
    assert sum(parts_ms) == pytest.approx(model.step_us / 1e3, rel=0.02)
    assert model.step_us > 1000
    assert len(model.node_lines()) == len(model.rows()) == 3
    assert json.loads(json.dumps(model.rows()))[1]["depends_on"] == [0]


def test_two_streams_are_named_and_never_slower() -> None:
    assert "step, 2 streams" in small_model(2).table()
    assert small_model(2).step_us <= small_model().step_us + 1e-6


def test_a_prediction_stands_beside_what_was_measured_on_that_gpu() -> None:
    model = small_model()
    nothing = "No step of this size on 1 stream has been measured on NVIDIA H200: nothing to compare with."
    assert against_measurements(model, []) == nothing
    step_ms = model.step_us / 1e3
    times_ms = {
        "plain": 10 * step_ms,
        "ours --amp": 2 * step_ms,  # on the two streams that "auto" chose
        "ours --amp --streams 1": 4 * step_ms,
        "ours --amp --compile": step_ms,
    }
    measured = comparison(times_ms, ours="ours --amp", subject="step", batch=1, side=256)
    other_size = comparison(times_ms, ours="ours --amp", subject="step", batch=16, side=256)
    run = RecordedRun(stamp(), Limits(4300.0, {"bfloat16": 790.0}), [measured, other_size])
    device = Device("NVIDIA H200", [(run, measured), (run, other_size)])
    line = against_measurements(model, [device])
    assert line == f"Measured on NVIDIA H200: ours --amp --streams 1 {4 * step_ms:.2f} ms, 4.00 times the prediction."
    two = small_model(streams=2)
    assert against_measurements(two, [device]).startswith(f"Measured on NVIDIA H200: ours --amp {2 * step_ms:.2f} ms, ")
    # Another GPU whose name begins alike, and a run in which it is not known on how many streams ours was.
    assert against_measurements(model, [Device("NVIDIA H200 NVL", device.entries)]) == nothing
    unknown = comparison({"plain": 1.0, "ours --amp": 1.0}, ours="ours --amp", subject="step", batch=1, side=256)
    assert against_measurements(model, [Device("NVIDIA H200", [(run, unknown)])]) == nothing


def test_groups_tell_networks_and_layers_apart() -> None:
    def convolution(network: str, layer: str) -> str:
        return group_of(StepNode("convolution", "convolution", network, layer, "forward", "", (), ()))

    assert convolution("G_B", "blocks.3.conv1") == "block convolutions"
    assert convolution("G_B", "up.0") == "stem, head, down, up"
    assert convolution("D_A", "layers.2") == "discriminators' convolutions"


@pytest.mark.skipif(not INTERPRETED, reason="outside of the interpreter the command would run")
def test_the_command_explains_itself_and_refuses_the_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith("usage: python -m bench.model")
    assert main([]) == 2
    assert "TRITON_INTERPRET" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_predicts_a_step(tmp_path: Path) -> None:
    """Compiles every variant of a small step for an H200."""
    file = tmp_path / "nodes.json"
    command = [sys.executable, "-m", "bench.model", "--side", "64", "--nodes", "--json", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    nodes = json.loads(file.read_text())
    assert f"| {len(nodes)} |" in finished.stdout
    assert all(node["us"] > 0 and node["resident"] > 0 for node in nodes)
