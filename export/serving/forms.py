"""Finds the image in the body of a request: the body itself, or the field `image` of a form."""

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from export.serving.refusal import RequestRefused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_MOST_PARTS = 16


def image_in(content_type: str | None, body: bytes) -> bytes:
    """Return the bytes of the image.

    Raises RequestRefused for a form that is none, or without exactly one field `image`. The type of a body that is no
    form does not matter: curl says of any that it is a form's. The names that a form gives to files are not looked at:
    nothing is called by them.
    """
    kind, parameters = parse_options_header(content_type)
    if not kind.startswith(b"multipart/"):
        return body
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestRefused(
            400, "the form has no boundary, or is no multipart/form-data: send the image as the body itself"
        )
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestRefused(400, f"the form cannot be read: {str(error)[:200]}") from error
    if not parts.is_whole:
        raise RequestRefused(400, "the form is cut off: its last boundary is missing")
    images = [bytes(part.content) for part in parts.found if part.name == FIELD.encode()]
    if len(images) != 1:
        raise RequestRefused(400, f"the form has {len(images)} fields `{FIELD}`: send one")
    return images[0]


class _Part:
    def __init__(self) -> None:
        self.name: bytes | None = None
        self.content = bytearray()


class _Parts:
    """Gathers the parts of a form, and the name of each one's field."""

    def __init__(self) -> None:
        self.found: list[_Part] = []
        self.is_whole = False
        self._header, self._value = b"", b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self.found[-1].content.extend(data[start:end]),
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.found) == _MOST_PARTS:
            raise RequestRefused(400, f"the form has more than {_MOST_PARTS} parts")
        self.found.append(_Part())
        self._header = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self.found[-1].name = parse_options_header(self._value)[1].get(b"name")
        self._header = self._value = b""

    def _end(self) -> None:
        self.is_whole = True
