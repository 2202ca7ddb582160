"""The server's port."""

import socket

from server.arguments import Arguments

WAITING = 1024  # connections that nobody has accepted yet


def listen(arguments: Arguments, *, beside_others: bool = False) -> socket.socket:
    """A socket that listens; `beside_others`: on a port that is reserved, or that another http worker listens on.

    Raises:
        OSError: it can't be listened on.
    """
    address = arguments.host, arguments.port
    listener = socket.create_server(address, family=_family(arguments), backlog=WAITING, reuse_port=beside_others)
    listener.setblocking(False)
    return listener


def reserve(arguments: Arguments) -> socket.socket:
    """A socket that keeps the port for `listen` with `beside_others`. Connections are refused until then.

    Raises:
        OSError: as for `listen`.
    """
    listen(arguments).close()  # nobody else has the port, not even a server of this user's that reserves it, too
    reserved = socket.socket(_family(arguments), socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((arguments.host, arguments.port))
    return reserved


def _family(arguments: Arguments) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
