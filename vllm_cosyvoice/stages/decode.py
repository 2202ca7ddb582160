"""The decode stage: speech tokens become audio, the streams of many requests in one batch."""

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch

from vllm_cosyvoice.config import CHUNK_TOKENS
from vllm_cosyvoice.decode.decoder import DecodeStream, FlowPrompt, SpeechDecoder
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.schedule import Listener
from vllm_cosyvoice.failure import FailureKind
from vllm_cosyvoice.recording import Voice
from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Audio,
    Failed,
    Message,
    Open,
    Post,
    Tokens,
    VoiceData,
    VoiceWanted,
)

log = logging.getLogger(__name__)


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
        post: Post,
        decoder: SpeechDecoder,
        loop: DecodeLoop,
        cache_capacity: int,
        first_hop: int | None = CHUNK_TOKENS,
    ) -> None:
        """`first_hop`: tokens after which the first audio comes; None: by load."""
        self._post = post
        self._decoder = decoder
        self._loop = loop
        self._cache_capacity = cache_capacity
        self._first_hop = first_hop
        self._listeners: dict[str, Listener] = {}  # of each request's latest segment, until it has been heard
        self._prompts: OrderedDict[str, FlowPrompt] = OrderedDict()  # streams keep theirs when it goes from here
        self._lost: asyncio.Queue[Exception] = asyncio.Queue()
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="voices")
        self._uploads: dict[str, asyncio.Task[None]] = {}  # of voices that are on their way to the device
        self._segments: dict[str, _Segment] = {}
        self._decoded = 0
        self._failed = 0
        self._hits = 0
        self._misses = 0

    def handle(self, message: Message) -> None:  # noqa: D102 - see server.staged.process.Stage
        match message:
            case Open():
                self._open(message)
            case VoiceData():
                self._learn(message.voice)
            case Tokens():
                for segment_id, tokens, last in message.new:
                    if segment := self._segments.get(segment_id):
                        self._push(segment, tokens, last)
            case Abort():
                self._forget(message.segment_id)
            case Failed():
                if segment := self._forget(message.id):
                    self._post.send(segment.open.reply_to, message)

    def drop(self, address: Address) -> None:
        """Let go of what a dead engine had here; fail what a dead generator or encoder still owed."""
        for segment_id, segment in list(self._segments.items()):
            if address == segment.open.reply_to:
                self._forget(segment_id)
            elif address == segment.open.generator and not segment.complete:
                self._fail(segment, "unavailable", "The language model has died and is being restarted; try again.")
            elif address == segment.open.encoder and self._waits_for_encoder(segment):
                self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")

    def numbers(self) -> dict[str, int]:  # noqa: D102 - see server.staged.process.Stage
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

    async def watch_device(self) -> NoReturn:
        """Raise the error by which the device was lost to this process while a voice was brought to it."""
        raise await self._lost.get()

    def _open(self, wanted: Open) -> None:
        if self._post.is_dead(wanted.reply_to) or self._post.is_dead(wanted.generator):
            return
        asked = any(s.stream is None and s.open.request_id == wanted.request_id for s in self._segments.values())
        segment = self._segments[wanted.segment_id] = _Segment(wanted, self._listen(wanted.request_id))
        if prompt := self._prompts.get(wanted.voice_key):
            self._hits += 1
            self._prompts.move_to_end(wanted.voice_key)
            self._begin(segment, prompt)
        elif wanted.voice_key in self._uploads:
            pass  # it begins when the voice is there
        elif self._post.is_dead(wanted.encoder):
            self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")
        elif not asked:
            self._misses += 1
            self._post.send(wanted.encoder, VoiceWanted(wanted.request_id, self._post.address))

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

    def _learn(self, voice: Voice) -> None:
        """Bring a voice to the device, in a thread: the copy waits for the decode call that is under way."""
        if voice.key in self._prompts:
            self._keep(voice.key, self._prompts[voice.key])
        elif voice.key not in self._uploads:
            uploading = asyncio.get_running_loop().run_in_executor(self._uploader, self._decoder.prompt, voice)
            self._uploads[voice.key] = asyncio.create_task(self._upload(voice.key, uploading))

    async def _upload(self, key: str, uploading: "asyncio.Future[FlowPrompt]") -> None:
        try:
            self._keep(key, await uploading)
        except Exception as error:
            if isinstance(error, torch.AcceleratorError):
                self._lost.put_nowait(error)
                return
            log.exception("A voice could not be brought to the decoder.")
            for segment in self._waiting_for(key):
                self._deliver(segment, error)
        finally:
            del self._uploads[key]

    def _keep(self, key: str, prompt: FlowPrompt) -> None:
        """Have the voice for further segments, and begin those that wait for it."""
        self._prompts[key] = prompt
        self._prompts.move_to_end(key)
        while len(self._prompts) > self._cache_capacity:
            self._prompts.popitem(last=False)
        for segment in self._waiting_for(key):
            self._begin(segment, prompt)

    def _waits_for_encoder(self, segment: _Segment) -> bool:
        return segment.stream is None and segment.open.voice_key not in self._uploads

    def _waiting_for(self, key: str) -> list[_Segment]:
        segments = self._segments.values()
        return [segment for segment in segments if segment.stream is None and segment.open.voice_key == key]

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
        self._post.send(segment.open.reply_to, audio)

    def _fail(self, segment: _Segment, kind: FailureKind, reason: str) -> None:
        self._failed += 1
        self._forget(segment.open.segment_id)
        self._post.send(segment.open.reply_to, Failed(segment.open.segment_id, kind, reason))

    def _forget(self, segment_id: str) -> _Segment | None:
        self._loop.drop(segment_id)
        return self._segments.pop(segment_id, None)


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
