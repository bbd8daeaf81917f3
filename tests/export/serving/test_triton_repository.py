"""Repositories for Triton: read by Triton's own schema, and held against the files that they serve.

No server ran: none could be had. What a server does with a repository is what its schema and documentation say.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from onnx import ModelProto

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.system.errors import UserError
from export.engines.engine_card import EngineCard, Profile
from export.graphs.graph import serialised
from export.graphs.onnx_file import with_digest
from export.graphs.pixel_io import with_pixel_io
from export.pixel_ends import RGB_ENDS, PixelEnds
from export.serving.triton_repository import (
    TritonModel,
    TritonOptions,
    main,
    triton_config,
    write_triton_repository,
)
from tests.export.fake_machine import Machine

SLIDES = PixelEnds(PixelType(4, "uint16", 0, 4095), PixelType(1, "uint8"))


def parsed(text: str) -> Any:
    """Return a configuration as Triton's schema reads it, which refuses fields that it does not know."""
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    text_format.Parse(text, config)
    return config


def type_name(value: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(value))


@pytest.fixture
def files(tmp_path: Path, graph: ModelProto) -> list[Path]:
    """Writes both directions of a run, with pixels in and out, and a file that takes numbers."""
    found = []
    for name, model in (("x-a2b-uint8", with_pixel_io(graph)), ("x-b2a-uint8", with_pixel_io(graph)), ("x-a2b", graph)):
        found.append(tmp_path / f"{name}.onnx")
        found[-1].write_bytes(with_digest(serialised(model)))
    return found


def test_every_field_is_what_was_asked_for() -> None:
    options = TritonOptions(batch_size=6, batch_wait_ms=1.5, timeout_ms=500, instances=2, kind="cpu", warm_up_size=64)
    config = parsed(triton_config(TritonModel("x", SLIDES, True), options))
    assert (config.name, config.backend, config.max_batch_size) == ("x", "onnxruntime", 6)
    (taken,), (given,) = config.input, config.output
    assert (taken.name, type_name(taken.data_type), list(taken.dims)) == ("image", "TYPE_FP32", [-1, -1, 4])
    assert (given.name, type_name(given.data_type), list(given.dims)) == ("translated", "TYPE_UINT8", [-1, -1, 1])
    (group,) = config.instance_group
    assert (group.Kind.Name(group.kind), group.count) == ("KIND_CPU", 2)
    assert config.version_policy.latest.num_versions == 1
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    policy = config.dynamic_batching.default_queue_policy
    assert (policy.TimeoutAction.Name(policy.timeout_action), policy.default_timeout_microseconds) == (
        "REJECT",
        500_000,
    )
    assert policy.max_queue_size == 256
    assert [warm.batch_size for warm in config.model_warmup] == [1, 6]
    for warm in config.model_warmup:
        assert {*warm.inputs} == {"image"}
        image = warm.inputs["image"]
        assert (type_name(image.data_type), list(image.dims), image.zero_data) == ("TYPE_FP32", [64, 64, 4], True)
    assert not config.HasField("ensemble_scheduling"), "the files convert pixels themselves"


def test_a_graph_of_numbers_says_so() -> None:
    config = parsed(triton_config(TritonModel("x", RGB_ENDS, False), TritonOptions(batch_size=1)))
    assert (type_name(config.input[0].data_type), list(config.input[0].dims)) == ("TYPE_FP32", [3, -1, -1])
    assert len(config.model_warmup) == 1


def test_an_engine_has_its_profile() -> None:
    profile = Profile((1, 64, 64), (1, 128, 128), (4, 256, 256))
    config = parsed(triton_config(TritonModel("x", RGB_ENDS, True, profile), TritonOptions()))
    assert (config.backend, config.max_batch_size, list(config.input[0].dims)) == ("tensorrt", 4, [-1, -1, 3])
    assert list(config.model_warmup[1].inputs["image"].dims) == [128, 128, 3]
    fixed = replace(profile, smallest=(1, 128, 128), largest=(4, 128, 128))
    config = parsed(triton_config(TritonModel("x", RGB_ENDS, True, fixed), TritonOptions(batch_size=2)))
    assert (config.max_batch_size, list(config.output[0].dims)) == (2, [128, 128, 3])
    assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == "KIND_GPU"


