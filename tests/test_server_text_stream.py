"""Speech for text that is still being written, by real WebSocket clients against a real server."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from tests.server_process import ServerProcess, eventually, exactly
from tests.stream_client import (
    CLOSE_FAILED,
    CLOSE_REFUSED,
    CLOSE_UNREADABLE,
    PRESET,
    TEXT,
    WORDS,
    Client,
    calling,
    spaced,
    unconfigured,
)
from tests.test_arriving_tokens import cut
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN
from vllm_cosyvoice.text.front_end import SILENCE
from vllm_cosyvoice.voice.store import BUILT_IN

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
BYTES_PER_SECOND = 2 * SAMPLE_RATE
BYTES_OF_SILENCE = round(SILENCE * BYTES_PER_SECOND)


async def test_audio_starts_before_the_text_ends(server: ServerProcess) -> None:
    async with calling(server) as client:
        await client.text(*spaced(WORDS[:15]))
        early = await client.first_audio()
        await client.text(*spaced(["and", *WORDS[15:]]))
        await client.say("input.done")
        rest = await client.utterance()
    assert early and rest.pcm
    assert rest.kinds() == ["audio.done", "session.done"]
    assert rest.events[0]["total_bytes"] == len(early) + len(rest.pcm)
    assert not any(event["error"] or event["cancelled"] for event in rest.events[:1])


async def test_the_speech_is_that_of_the_whole_text_however_it_comes(server: ServerProcess) -> None:
    draw = random.Random(0)

    async def speak(pieces: Sequence[str], most_seconds: float, voice: str) -> np.ndarray:
        async with calling(server, max_tokens=75, voice=voice) as client:
            await client.text(*pieces, most_seconds=most_seconds, draw=draw)
            await client.say("input.done")
            return np.frombuffer((await client.utterance()).pcm, np.int16).astype(np.float64)

    for voice in (PRESET, "default"):
        whole = await speak([TEXT], 0, voice)
        ways = [(list(TEXT), 0.0), (spaced(WORDS), 0.2), *((cut(TEXT, draw), 0.1) for _ in range(3))]
        for heard in await asyncio.gather(*(speak(pieces, seconds, voice) for pieces, seconds in ways)):
            assert len(heard) == len(whole) == 75 * SAMPLES_PER_TOKEN
            # The same tokens; batches of other sizes round differently.
            assert np.abs(heard - whole).max() < 0.02 * np.abs(whole).max()


async def test_sentence_mode_speaks_each_sentence_as_soon_as_it_is_there(server: ServerProcess) -> None:
    async with calling(server, split_granularity="sentence", instructions="Speak slowly.", **exactly(20)) as client:
        await client.text("Good mor", "ning, my friend. How")
        assert len(await client.first_audio()) == 20 * BYTES_PER_TOKEN
        await client.text(" are you on the 3rd", " of May? ", "Fine")
        await client.say("input.done")
        heard = await client.utterance()
    starts = [event for event in heard.events if event["type"] == "audio.start"]
    assert [start["sentence_text"] for start in starts] == ["How are you on the 3rd of May?", "Fine"]
    assert heard.kinds() == ["audio.done", *["audio.start", "audio.done"] * 2, "session.done"]
    assert len(heard.pcm) == 2 * 20 * BYTES_PER_TOKEN
    assert heard.events[-1] == {"type": "session.done", "utterance_index": 0, "total_sentences": 3, "cancelled": False}


async def test_sentences_without_words_are_silence_and_the_session_goes_on(server: ServerProcess) -> None:
    spoken = 10 * BYTES_PER_TOKEN
    async with calling(server, split_granularity="sentence", **exactly(10)) as client:
        for text, sizes in (
            ("[pause:1s]", [BYTES_PER_SECOND]),
            ("...", [BYTES_OF_SILENCE]),
            ("Good morning. [pause:1s] … ", [spoken, BYTES_PER_SECOND]),
            ("Good morning. !?", [spoken]),
            ("Good morning. *\n\n* Good night.", [spoken, spoken]),
        ):
            await client.text(text)
            await client.say("input.done")
            heard = await client.utterance()
            assert [event["total_bytes"] for event in heard.events if event["type"] == "audio.done"] == sizes, text
            assert not [event for event in heard.events if event["type"] == "error" or event.get("error")]


async def test_a_sentence_can_come_in_one_message_and_in_any_format(server: ServerProcess) -> None:
    async with calling(server, response_format="wav", stream_audio=False, **exactly(60)) as client:
        await client.text("Good morning.")
        await client.say("input.done")
        heard = await client.utterance()
        assert heard.frames == 1
        assert heard.pcm[:4] == b"RIFF"
        assert int.from_bytes(heard.pcm[40:44], "little") == 60 * BYTES_PER_TOKEN == len(heard.pcm) - 44
        await client.say("session.config", response_format="mp3", voice=PRESET, **exactly(60))
        await client.text("Good morning.")
        await client.say("input.done")
        heard = await client.utterance()
        assert heard.events[0]["format"] == "mp3"
        assert heard.pcm[0] == 0xFF


@pytest.mark.parametrize(("streamed", "largest"), [(True, 64 << 10), (False, 1 << 20)])
async def test_no_message_is_too_large_for_ordinary_clients(
    server: ServerProcess, streamed: bool, largest: int
) -> None:
    tokens = 600  # 24 s: 1.1 MB
    config = {"voice": PRESET, "split_granularity": "sentence", "stream_audio": streamed, **exactly(tokens)}
    async with calling(server, **config) as client:
        await client.text("Good morning.")
        await client.say("input.done")
        sizes = []
        while not isinstance(message := await client.next(), dict) or message["type"] != "session.done":
            if isinstance(message, bytes):
                sizes.append(len(message))
    assert sum(sizes) == tokens * BYTES_PER_TOKEN
    assert max(sizes) <= largest
    if not streamed:
        assert len(sizes) == 2


async def test_a_character_may_be_cut_in_two(server: ServerProcess) -> None:
    async with calling(server, **exactly(10), split_granularity="sentence") as client:
        await client.text("Good morning \ud83d", "\ude42 friend.")
        await client.say("input.done")
        heard = await client.utterance()
        [start] = [event for event in heard.events if event["type"] == "audio.start"]
        assert start["sentence_text"] == "Good morning 🙂 friend."
        await client.text("Good night \ud83d")
        await client.say("input.done")
        assert "middle of a character" in (await client.event())["message"]
        assert len((await client.utterance()).pcm) == 10 * BYTES_PER_TOKEN


async def test_utterances_follow_each_other_on_one_connection(server: ServerProcess) -> None:
    async with calling(server, **exactly(30)) as client:
        for text in ("One day .", "", "?!", "Two days ."):
            await client.text(text)
            await client.say("input.done")
        heard = [await client.utterance() for _ in range(4)]
        await client.text("The end")
        await client.say("session.close")
        last = await client.utterance()
        assert await client.closed() == 1000
    assert [utterance.events[-1]["utterance_index"] for utterance in [*heard, last]] == [0, 1, 2, 3, 4]
    spoken = 30 * BYTES_PER_TOKEN
    assert [len(utterance.pcm) for utterance in [*heard, last]] == [spoken, 0, BYTES_OF_SILENCE, spoken, spoken]
    await eventually(server.idle, "nothing is left")


async def test_cancel_stops_the_sound_and_frees_every_stage(server: ServerProcess) -> None:
    async with calling(server, **exactly(4000)) as client:
        await client.text(TEXT)
        await client.say("input.done")
        await client.text("Waiting .")
        await client.first_audio()
        await client.say("input.cancel")
        events = [await client.event() for _ in range(3)]
        assert [(event["type"], event["utterance_index"], event["cancelled"]) for event in events] == [
            ("audio.done", 0, True),
            ("session.done", 0, True),
            ("session.done", 1, True),
        ]
        await eventually(server.idle, "nothing of it is left")
        await client.say("session.config", voice=PRESET, response_format="pcm", **exactly(10))
        await client.text("And on .")
        await client.say("input.done")
        heard = await client.utterance()  # with all that came since the cancel: nothing of the cancelled sound
    assert len(heard.pcm) == 10 * BYTES_PER_TOKEN
    assert heard.events[-1]["utterance_index"] == 2


async def test_cancel_before_any_sound_and_without_an_utterance(server: ServerProcess) -> None:
    async with calling(server) as client:
        await client.say("input.cancel")
        await client.text("Good")
        await client.say("input.cancel")
        assert (await client.event())["cancelled"]
        await client.text("?")
        await client.say("input.cancel")
        assert (await client.utterance()).events == [
            {"type": "session.done", "utterance_index": 1, "total_sentences": 0, "cancelled": True}
        ]
    await eventually(server.idle, "nothing is left")


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        ({"type": "input.text", "text": "Hello"}, "session.config"),
        ({"type": "session.config", "voice": "nobody"}, "nobody"),
        ({"type": "session.config", "model": "gpt-9"}, "gpt-9"),
        ({"type": "session.config", "response_format": "midi"}, "response_format"),
        ({"type": "session.config", "speed": 9}, "speed"),
        ({"type": "session.config", "temperature": 9}, "temperature"),
        ({"type": "session.config", "split_granularity": "word"}, "split_granularity"),
        ({"type": "session.config", "instructions": "Whisper."}, "split_granularity"),
        ({"type": "session.config", "ref_audio": "data:audio/wav;base64,AAAA"}, "recording"),
        (["session.config"], "JSON object"),
        ("session.config", "JSON object"),
    ],
)
async def test_a_session_that_cannot_begin_says_why(server: ServerProcess, first: object, complaint: str) -> None:
    async with unconfigured(server) as client:
        await client.socket.send(json.dumps(first))
        problem = await client.event()
        assert problem["type"] == "error"
        assert complaint in problem["message"]
        assert await client.closed() == CLOSE_REFUSED


async def test_a_bad_message_is_answered_and_the_session_goes_on(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for message in (
            "{",
            "[]",
            "{}",
            b"\x00",
            '{"type": "input.text"}',
            '{"type": "input.text", "text": "\\ude42"}',
            json.dumps({"type": "input.text", "text": "x" * 200_000}),
            '{"type": "input.audio"}',
            "[" * 100_000,
            '{"type": "session.config", "voice": "nobody"}',
        ):
            await client.socket.send(message)
            assert (await client.event())["type"] == "error", message
        await client.text("Good morning")
        await client.say("session.config", voice="default")
        assert "input.done" in (await client.event())["message"]
        await client.say("input.done")
        assert len((await client.utterance()).pcm) == 10 * BYTES_PER_TOKEN


async def test_an_endless_utterance_ends_with_an_error_and_the_next_is_spoken(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for _ in range(50):
            await client.text("far away " * 20)
        await client.say("input.done")
        heard = await client.utterance()
        [problem] = [event for event in heard.events if event["type"] == "error"]
        assert "4096 characters" in problem["message"]
        await client.text("Good morning")
        await client.say("input.done")
        assert len((await client.utterance()).pcm) == 10 * BYTES_PER_TOKEN
    await eventually(server.idle, "nothing is left")


async def test_too_many_utterances_at_once_are_refused(server: ServerProcess) -> None:
    async with calling(server, **exactly(10)) as client:
        for _ in range(30):
            await client.text("Good morning")
            await client.say("input.done")
        answers = [await client.utterance() for _ in range(8)]
        assert all(answer.pcm for answer in answers)
        assert any("wait for a session.done" in str(answer.events) for answer in answers)


async def test_many_sessions_at_once_that_end_in_every_way_leave_nothing_behind(server: ServerProcess) -> None:
    def open_files() -> int:
        return sum(process.num_fds() for process in server.family())

    def memory() -> int:
        return sum(process.memory_info().rss for process in server.family())

    async def session(number: int) -> None:
        draw = random.Random(number)
        voice, granularity = draw.choice([PRESET, "default"]), draw.choice(["none", "none", "sentence", "clause"])
        tokens = draw.choice([10, 60, 4000])
        async with calling(server, voice=voice, split_granularity=granularity, **exactly(tokens)) as client:
            for _ in range(draw.randint(1, 3)):
                await client.text(*cut(TEXT, draw), most_seconds=0.02, draw=draw)
                ending = draw.choice(["done", "cancel", "cancel after done", "leave", "abort"])
                if ending == "leave":
                    return
                if ending == "abort":
                    client.socket.transport.abort()
                    return
                if ending != "cancel":
                    await client.say("input.done")
                if ending != "done" or tokens > 100:
                    await asyncio.sleep(draw.random() * 0.3)
                    await client.say("input.cancel")
                assert (await client.utterance()).kinds()[-1] == "session.done"

    async def sessions(first: int, last: int) -> None:
        await asyncio.gather(*map(session, range(first, last)))
        await eventually(server.idle, "nothing of the sessions is left")

    await sessions(0, 20)
    files, bytes_before = open_files(), memory()
    await sessions(20, 60)
    assert open_files() <= files + 15  # some processes have not talked to each other before
    assert memory() <= bytes_before + (100 << 20)


@contextlib.asynccontextmanager
async def bistream(server: ServerProcess, prompt: bytes | None = None, **first: object) -> AsyncIterator[Client]:
    recording, transcript = BUILT_IN / "default.wav", BUILT_IN / "default.txt"
    async with unconfigured(server, "/inference_zero_shot_bistream") as client:
        await client.socket.send(json.dumps({"prompt_text": transcript.read_text()} | first))
        await client.socket.send(recording.read_bytes() if prompt is None else prompt)
        yield client


async def test_lighttts_clients_speak_as_before(server: ServerProcess) -> None:
    async with bistream(server, tts_model_name="default") as client:
        for word in spaced(WORDS * 4):
            await client.socket.send(json.dumps({"tts_text": word}))
        early = await client.next()
        assert isinstance(early, bytes), "audio comes while text is still due"
        await client.socket.send(json.dumps({"tts_text": " The end."}))
        await client.socket.send(json.dumps({"finish": True, "tts_text": "not spoken"}))
        pcm = early
        with contextlib.suppress(ConnectionClosed):
            while isinstance(piece := await client.next(), bytes):
                pcm += piece
        assert client.socket.close_code == 1000
    assert len(pcm) % BYTES_PER_TOKEN == 0
    await eventually(server.idle, "nothing is left")


async def test_lighttts_clients_hear_silence_for_text_without_words(server: ServerProcess) -> None:
    async with bistream(server) as client:
        for message in ({"tts_text": "?"}, {"tts_text": "!"}, {"finish": True}):
            await client.socket.send(json.dumps(message))
        assert await client.next() == bytes(BYTES_OF_SILENCE)
        assert await client.closed() == 1000


@pytest.mark.parametrize(
    ("frames", "first", "prompt", "code"),
    [
        ([{"finish": True}], {}, None, CLOSE_FAILED),
        ([{"tts_text": 5}], {}, None, CLOSE_FAILED),
        ([{"tts_text": "\ud800"}], {}, None, CLOSE_FAILED),
        ([{"tts_text": "a" * 4000}, {"tts_text": "a" * 97}], {}, None, CLOSE_FAILED),
        ([{"tts_text": "?"}, {"text": "?"}], {}, None, CLOSE_FAILED),
        ([], {"prompt_text": None}, None, CLOSE_UNREADABLE),
        ([], {"prompt_text": "\ud800"}, None, CLOSE_UNREADABLE),
        ([], {"tts_model_name": "other"}, None, CLOSE_UNREADABLE),
        ([], {}, b"no recording", CLOSE_UNREADABLE),
    ],
)
async def test_lighttts_clients_are_told_what_is_wrong(
    server: ServerProcess, frames: list[object], first: dict[str, object], prompt: bytes | None, code: int
) -> None:
    async with bistream(server, prompt, **first) as client:
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await client.socket.send(json.dumps(frame))
        if code == CLOSE_FAILED:
            answer = await client.event()
            assert answer["error"].startswith("Server error: ")
        assert await client.closed() == code
    await eventually(server.idle, "nothing is left")


async def test_a_lighttts_client_may_leave_at_any_time(server: ServerProcess) -> None:
    for words in (0, 2, 60):
        async with bistream(server) as client:
            for word in spaced([*WORDS * 4][: words or 1]):
                await client.socket.send(json.dumps({"tts_text": word}))
            if words:
                await asyncio.sleep(0.5)
            client.socket.transport.abort()
    await eventually(server.idle, "nothing is left")
