"""`ref_audio`: a recording inside the request, or on one of the hosts that whoever runs the server trusts."""

import base64
import binascii
import ipaddress
import re
import socket
from collections.abc import Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from server.http.errors import ApiError
from server.http.guards import LARGEST_UPLOAD

SECONDS_TO_FETCH = 10.0
INLINE = re.compile(r"data:(?P<kind>[^,]{0,200}?);base64,(?P<data>.*)", re.DOTALL)


async def read(reference: str, hosts: Sequence[str]) -> bytes:
    """The file that a `data:` URI holds, or an http(s) URL of one of `hosts` gives; each is `host` or `host:port`.

    Raises ApiError. What is fetched can't lead elsewhere: no redirect is followed, and the name of a trusted host has
    to resolve to public addresses, at the very look-up that the connection uses, so a network of your own is opened
    only by listing an address of it.
    """
    if reference.startswith("data:"):
        return _inline(reference)
    try:
        url = URL(reference)
    except ValueError as error:
        raise _refused(f"It is not a URL ({error})") from error
    if url.scheme not in ("http", "https"):
        raise _refused("It is neither a data: URI, as data:audio/wav;base64,…, nor an http(s) URL")
    if not hosts:
        raise _refused("This server fetches no URLs: send the recording itself, as data:audio/wav;base64,…")
    if url.user is not None or not any(_is_of(url, host) for host in hosts):
        raise _refused("This server fetches from the hosts of its --ref_audio_hosts only: send the recording itself")
    return await _fetch(url)


def _inline(reference: str) -> bytes:
    found = INLINE.fullmatch(reference)
    if found is None:
        raise _refused("A data: URI has to be base64, as data:audio/wav;base64,…")
    if len(found["data"]) > LARGEST_UPLOAD * 4 / 3 + 4:
        raise _too_large()
    try:
        return base64.b64decode(found["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"Its base64 can't be decoded ({error})") from error


def _is_of(url: URL, host: str) -> bool:
    trusted = URL(f"{url.scheme}://{host}")
    return (url.host, url.port) == (trusted.host, trusted.port)


async def _fetch(url: URL) -> bytes:
    connector = aiohttp.TCPConnector(resolver=_PublicAddresses())
    timeout = aiohttp.ClientTimeout(total=SECONDS_TO_FETCH)
    data = bytearray()
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                raise _refused(f"{url.host} answered with status {answer.status}, not 200")
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > LARGEST_UPLOAD:
                    raise _too_large()
    except TimeoutError as error:
        raise _refused(f"{url.host} did not send it within {SECONDS_TO_FETCH:.0f} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _refused(f"It can't be fetched from {url.host} ({error})") from error
    return bytes(data)


class _PublicAddresses(AbstractResolver):
    """Looks names up, and knows none that has an address inside this machine's networks."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`."""
        found = await self._resolver.resolve(host, port, family)
        if not all(ipaddress.ip_address(address["host"]).is_global for address in found):
            raise OSError(None, f"{host} is inside the server's network: to allow it, list its address")
        return found

    async def close(self) -> None:
        """Nothing is held."""


def _refused(reason: str) -> ApiError:
    return ApiError(400, f"ref_audio can't be used. {reason}.", param="ref_audio", code="invalid_value")


def _too_large() -> ApiError:
    message = f"ref_audio is larger than {LARGEST_UPLOAD >> 20} MiB: cut the recording to the best 5 to 15 s."
    return ApiError(413, message, param="ref_audio", code="too_large")
