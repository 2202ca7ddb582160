"""The encode stage: a request's text and voice become segments and features."""

import asyncio
import functools
import logging
from concurrent.futures import ThreadPoolExecutor

from server.channel import Channel
from server.messages import (
    Address,
    AnyMessage,
    Failed,
    Prepare,
    Prepared,
    Ready,
    Release,
    VoiceData,
    VoiceWanted,
)
from server.process import Settings, serve, timed
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.preparation import InputError, Preparation
from vllm_cosyvoice.voice import Voice

log = logging.getLogger(__name__)


class EncodeStage:
    """Prepares one request after the other in a thread, and keeps each one's voice until it is released."""

    def __init__(self, channel: Channel, preparation: Preparation, capacity: int) -> None:
        self._channel = channel
        self._preparation = preparation
        self._capacity = capacity
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._voices: dict[str, Voice] = {}
        self._owners: dict[str, Address] = {}
        self._prepared = 0

    def handle(self, message: AnyMessage) -> None:  # noqa: D102 - see Stage
        match message:
            case Prepare():
                self._accept(message)
            case Release():
                self._release(message.request_id)
            case VoiceWanted() if voice := self._voices.get(message.request_id):
                self._channel.send(message.reply_to, _voice_data(message.request_id, voice))

    def drop(self, address: Address) -> None:  # noqa: D102
        for request_id in [request for request, owner in self._owners.items() if owner == address]:
            self._release(request_id)

    def numbers(self) -> dict[str, int]:  # noqa: D102
        return {
            "requests_preparing": len(self._preparing),
            "voices_held": len(self._voices),
            "requests_prepared_total": self._prepared,
        }

    def _accept(self, request: Prepare) -> None:
        if self._channel.is_dead(request.reply_to):
            return
        if len(self._preparing) >= self._capacity:
            reason = f"{self._capacity} requests are waiting already; try again in a moment."
            self._channel.send(request.reply_to, Failed(request.request_id, "overloaded", reason))
            return
        self._owners[request.request_id] = request.reply_to
        self._preparing[request.request_id] = asyncio.create_task(self._prepare(request))

    async def _prepare(self, request: Prepare) -> None:
        prepare = functools.partial(self._preparation.prepare, request.text, request.voice, request.instructions)
        answer: Prepared | Failed
        try:
            segments, voice = await asyncio.get_running_loop().run_in_executor(self._thread, prepare)
        except InputError as error:
            answer = Failed(request.request_id, "invalid", str(error), error.param)
        except Exception:
            log.exception("Request %s could not be prepared.", request.request_id)
            answer = Failed(request.request_id, "internal", "The text or the voice could not be prepared.")
        else:
            self._voices[request.request_id] = voice
            self._prepared += 1
            answer = Prepared(request.request_id, segments, voice.key)
        del self._preparing[request.request_id]
        self._channel.send(request.reply_to, answer)

    def _release(self, request_id: str) -> None:
        """Forget a request. Its work is cancelled if it has not begun; once begun, its outcome goes nowhere."""
        if task := self._preparing.pop(request_id, None):
            task.cancel()
        self._voices.pop(request_id, None)
        self._owners.pop(request_id, None)


def _voice_data(request_id: str, voice: Voice) -> VoiceData:
    return VoiceData(
        request_id=request_id,
        key=voice.key,
        transcript=voice.transcript,
        speech_tokens=voice.speech_tokens.tobytes(),
        mel=voice.mel.tobytes(),
        embedding=voice.embedding.tobytes(),
    )


async def run(settings: Settings, channel: Channel) -> None:
    """Load, warm up, serve."""
    arguments = settings.arguments
    with timed("Loading the text front end and the voice encoder"):
        preparation = Preparation(open_model(settings.model), arguments.voices_dir, arguments.cache_capacity)
    with timed("Preparing a first sentence"):
        preparation.prepare("Hello.", preparation.voice_names()[0])
    channel.send(settings.supervisor, Ready(channel.address))
    await serve(EncodeStage(channel, preparation, arguments.encode_paral_num), channel)
