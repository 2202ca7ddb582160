"""The decode stage: speech tokens become audio, the segments of many requests in one batch."""

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from vllm_cosyvoice.config import CHUNK_TOKENS
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
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
    utterance: Utterance


class DecodeStage:
    """Feeds a DecodeLoop. Fetches a voice when a segment needs it, while the segment's first tokens are generated."""

    def __init__(
        self,
        post: Post,
        decoder: SpeechDecoder,
        loop: DecodeLoop,
        cache_capacity: int,
        first_hop: int | None = CHUNK_TOKENS,
    ) -> None:
        """`first_hop`: tokens of the first hop; None: depends on the load."""
        self._post = post
        self._decoder = decoder
        self._loop = loop
        self._cache_capacity = cache_capacity
        self._first_hop = first_hop
        self._playbacks: dict[str, Playback] = {}  # of each request's latest segment, until it has been played
        self._prompts: OrderedDict[str, FlowPrompt] = OrderedDict()  # LRU cache; utterances keep evicted prompts
        self._lost: asyncio.Queue[Exception] = asyncio.Queue()
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="voices")
        self._uploads: dict[str, asyncio.Task[None]] = {}  # uploads of voices in progress
        self._segments: dict[str, _Segment] = {}
        self._decoded = 0
        self._failed = 0
        self._hits = 0
        self._misses = 0

    def handle(self, message: Message) -> None:  # noqa: D102 - see server.processes.process.Stage
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
        """Drop the segments of a dead engine; fail segments that still need a dead generator or encoder."""
        for segment_id, segment in list(self._segments.items()):
            if address == segment.open.reply_to:
                self._forget(segment_id)
            elif address == segment.open.generator and not segment.utterance.finished:
                self._fail(segment, "unavailable", "The language model has died and is being restarted; try again.")
            elif address == segment.open.encoder and self._waits_for_encoder(segment):
                self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")

    def numbers(self) -> dict[str, int]:  # noqa: D102 - see server.processes.process.Stage
        return {
            **_gpu_memory(self._decoder.device),
            "segments": len(self._segments),
            "segments_without_voice": sum(not segment.utterance.has_voice for segment in self._segments.values()),
            "streams": sum(segment.utterance.has_voice for segment in self._segments.values()),
            "voices_cached": len(self._prompts),
            "flow_cache_bytes": self._decoder.flow_cache_bytes,
            "voice_cache_hits_total": self._hits,
            "voice_cache_misses_total": self._misses,
            "samples_total": self._decoded,
            "segments_failed_total": self._failed,
        }

    async def watch_device(self) -> NoReturn:
        """Wait until the upload of a voice shows that this process has lost the device, and raise its error."""
        raise await self._lost.get()

    def _open(self, opening: Open) -> None:
        if self._post.is_dead(opening.reply_to) or self._post.is_dead(opening.generator):
            return
        requested = any(
            not s.utterance.has_voice and s.open.request_id == opening.request_id for s in self._segments.values()
        )
        utterance = Utterance(
            streaming=opening.streaming,
            speed=opening.speed,
            seed=opening.seed,
            playback=self._playback(opening.request_id),
        )
        segment = self._segments[opening.segment_id] = _Segment(opening, utterance)
        self._loop.add(utterance, lambda piece: self._deliver(segment, piece))
        if prompt := self._prompts.get(opening.voice_key):
            self._hits += 1
            self._prompts.move_to_end(opening.voice_key)
            self._begin(segment, prompt)
        elif opening.voice_key in self._uploads:
            pass  # it begins after the upload
        elif self._post.is_dead(opening.encoder):
            self._fail(segment, "unavailable", "The encode process that held the voice has died; try again.")
        elif not requested:
            self._misses += 1
            self._post.send(opening.encoder, VoiceWanted(opening.request_id, self._post.address))

    def _playback(self, request_id: str) -> Playback:
        """Create the playback of this request's next segment. Segments are opened in the order of the text."""
        now = time.monotonic()
        live_ids = {segment.open.request_id for segment in self._segments.values()}
        self._playbacks = {
            id: playback
            for id, playback in self._playbacks.items()
            if id in live_ids or (playback.runs_out(now) or now) > now
        }
        playback = self._playbacks[request_id] = Playback(self._playbacks.get(request_id))
        return playback

    def _learn(self, voice: Voice) -> None:
        """Upload a voice to the device, in a thread so that messages are handled meanwhile."""
        if voice.key in self._prompts:
            self._keep(voice.key, self._prompts[voice.key])
        elif voice.key not in self._uploads:
            prompt = asyncio.get_running_loop().run_in_executor(self._uploader, self._decoder.prompt, voice)
            self._uploads[voice.key] = asyncio.create_task(self._upload(voice.key, prompt))

    async def _upload(self, key: str, prompt: "asyncio.Future[FlowPrompt]") -> None:
        try:
            self._keep(key, await prompt)
        except Exception as error:
            if isinstance(error, torch.AcceleratorError):
                self._lost.put_nowait(error)
                return
            log.exception("A voice could not be uploaded to the decoder's device.")
            for segment in self._waiting_for(key):
                self._deliver(segment, error)
        finally:
            del self._uploads[key]

    def _keep(self, key: str, prompt: FlowPrompt) -> None:
        """Cache the voice for later segments, and begin those that wait for it."""
        self._prompts[key] = prompt
        self._prompts.move_to_end(key)
        while len(self._prompts) > self._cache_capacity:
            self._prompts.popitem(last=False)
        for segment in self._waiting_for(key):
            self._begin(segment, prompt)

    def _waits_for_encoder(self, segment: _Segment) -> bool:
        return not segment.utterance.has_voice and segment.open.voice_key not in self._uploads

    def _waiting_for(self, key: str) -> list[_Segment]:
        segments = self._segments.values()
        return [segment for segment in segments if not segment.utterance.has_voice and segment.open.voice_key == key]

    def _begin(self, segment: _Segment, prompt: FlowPrompt) -> None:
        first_hop = (self._first_hop or self._loop.first_hop) if segment.utterance.playback.is_first else None
        try:
            self._loop.begin(segment.utterance, prompt, first_hop)
        except ValueError as error:
            self._fail(segment, "invalid", str(error))

    def _push(self, segment: _Segment, tokens: list[int], last: bool) -> None:
        try:
            self._loop.push(segment.utterance, tokens, last=last)
        except ValueError as error:
            self._fail(segment, "invalid", str(error))

    def _deliver(self, segment: _Segment, piece: np.ndarray | Exception | None) -> None:
        if piece is None:
            return  # the previous piece was marked as the last
        if isinstance(piece, torch.AcceleratorError):
            raise piece  # this process has lost the device; only a new process can use it
        if isinstance(piece, Exception):
            log.error("Segment %s could not be decoded.", segment.open.segment_id, exc_info=piece)
            self._fail(segment, "internal", "The audio could not be decoded.")
            return
        self._decoded += len(piece)
        last = segment.utterance.done
        if last:
            del self._segments[segment.open.segment_id]
        audio = Audio(segment.open.segment_id, piece.tobytes(), len(segment.utterance.tokens), last)
        self._post.send(segment.open.reply_to, audio)

    def _fail(self, segment: _Segment, kind: FailureKind, reason: str) -> None:
        self._failed += 1
        self._forget(segment.open.segment_id)
        self._post.send(segment.open.reply_to, Failed(segment.open.segment_id, kind, reason))

    def _forget(self, segment_id: str) -> _Segment | None:
        segment = self._segments.pop(segment_id, None)
        if segment:
            self._loop.drop(segment.utterance)
        return segment


def _gpu_memory(device: torch.device) -> dict[str, int]:
    """Memory of a GPU in bytes: used by this process's tensors, used by all processes, and in total."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu_memory_allocated_bytes": torch.cuda.memory_allocated(device),
        "gpu_memory_used_bytes": total - free,
        "gpu_memory_total_bytes": total,
    }
