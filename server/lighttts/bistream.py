"""LightTTS's `WS /inference_zero_shot_bistream`: receives a recording, then text as it is written; sends speech."""

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
    """The first message. The audio file of the recording follows, as one binary message."""

    prompt_text: str
    """The transcript of the recording, at most 2000 characters."""
    tts_model_name: str = "default"
    """`default` or the name of the model."""


class BistreamText(_Described):
    """The next piece of the text; any number of pieces."""

    tts_text: str
    """All pieces together have at most 4096 characters, or the value of `--max_input_chars`."""


class BistreamFinish(_Described):
    """The text is complete."""

    finish: Literal[True]
    """Always `true`."""


class BistreamError(_Described):
    """An error. The server then closes the connection."""

    error: str
    """What is wrong."""


FROM_CLIENT = (BistreamPrompt, BistreamText, BistreamFinish)
FROM_SERVER = (BistreamError,)  # and binary messages with audio


class Bistream:
    """Serves one connection with `run`."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        request_id: str,
        models: Container[str],
        longest_text: int,
    ) -> None:
        """`longest_text`: maximum characters of all pieces."""
        self._connection = connection
        self._engine = engine
        self._request_id = request_id
        self._models = models
        self._longest_text = longest_text
        self._text: asyncio.Queue[str | None] = asyncio.Queue()
        self._length = 0
        self._finished = False

    async def run(self) -> None:
        """Serve until either side closes. If the client does, raises WebSocketDisconnect in an exception group."""
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
                raise ProtocolError(f"First send prompt_text as JSON, at most {LONGEST_TRANSCRIPT} characters.")
        check_text(transcript)
        if model not in self._models:
            raise ProtocolError(f"There is no model with tts_model_name {model!r}.")
        audio = await self._connection.receive(busy=lambda: False)
        if not isinstance(audio, bytes) or len(audio) > LARGEST_UPLOAD:
            raise ProtocolError(f"Second, send the audio file as binary, at most {LARGEST_UPLOAD >> 20} MiB.")
        recording = Recording(audio, transcript)
        await self._engine.check_voice(f"{self._request_id}.voice", recording)
        return recording

    def _take(self, message: object) -> None:
        match message:
            case _ if self._finished:
                return
            case {"finish": True}:
                if not self._length:
                    raise ProtocolError("Send tts_text before finish.")
                self._text.put_nowait(None)
                self._finished = True
            case {"tts_text": str(text)}:
                check_text(text)
                self._length += len(text)
                if self._length > self._longest_text:
                    raise ProtocolError(too_long("tts_text", self._length, self._longest_text))
                self._text.put_nowait(text)
            case _:
                raise ProtocolError("Send tts_text (a string) or finish (true).")

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
