"""Binds the sockets that commands serve on, and tells by which names their servers answer."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from cyclegan_fast.system.errors import UserError


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound to an address and does not listen yet; port 0 is any that is free.

    Raises UserError where it cannot be.
    """
    try:
        families = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = families[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host} is no address of this machine: {_said(error)}") from error
    with bound:
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError as error:
            raise UserError(f"cannot listen on {host}, port {port} ({_said(error)}): give another --port") from error
        yield bound


@dataclass(frozen=True)
class AllowedHosts:
    """Says by which names, in the header Host of a request, a server answers; None is any.

    Somebody may let a name of their own lead to this machine (DNS rebinding). A browser then lets their pages read what
    the server answers, and sends their name as Host.
    """

    names: frozenset[str] | None = None

    @classmethod
    def of(cls, listening: socket.socket, further: Iterable[str]) -> Self:
        """Return those of a server on a bound socket: loopback's, the socket's own address, and further ones.

        A socket that other machines reach has names that nobody here knows: without further ones it answers by any, as
        it does with "*". Raises UserError for a further one that is no name.
        """
        own, named = listening.getsockname()[0], set(further)
        for name in sorted(named - {"*"}):
            if _host_in(name) is None or name.count(":") == 1:
                raise UserError(f"--allowed-hosts {name} is no name: give it without http:// and without a port")
        if "*" in named or not (named or _is_loopback(own)):
            return cls(None)
        return cls(frozenset(filter(None, map(_host_in, (own, *named)))))

    def refusal(self, header: str | None) -> str | None:
        """Return why a request with such a header Host is not answered, in one line; None where it is."""
        if self.names is None:
            return None
        host = _host_in(header or "")
        if host is not None and (_is_loopback(host) or host in self.names):
            return None
        shown = f"the name {host[:64]}" if host else "a request without a name in its header Host"
        return f"{shown} is not answered here: ask for localhost, or let --allowed-hosts name it where this is started"


_NAME = re.compile(r"(?P<name>[a-z0-9_.-]+)(:\d*)?|\[(?P<ipv6>[0-9a-f:.]+)\](:\d*)?|(?P<bare>[0-9a-f:.]+)")


def _host_in(header: str) -> str | None:
    """Return the name, or the address in its shortest form, of "name", "name:port", or an address of IPv6 in brackets.

    Returns None for anything else.
    """
    found = _NAME.fullmatch(header.lower())
    if found is None:
        return None
    if name := found["name"]:
        return name.removesuffix(".") or None
    try:
        return str(ipaddress.IPv6Address(found["ipv6"] or found["bare"]))
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
