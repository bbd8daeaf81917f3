"""Test that an ONNX file says whether it is as it was written, and is refused where it is not."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cyclegan_fast.system.errors import UserError
from export.graphs.external_data import has_external_data
from export.graphs.graph import serialised
from export.graphs.onnx_file import DIGEST_KEY, is_as_written, read_onnx, with_digest
from tests.export.fake_machine import Machine


def small_model(location: str | None = None, **metadata: str) -> ModelProto:
    """Return a graph that adds two constants, of which one lies in the file `location` where that is given."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32), "weight")
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6]) for name in ("image", "translated")]
    node = helper.make_node("Add", ["image", "weight"], ["translated"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.onnx"


WRITTEN = with_digest(serialised(small_model(precision="float32", direction="a2b")))


def test_the_digest_is_of_the_file_with_zeros_in_its_place() -> None:
    digest = {entry.key: entry.value for entry in ModelProto.FromString(WRITTEN).metadata_props}[DIGEST_KEY]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert hashlib.sha256(WRITTEN.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    assert is_as_written(WRITTEN)


def test_a_file_that_onnx_reads_and_writes_keeps_its_digest(path: Path) -> None:
    path.write_bytes(WRITTEN)
    onnx.save(onnx.load(path), path)
    read_onnx(path, notes := [])
    assert notes == []


def test_every_flipped_bit_is_seen_or_leaves_the_graph_as_it_is() -> None:
    """Flips in the 18 bytes by which the digest is found make a file without one, whose graph is whole."""
    unseen = set()
    for place in range(len(WRITTEN)):
        for bit in range(8):
            changed = bytearray(WRITTEN)
            changed[place] ^= 1 << bit
            if is_as_written(bytes(changed)) is None:
                unseen.add(place)
            else:
                assert not is_as_written(bytes(changed))
    behind = len(WRITTEN) - 64
    assert unseen == set(range(behind - 18, behind))
    without = small_model(precision="float32", direction="a2b")
    assert ModelProto.FromString(WRITTEN[: behind - 20]) == without, "nothing but the digest is behind the model"


def test_a_file_that_is_cut_has_no_digest_that_is_right() -> None:
    assert not any(is_as_written(WRITTEN[:length]) for length in range(len(WRITTEN)))


def test_a_change_of_the_users_own_is_taken_once_the_digest_is_removed(path: Path) -> None:
    model = ModelProto.FromString(WRITTEN)
    model.graph.node[0].op_type = "Sub"
    path.write_bytes(serialised(model))
    with pytest.raises(UserError, match=f"x.onnx is damaged, or was changed .* once {DIGEST_KEY} is removed"):
        read_onnx(path, [])
    del model.metadata_props[-1]
    path.write_bytes(serialised(model))
    assert read_onnx(path, notes := []) == serialised(model)
    assert notes == [
        f"{path} has no digest, so damage to it would not be seen: python export/to_onnx.py writes files with one"
    ]


def test_a_file_without_a_digest_is_held_against_the_card_beside_it(machine: Machine) -> None:
    world = machine()
    path = world.path.with_suffix(".onnx")
    path.write_bytes(content := serialised(small_model()))
    assert read_onnx(path, notes := []) == content  # the card names another graph: this one was exported anew, say
    assert len(notes) == 1
    card = world.path.with_suffix(".json")
    card.write_text(card.read_text().replace(world.card.onnx_sha256, hashlib.sha256(content).hexdigest(), 2))
    # The imitated card has one digest for checkpoint and graph: both were replaced.
    assert read_onnx(path, notes := []) == content
    assert notes == []
    card.write_text("[" * 100_000)
    assert read_onnx(path, notes) == content
    assert len(notes) == 1


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "null.onnx").symlink_to("/dev/null")
    (tmp_path / "page.onnx").write_bytes(b"<html>")
    for path, message in (
        (tmp_path, "is no file with content"),
        (tmp_path / "null.onnx", "is no file with content"),
        (tmp_path / "loop.onnx", "cannot be read .Too many levels of symbolic links"),
        (tmp_path / "page.onnx", "is no ONNX file"),
        (tmp_path / "x.onnx", r"no ONNX file .*x.onnx: python export/to_onnx.py writes one"),
        (tmp_path / "a\0b.onnx", "embedded null byte"),
    ):
        with pytest.raises(UserError, match=message):
            read_onnx(path, [])


# --- weights in other files ------------------------------------------------------------------------------------------


def within_a_node(attribute: str) -> ModelProto:
    """Return a model with a tensor in another file in a node, or in one of a graph in the graph, or of a function."""
    model = small_model()
    tensor = small_model("weights.bin").graph.initializer[0]
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    if attribute == "graph":
        node = helper.make_node("If", ["image"], ["c"], then_branch=helper.make_graph([node], "inner", [], []))
    if attribute == "function":
        model.functions.append(helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 20)]))
    else:
        model.graph.node.append(node)
    return model


def test_weights_in_other_files_are_refused(path: Path) -> None:
    """They would be looked for in the current folder."""
    path.write_bytes(serialised(small_model("weights.bin")))
    with pytest.raises(UserError, match="has weights in other files: save it with all of them inside"):
        read_onnx(path, [])
    for attribute in ("node", "graph", "function"):
        assert has_external_data(serialised(within_a_node(attribute))), attribute
    assert not has_external_data(WRITTEN)


def test_bytes_that_are_no_protobuf_have_no_external_data() -> None:
    """Whatever they are, the search ends, and raises nothing."""
    outside = serialised(small_model("weights.bin"))
    for length in range(len(outside)):
        has_external_data(outside[:length])
    random = np.random.default_rng(0)
    for _ in range(300):
        has_external_data(random.bytes(200))
    assert not has_external_data(b"\xff" * 2**20), "a number without end costs no time"
    assert has_external_data(b"\x0b\x0c" + outside), "a group, which no reader minds, hides nothing"
