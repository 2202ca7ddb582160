"""What the stages owe each other, message by message: the test plays the peers of the one stage it looks at."""

import asyncio
import gc
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import torch

from server.arguments import SHORTEST_FIRST_HOP
from server.processes.addresses import Addresses, RunDirectory
from server.processes.channel import Channel
from server.processes.engine import StagedEngine
from server.processes.messages import Kind, Message, Ping, Pong, StageDown, StageUp
from server.processes.process import Stage, serve
from server.processes.stage_registry import Stages
from tests.test_audio import tone, wav
from tests.utterances import begun
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SAMPLES_PER_FRAME, SAMPLES_PER_TOKEN
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.engine import SEGMENTS_AHEAD
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.segment import Prompt, Segment
from vllm_cosyvoice.stages.decode import DecodeStage
from vllm_cosyvoice.stages.encode import EncodeStage
from vllm_cosyvoice.stages.messages import (
    Abort,
    Audio,
    Convert,
    Converted,
    DeleteVoice,
    Failed,
    Generate,
    GenerateFromText,
    ListVoices,
    Open,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StreamPrepared,
    Text,
    Tokens,
    VoiceData,
    VoiceWanted,
)
from vllm_cosyvoice.vocoder import Vocoder
from vllm_cosyvoice.voice import Voice

SECRET = b"s" * 32
numbers = itertools.count()
SECONDS = 60.0
ROWS = 4  # of a decode call
SEGMENT = Segment(prompt=[6564, 7000, 6565], text_tokens=1, min_tokens=2, max_tokens=20)
LONGEST_UTTERANCE = 7500  # speech tokens, prompt included: what the decoder takes
Expected = TypeVar("Expected", bound=Message)


class Peers:
    """The processes around the stage under test: http, encode, generate and decode, each an inbox of its own."""

    def __init__(self, addresses: Addresses) -> None:
        self.stage = Channel(addresses.new("stage"), SECRET)
        self.of: dict[str, Channel] = {
            name: Channel(addresses.new(name), SECRET) for name in ("http", "encode", "generate", "decode")
        }

    def tell(self, message: Message, sender: str = "http") -> None:
        self.of[sender].send(self.stage.address, message)

    async def hear(self, peer: str, kind: type[Expected]) -> Expected:
        async with asyncio.timeout(SECONDS):
            message = await self.of[peer].receive()
        assert isinstance(message, kind), message
        return message

    async def answer_pings(self, peer: str) -> None:
        while True:
            ping = await self.hear(peer, Ping)
            self.tell(Pong(ping.nonce, self.of[peer].address, {}), peer)

    async def hear_no_more(self, peer: str) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                raise AssertionError(await self.of[peer].receive())

    def open(self, segment_id: str = "r.0", voice_key: str = "", speed: float = 1.0, streaming: bool = True) -> Open:
        addresses = {name: channel.address for name, channel in self.of.items()}
        return Open(
            segment_id=segment_id,
            request_id=segment_id.split(".")[0],
            reply_to=addresses["http"],
            generator=addresses["generate"],
            encoder=addresses["encode"],
            voice_key=voice_key,
            speed=speed,
            seed=0,
            streaming=streaming,
        )

    def die(self, name: str) -> None:
        """As the supervisor would tell it."""
        self.tell(StageDown(name, self.of[name].address), sender="http" if name != "http" else "encode")


@pytest.fixture
def peers() -> Iterator[Peers]:
    with RunDirectory(Path("/tmp"), 2) as run_directory:
        peers = Peers(Addresses("ipc:///tmp/", run_directory.path))
        yield peers
        for channel in (peers.stage, *peers.of.values()):
            channel.close()


@asynccontextmanager
async def serving(stage: Stage, peers: Peers, *others: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in (serve(stage, peers.stage), *others)]
    yield
    for task in tasks:
        assert not task.done(), "the stage has died"
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - stages have no event for what tests wait for
            await asyncio.sleep(0.01)


# The http worker


@asynccontextmanager
async def engine_among(peers: Peers, patience: float) -> AsyncIterator[StagedEngine]:
    engine = StagedEngine(peers.stage, patience)
    kinds: tuple[Kind, ...] = ("encode", "generate", "decode")
    for kind in kinds:
        engine.handle(StageUp(kind, f"{kind}-0", peers.of[kind].address))
    async with serving(engine, peers):
        yield engine
    assert engine.numbers()["requests"] == engine.numbers()["segments"] == 0


@pytest.fixture
async def engine(peers: Peers) -> AsyncIterator[StagedEngine]:
    async with engine_among(peers, SECONDS) as engine:
        yield engine


