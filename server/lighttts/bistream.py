"""LightTTS's `WS /inference_zero_shot_bistream`: a recording, then text as it is written, and speech as it is made."""

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import aclosing
from typing import Literal

from pydantic import BaseModel, ConfigDict

from server.http.errors import too_long
from server.http.guards import LARGEST_UPLOAD
from server.http.uploads import LONGEST_TRANSCRIPT
from server.http.websocket import FAILED, NORMAL, UNREADABLE, Connection, ProtocolError, Silent, check_text
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.request import SpeechRequest


class _Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class BistreamPrompt(_Described):
    """The first message. The recording's file follows, as one binary message."""

    prompt_text: str
    """What the recording says, at most 2000 characters."""
    tts_model_name: str = "default"
    """`default` or the model's name."""


class BistreamText(_Described):
    """The next piece of the text, as often as you like."""

    tts_text: str
    """All pieces together have at most 4096 characters, or what `--max_input_chars` says."""


class BistreamFinish(_Described):
    """The text is complete."""

    finish: Literal[True]
    """Nothing else."""


class BistreamError(_Described):
    """Something went wrong. The server closes the connection behind it."""

    error: str
    """What went wrong."""


FROM_CLIENT = (BistreamPrompt, BistreamText, BistreamFinish)
FROM_SERVER = (BistreamError,)  # and binary messages, which are audio


class Bistream:
    """Serves one connection; `run` does it all."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        request_id: str,
        models: Container[str],
        longest_text: int,
    ) -> None:
        """`longest_text`: characters."""
        self._connection = connection
        self._engine = engine
        self._request_id = request_id
        self._models = models
        self._longest_text = longest_text
        self._text: asyncio.Queue[str | None] = asyncio.Queue()
        self._length = 0
        self._finished = False

    async def run(self) -> None:
        """Until either side leaves. Raises WebSocketDisconnect, in a group, when the client does."""
        try:
            recording = await self._recording()
        except (ProtocolError, Failure, Silent) as problem:
            await self._connection.close(UNREADABLE, str(problem))
            return
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(self._speak(recording))
            try:
                while True:
                    self._take(await self._connection.receive(busy=lambda: self._finished))
            except (ProtocolError, Silent) as problem:
                speaking.cancel()
                await self._fail(problem)

    async def _recording(self) -> Recording:
        first = await self._connection.receive(busy=lambda: False)
        match first:
            case {"prompt_text": str(transcript), **rest} if len(transcript) <= LONGEST_TRANSCRIPT:
                model = rest.get("tts_model_name", "default")
            case _:
                raise ProtocolError(f"Send prompt_text first, at most {LONGEST_TRANSCRIPT} characters, as JSON.")
        check_text(transcript)
        if model not in self._models:
            raise ProtocolError(f"There is no tts_model_name {model!r} here.")
        audio = await self._connection.receive(busy=lambda: False)
        if not isinstance(audio, bytes) or len(audio) > LARGEST_UPLOAD:
            raise ProtocolError(f"Send the recording's file second, as binary, at most {LARGEST_UPLOAD >> 20} MiB.")
        recording = Recording(audio, transcript)
        await self._engine.check_voice(f"{self._request_id}.voice", recording)
        return recording

    def _take(self, message: object) -> None:
        match message:
            case _ if self._finished:
                return
            case {"finish": True}:
                if not self._length:
                    raise ProtocolError("finish came ahead of any tts_text.")
                self._text.put_nowait(None)
                self._finished = True
            case {"tts_text": str(text)}:
                check_text(text)
                self._length += len(text)
                if self._length > self._longest_text:
                    raise ProtocolError(too_long("tts_text", self._length, self._longest_text))
                self._text.put_nowait(text)
            case _:
                raise ProtocolError("Send tts_text, a string, or finish, true.")

    async def _pieces(self) -> AsyncIterator[str]:
        while (piece := await self._text.get()) is not None:
            yield piece

    async def _speak(self, recording: Recording) -> None:
        speech = self._engine.speak(SpeechRequest(id=self._request_id, voice=recording), self._pieces())
        try:
            async with aclosing(speech):
                async for pcm in speech:
                    await self._connection.send(pcm)
        except Failure as failure:
            await self._fail(failure)
        else:
            await self._connection.close(NORMAL)

    async def _fail(self, problem: Exception) -> None:
        await self._connection.send(BistreamError(error=f"Server error: {problem}").model_dump())
        await self._connection.close(FAILED)
