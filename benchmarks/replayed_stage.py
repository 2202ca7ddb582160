"""Not a stage: it stands in for each of them, and answers when one H200 did. Nothing is computed, the audio is silence.

The times are those of benchmarks/RESULTS.md, 2026-11-24, of 1 caller and of 150 and 250 listeners in real time:
medians from the request to the first piece of audio of an utterance of 10 s, and to its last one. Between them lie
pieces that grow as those of `vllm_cosyvoice.decode.hops`. What a replica can't make in that time comes later: it makes
as much audio a second as the GPU, no more.
"""

import asyncio
from bisect import bisect_left
from functools import partial

from server.observe.metrics import Numbers
from server.processes.channel import Channel
from server.processes.messages import AnyMessage, Message, Ready
from server.processes.process import Settings, Stage, serve
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN, TOKEN_RATE
from vllm_cosyvoice.decode.hops import GROWTH
from vllm_cosyvoice.recording import StoredVoice
from vllm_cosyvoice.segment import Prompt, Segment
from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Audio,
    Convert,
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
    Voices,
)

MEASURED = (  # listeners, seconds to the first piece, seconds to the last of 10 s of audio
    (1, 0.084, 0.45),
    (150, 0.111, 0.67),
    (250, 0.163, 0.92),
)
MOST_AUDIO = 296.0  # seconds of audio a second, streamed
MEASURED_AUDIO = 10.0  # seconds
FIRST_PIECE = 15  # speech tokens
USUAL_TOKENS = 250  # of a request that does not say


async def run(settings: Settings, channel: Channel) -> None:
    """Be the stage that is asked for."""
    stages: dict[str, type[_Stage]] = {"encode": _Encode, "generate": _Generate, "decode": _Decode}
    stage: Stage = stages[settings.kind](channel, settings.arguments.encode_paral_num)
    channel.send(settings.supervisor, Ready(channel.address))
    await serve(stage, channel)


def cuts(tokens: int) -> list[int]:
    """Where the pieces of an utterance of so many tokens end."""
    ends = [FIRST_PIECE]
    while ends[-1] < tokens:
        ends.append(ends[-1] * GROWTH)
    return [*(end for end in ends if end < tokens), tokens]


def measured(listeners: float) -> tuple[float, float]:
    """Seconds to the first and to the last piece with so many listeners, between what was measured."""
    place = min(max(bisect_left([row[0] for row in MEASURED], listeners), 1), len(MEASURED) - 1)
    (few, *sooner), (many, *later) = MEASURED[place - 1 : place + 1]
    share = min(max((listeners - few) / (many - few), 0.0), 1.0)
    first, last = (a + share * (b - a) for a, b in zip(sooner, later, strict=True))
    return first, last


class _Stage:
    def __init__(self, channel: Channel, most_requests: int) -> None:
        self._channel = channel
        self._most_requests = most_requests

    def handle(self, message: AnyMessage | Message) -> None:
        """Act on a message."""

    def drop(self, address: Address) -> None:
        """A process has died: it takes what it owned with it, so there is nothing to tell anybody."""

    def numbers(self) -> Numbers:
        """For /metrics."""
        return {}


class _Encode(_Stage):
    def __init__(self, channel: Channel, most_requests: int) -> None:
        super().__init__(channel, most_requests)
        self._held: set[str] = set()

    def numbers(self) -> Numbers:
        return {"voices_held": len(self._held)}

    def handle(self, message: AnyMessage | Message) -> None:
        match message:
            case Release():
                self._held.discard(message.request_id)
                return
            case Prepare() if len(self._held) >= self._most_requests:
                answer: Message = Failed(message.request_id, "overloaded", "The replayed stage is full.")
            case Prepare() if message.request.text is None:
                self._held.add(message.request_id)
                answer = StreamPrepared(message.request_id, Prompt([], [], []), "replayed")
            case Prepare():
                self._held.add(message.request_id)
                words = len((message.request.text or "").split())
                tokens = message.request.sampling.max_tokens or USUAL_TOKENS
                answer = Prepared(message.request_id, [Segment([0], words, tokens, tokens)], "replayed")
            case ListVoices():
                answer = Voices(message.request_id, [StoredVoice("replayed", 0)])
            case Convert() | RegisterVoice() | DeleteVoice():
                answer = Failed(message.request_id, "invalid", "A replay of stages only speaks.")
            case _:
                return
        self._channel.send(message.reply_to, answer)


class _Generate(_Stage):
    """Sends all tokens of a segment at once: the decode stage's times are those of both."""

    def __init__(self, channel: Channel, most_requests: int) -> None:
        super().__init__(channel, most_requests)
        self._arriving: dict[str, GenerateFromText] = {}

    def handle(self, message: AnyMessage | Message) -> None:
        match message:
            case Generate():
                self._generate(message.open, message.decoder, message.segment.max_tokens)
            case GenerateFromText():
                self._arriving[message.open.segment_id] = message
            case Text() if message.last and (work := self._arriving.pop(message.segment_id, None)):
                self._generate(work.open, work.decoder, work.sampling.max_tokens or USUAL_TOKENS)
            case Abort():
                self._arriving.pop(message.segment_id, None)
                self._channel.send(message.decoder, message)

    def _generate(self, opening: Open, decoder: Address, tokens: int) -> None:
        self._channel.send(decoder, opening)
        self._channel.send(decoder, Tokens([(opening.segment_id, [0] * tokens, True)]))


class _Decode(_Stage):
    def __init__(self, channel: Channel, most_requests: int) -> None:
        super().__init__(channel, most_requests)
        self._opened: dict[str, Open] = {}
        self._speaking: dict[str, asyncio.Task[None]] = {}
        self._begun: list[float] = []  # when utterances of the last seconds began, which makes their listeners
        self._free = 0.0  # when all audio that was asked for so far could have been made

    def handle(self, message: AnyMessage | Message) -> None:
        match message:
            case Open():
                self._opened[message.segment_id] = message
            case Tokens():
                for segment_id, tokens, _ in message.new:
                    speaking = asyncio.create_task(self._speak(self._opened.pop(segment_id), len(tokens)))
                    self._speaking[segment_id] = speaking
                    speaking.add_done_callback(partial(self._forget, segment_id))
            case Abort() if aborted := self._speaking.get(message.segment_id):
                aborted.cancel()

    def numbers(self) -> Numbers:
        return {"streams": len(self._speaking)}

    def _forget(self, segment_id: str, _: asyncio.Task[None]) -> None:
        del self._speaking[segment_id]

    async def _speak(self, opening: Open, tokens: int) -> None:
        now, audio = asyncio.get_running_loop().time(), tokens / TOKEN_RATE
        self._begun = [*(begun for begun in self._begun if begun > now - MEASURED_AUDIO), now]
        first, last = measured(len(self._begun) * audio / MEASURED_AUDIO)
        last = first + (last - first) * audio / MEASURED_AUDIO
        self._free = max(self._free, now) + audio / MOST_AUDIO
        late = max(0.0, self._free - (now + last))
        ends = cuts(tokens) if opening.streaming else [tokens]
        begin = 0
        for number, end in enumerate(ends, 1):
            share = (number - 1) / (len(ends) - 1) if len(ends) > 1 else 1.0
            await asyncio.sleep(now + late + first + share * (last - first) - asyncio.get_running_loop().time())
            pcm = bytes(2 * SAMPLES_PER_TOKEN * (end - begin))
            self._channel.send(opening.reply_to, Audio(opening.segment_id, pcm, tokens, last=end == tokens))
            begin = end
