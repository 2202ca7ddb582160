"""What `ref_audio` may bring a server to fetch: only what whoever runs it allowed, and never anything behind that."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from server.http import reference_audio
from server.http.errors import ApiError
from server.http.guards import LARGEST_UPLOAD

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listening(handler: Handler, port: int = 0) -> AsyncIterator[str]:
    """A web server on this machine; its host and port."""
    runner = web.AppRunner(app := web.Application())
    app.router.add_get("/{path:.*}", handler)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield "{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def refused(reference: str, *hosts: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await reference_audio.read(reference, hosts)
    assert caught.value.param == "ref_audio"
    return caught.value


async def test_a_data_uri_is_its_own_file() -> None:
    data = bytes(range(256)) * 10
    encoded = base64.b64encode(data).decode()
    for kind in ("audio/wav", "", "audio/ogg;codecs=opus"):
        assert await reference_audio.read(f"data:{kind};base64,{encoded}", ()) == data


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("data:audio/wav,abc", "must be base64"),
        ("data:;base64,%%%", "can't be decoded"),
        ("data:;base64,YWI", "can't be decoded"),
        ("data:", "must be base64"),
        ("", "neither a data: URI"),
        ("UklGRg==", "neither a data: URI"),
        ("file:///etc/passwd", "neither a data: URI"),
        ("/etc/passwd", "neither a data: URI"),
        ("ftp://trusted.example/a.wav", "neither a data: URI"),
        ("gopher://trusted.example/1", "neither a data: URI"),
        ("http://[::1", "not a URL"),
    ],
)
async def test_what_is_no_recording_is_told(reference: str, reason: str) -> None:
    assert reason in str(await refused(reference, "trusted.example"))


async def test_an_inline_recording_has_the_upload_limit() -> None:
    encoded = base64.b64encode(bytes(LARGEST_UPLOAD)).decode()
    assert len(await reference_audio.read(f"data:;base64,{encoded}", ())) == LARGEST_UPLOAD
    assert (await refused(f"data:;base64,{encoded}AAAA")).status == 413


async def test_nothing_is_fetched_unless_a_host_is_listed() -> None:
    assert "fetches no URLs" in str(await refused("http://trusted.example/a.wav"))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://other.example/",
        "http://trusted.example.evil.example/",
        "http://eviltrusted.example/",
        "http://sub.trusted.example/",
        "http://trusted.example@evil.example/",
        "http://trusted.example:80@evil.example/",
        "http://evil.example#@trusted.example/",
        "http://evil.example\\@trusted.example/",
        "http://user:password@trusted.example/",
        "http://trusted.example:22/",
        "http://trusted.example:8080/",
        "https://trusted.example:80/",
        "http:///a.wav",
        "http:a.wav",
    ],
)
async def test_no_spelling_reaches_a_host_that_is_not_listed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(_: object) -> bytes:
        raise AssertionError("it went out")

    monkeypatch.setattr(reference_audio, "_fetch", fetch)
    assert (await refused(url, "trusted.example", "10.0.0.5:8000")).status == 400


async def test_a_listed_host_is_asked() -> None:
    async def recording(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"RIFF" + request.path_qs.encode())

    async with listening(recording) as host:
        assert await reference_audio.read(f"http://{host}/a.wav?b", [host]) == b"RIFF/a.wav?b"
        assert await reference_audio.read(f"HTTP://{host}/a.wav", ["other.example", host]) == b"RIFF/a.wav"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/secret"})

    async with listening(elsewhere) as host:
        assert f"status {status}" in str(await refused(f"http://{host}/a.wav", host))
    assert asked == ["/a.wav"]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["192.168.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["fd00::1"],
        ["8.8.8.8", "172.16.0.1"],
    ],
)
async def test_a_listed_name_does_not_lead_into_the_servers_network(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        lookups.append(host)
        kinds = [(address, socket.AF_INET6 if ":" in address else socket.AF_INET) for address in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", (a, port, 0, 0) if ":" in a else (a, port)) for a, kind in kinds]

    def connect(*_: object) -> None:
        raise AssertionError("it went out")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connect)
    assert "inside the server's network" in str(await refused("http://trusted.example/a.wav", "trusted.example"))
    assert lookups == ["trusted.example"]  # one look-up: there is no second one that could say otherwise


async def test_too_much_too_slow_and_wrong_answers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1 << 20))
            sent += 1 << 20

    async with listening(endless) as host:
        assert (await refused(f"http://{host}/", host)).status == 413
    assert sent < 3 * LARGEST_UPLOAD

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    monkeypatch.setattr(reference_audio, "SECONDS_TO_FETCH", 0.2)
    async with listening(slow) as host:
        assert "did not send it within" in str(await refused(f"http://{host}/", host))

    async def missing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async with listening(missing) as host:
        assert "status 404" in str(await refused(f"http://{host}/", host))
    assert "Fetching it from" in str(await refused(f"http://{host}/", host))  # nobody listens any more


async def test_a_compressed_answer_is_not_blown_up() -> None:
    async def bomb(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"})

    async with listening(bomb) as host:
        assert await reference_audio.read(f"http://{host}/", [host]) == b"\x1f\x8b\x08"