def call(engine: StagedEngine) -> "asyncio.Task[list[bytes]]":
    async def speak() -> list[bytes]:
        async with aclosing(engine.speak(SpeechRequest(id=f"req_{next(numbers)}", text="Hello."))) as pieces:
            return [piece async for piece in pieces]

    return asyncio.create_task(speak())


async def leave(task: "asyncio.Task[list[bytes]]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_goes_from_stage_to_stage(peers: Peers, engine: StagedEngine) -> None:
    task = call(engine)
    prepare = await peers.hear("encode", Prepare)
    peers.tell(Prepared(prepare.request_id, [SEGMENT, SEGMENT], "key"), "encode")
    works = [await peers.hear("generate", Generate) for _ in range(2)]
    assert [work.refusable for work in works] == [True, False]
    for work, name in reversed(list(zip(works, (b"one", b"two"), strict=True))):
        peers.tell(Audio(work.open.segment_id, name, 10, last=False), "decode")
        peers.tell(Audio(work.open.segment_id, b"!", 20, last=True), "decode")
    assert await task == [b"one", b"!", b"two", b"!"], "in the order of the text, whichever came first"
    assert (await peers.hear("encode", Release)).request_id == prepare.request_id
    await peers.hear_no_more("generate")


async def test_requests_that_come_at_once_are_shared_by_the_decode_processes(
    peers: Peers, engine: StagedEngine
) -> None:
    engine.handle(StageUp("decode", "decode-1", peers.of["http"].address))
    tasks = [call(engine) for _ in range(4)]
    prepared = [Prepared((await peers.hear("encode", Prepare)).request_id, [SEGMENT], "key") for _ in tasks]
    for message in prepared:  # in one turn of the engine's loop
        engine.handle(message)
    works = [await peers.hear("generate", Generate) for _ in tasks]
    users = Counter(work.decoder for work in works)
    assert users == {peers.of["decode"].address: 2, peers.of["http"].address: 2}
    for work in works:
        peers.tell(Audio(work.open.segment_id, b"", 20, last=True), "decode")
    await asyncio.gather(*tasks)
    assert not engine.stages._load, "nobody uses a stage any more"


async def test_each_http_worker_prefers_another_of_equally_busy_stages(peers: Peers) -> None:
    async def chosen(worker: int) -> list[str]:
        stages = Stages(peers.stage, worker)
        for index in range(2):
            stages.add(StageUp("decode", f"decode-{index}", f"address-{index}"))
        with stages.using("decode") as first, stages.using("decode") as second, stages.using("decode") as third:
            return [first, second, third]

    assert await chosen(0) == ["address-0", "address-1", "address-0"]
    assert await chosen(1) == await chosen(3) == ["address-1", "address-0", "address-1"]


async def test_leaving_before_the_text_is_prepared_starts_nothing(peers: Peers, engine: StagedEngine) -> None:
    task = call(engine)
    prepare = await peers.hear("encode", Prepare)
    await leave(task)
    assert await peers.hear("encode", Release) == Release(prepare.request_id)
    peers.tell(Prepared(prepare.request_id, [SEGMENT], "key"), "encode")
    await peers.hear_no_more("generate")


async def test_leaving_aborts_every_segment_that_was_begun(peers: Peers, engine: StagedEngine) -> None:
    task = call(engine)
    prepare = await peers.hear("encode", Prepare)
    peers.tell(Prepared(prepare.request_id, [SEGMENT] * 9, "key"), "encode")
    started = [(await peers.hear("generate", Generate)).open.segment_id for _ in range(SEGMENTS_AHEAD)]
    peers.tell(Audio(started[0], b"done", 20, last=True), "decode")
    started.append((await peers.hear("generate", Generate)).open.segment_id)
    await leave(task)
    aborted = [await peers.hear("generate", Abort) for _ in range(SEGMENTS_AHEAD)]
    assert {abort.segment_id for abort in aborted} == set(started[1:])
    assert {abort.decoder for abort in aborted} == {peers.of["decode"].address}
    assert await peers.hear("encode", Release) == Release(prepare.request_id)
    await peers.hear_no_more("generate")


@pytest.mark.parametrize(
    ("problem", "kind"), [(Failure("invalid", "Too long."), "invalid"), (RuntimeError("A bug."), "internal")]
)
async def test_text_that_stops_arriving_ends_its_speech(
    peers: Peers, engine: StagedEngine, problem: Exception, kind: str
) -> None:
    async def text() -> AsyncIterator[str]:
        yield "Hello"
        raise problem

    async def speak() -> None:
        async for _ in engine.speak(SpeechRequest(id="req_text"), text()):
            pass

    task = asyncio.create_task(speak())
    await peers.hear("encode", Prepare)
    peers.tell(StreamPrepared("req_text", Prompt([], [], []), "key"), "encode")
    work = await peers.hear("generate", GenerateFromText)
    segment_id = work.open.segment_id
    assert await peers.hear("generate", Text) == Text(segment_id, "Hello", last=False)
    with pytest.raises(Failure) as failure:
        await task
    assert failure.value.kind == kind
    assert (await peers.hear("generate", Abort)).segment_id == segment_id
    assert await peers.hear("encode", Release) == Release("req_text")


async def test_a_long_text_that_arrives_is_spoken_in_segments(peers: Peers, engine: StagedEngine) -> None:
    """So speech does not get worse or stop at what a decoder takes, however long the text is."""
    sentence = "Here is another sentence of fifty characters or so. "
    written = [sentence] * 20
    spoken: list[bytes] = []

    async def text() -> AsyncIterator[str]:
        for piece in written:
            yield piece

    async def speak() -> None:
        async for piece in engine.speak(SpeechRequest(id="req_long"), text()):
            spoken.append(piece)

    task = asyncio.create_task(speak())
    await peers.hear("encode", Prepare)
    peers.tell(StreamPrepared("req_long", Prompt([], [], []), "key"), "encode")
    work: list[GenerateFromText] = []
    texts: dict[str, str] = {}
    ended: set[str] = set()
    while len(ended) < 3:
        match await asyncio.wait_for(peers.of["generate"].receive(), SECONDS):
            case GenerateFromText() as begun_work:
                work.append(begun_work)
            case Text(segment_id, piece, last):
                texts[segment_id] = texts.get(segment_id, "") + piece
                ended |= {segment_id} if last else set()
    assert [some.refusable for some in work] == [True, False, False]
    assert list(texts) == [some.open.segment_id for some in work] == ["req_long.0", "req_long.1", "req_long.2"]
    assert "".join(texts.values()).split() == "".join(written).split()
    for some in reversed(work):
        peers.tell(Audio(some.open.segment_id, some.open.segment_id.encode(), 10, last=True), "decode")
    await task
    assert spoken == [b"req_long.0", b"req_long.1", b"req_long.2"]


# Deadlines

SHORT = 1.0  # seconds; enough for a message to come
SAID, ARRIVING = SpeechRequest(id="r", text="Hello."), SpeechRequest(id="r")
Asks = Callable[[StagedEngine], AsyncIterator[bytes] | Awaitable[object]]


@pytest.fixture
async def impatient(peers: Peers) -> AsyncIterator[StagedEngine]:
    async with engine_among(peers, SHORT) as engine:
        yield engine


async def words(*pieces: str) -> AsyncIterator[str]:
    """Text whose end never comes."""
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()


async def outcome(asked: AsyncIterator[bytes] | Awaitable[object]) -> tuple[list[bytes], Failure]:
    """The audio until the failure, and the failure, which has to come."""
    pieces = []
    with pytest.raises(Failure) as failure:
        async with asyncio.timeout(SECONDS):
            if isinstance(asked, AsyncIterator):
                async for piece in asked:
                    pieces.append(piece)
            else:
                await asked
    return pieces, failure.value


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda engine: engine.speak(SAID), Prepare),
        (lambda engine: engine.speak(ARRIVING, words("Hello")), Prepare),
        (lambda engine: engine.convert(ARRIVING, b""), Convert),
        (lambda engine: engine.check_voice("r", "default"), Prepare),
        (lambda engine: engine.list_voices("r"), ListVoices),
        (lambda engine: engine.register_voice("r", "Anna", Recording(b"")), RegisterVoice),
        (lambda engine: engine.delete_voice("r", "Anna"), DeleteVoice),
    ],
    ids=["speak", "speak arriving", "convert", "check voice", "list voices", "register voice", "delete voice"],
)
async def test_an_encoder_that_never_answers_is_not_waited_for(
    peers: Peers, impatient: StagedEngine, ask: Asks, asked: type[Message]
) -> None:
    pieces, failure = await outcome(ask(impatient))
    assert (pieces, failure.kind) == ([], "timeout")
    await peers.hear("encode", asked)
    assert await peers.hear("encode", Release) == Release("r")
    await peers.hear_no_more("generate")


