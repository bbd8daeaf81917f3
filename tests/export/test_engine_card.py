"""Test that a card is read field by field, and that whatever is wrong in it is named in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from cyclegan_fast.system.errors import UserError, printable
from export.engines.engine_card import CARD_FIELDS, EngineCard
from export.graphs.onnx_file import read_onnx
from tests.export.fake_machine import Machine, World


@pytest.fixture
def world(machine: Machine) -> World:
    return machine()


def refusal(world: World, content: str | bytes) -> str:
    """Return the message of the error that a card with this content is refused with."""
    path = world.path.with_suffix(".json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"x\.json") as raised:
        EngineCard.beside(world.path)
    shown = printable(str(raised.value))
    assert len(shown) < 1000
    assert shown.isprintable()
    return shown


def written(world: World) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(world.path.with_suffix(".json").read_text())
    return content


def test_every_field_of_a_card_is_described(world: World) -> None:
    assert ["format", *CARD_FIELDS] == list(written(world))
    assert EngineCard.beside(world.path) == world.card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"library": "os"}, "library must be one of tensorrt, tensorrt_rtx, got 'os'"),
        ({"library": ["os"]}, "library must be one of tensorrt, tensorrt_rtx, got ['os']"),
        ({"library": "\ud800"}, "library must be one of tensorrt, tensorrt_rtx"),
        ({"version": "1.7; rm -rf /"}, "version must be a version such as 1.7.1"),
        ({"targets": "sm89"}, "targets must be a list of names such as"),
        ({"targets": []}, "targets must be a list of names such as"),
        ({"targets": ["sm89", {}]}, "targets must be a list of names such as"),
        ({"precision": "int2"}, "precision must be one of float32, float16, bfloat16, int8, fp8, got 'int2'"),
        ({"direction": None}, "direction must be one of a2b, b2a, one way, got None"),
        ({"uint8_io": "yes"}, "uint8_io must be true or false, got 'yes'"),
        ({"uint8_io": False}, "value_range must be -1 to 1"),
        ({"value_range": "0 to 1"}, "value_range must be one of 0 to 255, -1 to 1"),
        ({"input": ""}, "input must be a text"),
        ({"output": "a\nb"}, "output must be a text"),
        ({"engine_sha256": "../../x"}, "engine_sha256 must be a SHA-256 of 64 hexadecimal digits"),
        ({"onnx_sha256": None}, "onnx_sha256 must be a SHA-256"),
        ({"parity": {"onnx": {"worst": {"largest": "0"}}}}, "parity must be figures by shape"),
        ({"parity": []}, "parity must be a list of named values"),
        ({"profile": {}}, "profile smallest is missing"),
        ({"profile": [1]}, "profile must be a list of named values"),
        ({"stranger": 1}, "fields that are not known, 'stranger'"),
    ],
)
def test_a_field_that_is_wrong_is_named(world: World, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(world, json.dumps({**written(world), **changes}))


@pytest.mark.parametrize(
    "shape", [[1, 8], [0, 8, 8], [1, 4, 8], [1, 10, 8], [1, 8.0, 8], [True, 8, 8], [1, 8, 2**40], "abc", None]
)
def test_a_profile_has_shapes_of_images(world: World, shape: Any) -> None:
    profile = {**written(world)["profile"], "smallest": shape}
    assert "profile smallest must be [batch, height, width]" in refusal(
        world, json.dumps({**written(world), "profile": profile})
    )


def test_a_profile_has_its_usual_shape_between_the_others(world: World) -> None:
    profile = {**written(world)["profile"], "smallest": [1, 32, 32]}
    assert "profile must have its usual shape between" in refusal(
        world, json.dumps({**written(world), "profile": profile})
    )


@pytest.mark.parametrize("name", CARD_FIELDS)
def test_a_field_that_is_missing_is_named(world: World, name: str) -> None:
    content = written(world)
    del content[name]
    assert f"{name} is missing" in refusal(world, json.dumps(content))


def test_content_without_end_is_refused(world: World) -> None:
    for content in ("[" * 100_000, '{"a":' * 100_000, '{"parity": ' + "[" * 400 + "]" * 400 + "}"):
        assert "does not describe an engine" in refusal(world, content)
    assert "does not describe an engine" in refusal(world, '{"library": ' + "9" * 5000 + "}")
    assert "more than 1048576" in refusal(world, b" " * (2**20 + 1))


def test_no_file_is_missing_with_its_reason(world: World) -> None:
    with pytest.raises(UserError, match="is no file with content"):
        EngineCard.beside(Path())
    path = world.path.with_suffix(".json")
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(UserError, match="cannot be read"):
        EngineCard.beside(world.path)


def test_a_bad_card_does_not_keep_the_graph_beside_it_from_being_read(world: World) -> None:
    world.path.with_suffix(".json").write_text("{}")
    world.path.with_suffix(".onnx").write_bytes(b"\x08\x0a")
    assert read_onnx(world.path.with_suffix(".onnx"), notes := []) == b"\x08\x0a"
    assert len(notes) == 1
