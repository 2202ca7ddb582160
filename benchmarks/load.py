"""Lightweight callers of a running server: HTTP on asyncio's streams, one connection per request.

`call` runs in a separate process; several processes share a setting's callers.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.playback import play
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN

Kind = Literal["closed", "real-time", "open"]

TEXT = "This is number {}. The sun rose over the quiet hills, and a light wind moved the tall grass."
SAMPLE_BYTES = 2
BUFFER = 1 << 20  # bytes that a connection reads ahead
PATIENCE = 60.0  # seconds for one request
LAG_EVERY = 0.05  # seconds


@dataclass(frozen=True)
class Server:
    """The server's address, and the voice to request."""

    host: str
    port: int
    voice: str


@dataclass(frozen=True)
class Setting:
    """One load. Figures are taken in the `seconds` after `warm_up`; callers start evenly during the warm-up.

    closed: `size` callers, each sends its next request as soon as it has all its audio.
    real-time: `size` listeners, each sends its next request when its audio has been played to the end.
    open: `size` requests per second on average, a Poisson process.
    """

    kind: Kind
    size: float
    streaming: bool
    tokens: int  # of each utterance, 25 per second
    warm_up: float
    seconds: float


@dataclass
class Outcome:
    """The result of a request. Times are of the monotonic clock, which all processes of the machine share."""

    begun: float
    pieces: list[tuple[float, float]] = field(default_factory=list)  # arrival time, seconds of audio
    error: str | None = None


@dataclass(frozen=True)
class Share:
    """The results of one process."""

    outcomes: list[Outcome]
    lags: list[float]  # delays of its event loop in seconds: the precision of its times


def call(server: Server, setting: Setting, start: float, share: int, shares: int) -> Share:
    """Run the callers number `share`, `share + shares`, … of `setting`, starting at `start`."""
    return asyncio.run(_call(server, setting, start, share, shares))


async def ask(server: Server, text: str, tokens: int, *, streaming: bool) -> Outcome:
    """Send one request. Errors are part of the outcome, not raised."""
    outcome = Outcome(time.monotonic())
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in _post(server, _body(server.voice, text, tokens, streaming)):
                outcome.pieces.append((time.monotonic(), piece / SAMPLE_BYTES / SAMPLE_RATE))
    except TimeoutError:
        outcome.error = f"not answered within {PATIENCE:.0f} s"
    except (OSError, EOFError, ValueError) as error:
        outcome.error = str(error) or type(error).__name__
    else:
        received, expected = sum(seconds for _, seconds in outcome.pieces), tokens * SAMPLES_PER_TOKEN / SAMPLE_RATE
        if abs(received - expected) > 1e-6:
            outcome.error = f"{received:.2f} s of audio came, not {expected:.2f} s"
    return outcome


async def _call(server: Server, setting: Setting, start: float, share: int, shares: int) -> Share:
    outcomes: list[Outcome] = []
    lags: list[float] = []
    stop = start + setting.warm_up + setting.seconds
    numbers = iter(range(share, 1 << 62, shares))  # texts differ, to avoid cache hits in the server

    async def one() -> Outcome:
        text = TEXT.format(f"{next(numbers)} of {setting.size:g}")
        outcome = await ask(server, text, setting.tokens, streaming=setting.streaming)
        outcomes.append(outcome)
        return outcome

    watching = asyncio.create_task(_watch(lags))
    async with asyncio.TaskGroup() as callers:
        if setting.kind == "open":
            await _arrive(lambda: callers.create_task(one()), setting.size / shares, start, stop, seed=share)
        else:
            for caller in range(share, round(setting.size), shares):
                turn = start + setting.warm_up * caller / setting.size
                callers.create_task(_repeat(one, turn, stop, paced=setting.kind == "real-time"))
    watching.cancel()
    return Share(outcomes, lags)


async def _repeat(one: Callable[[], Awaitable[Outcome]], turn: float, stop: float, *, paced: bool) -> None:
    while turn < stop:
        await _until(turn)
        outcome = await one()
        turn = time.monotonic()
        if outcome.error:
            turn += 1.0  # do not flood a server that rejects requests
        elif paced:
            turn = max(turn, play(outcome.pieces).end)


async def _arrive(begin: Callable[[], object], rate: float, start: float, stop: float, seed: int) -> None:
    draws = random.Random(seed)
    turn = start + draws.expovariate(rate)
    while turn < stop:
        await _until(turn)
        begin()
        turn += draws.expovariate(rate)


async def _watch(lags: list[float]) -> None:
    while True:
        due = time.monotonic() + LAG_EVERY
        await _until(due)
        lags.append(time.monotonic() - due)


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _body(voice: str, text: str, tokens: int, streaming: bool) -> bytes:
    fields = {"model": "tts-1", "input": text, "voice": voice, "response_format": "pcm", "stream": streaming}
    return json.dumps(fields | {"min_tokens": tokens, "max_tokens": tokens}).encode()


async def _post(server: Server, body: bytes) -> AsyncIterator[int]:
    """Send a request and yield the sizes of the pieces of the response body, in bytes."""
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=BUFFER)
    try:
        writer.write(
            f"POST /v1/audio/speech HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = head.split(" ", 2)[1]
        if status != "200":
            raise ValueError(f"status {status}: {(await reader.read()).decode(errors='replace')[:200]}")
        if "transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
                yield size
        else:
            yield len(await reader.read())
    finally:
        writer.close()
