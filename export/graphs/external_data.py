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
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types


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
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if wire == _EIGHT_BYTES else 4
        else:
            return


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and the place behind it; one that is cut ends at `end`."""
    number = shift = 0
    while place < end:
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number, place
