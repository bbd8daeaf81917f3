"""Options are held against their declarations: types, choices, ranges; messages stay short whatever was given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from cyclegan_fast.system.ranges import Range, brief, check_fields


@dataclass(frozen=True)
class Options:
    """Holds a field of each kind."""

    whole: Annotated[int, Range(1, 9)] = 1
    share: Annotated[float, Range(0, below=1)] = 0.0
    rate: Annotated[float, Range(above=0, most=1000)] = 1.0
    side: Annotated[int, Range(8, 64, multiple=4)] = 8
    several: tuple[Annotated[int, Range(0, 10**12)], ...] = ()
    missing: Annotated[int, Range(1, 9)] | None = None
    choice: Literal["a", "b"] = "a"
    switch: bool = False
    text: str = ""
    path: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    "given",
    [
        {"whole": 9},
        {"share": 0},
        {"share": 0.999},
        {"rate": 5e-324},
        {"rate": 1000},
        {"side": 64},
        {"several": (0, 10**12)},
        {"missing": 9},
        {"choice": "b"},
        {"path": Path("\udcff")},  # a file's name that is no UTF-8
    ],
    ids=brief,
)
def test_what_is_declared_is_taken(given: dict[str, Any]) -> None:
    Options(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": 0}, "whole must be a whole number from 1 to 9, got 0"),
        ({"whole": 1.0}, "whole must be a whole number from 1 to 9, got 1.0"),
        ({"whole": True}, "whole must be a whole number from 1 to 9, got True"),
        ({"whole": 10**5000}, "whole must be a whole number from 1 to 9, got a number of 5001 digits"),
        ({"share": 1.0}, "share must be a number at least 0 and below 1, got 1.0"),
        ({"share": float("nan")}, "share must be a number at least 0 and below 1, got nan"),
        ({"rate": 0}, "rate must be a number above 0 and at most 1000, got 0"),
        ({"rate": float("inf")}, "rate must be a number above 0 and at most 1000, got inf"),
        ({"rate": 10**400}, "rate must be a number above 0 and at most 1000, got a number of 401 digits"),
        ({"side": 62}, "side must be a multiple of 4 from 8 to 64, got 62"),
        ({"several": (1, -1)}, "several must be a whole number from 0 to 10^12, got -1"),
        ({"several": [1]}, "several must be a list, got [1]"),
        ({"missing": 0}, "missing must be a whole number from 1 to 9, got 0"),
        ({"choice": "c"}, "choice must be one of a, b, got 'c'"),
        ({"choice": ["a"]}, "choice must be one of a, b, got ['a']"),
        ({"switch": 1}, "switch must be true or false, got 1"),
        ({"text": 1}, "text must be text, got 1"),
        ({"text": "a\0b"}, r"text is no text: it has a null character, got 'a\x00b'"),
        ({"text": "\ud800"}, r"text is no text: it has half a character, got '\ud800'"),
        ({"path": Path("a\0b")}, r"path is no text: it has a null character, got 'a\x00b'"),
    ],
    ids=brief,
)
def test_anything_else_is_refused_with_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole message is compared
        Options(**given)
    assert str(refused.value) == message


def test_the_name_may_be_that_of_a_flag() -> None:
    @dataclass(frozen=True)
    class Command:
        batch_size: Annotated[int, Range(1, 2)] = 1

        def __post_init__(self) -> None:
            check_fields(self, as_flags=True)

    with pytest.raises(ValueError, match=r"^--batch-size must be a whole number from 1 to 2, got 3$"):
        Command(batch_size=3)


def test_values_of_any_size_are_shown_in_a_few_words() -> None:
    nested: list[Any] = []
    nested.append(nested)
    bomb: Any = "x"
    for _ in range(40):
        bomb = [bomb] * 9
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}
    for value in (nested, bomb, deep, "x" * 10**6, b"x" * 10**6, -(10**5000), {i: i for i in range(10**5)}):
        shown = brief(value)
        assert len(shown) < 200
        assert "\n" not in shown
    assert brief("0") == "'0'"
    assert brief(-(10**5000)) == "a number of 5001 digits"
