"""What processes rely on: messages arrive whole, in order, from friends only, and never at a successor."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from server.processes import messages
from server.processes.addresses import Addresses, RunDirectory
from server.processes.channel import Channel
from server.processes.messages import Address, Message
from vllm_cosyvoice.recording import Recording, StoredVoice, Voice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Prompt, Segment
from vllm_cosyvoice.stages.messages import (
    Audio,
    Convert,
    Generate,
    GenerateFromText,
    Open,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StreamPrepared,
    Text,
    Tokens,
    VoiceData,
    Voices,
)

SECRET = b"s" * 32
RECORDING = Recording(b"\x00\xff", "你好")
SEGMENT = Segment(prompt=[6564, 7000, 6565], text_tokens=1, min_tokens=2, max_tokens=20)
OPEN = Open("r.0", "r", "http", "generate", "encode", "key", 1.5, 7)


@pytest.fixture(params=["ipc", "tcp"])
def addresses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with RunDirectory(Path("/tmp"), 1) as run_directory:
        yield Addresses("tcp://" if request.param == "tcp" else "ipc:///tmp/", run_directory.path)


@pytest.mark.parametrize(
    "message",
    [
        Prepare(SpeechRequest(id="r", text="Hello."), "http"),
        Prepare(SpeechRequest(id="r", text="Hello.", voice=RECORDING, instructions="Whisper.", speed=2.0), "http"),
        Prepare(SpeechRequest(id="r", cross_lingual=True, streaming=False, sampling=SamplingOptions(seed=3)), "http"),
        Prepared("r", [SEGMENT, SEGMENT], "key"),
        Convert(SpeechRequest(id="r", voice=Recording(bytes(10 << 20))), "http", bytes(10 << 20)),
        RegisterVoice("r", "http", "Anna", Recording(b"RIFF")),
        Voices("r", [StoredVoice("Anna", 1_800_000_000), StoredVoice("default", 0)]),
        Generate(SEGMENT, SamplingOptions(seed=3, repetition_aware=False), "decode", OPEN, refusable=True),
        StreamPrepared("r", Prompt([4], [1, 2], [3]), "key"),
        GenerateFromText(Prompt([4], [1, 2], [3]), SamplingOptions(temperature=0), "decode", OPEN, refusable=True),
        Text("r.0", " wor", last=False),
        Tokens([("r.0", [1, 2, 3], False), ("q.1", [], True)]),
        Audio("r.0", b"\x00\x01" * 1000, 28, last=False),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_a_voice_arrives_as_it_was_sent_and_may_be_written_to() -> None:
    generator = np.random.default_rng(0)
    mel, embedding = generator.random((4, 80), np.float32), generator.random(192, np.float32)
    sent = VoiceData("r", Voice("你好", np.array([1, 6560], np.int32), mel, embedding, "key"))
    come = messages.decode(messages.encode(sent))
    assert isinstance(come, VoiceData)
    assert (come.request_id, come.voice.transcript, come.voice.key) == ("r", "你好", "key")
    for name in ("speech_tokens", "mel", "embedding"):
        array = getattr(come.voice, name)
        np.testing.assert_array_equal(array, getattr(sent.voice, name), strict=True)
        assert array.flags.writeable, "PyTorch wants it so"


def test_what_is_no_message_is_not_taken_for_one() -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode(b"\x80")


@pytest.fixture
def channel() -> Iterator[Callable[[Address], Channel]]:
    """Opens channels. They are closed also if a test fails: garbage collection would wait for one for ever."""
    with contextlib.ExitStack() as stack:

        def opened(address: Address) -> Channel:
            one = Channel(address, SECRET)
            stack.callback(one.close)
            return one

        yield opened


async def test_messages_keep_their_order_also_when_the_receiver_comes_later(
    addresses: Addresses, channel: Callable[[Address], Channel]
) -> None:
    here, there = addresses.new("here"), addresses.new("there")
    sender = channel(here)
    for number in range(2000):
        sender.send(there, Release(str(number)))
    receiver = channel(there)
    async with asyncio.timeout(30):
        assert [await receiver.receive() for _ in range(2000)] == [Release(str(number)) for number in range(2000)]


async def test_a_stranger_without_the_secret_is_not_heard(
    addresses: Addresses, channel: Callable[[Address], Channel]
) -> None:
    address = addresses.new("here")
    receiver = channel(address)
    forged = messages.encode(Release("forged"))
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.connect(address)
        for frames in (
            [forged],
            [b"guess", forged],
            [SECRET, forged, forged],
            [SECRET, b"\x80"],
            [SECRET, messages.encode(Release("true"))],
        ):
            stranger.send_multipart(frames)
        async with asyncio.timeout(30):
            assert await receiver.receive() == Release("true")


async def test_nothing_meant_for_a_dead_process_reaches_the_next_one(
    addresses: Addresses, channel: Callable[[Address], Channel]
) -> None:
    sender = channel(addresses.new("here"))
    dead = addresses.new("stage")
    sender.send(dead, Release("queued"))
    sender.bury(dead)
    sender.send(dead, Release("after"))
    successor = channel(addresses.new("stage"))
    await asyncio.sleep(1)  # ZeroMQ closes sockets in a thread of its own
    late = channel(dead)
    sender.send(successor.address, Release("for the living"))
    async with asyncio.timeout(30):
        assert await successor.receive() == Release("for the living")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await late.receive()


def test_directories_of_killed_servers_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, 8080) as living:
        left = tmp_path / "cosyvoice_8080_left"
        left.mkdir()
        (left / "socket").touch()
        other_port = tmp_path / "cosyvoice_8081_left"
        other_port.mkdir()
        with RunDirectory(tmp_path, 8080) as second:
            assert sorted(tmp_path.iterdir()) == sorted([living.path, second.path, other_port])
            assert second.path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [other_port]
