"""The listening socket of the server."""

import socket

from server.arguments import Arguments

WAITING = 1024  # connections that are not accepted yet


def listen(arguments: Arguments, *, beside_others: bool = False) -> socket.socket:
    """Return a listening socket; `beside_others`: the port is reserved, or another HTTP worker listens on it, too.

    Raises:
        OSError: the address can't be used.
    """
    address = arguments.host, arguments.port
    listener = socket.create_server(address, family=_family(arguments), backlog=WAITING, reuse_port=beside_others)
    listener.setblocking(False)
    return listener


def reserve(arguments: Arguments) -> socket.socket:
    """Return a socket that reserves the port for `listen` with `beside_others`. Connections are refused until then.

    Raises:
        OSError: as for `listen`.
    """
    listen(arguments).close()  # fails if the port is in use, even by a socket of this user with SO_REUSEPORT
    reserved = socket.socket(_family(arguments), socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((arguments.host, arguments.port))
    return reserved


def _family(arguments: Arguments) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