@pytest.mark.parametrize("heard", [[], [b"one"]], ids=["no piece", "a piece"])
async def test_a_decoder_that_sends_no_more_is_not_waited_for(
    peers: Peers, impatient: StagedEngine, heard: list[bytes]
) -> None:
    speaking = asyncio.create_task(outcome(impatient.speak(SAID)))
    await peers.hear("encode", Prepare)
    peers.tell(Prepared("r", [SEGMENT, SEGMENT], "key"), "encode")
    assert {(await peers.hear("generate", Generate)).open.segment_id for _ in range(2)} == {"r.0", "r.1"}
    for piece in heard:
        peers.tell(Audio("r.0", piece, 10, last=False), "decode")
    pieces, failure = await speaking
    assert (pieces, failure.kind) == (heard, "timeout")
    assert {(await peers.hear("generate", Abort)).segment_id for _ in range(2)} == {"r.0", "r.1"}
    assert await peers.hear("encode", Release) == Release("r")


async def test_a_decoder_that_sends_no_more_of_a_conversion_is_not_waited_for(
    peers: Peers, impatient: StagedEngine
) -> None:
    converting = asyncio.create_task(outcome(impatient.convert(ARRIVING, b"")))
    await peers.hear("encode", Convert)
    peers.tell(Converted("r", [1, 2, 3], "key"), "encode")
    pieces, failure = await converting
    assert (pieces, failure.kind) == ([], "timeout")
    await peers.hear("decode", Open)
    await peers.hear("decode", Tokens)
    assert await peers.hear("decode", Abort) == Abort("r.0", peers.of["decode"].address)
    assert await peers.hear("encode", Release) == Release("r")


