"""An answer that is audio as it is made."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.audio_format import AudioFormat


class SpeechResponse(Response):
    """Waits for the first piece of audio before it answers 200, so whatever fails until then gets its own status.

    A client that leaves, even before that, ends the work. A failure after it breaks the body off, so that no client
    takes part of the audio for all of it.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], audio_format: AudioFormat) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, audio_format.media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._header = audio_format.header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or stop as soon as the client has left."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            first = await anext(pieces, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._header + first, "more_body": True})
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
