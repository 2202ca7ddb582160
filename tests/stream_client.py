"""A caller of the server's WebSockets."""

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.server_process import SLOW, ServerProcess

PRESET = "English male"  # without a recording, so that the first 5 text tokens are spoken at once
CLOSE_REFUSED, CLOSE_UNREADABLE, CLOSE_FAILED, CLOSE_RESTARTING = 1008, 1003, 1011, 1012
TEXT = "Good morning , my old friend ! What a day to walk over the hills and far away , 今天天气很好 ."
WORDS = TEXT.split()


@dataclass
class Utterance:
    """What came for one utterance."""

    pcm: bytes = b""
    frames: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


class Client:
    """A caller of /v1/audio/speech/stream."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: object) -> None:
        await self.socket.send(json.dumps({"type": kind} | fields))

    async def text(self, *pieces: str, most_seconds: float = 0.0, draw: random.Random | None = None) -> None:
        for piece in pieces:
            await self.say("input.text", text=piece)
            if draw:
                await asyncio.sleep(draw.random() * most_seconds)

    async def next(self) -> dict[str, Any] | bytes:
        async with asyncio.timeout(SLOW):
            message = await self.socket.recv()
        return message if isinstance(message, bytes) else json.loads(message)

    async def event(self) -> dict[str, Any]:
        """The next message that is not audio."""
        while isinstance(message := await self.next(), bytes):
            continue
        return message

    async def first_audio(self) -> bytes:
        while not isinstance(message := await self.next(), bytes):
            assert message["type"] == "audio.start", message
        return message

    async def utterance(self) -> Utterance:
        """All that comes up to the next session.done."""
        heard = Utterance()
        while "session.done" not in heard.kinds()[-1:]:
            message = await self.next()
            if isinstance(message, bytes):
                heard.pcm += message
                heard.frames += 1
            else:
                heard.events.append(message)
        return heard

    async def closed(self) -> int | None:
        """The code that the server closes with."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code


@contextlib.asynccontextmanager
async def calling(server: ServerProcess, **config: object) -> AsyncIterator[Client]:
    async with unconfigured(server) as client:
        await client.say("session.config", **({"response_format": "pcm", "voice": PRESET, "temperature": 0} | config))
        yield client


@contextlib.asynccontextmanager
async def unconfigured(
    server: ServerProcess, path: str = "/v1/audio/speech/stream", key: str | None = None
) -> AsyncIterator[Client]:
    url, headers = f"ws://127.0.0.1:{server.port}{path}", {"Authorization": f"Bearer {key or server.key}"}
    async with connect(url, additional_headers=headers, max_size=None, open_timeout=SLOW) as socket:
        yield Client(socket)


@contextlib.asynccontextmanager
async def deaf(server: ServerProcess, **config: object) -> AsyncIterator[None]:
    """Asks for speech, and then reads nothing."""
    with socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tcp.connect(("127.0.0.1", server.port))
        url, headers = f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream", {"Authorization": f"Bearer {server.key}"}
        async with connect(url, sock=tcp, additional_headers=headers, ping_interval=None) as ws:
            ws.transport.pause_reading()
            client = Client(ws)
            await client.say("session.config", response_format="pcm", **config)
            await client.text("Good")
            await client.say("input.done")
            yield
            ws.transport.abort()


def spaced(words: Sequence[str]) -> list[str]:
    """As a chat model writes them."""
    return [words[0], *(f" {word}" for word in words[1:])]
