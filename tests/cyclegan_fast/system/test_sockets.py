"""Servers answer by the names that they are known by, so that nobody else's name leads a browser's pages to them."""

import asyncio
from typing import Any

import pytest

from cyclegan_fast.demonstration.shield import PageShield
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.sockets import AllowedHosts, bound_socket

LOOPBACK = (
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.0.0.2",
    "[::1]",
    "[::1]:80",
)
OTHERS = (
    *("", None, ":8000", "evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example"),
    *("10.0.0.1", "[::2]:8000", "localhost@evil.example", "localhost/", "localhost, evil.example", "[localhost]", "0"),
)


def hosts(address: str, *further: str) -> AllowedHosts:
    with bound_socket(address, 0) as listening:
        return AllowedHosts.of(listening, further)


@pytest.mark.parametrize("further", [(), ("gpu.lab", "::2")])
def test_on_loopback_only_loopback_and_further_names_are_answered(further: tuple[str, ...]) -> None:
    allowed = hosts("127.0.0.1", *further)
    assert [host for host in LOOPBACK if allowed.refusal(host)] == []
    assert {host for host in (*OTHERS, "gpu.lab:1") if not allowed.refusal(host)} == (
        {"gpu.lab:1", "[::2]:8000"} if further else set()
    )
    assert str(allowed.refusal("evil.example:80")).startswith("the name evil.example is not answered here: ask for")


def test_where_other_machines_reach_it_any_name_is_answered_unless_some_are_given() -> None:
    for allowed in (hosts("0.0.0.0"), hosts("127.0.0.1", "*"), hosts("0.0.0.0", "gpu.lab", "*")):
        assert not any(allowed.refusal(host) for host in (*LOOPBACK, *OTHERS))
    allowed = hosts("0.0.0.0", "gpu.lab")
    assert allowed.refusal("gpu.lab:8000") is None
    assert allowed.refusal("localhost:8000") is None
    assert allowed.refusal("evil.example")


@pytest.mark.parametrize("name", ["http://gpu.lab", "gpu.lab:8000", "", "gpu lab", "*.lab"])
def test_what_is_no_name_is_told(name: str) -> None:
    with pytest.raises(UserError, match="is no name: give it without http:// and without a port"):
        hosts("127.0.0.1", name)


@pytest.mark.parametrize(("host", "status"), [(b"evil.example:7860", 421), (None, 421), (b"127.0.0.1:7860", 200)])
def test_the_page_of_the_demo_is_shown_by_allowed_names_alone(host: bytes | None, status: int) -> None:
    told: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        told.append(message)

    scope = {"type": "http", "path": "/", "headers": [] if host is None else [(b"host", host)]}
    asyncio.run(PageShield(application, hosts("127.0.0.1"))(scope, None, send))
    assert told[0]["status"] == status