async def test_text_that_neither_goes_on_nor_ends_is_not_waited_for(peers: Peers, impatient: StagedEngine) -> None:
    text = words("Hello")
    speaking = asyncio.create_task(outcome(impatient.speak(ARRIVING, text)))
    await peers.hear("encode", Prepare)
    peers.tell(StreamPrepared("r", Prompt([], [], []), "key"), "encode")
    await peers.hear("generate", GenerateFromText)
    assert await peers.hear("generate", Text) == Text("r.0", "Hello", last=False)
    pieces, failure = await speaking
    assert (pieces, failure.kind) == ([], "timeout")
    assert await anext(text, "ended") == "ended", "nobody reads it any more"
    assert await peers.hear("generate", Abort) == Abort("r.0", peers.of["decode"].address)
    assert await peers.hear("encode", Release) == Release("r")


async def test_every_piece_may_take_as_long_as_the_first(peers: Peers, impatient: StagedEngine) -> None:
    task = call(impatient)
    prepare = await peers.hear("encode", Prepare)
    peers.tell(Prepared(prepare.request_id, [SEGMENT], "key"), "encode")
    await peers.hear("generate", Generate)
    for tokens in range(4):
        await asyncio.sleep(SHORT / 2)
        peers.tell(Audio(f"{prepare.request_id}.0", b"a", tokens, last=tokens == 3), "decode")
    assert await task == [b"a"] * 4


async def test_a_request_that_no_message_can_carry_leaves_nothing(engine: StagedEngine) -> None:
    with pytest.raises(UnicodeEncodeError):
        async for _ in engine.speak(SpeechRequest(id="req_half", text="\ud800")):
            pass
    assert engine.numbers()["requests_unfinished_total"] == 1


@pytest.mark.parametrize("dead", ["generate", "decode"])
async def test_a_death_fails_what_was_there_at_once(peers: Peers, engine: StagedEngine, dead: str) -> None:
    task = call(engine)
    prepare = await peers.hear("encode", Prepare)
    peers.tell(Prepared(prepare.request_id, [SEGMENT], "key"), "encode")
    work = await peers.hear("generate", Generate)
    peers.die(dead)
    with pytest.raises(Failure, match=f"{dead}-0 has died") as failure:
        await task
    assert failure.value.kind == "unavailable"
    if dead == "decode":
        assert (await peers.hear("generate", Abort)).segment_id == work.open.segment_id
    assert await peers.hear("encode", Release) == Release(prepare.request_id)
    with pytest.raises(Failure, match="is up"):
        task = call(engine)
        prepare = await peers.hear("encode", Prepare)
        peers.tell(Prepared(prepare.request_id, [SEGMENT], "key"), "encode")
        await task


async def test_what_is_heard_goes_on_when_only_its_generator_has_died(peers: Peers, engine: StagedEngine) -> None:
    task = call(engine)
    prepare = await peers.hear("encode", Prepare)
    peers.tell(Prepared(prepare.request_id, [SEGMENT], "key"), "encode")
    segment_id = (await peers.hear("generate", Generate)).open.segment_id
    peers.tell(Audio(segment_id, b"a", 1, last=False), "decode")
    await until(lambda: engine.in_flight._speaking[segment_id].started)
    peers.die("generate")
    await until(lambda: not engine.stages._names["generate"])
    peers.tell(Audio(segment_id, b"b", 2, last=True), "decode")
    assert await task == [b"a", b"b"]


