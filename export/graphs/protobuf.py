"""Walks through the bytes of a protobuf message; no onnx is needed."""

from collections.abc import Iterator

_VARINT, _LENGTH = 0, 2  # protobuf's wire types
_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes behind a tag of the other wire types; 3 and 4 begin and end a group, whose fields are taken for its own."""


def parts_of(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
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
