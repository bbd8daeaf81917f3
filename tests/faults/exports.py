"""Damages exported files, the cards beside engines, and graphs: none may give other pictures, or end in a traceback."""

import hashlib
import importlib
import json
import random
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto, helper

from export.engines.engine_card import EngineCard, Profile
from export.graphs.onnx_file import DIGEST_KEY
from tests.faults.harness import TRACE, Campaign, Ended, Tally, limited, run, trained

BACKENDS = ("openvino", "onnxruntime")
_IMPORTED_LATE = ("torch", "cyclegan_fast.translation.trained", "export.graphs.graph", "export.parity")
"""Modules that the commands import when they need them, once for all; the libraries' threads would not be forked."""
_within_memory = limited(resource.RLIMIT_AS, 20 << 30)


class Exported:
    """Holds an exported generator, the pictures that each library draws with it, and an engine that nothing can run."""

    def __init__(self, work: Path) -> None:
        self.work = work
        for name in _IMPORTED_LATE:
            importlib.import_module(name)
        self.run = trained(work, "x", steps=1)
        self.photos = work / "data" / "testA"
        flags = ["--checkpoint", str(self.run), "--direction", "a2b", "--precision", "float32"]
        made = run("export.to_onnx", [*flags, "--out", str(work / "engines")], work)
        if made.status != 0:
            raise RuntimeError(f"the export failed: {made.err[-2000:]}")
        (file,) = (work / "engines").glob("*.onnx")
        self.onnx = file.read_bytes()
        self.engine = random.Random(0).randbytes(3000)
        self.pictures: dict[str, bytes] = {}
        for backend in BACKENDS:
            ended = self.translated(self.onnx, backend)
            if ended.status != 0:
                raise RuntimeError(f"the export cannot be run: {ended.err[-2000:]}")
            self.pictures[backend] = self.drawn()

    def translated(self, content: bytes, backend: str) -> Ended:
        """Translate by the content of an ONNX file; `drawn` has the pictures."""
        for path in (self.work / "out").glob("*"):
            path.unlink()
        (self.work / "changed.onnx").write_bytes(content)
        flags = ["--size", "32", "--backend", backend, "--no-contact-sheet", "--out", str(self.work / "out")]
        arguments = [str(self.photos), "--onnx", str(self.work / "changed.onnx"), *flags]
        return run("export.run", arguments, self.work, prepare=_within_memory)

    def drawn(self) -> bytes:
        """Return the bytes of all pictures of the last translation."""
        return b"".join(path.read_bytes() for path in sorted((self.work / "out").glob("*.png")))

    def verified(self, *arguments: str) -> Ended:
        """Compare a file with the run."""
        flags = ["--checkpoint", str(self.run), "--images", str(self.photos)]
        return run("export.verify", [*arguments, *flags], self.work, prepare=_within_memory)

    def card(self) -> dict[str, Any]:
        """Return the content of a card that belongs to the engine, which a library would refuse."""
        shape = (1, 32, 32)
        text = ("tensorrt_rtx", "1.7.1", ("sm89",), "float16", "a2b", True, Profile(shape, shape, (4, 64, 64)))
        digests = (hashlib.sha256(content).hexdigest() for content in (b"a checkpoint", b"a graph", self.engine))
        card = EngineCard(*text, "image", "translated", *digests, "0.1.0", {"engine": "not run"})
        card.write(self.work / "changed.json")
        content: dict[str, Any] = json.loads((self.work / "changed.json").read_text())
        return content


# --- files that are damaged ------------------------------------------------------------------------------------------


def _judge_pictures(tally: Tally, what: str, ended: Ended, exported: Exported, backend: str) -> None:
    """Count a translation by a damaged file, which must be refused, or draw what the whole file draws."""
    if ended.status == 0:
        same = exported.drawn() == exported.pictures[backend]
        tally.add(what, "same pictures" if same else "other pictures, status 0", failed=not same)
    else:
        tally.ended(what, ended)