def test_both_directions_are_models_that_take_what_they_say(tmp_path: Path, files: list[Path]) -> None:
    """Does with ONNX Runtime what Triton's backend does: adds the batch to the dimensions, and compares types."""
    import onnxruntime

    versions = write_triton_repository(files, tmp_path / "models", TritonOptions(batch_size=3), notes := [])
    assert [str(version.relative_to(tmp_path)) for version in versions] == [
        "models/x-a2b-uint8/1",
        "models/x-b2a-uint8/1",
        "models/x-a2b/1",
    ]
    assert [note.partition(" takes")[0] for note in notes] == [str(files[2])]
    for version, file in zip(versions, files, strict=True):
        assert sorted(path.name for path in version.parent.iterdir()) == ["1", "config.pbtxt"]
        config = parsed((version.parent / "config.pbtxt").read_text())
        assert config.name == version.parent.name == file.stem
        session = onnxruntime.InferenceSession(version / "model.onnx")
        types = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}
        (taken,), (given,) = config.input, config.output
        shape = [config.max_batch_size, *(8 if side == -1 else side for side in taken.dims)]
        (result,) = session.run([given.name], {taken.name: np.zeros(shape, types[type_name(taken.data_type)])})
        assert result.dtype == types[type_name(given.data_type)]
        assert list(result.shape) == [3, *(8 if side == -1 else side for side in given.dims)]


def test_a_new_file_is_a_new_version_and_the_same_one_is_not(tmp_path: Path, files: list[Path]) -> None:
    out = tmp_path / "models"
    (one,) = write_triton_repository(files[:1], out)
    (same,) = write_triton_repository(files[:1], out, TritonOptions(batch_size=2))
    assert one == same
    assert parsed((one.parent / "config.pbtxt").read_text()).max_batch_size == 2
    model = ModelProto.FromString(files[0].read_bytes())
    del model.metadata_props[:]
    model.doc_string = "changed"
    files[0].write_bytes(with_digest(serialised(model)))
    (one.parent / ".2.partial").mkdir()  # of a command that was killed
    (new,) = write_triton_repository(files[:1], out)
    assert new.name == "2"
    assert sorted(path.name for path in new.parent.iterdir()) == ["1", "2", "config.pbtxt"]
    assert (new / "model.onnx").read_bytes() == files[0].read_bytes() != (one / "model.onnx").read_bytes()


def test_what_triton_does_not_run_is_refused(tmp_path: Path, machine: Machine, files: list[Path]) -> None:
    world = machine(rtx=True)
    with pytest.raises(UserError, match="is an engine of tensorrt_rtx, and Triton runs those of TensorRT"):
        write_triton_repository([world.path], tmp_path / "models")
    with pytest.raises(UserError, match="two files are called x-a2b"):
        write_triton_repository([files[2], files[2]], tmp_path / "models")
    files[0].write_bytes(files[0].read_bytes().replace(b"image", b"imago"))
    with pytest.raises(UserError, match="is damaged"):
        write_triton_repository(files, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_engine_of_tensorrt_is_taken(tmp_path: Path, machine: Machine) -> None:
    world = machine(rtx=False)
    (version,) = write_triton_repository([world.path], tmp_path / "models", notes=(notes := []))
    assert (version / "model.plan").read_bytes() == world.path.read_bytes()
    assert parsed((version.parent / "config.pbtxt").read_text()).backend == "tensorrt"
    assert f"runs with TensorRT {EngineCard.beside(world.path).version} only" in notes[0]


def test_the_command_says_what_it_wrote(tmp_path: Path, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models"
    assert main([str(files[0]), "--out", str(out), "--batch-size", "4", "--kind", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{out}/x-a2b-uint8: version 1"
    assert main(["--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("error: give the files to serve")
    (blocked := tmp_path / "file").write_text("")
    assert main([str(files[0]), "--out", str(blocked)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
