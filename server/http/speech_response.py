"""Streaming responses: audio, or server-sent events with audio."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.http.audio_format import FORMATS
from server.http.errors import error_entries
from server.observe.delivery import account
from vllm_cosyvoice.engine import Usage
from vllm_cosyvoice.failure import Failure

EVENTS = "text/event-stream"
AUDIO: dict[int | str, dict[str, Any]] = {  # for the description of the API
    200: {
        "description": "The audio, in the requested format.",
        "content": {
            audio_format.media_type: {"schema": {"type": "string", "format": "binary"}}
            for audio_format in FORMATS.values()
        },
    }
}
COUNTS = ("input_tokens", "output_tokens", "total_tokens")  # names in OpenAI's events
KNOWN_AHEAD = ("input_tokens",)  # before a stream begins
USAGE_HEADERS = {count: f"x-vllm-omni-{count.replace('_', '-')}" for count in COUNTS}  # read by vLLM's routers
SECONDS_TO_TAKE = 60.0  # timeout of a send; a player may pause, but unread audio fills the memory
LARGEST_DELTA = 24 << 10  # bytes of audio in an event; some clients read lines of at most 64 KiB


class _Deaf(Exception):
    """The client has stopped reading."""


class SpeechResponse(Response):
    """Waits for the first piece before it sends status 200, so that an earlier failure gets its own status.

    The work ends if the client disconnects, at any time, or does not read for a minute. A failure after the first piece
    cuts the body off, so that no client mistakes part of the audio for all of it. `whole`: the first piece is the only
    one, and `content-length` is sent. The headers have the part of `usage` that is known by then.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str | None,
        *,
        whole: bool = False,
        usage: Usage | None = None,
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._whole = whole
        self._usage = usage
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body; stop as soon as the client disconnects."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                self._conclude(sending)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    def _conclude(self, sending: "asyncio.Task[None]") -> None:
        """After the answer has begun, only log a failure: returning before the end of the body cuts it off."""
        try:
            sending.result()
        except _Deaf:
            pass
        except Failure as failure:
            if not self._begun:
                raise
            if entry := account.get():
                entry.failure = str(failure)

    async def _send(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(SECONDS_TO_TAKE):
                    await send(message)
            except TimeoutError:
                raise _Deaf from None

        async def send_body(piece: bytes, *, last: bool = False) -> None:
            await send_in_time({"type": "http.response.body", "body": piece, "more_body": not last})

        async with aclosing(self._pieces) as pieces:
            first = await anext(pieces, b"")
            if self._whole:
                self.headers["content-length"] = str(len(first))
            if self._usage:
                usage = counts(self._usage)
                for count in COUNTS if self._whole else KNOWN_AHEAD:
                    self.headers[USAGE_HEADERS[count]] = str(usage[count])
            self._begun = True
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send_in_time(start)
            await send_body(first)
            async for piece in pieces:
                await send_body(piece)
        await send_body(b"", last=True)


async def events(pieces: AsyncGenerator[bytes, None], usage: Usage) -> AsyncGenerator[bytes, None]:
    """Yield `pieces` as OpenAI's server-sent events. The last event has `usage`, which is complete by then.

    OpenAI defines no event for a failure in the middle. This function yields one that OpenAI clients raise as an error,
    then raises the failure.
    """
    begun = False
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                deltas = [piece[start : start + LARGEST_DELTA] for start in range(0, len(piece), LARGEST_DELTA)]
                yield b"".join(_event("delta", audio=base64.b64encode(delta).decode()) for delta in deltas)
                begun = True
    except Failure as failure:
        if begun:
            yield _event("error", error=error_entries(failure))
        raise
    yield _event("done", usage=counts(usage))


def counts(usage: Usage) -> dict[str, int]:
    """Return the counts of `usage` that clients get."""
    return {count: getattr(usage, count) for count in COUNTS}


def _event(kind: str, **entries: object) -> bytes:
    return f"data: {json.dumps({'type': f'speech.audio.{kind}', **entries}, ensure_ascii=False)}\n\n".encode()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