async def test_health_names_what_is_missing_and_what_does_not_answer(peers: Peers, engine: StagedEngine) -> None:
    peers.die("decode")
    await until(lambda: not engine.stages._names["decode"])
    assert await engine.stages.missing() == [
        "no decode process is up",
        "encode-0 does not answer",
        "generate-0 does not answer",
    ]


async def test_health_knows_at_once_who_died_and_who_is_up(
    peers: Peers, engine: StagedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.processes.stage_registry.SECONDS_HEALTH_HOLDS", SECONDS)
    missing = engine.stages.missing
    answering = [asyncio.create_task(peers.answer_pings(name)) for name in peers.of]
    assert await missing() == []
    peers.die("decode")
    await until(lambda: not engine.stages._names["decode"])
    assert await missing() == ["no decode process is up"]
    free_inbox = peers.of["http"].address  # nothing reaches the dead one's
    engine.handle(StageUp("decode", "decode-0", free_inbox))
    assert await missing() == []
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)


async def test_health_does_not_wait_for_the_answer_of_who_has_died(
    peers: Peers, engine: StagedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.processes.stage_registry.SECONDS_TO_ANSWER", 10 * SECONDS)
    answering = [asyncio.create_task(peers.answer_pings(name)) for name in ("encode", "generate")]
    looking = asyncio.create_task(engine.stages.missing())
    await peers.hear("decode", Ping)
    peers.die("decode")
    assert await asyncio.wait_for(looking, SECONDS) == ["no decode process is up"]
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)


async def test_health_knows_of_a_death_after_an_answer(peers: Peers, engine: StagedEngine) -> None:
    looking = asyncio.create_task(engine.stages.missing())
    ping = await peers.hear("decode", Ping)
    peers.tell(Pong(ping.nonce, peers.of["decode"].address, {}), "decode")
    peers.die("decode")
    assert "no decode process is up" in await looking


# The encode stage


@pytest.fixture(scope="module")
def preparation(tiny_model: Path) -> Preparation:
    return Preparation(open_model(tiny_model), cache_capacity=1)


def prepare(peers: Peers, request_id: str, voice: str | Recording = "default", text: str = "Hello.") -> Prepare:
    return Prepare(SpeechRequest(id=request_id, text=text, voice=voice), peers.of["http"].address)


async def test_a_voice_is_held_from_prepare_to_release(peers: Peers, preparation: Preparation) -> None:
    preset = next(name for name in preparation.voice_names() if name != "default")
    stage = EncodeStage(peers.stage, preparation, capacity=10)
    async with serving(stage, peers):
        keys = {}
        for request_id, voice in (("a", "default"), ("b", preset)):
            peers.tell(prepare(peers, request_id, voice))
            keys[request_id] = (await peers.hear("http", Prepared)).voice_key
        assert keys["a"] != keys["b"]
        peers.tell(VoiceWanted("a", peers.of["decode"].address), "decode")
        assert (await peers.hear("decode", VoiceData)).voice.key == keys["a"]
        peers.tell(Release("a"))
        await until(lambda: stage.numbers()["voices_held"] == 1)
        peers.tell(VoiceWanted("a", peers.of["decode"].address), "decode")
        await peers.hear_no_more("decode")
        peers.die("http")
        await until(lambda: stage.numbers()["voices_held"] == 0)


async def test_text_or_a_voice_that_can_not_be_spoken_is_named(peers: Peers, preparation: Preparation) -> None:
    async with serving(EncodeStage(peers.stage, preparation, capacity=10), peers):
        peers.tell(prepare(peers, "a", text=" "))
        failed = await peers.hear("http", Failed)
        assert (failed.id, failed.kind, failed.param) == ("a", "invalid", "input")
        peers.tell(prepare(peers, "b", voice="nobody"))
        failed = await peers.hear("http", Failed)
        assert (failed.id, failed.kind, failed.param) == ("b", "invalid", "voice")


