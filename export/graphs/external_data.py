"""Tells from an ONNX file's bytes whether it keeps tensors in other files; no onnx is needed, and no weight is read."""

from collections.abc import Iterator

# The messages of onnx.proto that lead to a tensor: of each the fields that hold others, by their numbers.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "elsewhere"},
}
_VARINT, _LENGTH = 0, 2  # protobuf's wire types
_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes behind a tag of the other wire types; 3 and 4 begin and end a group, whose fields are taken for its own."""


def has_external_data(content: bytes) -> bool:
    """Return whether a tensor of the model lies in another file.

    Where the bytes are no protobuf, what stands before that place counts: the libraries refuse such a file.
    """
    pending = [("model", 0, len(content))]
    while pending:
        kind, begin, end = pending.pop()
        if kind == "elsewhere":
            return True
        inner = _FIELDS[kind]
        pending += [
            (inner[field], first, last) for field, first, last in _messages(content, begin, end) if field in inner
        ]
    return False


def _messages(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, begin and end of each field between two places that has a length; pass over the others."""
    place = begin
    while place < end:
        tag, place = _varint(content, place, end)
        wire = tag & 7
        if wire == _LENGTH:
            length, place = _varint(content, place, end)
            if length > end - place:
                return
            yield tag >> 3, place, place + length
            place += length
        elif wire == _VARINT:
            _, place = _varint(content, place, end)
        elif wire in _SIZES:
            place += _SIZES[wire]
        else:
            return


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `place`, of 10 bytes at most, and the place behind it."""
    number = shift = 0
    while place < end and shift < 70:
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number, place
