"""The encode stage: a request's text and recordings become segments, speech tokens and voices."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from vllm_cosyvoice.failure import FailureKind, InputError
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording, Voice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.stages.messages import (
    Address,
    Convert,
    Converted,
    DeleteVoice,
    Failed,
    ListVoices,
    Message,
    Post,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StreamPrepared,
    VoiceData,
    Voices,
    VoiceWanted,
)
from vllm_cosyvoice.voice import AudioError, UnknownVoice, VoiceRefused, load_audio

log = logging.getLogger(__name__)

Question = Prepare | Convert | ListVoices | RegisterVoice | DeleteVoice


class EncodeStage:
    """Prepares texts in one thread and recordings in another, and keeps each request's voice until it is released."""

    def __init__(self, post: Post, preparation: Preparation, capacity: int | None = None) -> None:
        """`capacity`: largest number of waiting requests; None: no limit."""
        self._post = post
        self._preparation = preparation
        self._capacity = capacity
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._recordings = ThreadPoolExecutor(1, thread_name_prefix="recordings")
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._voices: dict[str, Voice] = {}
        self._owners: dict[str, Address] = {}
        self._prepared = 0

    def handle(self, message: Message) -> None:  # noqa: D102 - see server.processes.process.Stage
        match message:
            case Prepare() | Convert() | ListVoices() | RegisterVoice() | DeleteVoice():
                self._accept(message)
            case Release():
                self._release(message.request_id)
            case VoiceWanted() if voice := self._voices.get(message.request_id):
                self._post.send(message.reply_to, VoiceData(message.request_id, voice))

    def drop(self, address: Address) -> None:  # noqa: D102 - see server.processes.process.Stage
        for request_id in [request for request, owner in self._owners.items() if owner == address]:
            self._release(request_id)

    def numbers(self) -> dict[str, int]:  # noqa: D102 - see server.processes.process.Stage
        return {
            "requests_preparing": len(self._preparing),
            "voices_held": len(self._voices),
            "requests_prepared_total": self._prepared,
            "voice_cache_hits_total": self._preparation.cache_hits,
            "voice_cache_misses_total": self._preparation.cache_misses,
        }

    def _accept(self, request: Question) -> None:
        if self._post.is_dead(request.reply_to):
            return
        if self._capacity is not None and len(self._preparing) >= self._capacity:
            reason = f"{self._capacity} requests are already waiting; try again in a moment."
            self._post.send(request.reply_to, Failed(request.request_id, "overloaded", reason))
            return
        self._owners[request.request_id] = request.reply_to
        self._preparing[request.request_id] = asyncio.create_task(self._prepare(request))

    async def _prepare(self, request: Question) -> None:
        answer: Message
        try:
            answer, voice = await self._answer(request)
        except Exception as error:
            answer = self._failed(request, error)
        else:
            self._prepared += 1
            if voice is not None:
                self._voices[request.request_id] = voice
        del self._preparing[request.request_id]
        self._post.send(request.reply_to, answer)

    async def _answer(self, request: Question) -> tuple[Message, Voice | None]:
        """The answer, and the voice to hold for the request."""
        run, preparation, request_id = asyncio.get_running_loop().run_in_executor, self._preparation, request.request_id
        match request:
            case Prepare(request=speech_request):
                if prepared := await run(self._texts, self._prepare_at_once, speech_request):
                    return prepared
                voice = await run(self._recordings, self._voice, speech_request.voice)
                return await run(self._texts, self._prepare_text, speech_request, voice), voice
            case Convert():
                return await run(self._recordings, self._convert, request)
            case ListVoices():
                return Voices(request_id, await run(None, preparation.voices)), None
            case RegisterVoice():
                stored = await run(self._recordings, preparation.register, request.name, request.recording)
                return Voices(request_id, [stored]), None
            case DeleteVoice():
                return Voices(request_id, [await run(None, preparation.delete, request.name)]), None

    def _prepare_text(self, request: SpeechRequest, voice: Voice) -> Prepared | StreamPrepared:
        preparation, cross_lingual = self._preparation, request.cross_lingual
        if request.text is not None:
            segments = preparation.segments(
                request.text,
                voice,
                request.instructions,
                cross_lingual=cross_lingual,
                normalize=request.normalize,
                language=request.language,
                pronunciations=request.pronunciations,
            )
            return Prepared(request.id, segments, voice.key)
        return StreamPrepared(request.id, preparation.prompt(voice, cross_lingual=cross_lingual), voice.key)

    def _prepare_at_once(self, request: SpeechRequest) -> tuple[Prepared | StreamPrepared, Voice] | None:
        """Prepare a request whose voice is in memory, so that it does not wait for the recordings of other voices."""
        source = request.voice
        voice = source if isinstance(source, Voice) else self._preparation.voice_in_memory(source)
        return (self._prepare_text(request, voice), voice) if voice else None

    def _convert(self, request: Convert) -> tuple[Converted, Voice]:
        voice = self._voice(request.request.voice)
        tokens = self._preparation.source_tokens(*load_audio(request.audio)).tolist()
        return Converted(request.request_id, tokens, voice.key), voice

    def _voice(self, source: str | Recording | Voice) -> Voice:
        return source if isinstance(source, Voice) else self._preparation.voice(source)

    def _failed(self, request: Question, error: Exception) -> Failed:
        kind: FailureKind
        match error:
            case InputError():
                return Failed(request.request_id, "invalid", str(error), error.param)
            case AudioError():
                return Failed(request.request_id, "invalid", str(error), "audio")
            case UnknownVoice():
                kind = "not_found"
            case VoiceRefused():
                kind = "conflict"
            case _:
                log.error("Request %s could not be prepared.", request.request_id, exc_info=error)
                reason = "The text or the voice could not be prepared; the log says why."
                return Failed(request.request_id, "internal", reason)
        return Failed(request.request_id, kind, str(error), "name")

    def _release(self, request_id: str) -> None:
        """Forget a request. Work that has not started is cancelled; the result of started work is dropped."""
        if task := self._preparing.pop(request_id, None):
            task.cancel()
        self._voices.pop(request_id, None)
        self._owners.pop(request_id, None)
