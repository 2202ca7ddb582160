"""An answer of audio, message by message: what the client sees of it, and what becomes of the work behind it."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.types import Message

from server.http.speech_response import EVENTS, LARGEST_DELTA, SpeechResponse, events
from server.observe.delivery import Account, account
from vllm_cosyvoice.engine import Usage
from vllm_cosyvoice.failure import Failure

SCOPE: Any = {"type": "http"}


class Client:
    """Takes an answer up to a message of the type `deaf_from`; it leaves when `left` is set."""

    def __init__(self, *, deaf_from: str | None = None) -> None:
        self.messages: list[Message] = []
        self.left = asyncio.Event()
        self._deaf_from = deaf_from

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == self._deaf_from:
            await asyncio.Event().wait()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def get(self, response: SpeechResponse) -> None:
        async with asyncio.timeout(10):
            await response(SCOPE, self.receive, self.send)

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def ended(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", True)


class Work:
    """Audio in the making, which ends with `failure` or, without one, whenever `endless` says."""

    def __init__(self, *pieces: bytes, failure: Failure | None = None, endless: bool = False) -> None:
        self._pieces, self._failure, self._endless = pieces, failure, endless
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._pieces:
                yield piece
            if self._failure:
                raise self._failure
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed = True


GONE = Failure("unavailable", "The decoder has died.")
Answer = Callable[[Work], SpeechResponse]


def as_audio(work: Work) -> SpeechResponse:
    return SpeechResponse(work(), "audio/pcm")


def as_events(work: Work) -> SpeechResponse:
    return SpeechResponse(events(work(), Usage(3, 4)), EVENTS)


@pytest.mark.parametrize("answer", [as_audio, as_events])
async def test_a_failure_ahead_of_the_first_piece_has_its_own_status(answer: Answer) -> None:
    client, work = Client(), Work(failure=GONE)
    with pytest.raises(Failure, match="died"):
        await client.get(answer(work))
    assert client.status is None, "whoever catches it decides"


@pytest.mark.parametrize("answer", [as_audio, as_events])
async def test_a_failure_after_it_never_ends_the_body_cleanly(answer: Answer) -> None:
    client, work, entry = Client(), Work(b"abcd", failure=GONE), Account()
    token = account.set(entry)
    await client.get(answer(work))
    account.reset(token)
    assert (client.status, client.ended, work.closed) == (200, False, True)
    assert entry.failure == "The decoder has died.", "the log says so"


async def test_events_say_what_went_wrong() -> None:
    client = Client()
    await client.get(as_events(Work(b"abcd", failure=GONE)))
    last = json.loads(client.messages[-1]["body"].removeprefix(b"data: "))
    assert last["type"] == "speech.audio.error"
    assert last["error"] == {
        "message": "The decoder has died.",
        "type": "server_error",
        "param": None,
        "code": "unavailable",
    }


async def test_events_carry_all_of_the_audio_in_lines_that_clients_can_read() -> None:
    audio = bytes(range(256)) * (LARGEST_DELTA // 64)
    client = Client()
    await client.get(as_events(Work(audio, b"end")))
    assert client.ended
    lines = [json.loads(line.removeprefix(b"data: ")) for line in client.body.split(b"\n\n") if line]
    assert max(len(line) for line in client.body.split(b"\n\n")) < 1 << 16
    assert b"".join(base64.b64decode(line["audio"]) for line in lines[:-1]) == audio + b"end"
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert lines[-1] == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize("pieces", [(), (b"abcd",)])
async def test_a_client_that_leaves_ends_the_work(pieces: tuple[bytes, ...]) -> None:
    client, work = Client(), Work(*pieces, endless=True)
    getting = asyncio.create_task(client.get(as_audio(work)))
    await asyncio.sleep(0.05)
    assert not work.closed
    client.left.set()
    await getting
    assert work.closed
    assert not client.ended


@pytest.mark.parametrize("deaf_from", ["http.response.start", "http.response.body"])
async def test_a_client_that_takes_nothing_ends_the_work(monkeypatch: pytest.MonkeyPatch, deaf_from: str) -> None:
    monkeypatch.setattr("server.http.speech_response.SECONDS_TO_TAKE", 0.05)
    client, work = Client(deaf_from=deaf_from), Work(b"abcd", endless=True)
    await client.get(as_audio(work))
    assert work.closed
    assert not client.ended


async def test_the_length_of_the_only_piece_is_told() -> None:
    client = Client()
    await client.get(SpeechResponse(Work(b"abcd")(), "audio/wav", whole=True))
    assert (b"content-length", b"4") in client.messages[0]["headers"]
    assert (client.body, client.ended) == (b"abcd", True)