async def test_a_new_voice_delays_nobody_else(peers: Peers, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preparation = Preparation(open_model(tiny_model))
    begun, go = threading.Event(), threading.Event()
    clone = preparation.clone

    def slow_clone(*arguments: Any) -> Voice:
        begun.set()
        assert go.wait(SECONDS)
        return clone(*arguments)

    preparation.voice("default")
    monkeypatch.setattr(preparation, "clone", slow_clone)
    async with serving(EncodeStage(peers.stage, preparation, capacity=10), peers):
        peers.tell(prepare(peers, "new", voice=Recording(wav(tone(1.5)), "")))
        await until(begun.is_set)
        peers.tell(prepare(peers, "known"))
        assert (await peers.hear("http", Prepared)).request_id == "known"
        go.set()
        assert (await peers.hear("http", Prepared)).request_id == "new"


async def test_a_request_for_a_known_voice_waits_for_one_job_of_the_thread(
    peers: Peers, preparation: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = EncodeStage(peers.stage, preparation)
    preparation.voice("default")
    submit = Mock(wraps=stage._texts.submit)
    monkeypatch.setattr(stage._texts, "submit", submit)
    async with serving(stage, peers):
        peers.tell(prepare(peers, "a"))
        await peers.hear("http", Prepared)
    assert submit.call_count == 1


async def test_more_requests_than_fit_are_refused_and_released_ones_make_room(
    peers: Peers, preparation: Preparation
) -> None:
    stage = EncodeStage(peers.stage, preparation, capacity=2)
    for message in (
        prepare(peers, "a"),
        prepare(peers, "b"),
        prepare(peers, "c"),
        Release("a"),
        Release("b"),
        prepare(peers, "d"),
    ):
        stage.handle(message)  # before the first of them has had a turn
    async with serving(stage, peers):
        assert (await peers.hear("http", Failed)).id == "c"
        assert (await peers.hear("http", Prepared)).request_id == "d"
        await peers.hear_no_more("http")


# The decode stage


@pytest.fixture(scope="module")
def decoder(tiny_model: Path) -> SpeechDecoder:
    return SpeechDecoder(open_model(tiny_model), "cpu")


@pytest.fixture
async def decode(peers: Peers, decoder: SpeechDecoder) -> AsyncIterator[DecodeStage]:
    loop = DecodeLoop(decoder, ROWS)
    stage = DecodeStage(peers.stage, decoder, loop, cache_capacity=1)
    async with serving(stage, peers, loop.run()):
        yield stage
    assert stage.numbers()["segments"] == stage.numbers()["streams"] == 0


def voice_data(request_id: str, key: str = "") -> VoiceData:
    preset = Voice.preset("", np.ones(192, np.float32))
    return VoiceData(request_id, msgspec.structs.replace(preset, key=key))


async def audio_of(peers: Peers, *segments: str) -> dict[str, int]:
    """Samples of each segment, once all of them have ended."""
    samples, ended = dict.fromkeys(segments, 0), 0
    while ended < len(segments):
        audio = await peers.hear("http", Audio)
        samples[audio.segment_id] += len(audio.pcm) // 2
        ended += audio.last
    return samples


async def test_tokens_that_come_before_the_voice_are_spoken(peers: Peers, decode: DecodeStage) -> None:
    peers.tell(peers.open("r.0"), "generate")
    peers.tell(peers.open("r.1"), "generate")
    peers.tell(Tokens([("r.0", [1] * 30, False), ("r.1", [2] * 10, True)]), "generate")
    peers.tell(Tokens([("r.0", [3] * 5, True)]), "generate")
    assert await peers.hear("encode", VoiceWanted) == VoiceWanted("r", peers.stage.address)
    await peers.hear_no_more("encode")
    peers.tell(voice_data("r"), "encode")
    assert await audio_of(peers, "r.0", "r.1") == {"r.0": 35 * SAMPLES_PER_TOKEN, "r.1": 10 * SAMPLES_PER_TOKEN}
    peers.tell(peers.open("s.0"), "generate")
    peers.tell(Tokens([("s.0", [4] * 3, True)]), "generate")
    assert await audio_of(peers, "s.0") == {"s.0": 3 * SAMPLES_PER_TOKEN}
    await peers.hear_no_more("encode")


async def test_a_voice_that_has_left_the_cache_still_speaks_where_it_is_in_use(
    peers: Peers, decode: DecodeStage
) -> None:
    for request_id in ("a", "b"):
        peers.tell(peers.open(f"{request_id}.0", voice_key=request_id), "generate")
        await peers.hear("encode", VoiceWanted)
        peers.tell(voice_data(request_id, key=request_id), "encode")
    await until(lambda: decode.numbers()["streams"] == 2)
    assert decode.numbers()["voices_cached"] == 1
    peers.tell(Tokens([("a.0", [1] * 4, True), ("b.0", [1] * 5, True)]), "generate")
    assert await audio_of(peers, "a.0", "b.0") == {"a.0": 4 * SAMPLES_PER_TOKEN, "b.0": 5 * SAMPLES_PER_TOKEN}


async def test_a_voice_on_its_way_to_the_device_delays_no_other(
    peers: Peers, decode: DecodeStage, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring, begun, go = decoder.prompt, threading.Event(), threading.Event()

    def slow(voice: Voice) -> FlowPrompt:
        if voice.key == "new":
            begun.set()
            assert go.wait(SECONDS)
        return bring(voice)

    monkeypatch.setattr(decoder, "prompt", slow)
    decode.handle(voice_data("known", key="known"))
    await until(lambda: decode.numbers()["voices_cached"] == 1)
    for segment_id in ("new.0", "new.1"):
        peers.tell(peers.open(segment_id, voice_key="new"), "generate")
    await peers.hear("encode", VoiceWanted)
    peers.tell(voice_data("new", key="new"), "encode")
    await until(begun.is_set)
    peers.tell(peers.open("late.0", voice_key="new"), "generate")
    peers.tell(peers.open("known.0", voice_key="known"), "generate")
    segments = ("new.0", "new.1", "late.0", "known.0")
    peers.tell(Tokens([(segment_id, [1] * 4, True) for segment_id in segments]), "generate")
    assert await audio_of(peers, "known.0") == {"known.0": 4 * SAMPLES_PER_TOKEN}
    go.set()
    assert set(await audio_of(peers, "new.0", "new.1", "late.0")) == {"new.0", "new.1", "late.0"}
    await peers.hear_no_more("encode")


async def test_a_voice_that_the_device_can_not_take_fails_who_wanted_it(
    peers: Peers, decode: DecodeStage, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Voice) -> FlowPrompt:
        raise MemoryError

    monkeypatch.setattr(decoder, "prompt", full)
    peers.tell(peers.open("r.0"), "generate")
    await peers.hear("encode", VoiceWanted)
    peers.tell(voice_data("r"), "encode")
    assert (await peers.hear("http", Failed)).kind == "internal"


async def test_a_device_that_is_lost_is_told(
    peers: Peers, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: Voice) -> FlowPrompt:
        raise torch.AcceleratorError("unspecified launch failure")

    monkeypatch.setattr(decoder, "prompt", lost)
    stage = DecodeStage(peers.stage, decoder, DecodeLoop(decoder), cache_capacity=1)
    stage.handle(voice_data("r"))
    with pytest.raises(torch.AcceleratorError):
        await asyncio.wait_for(stage.watch_device(), SECONDS)


async def test_only_who_waits_for_first_audio_gets_it_early(peers: Peers, decode: DecodeStage) -> None:
    decode.handle(voice_data("r"))
    for segment in ("r.0", "r.1"):
        peers.tell(peers.open(segment), "generate")
    peers.tell(peers.open("w.0", streaming=False), "generate")
    segments = ("r.0", "r.1", "w.0")
    peers.tell(Tokens([(segment, [1] * 100, True) for segment in segments]), "generate")
    pieces: dict[str, list[int]] = {segment: [] for segment in segments}
    for _ in range(4):
        audio = await peers.hear("http", Audio)
        pieces[audio.segment_id].append(len(audio.pcm) // 2 // SAMPLES_PER_TOKEN)
    assert len(pieces["r.0"]) == 2
    assert pieces["r.0"][0] < 25
    assert pieces["r.1"] == pieces["w.0"] == [100]


@pytest.mark.parametrize(("wanted", "hop"), [(None, 14), (22, 22)], ids=["by load", "as asked for"])
async def test_the_first_hop_is_as_long_as_asked_for_or_goes_by_load(
    peers: Peers, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch, wanted: int | None, hop: int
) -> None:
    monkeypatch.setattr(DecodeLoop, "first_hop", 14)
    loop = DecodeLoop(decoder)
    stage = DecodeStage(peers.stage, decoder, loop, cache_capacity=1, first_hop=wanted)
    tokens, mel = np.zeros(100, np.int32), np.zeros((FRAMES_PER_TOKEN * 100, MEL_BINS), np.float32)
    stage.handle(VoiceData("r", Voice("", tokens, mel, np.ones(192, np.float32), "")))
    async with serving(stage, peers, loop.run()):
        peers.tell(peers.open("r.0"), "generate")
        peers.tell(Tokens([("r.0", [1] * 100, True)]), "generate")
        audio = await peers.hear("http", Audio)
        assert len(audio.pcm) // 2 == (FRAMES_PER_TOKEN * hop - Vocoder.hold_back) * SAMPLES_PER_FRAME
        assert (await peers.hear("http", Audio)).last


def test_the_shortest_first_hop_is_heard(decoder: SpeechDecoder) -> None:
    prompt = decoder.prompt(Voice.preset("", np.ones(192, np.float32)))
    begun(decoder, prompt, first_hop=SHORTEST_FIRST_HOP)
    with pytest.raises(ValueError, match="holds back"):
        begun(decoder, prompt, first_hop=SHORTEST_FIRST_HOP - 1)


async def test_an_abort_frees_the_segment_whatever_comes_later(peers: Peers, decode: DecodeStage) -> None:
    peers.tell(peers.open("r.0"), "generate")
    await peers.hear("encode", VoiceWanted)
    peers.tell(Abort("r.0", peers.stage.address), "generate")
    await until(lambda: decode.numbers()["segments"] == 0)
    peers.tell(voice_data("r"), "encode")
    peers.tell(Tokens([("r.0", [1] * 60, True)]), "generate")
    await peers.hear_no_more("http")


async def test_aborted_segments_do_not_stay_in_memory(peers: Peers, decode: DecodeStage) -> None:
    def live_streams() -> int:
        gc.collect()
        return sum(type(thing) is Utterance for thing in gc.get_objects())

    decode.handle(voice_data("r0"))
    for number in range(200):
        decode.handle(peers.open(f"r{number}.0"))
        decode.handle(Tokens([(f"r{number}.0", [1] * 30, False)]))
        if number % 20 == 0:
            await asyncio.sleep(0.05)  # some are decoded, some being decoded, most not yet
        decode.handle(Abort(f"r{number}.0", peers.stage.address))
    assert decode.numbers()["segments"] == decode.numbers()["streams"] == 0
    await until(lambda: live_streams() <= ROWS)  # the loop keeps its last batch until the next


async def test_a_failure_of_the_generator_reaches_the_caller(peers: Peers, decode: DecodeStage) -> None:
    peers.tell(peers.open("r.0"), "generate")
    peers.tell(Failed("r.0", "invalid", "Too long.", "input"), "generate")
    assert await peers.hear("http", Failed) == Failed("r.0", "invalid", "Too long.", "input")


async def test_deaths_around_the_decoder(peers: Peers, decode: DecodeStage) -> None:
    peers.tell(peers.open("r.0"), "generate")
    await peers.hear("encode", VoiceWanted)
    peers.die("encode")
    failed = await peers.hear("http", Failed)
    assert (failed.id, failed.kind) == ("r.0", "unavailable")
    peers.tell(peers.open("s.0"), "generate")
    assert (await peers.hear("http", Failed)).id == "s.0", "the holder of its voice is dead"
    decode.handle(voice_data("t", key="k"))
    peers.tell(peers.open("t.0", voice_key="k"), "generate")
    await until(lambda: decode.numbers()["segments"] == 1)
    peers.die("generate")
    failed = await peers.hear("http", Failed)
    assert (failed.id, failed.kind) == ("t.0", "unavailable")
    assert decode.numbers()["segments"] == 0
    peers.tell(peers.open("u.0", voice_key="k"), "generate")
    peers.tell(Tokens([("u.0", [1] * 5, True)]), "generate")
    await peers.hear_no_more("http")


async def test_what_a_generator_had_finished_when_it_died_is_spoken_to_its_end(
    peers: Peers, decode: DecodeStage
) -> None:
    decode.handle(voice_data("r", key="k"))
    for segment_id in ("r.0", "s.0"):
        decode.handle(peers.open(segment_id, voice_key="k"))
    decode.handle(Tokens([("r.0", [1] * 60, True), ("s.0", [1] * 60, False)]))
    decode.drop(peers.of["generate"].address)
    assert (await peers.hear("http", Failed)).id == "s.0"
    assert await audio_of(peers, "r.0") == {"r.0": 60 * SAMPLES_PER_TOKEN}


async def test_speech_longer_than_can_be_decoded_fails_alone(peers: Peers, decode: DecodeStage) -> None:
    decode.handle(voice_data("r"))
    peers.tell(peers.open("r.0"), "generate")
    peers.tell(peers.open("s.0"), "generate")
    peers.tell(Tokens([("r.0", [1] * (LONGEST_UTTERANCE + 1), False), ("s.0", [1] * 5, True)]), "generate")
    assert (await peers.hear("http", Failed)).kind == "invalid"
    assert await audio_of(peers, "s.0") == {"s.0": 5 * SAMPLES_PER_TOKEN}
