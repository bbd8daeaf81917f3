"""Binds the sockets that commands serve on."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

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


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
