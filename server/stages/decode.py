"""The decode stage: speech tokens become audio, the streams of many requests in one batch."""

import asyncio
import logging
import os
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch

from server.channel import Channel
from server.messages import (
    Abort,
    Address,
    AnyMessage,
    Audio,
    Failed,
    FailureKind,
    Open,
    Ready,
    Tokens,
    VoiceData,
    VoiceWanted,
)
from server.process import Settings, serve, step
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM
from vllm_cosyvoice.decode_loop import DecodeLoop
from vllm_cosyvoice.gpu import UnsupportedGpuError
from vllm_cosyvoice.hop_schedule import Listener
from vllm_cosyvoice.speech_decoder import DecodeStream, FlowPrompt, SpeechDecoder
from vllm_cosyvoice.voice import Voice

log = logging.getLogger(__name__)

WARM_UP_TOKENS = 60  # several hops
LONGEST_CALL = 60.0  # seconds of a decode call on a GPU, where the longest takes one: the device hangs then


@dataclass(eq=False)
class _Segment:
    open: Open
    listener: Listener
    stream: DecodeStream | None = None  # None until the voice is here
    early: list[int] = field(default_factory=list)  # tokens that came before it
    complete: bool = False
    tokens: int = 0


class DecodeStage:
    """Feeds a DecodeLoop. A voice is fetched when a segment needs it, which is while its first tokens are generated."""

    def __init__(
        self,
        channel: Channel,
        decoder: SpeechDecoder,
        loop: DecodeLoop,
        cache_capacity: int,
        first_hop: int | None = CHUNK_TOKENS,
    ) -> None:
        """`first_hop`: tokens after which the first audio comes; None: by load."""
        self._channel = channel
        self._decoder = decoder
        self._loop = loop
        self._cache_capacity = cache_capacity
        self._first_hop = first_hop
        self._listeners: dict[str, Listener] = {}  # of each request's latest segment, until it has been heard
        self._prompts: OrderedDict[str, FlowPrompt] = OrderedDict()  # streams keep theirs when it goes from here
        self._segments: dict[str, _Segment] = {}
        self._decoded = 0
        self._failed = 0
        self._hits = 0
        self._misses = 0

    def handle(self, message: AnyMessage) -> None:  # noqa: D102 - see Stage
        match message:
            case Open():
                self._open(message)
            case VoiceData():
                self._learn(message)
            case Tokens():
                for segment_id, tokens, last in message.new:
                    if segment := self._segments.get(segment_id):
                        self._push(segment, tokens, last)
            case Abort():
                self._forget(message.segment_id)
            case Failed():
                if segment := self._forget(message.id):
                    self._channel.send(segment.open.reply_to, message)

    def drop(self, address: Address) -> None:
        """Let go of what a dead http worker had here; fail what a dead generator or encoder still owed."""
        for segment_id, segment in list(self._segments.items()):
            if address == segment.open.reply_to:
                self._forget(segment_id)
            elif address == segment.open.generator and not segment.complete:
                self._fail(segment, "unavailable", "The language model has died and is being restarted; try again.")
            elif address == segment.open.encoder and segment.stream is None:
                self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")

    def numbers(self) -> dict[str, int]:  # noqa: D102 - see Stage
        return {
            **_gpu_memory(self._decoder.device),
            "segments": len(self._segments),
            "segments_without_voice": sum(segment.stream is None for segment in self._segments.values()),
            "streams": len(self._loop),
            "voices_cached": len(self._prompts),
            "voice_cache_hits_total": self._hits,
            "voice_cache_misses_total": self._misses,
            "samples_total": self._decoded,
            "segments_failed_total": self._failed,
        }

    def _open(self, wanted: Open) -> None:
        if self._channel.is_dead(wanted.reply_to) or self._channel.is_dead(wanted.generator):
            return
        asked = any(s.stream is None and s.open.request_id == wanted.request_id for s in self._segments.values())
        segment = self._segments[wanted.segment_id] = _Segment(wanted, self._listen(wanted.request_id))
        if prompt := self._prompts.get(wanted.voice_key):
            self._hits += 1
            self._prompts.move_to_end(wanted.voice_key)
            self._begin(segment, prompt)
        elif self._channel.is_dead(wanted.encoder):
            self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")
        elif not asked:
            self._misses += 1
            self._channel.send(wanted.encoder, VoiceWanted(wanted.request_id, self._channel.address))

    def _listen(self, request_id: str) -> Listener:
        """Who hears the next segment of this request: segments are opened in the order of the text."""
        now = time.monotonic()
        live = {segment.open.request_id for segment in self._segments.values()}
        self._listeners = {
            known: listener
            for known, listener in self._listeners.items()
            if known in live or (listener.dry(now) or now) > now
        }
        listener = self._listeners[request_id] = Listener(self._listeners.get(request_id))
        return listener

    def _learn(self, data: VoiceData) -> None:
        if data.key not in self._prompts:
            self._prompts[data.key] = self._decoder.prompt(_voice(data))
        prompt = self._prompts[data.key]
        self._prompts.move_to_end(data.key)
        while len(self._prompts) > self._cache_capacity:
            self._prompts.popitem(last=False)
        for segment in list(self._segments.values()):
            if segment.stream is None and segment.open.voice_key == data.key:
                self._begin(segment, prompt)

    def _begin(self, segment: _Segment, prompt: FlowPrompt) -> None:
        wanted = segment.open
        first_hop = (self._first_hop or self._loop.first_hop) if segment.listener.waits else None
        segment.stream = self._decoder.open(
            prompt, streaming=wanted.streaming, speed=wanted.speed, first_hop=first_hop, seed=wanted.seed
        )
        self._loop.add(wanted.segment_id, segment.stream, lambda piece: self._deliver(segment, piece), segment.listener)
        self._push(segment, [], segment.complete)

    def _push(self, segment: _Segment, tokens: list[int], last: bool) -> None:
        segment.early += tokens
        segment.complete = last
        if segment.stream is None:
            return
        tokens, segment.early = segment.early, []
        segment.tokens += len(tokens)
        try:
            self._loop.push(segment.open.segment_id, tokens, last=last)
        except ValueError as error:
            self._fail(segment, "invalid", str(error))

    def _deliver(self, segment: _Segment, piece: np.ndarray | Exception | None) -> None:
        if piece is None:
            return  # the piece before it was marked as the last
        if isinstance(piece, torch.AcceleratorError):
            raise piece  # the device is lost to this process: the next one gets it back
        if isinstance(piece, Exception):
            log.error("Segment %s could not be decoded.", segment.open.segment_id, exc_info=piece)
            self._fail(segment, "internal", "The audio could not be decoded.")
            return
        assert segment.stream is not None
        self._decoded += len(piece)
        last = segment.stream.done
        if last:
            del self._segments[segment.open.segment_id]
        audio = Audio(segment.open.segment_id, piece.tobytes(), segment.tokens, last)
        self._channel.send(segment.open.reply_to, audio)

    def _fail(self, segment: _Segment, kind: FailureKind, reason: str) -> None:
        self._failed += 1
        self._forget(segment.open.segment_id)
        self._channel.send(segment.open.reply_to, Failed(segment.open.segment_id, kind, reason))

    def _forget(self, segment_id: str) -> _Segment | None:
        self._loop.drop(segment_id)
        return self._segments.pop(segment_id, None)


