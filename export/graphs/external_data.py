"""Tells from an ONNX file's bytes whether it keeps tensors in other files; no onnx is needed, and no weight is read."""

from export.graphs.protobuf import parts_of

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
            (inner[field], first, last) for field, first, last in parts_of(content, begin, end) if field in inner
        ]
    return False