def _damage_a_file(tally: Tally, exported: Exported, number: int, random: random.Random) -> None:
    content = bytearray(exported.onnx)
    if number % 5 == 0:
        what = f"cut to {(length := random.randrange(len(content)))} bytes"
        del content[length:]
    else:
        # Half of the bits are in names, shapes, attributes and metadata, and half anywhere, mostly in weights.
        ends = (random.randrange(4000), len(content) - 1 - random.randrange(1500))
        place = random.randrange(len(content)) if number % 2 else random.choice(ends)
        what = f"bit {(bit := random.randrange(8))} of byte {place} flipped"
        content[place] ^= 1 << bit
    backend = BACKENDS[number // 2 % 2]
    _judge_pictures(tally, f"{what}, {backend}", exported.translated(bytes(content), backend), exported, backend)
    if number % 8 == 0:
        tally.ended(f"{what}, verify", exported.verified("--onnx", str(exported.work / "changed.onnx"), "--size", "32"))


# --- graphs that are valid protobuf and no valid graphs --------------------------------------------------------------


def _set_attribute(name: str, value: int) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Conv")
        given = {each.name: list(each.ints) for each in node.attribute}
        (old,) = [each for each in node.attribute if each.name == name] or [node.attribute.add()]
        old.CopyFrom(helper.make_attribute(name, [value, *given.get(name, [1, 1])[1:]]))  # [1, 1] where it is left out

    return change


def _set_metadata(key: str, value: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


def _lead_outside(model: ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def _quantised_in_name(model: ModelProto) -> None:
    _set_metadata("precision", "int8")(model)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    tensor.raw_data = bytes(len(tensor.raw_data))


GRAPHS: dict[str, Callable[[ModelProto], object]] = {
    "unchanged": lambda model: None,
    "no metadata": lambda model: model.ClearField("metadata_props"),
    "unknown precision": _set_metadata("precision", "float4"),
    "int8 without ranges": _quantised_in_name,
    "unknown direction": _set_metadata("direction", "up"),
    "another checkpoint": _set_metadata("checkpoint_sha256", "f" * 64),
    "weights outside": partial(_lead_outside, location="../../../../../../etc/passwd"),
    "weights of an absolute path": partial(_lead_outside, location="/etc/passwd"),
    "weights beside": partial(_lead_outside, location="changed.onnx"),
    "input of another name": lambda model: setattr(model.graph.input[0], "name", "x"),
    "output of another name": lambda model: setattr(model.graph.output[0], "name", "x"),
    "input left out": lambda model: model.graph.ClearField("input"),
    "input twice": lambda model: model.graph.input.append(model.graph.input[0]),
    "two outputs": lambda model: model.graph.output.append(model.graph.output[0]),
    "input of doubles": lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
    "input of a type that is not there": lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 99),
    "input without a type": lambda model: model.graph.input[0].ClearField("type"),
    "unknown operator": lambda model: setattr(model.graph.node[0], "op_type", "Explode"),
    "unknown domain": lambda model: setattr(model.graph.node[0], "domain", "elsewhere"),
    "a node of no outputs": lambda model: model.graph.node[3].ClearField("output"),
    "a node of no inputs": lambda model: model.graph.node[3].ClearField("input"),
    "a node twice": lambda model: model.graph.node.append(model.graph.node[3]),
    "no nodes": lambda model: model.graph.ClearField("node"),
    "no graph": lambda model: model.ClearField("graph"),
    "opset 999": lambda model: setattr(model.opset_import[0], "version", 999),
    "opset -1": lambda model: setattr(model.opset_import[0], "version", -1),
    "opset 1": lambda model: setattr(model.opset_import[0], "version", 1),
    "no opset": lambda model: model.ClearField("opset_import"),
    "version 999 of the format": lambda model: setattr(model, "ir_version", 999),
    "a cycle": lambda model: model.graph.node[0].input.__setitem__(0, model.graph.node[-1].output[0]),
    "a huge weight": lambda model: model.graph.initializer[0].dims.__setitem__(0, 2**40),
    "a weight of 2^63 values": lambda model: model.graph.initializer[0].dims.extend([2**31, 2**31]),
    "a weight of negative size": lambda model: model.graph.initializer[0].dims.__setitem__(0, -1),
    "a weight without values": lambda model: model.graph.initializer[0].ClearField("raw_data"),
    "a weight of integers": lambda model: setattr(model.graph.initializer[0], "data_type", TensorProto.INT32),
    "weights that are NaN": lambda model: [
        setattr(tensor, "raw_data", b"\xff" * len(tensor.raw_data)) for tensor in model.graph.initializer
    ],
    "a huge kernel": _set_attribute("kernel_shape", 2**31),
    "a kernel of 0": _set_attribute("kernel_shape", 0),
    "strides of 0": _set_attribute("strides", 0),
    "dilations of 2^62": _set_attribute("dilations", 2**62),
    "pads of -9": _set_attribute("pads", -9),
    "pads of 2^40": _set_attribute("pads", 2**40),
    "0 groups": lambda model: [
        setattr(a, "i", 0) for node in model.graph.node for a in node.attribute if a.name == "group"
    ],
}


UNSAFE_IN_OPENVINO = {"a huge kernel", "a kernel of 0", "dilations of 2^62", "pads of -9"}
"""Graphs that OpenVINO computes by reading outside of its memory, which can end the process: SECURITY.md says so."""


def _change_the_graph(tally: Tally, exported: Exported, number: int, random: random.Random) -> None:
    """Change the graph as a file from elsewhere, which has no digest."""
    names = list(GRAPHS)
    what = names[number % len(names)]
    model = ModelProto.FromString(exported.onnx)
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    GRAPHS[what](model)
    content = model.SerializeToString()
    backend = "onnxruntime" if what in UNSAFE_IN_OPENVINO else random.choice(BACKENDS)
    ended = exported.translated(content, backend)
    if ended.status == 0 and "note: " not in ended.out:
        tally.add(f"{what}, {backend}", "taken without a note", failed=True)
    tally.ended(f"{what}, {backend}", ended)
    verified = exported.verified("--onnx", str(exported.work / "changed.onnx"), "--size", "32")
    if TRACE not in verified.err and verified.status == 1:  # it was compared, and falls short
        tally.add(f"{what}, verify", "falls short", failed=verified.err.count("error: ") != 1)
    else:
        tally.ended(f"{what}, verify", verified)


# --- engines, and the cards beside them ------------------------------------------------------------------------------

VALUES: list[Any] = [None, True, 0, 7, -1, 2**70, 1.5, float("nan"), "", "x", "x" * 1000, "../../x", "\ud800", "a\nb"]
VALUES += [
    [],
    [[]],
    [None] * 3,
    [1, 1, 1],
    ["sm89"] * 3,
    [2**60] * 3,
    [1.5, 32.0, 32.0],
    {},
    {"a": {}},
    {"a": {"b": 1}},
]
VALUES += ["os", "tensorrt", ["tensorrt_rtx"], "f" * 64, {"smallest": [1, 4, 4]}, {"engine": [[[]]]}]


def _hostile_card(card: dict[str, Any], random: random.Random) -> bytes:
    """Return the bytes of a card that differs from a good one in one thing."""
    whole = json.dumps(card)
    name = random.choice(list(card))
    texts = (
        *("", "null", "7", '"x"', "[" * 100_000, '{"a":' * 100_000, '{"library": ' + "9" * 5000 + "}"),
        whole[: random.randrange(len(whole))],
        whole[:-1] + ', "library": "os"}',
        whole[:-1] + ', "stranger": 1}',
        json.dumps({key: value for key, value in card.items() if key != name}),
        *(json.dumps({**card, name: value}) for value in random.sample(VALUES, 12)),
        json.dumps({**card, "profile": {**card["profile"], "usual": random.choice(VALUES)}}),
        json.dumps({**card, "parity": {"onnx": json.loads("[" * 400 + "]" * 400)}}),
    )
    damaged = bytearray(whole.encode())
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return random.choice([*(text.encode() for text in texts), random.randbytes(300), bytes(damaged)])


def _damage_an_engine(tally: Tally, exported: Exported, number: int, random: random.Random) -> None:
    """Give a hostile card, or a good one with a damaged engine, to both commands: there is no GPU to run either."""
    engine, card = exported.work / "changed.engine", exported.work / "changed.json"
    content = bytearray(exported.engine)
    written = json.dumps(exported.card()).encode()
    if number % 4 == 0:
        what = f"bit flipped in byte {(place := random.randrange(len(content)))} of an engine"
        content[place] ^= 1 << random.randrange(8)
    else:
        written = _hostile_card(json.loads(written), random)
        what = f"card {hashlib.sha256(written).hexdigest()[:8]} {written[:60]!r}"
    engine.write_bytes(content)
    card.write_bytes(written)
    flags = ["--engine", str(engine)]
    arguments = [str(exported.photos), *flags, "--out", str(exported.work / "out")]
    for command, ended in (
        ("run", run("export.run", arguments, exported.work)),
        ("verify", exported.verified(*flags)),
    ):
        if ended.status == 0:
            tally.add(f"{what}, {command}", "taken", failed=True)
        elif number % 4 == 0 and "is damaged" not in ended.err:
            tally.add(f"{what}, {command}", f"not seen: {ended.last_line}", failed=True)
        else:
            tally.ended(f"{what}, {command}", ended)
    if (engine.read_bytes(), card.read_bytes()) != (bytes(content), written):
        tally.add(what, "files changed", failed=True)


def _make(tally: Tally, work: Path, count: int, random: random.Random) -> None:
    exported = Exported(work)
    for number in range(count):
        make = (_damage_a_file, _change_the_graph, _damage_a_file, _damage_an_engine)[number % 4]
        make(tally, exported, number // 4 if make is not _damage_a_file else number // 2, random)


CAMPAIGN = Campaign(_make, full=520, few=12)