def _voice(data: VoiceData) -> Voice:
    tokens = np.frombuffer(bytearray(data.speech_tokens), np.int32)  # bytearray: torch wants arrays it may write to
    return Voice(
        transcript=data.transcript,
        speech_tokens=tokens,
        mel=np.frombuffer(bytearray(data.mel), np.float32).reshape(len(tokens) * FRAMES_PER_TOKEN, MEL_BINS),
        embedding=np.frombuffer(bytearray(data.embedding), np.float32),
        key=data.key,
    )


def _gpu_memory(device: torch.device) -> dict[str, int]:
    """What a GPU has, what all processes take of it, and what this process's tensors take."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu_memory_allocated_bytes": torch.cuda.memory_allocated(device),
        "gpu_memory_used_bytes": total - free,
        "gpu_memory_total_bytes": total,
    }


async def run(settings: Settings, channel: Channel) -> None:
    """Load, warm up, serve."""
    arguments = settings.arguments
    try:
        with step(settings, channel, "Loading the flow and the vocoder"):
            model = open_model(settings.model)
            decoder = SpeechDecoder(model, "auto", arguments.data_type, load_trt=arguments.load_trt)
    except UnsupportedGpuError as error:
        sys.exit(f"{settings.name}: {error}.")
    with step(settings, channel, "Decoding first audio"):
        _warm_up(decoder)
    loop = DecodeLoop(decoder, arguments.decode_paral_num)
    # On a CPU calls are so long that it would always be a chunk, and equal seeds give equal audio if it is one anyway.
    first_hop = arguments.first_hop_tokens or (None if torch.cuda.is_available() else CHUNK_TOKENS)
    stage = DecodeStage(channel, decoder, loop, arguments.cache_capacity, first_hop)
    channel.send(settings.supervisor, Ready(channel.address))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(loop.run())
        tasks.create_task(serve(stage, channel))
        if decoder.device.type == "cuda":
            tasks.create_task(_watch(loop))


async def _watch(loop: DecodeLoop) -> NoReturn:
    """End this process when the device hangs: the event loop would go on answering for it."""
    while True:
        await asyncio.sleep(1.0)
        if loop.seconds_in_call > LONGEST_CALL:
            log.critical("A decode call has not returned after %.0f s.", LONGEST_CALL)
            os._exit(1)  # an exception would wait for the call


def _warm_up(decoder: SpeechDecoder) -> None:
    voice = Voice.preset("warm-up", np.ones(SPEAKER_DIM, np.float32))
    stream = decoder.open(decoder.prompt(voice))
    stream.push([0] * WARM_UP_TOKENS)
    stream.finish()
    while not stream.done:
        decoder.decode([stream])
