"""A stand-in for the server behind its pages: it speaks a tone, at the pace that a test sets."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from server.arguments import parse
from server.http import pages
from server.observe.metrics import Numbers, render
from tests.server_process import wait_until
from tests.test_audio import tone, wav


@dataclass
class StandIn:
    """What it does, and what it was asked."""

    url: str
    pieces: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.5)])  # seconds until it comes, of audio
    voices: list[str] = field(default_factory=lambda: ["default", *(f"Reader {number}" for number in range(1, 31))])
    numbers: dict[str, Numbers] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self, *flags: str) -> FastAPI:
        """The pages of a server with these flags, and what they ask for."""
        app = FastAPI(docs_url=None)
        app.include_router(pages.router(parse(flags, {})[0]))

        @app.get("/v1/models")
        async def models() -> dict[str, object]:
            return {"data": [{"id": "stand-in"}]}

        @app.get("/v1/audio/voices")
        async def voices() -> dict[str, object]:
            return {"data": [{"id": name, "name": name, "created_at": 1} for name in self.voices]}

        @app.post("/v1/audio/speech")
        async def speech(body: dict[str, Any]) -> Response:
            self.asked.append(body)
            if body["response_format"] == "pcm":
                return StreamingResponse(self._stream(), media_type="audio/pcm")
            return Response(wav(tone(1.0)), media_type="audio/wav")

        @app.get("/metrics")
        async def metrics() -> Response:
            return PlainTextResponse(render(self.numbers))

        return app

    async def _stream(self) -> AsyncIterator[bytes]:
        for wait, seconds in self.pieces:
            await asyncio.sleep(wait)
            yield (tone(seconds) * 32767).astype("<i2").tobytes()


@contextlib.contextmanager
def stand_in_server(*flags: str) -> Iterator[StandIn]:
    """It runs in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stand_in = StandIn(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(stand_in.app(*flags), lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, "the stand-in answers")
            yield stand_in
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
