"""`ref_audio`: a recording inside the request, or on a host that the operator trusts."""

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
    """Return the file in a `data:` URI, or at an http(s) URL of one of `hosts`, each `host` or `host:port`.

    Raises ApiError. Redirects are not followed. The name of a host must resolve to public addresses, checked in the
    look-up that the connection uses; a host in a private network must be listed by its address.
    """
    if reference.startswith("data:"):
        return _inline(reference)
    try:
        url = URL(reference)
    except ValueError as error:
        raise _refused(f"It is not a URL ({error})") from error
    if url.scheme not in ("http", "https"):
        raise _refused("It is neither a data: URI, such as data:audio/wav;base64,…, nor an http(s) URL")
    if not hosts:
        raise _refused("This server fetches no URLs: send the recording itself, as data:audio/wav;base64,…")
    if url.user is not None or not any(_is_of(url, host) for host in hosts):
        raise _refused("This server fetches only from the hosts in --ref_audio_hosts: send the recording itself")
    return await _fetch(url)


def _inline(reference: str) -> bytes:
    match = INLINE.fullmatch(reference)
    if match is None:
        raise _refused("A data: URI must be base64, such as data:audio/wav;base64,…")
    if len(match["data"]) > LARGEST_UPLOAD * 4 / 3 + 4:
        raise _too_large()
    try:
        return base64.b64decode(match["data"], validate=True)
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
        raise _refused(f"Fetching it from {url.host} failed ({error})") from error
    return bytes(data)


class _PublicAddresses(AbstractResolver):
    """Resolves host names, and refuses names with a private address."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`; raise OSError if one is private."""
        addresses = await self._resolver.resolve(host, port, family)
        if not all(ipaddress.ip_address(address["host"]).is_global for address in addresses):
            raise OSError(None, f"{host} is inside the server's network: to allow it, list its address")
        return addresses

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _refused(reason: str) -> ApiError:
    return ApiError(400, f"ref_audio can't be used. {reason}.", param="ref_audio", code="invalid_value")


def _too_large() -> ApiError:
    message = f"ref_audio is larger than {LARGEST_UPLOAD >> 20} MiB: cut the recording to the best 5 to 15 s."
    return ApiError(413, message, param="ref_audio", code="too_large")
