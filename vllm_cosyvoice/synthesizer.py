"""The whole engine as one object: text in, 24 kHz audio out.

vLLM runs its engine in separate processes. Everything else runs on an event loop in a background thread, so any number
of threads may use the object at once and share batches.
"""

import asyncio
import queue
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from vllm_cosyvoice.audio_file import recording_file
from vllm_cosyvoice.checkpoint import ModelDirectory, find, open_model
from vllm_cosyvoice.config import DEFAULT_VOICE, DEMO_MODEL, LLM_FILE
from vllm_cosyvoice.failure import Failure, InputError
from vllm_cosyvoice.llm.generator import EngineOptions
from vllm_cosyvoice.local_engine import LocalEngine
from vllm_cosyvoice.recording import Voice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.voice.audio import check_audio

Audio = np.ndarray  # int16 [samples], mono, 24 kHz
Result = TypeVar("Result")


class Synthesizer:
    """CosyVoice in one process.

    `model` is a directory, a name on the hub, or an open ModelDirectory; `hub` and `llm_file` are for the first two.
    For `flow_cache_gib` and `full_attention`, see `SpeechDecoder`. In this process and in vLLM's, PyTorch
    gets half of the CPU cores each, unless the variable OMP_NUM_THREADS is set.

    Close it, or use it in a `with` statement. Raises checkpoint.CheckpointError if the model can't be used, and
    gpu.device.UnsupportedGpuError or GpuMemoryError if the GPU can't be used.
    """

    def __init__(
        self,
        model: str | Path | ModelDirectory = DEMO_MODEL,
        *,
        hub: str = "huggingface",
        llm_file: str = LLM_FILE,
        voices_dir: Path | None = None,
        engine: EngineOptions | None = None,
        flow_cache_gib: float | None = None,
        full_attention: bool = False,
    ) -> None:
        self._closed = False
        if not isinstance(model, ModelDirectory):
            model = open_model(find(str(model), hub, llm_file), llm_file)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="synthesizer", daemon=True)
        self._thread.start()

        async def start() -> LocalEngine:
            return LocalEngine(
                model,
                voices_dir,
                engine or EngineOptions(),
                flow_cache_gib=flow_cache_gib,
                full_attention=full_attention,
            )

        try:
            self._engine = self._call(start()).result()
        except BaseException:
            self._stop_loop()
            raise

    def __enter__(self) -> "Synthesizer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop vLLM's processes and this object's thread. Calls that still wait for speech raise CancelledError."""
        if self._closed:
            return
        self._closed = True

        async def stop() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._engine.shutdown()

        self._call(stop()).result()
        self._stop_loop()

    def voices(self) -> list[str]:
        """Names of the available voices."""
        return self._engine.preparation.voice_names()

    def clone(self, samples: np.ndarray, sample_rate: int, transcript: str = "") -> Voice:
        """Make a voice for `speak` or `stream` from a recording, see `Preparation.clone`."""
        return self._engine.preparation.clone(samples, sample_rate, transcript)

    def speak(
        self,
        text: str,
        voice: str | Voice = DEFAULT_VOICE,
        *,
        instructions: str | None = None,
        cross_lingual: bool = False,
        speed: float = 1.0,
        sampling: SamplingOptions | None = None,
    ) -> Audio:
        """Speak `text`: int16 [samples] at 24 kHz. Each segment is decoded in one go.

        See `SpeechRequest` for the arguments. Raises InputError for input that can't be spoken, and Failure if the
        engine fails.
        """
        request = SpeechRequest(
            id=uuid.uuid4().hex,
            text=text,
            voice=voice,
            instructions=instructions,
            cross_lingual=cross_lingual,
            speed=speed,
            sampling=sampling or SamplingOptions(),
            streaming=False,
        )
        return self.audio_of(request)

    def stream(
        self,
        text: str,
        voice: str | Voice = DEFAULT_VOICE,
        *,
        instructions: str | None = None,
        cross_lingual: bool = False,
        speed: float = 1.0,
        sampling: SamplingOptions | None = None,
    ) -> Iterator[Audio]:
        """Like `speak`, but yield chunks as they are decoded. Closing the iterator cancels the rest.

        Errors such as an unknown voice or an empty text are raised when the first chunk is requested.
        """
        request = SpeechRequest(
            id=uuid.uuid4().hex,
            text=text,
            voice=voice,
            instructions=instructions,
            cross_lingual=cross_lingual,
            speed=speed,
            sampling=sampling or SamplingOptions(),
        )
        return self._iterate(self._engine.speak(request))

    def stream_text(
        self,
        pieces: Iterable[str],
        voice: str | Voice = DEFAULT_VOICE,
        *,
        speed: float = 1.0,
        sampling: SamplingOptions | None = None,
    ) -> Iterator[Audio]:
        """Speak text that is still being written, for example by a chat model: audio starts before the text ends.

        `pieces` is read in a separate thread. Its text is not normalised. Its exceptions are raised here.
        """
        request = SpeechRequest(id=uuid.uuid4().hex, voice=voice, speed=speed, sampling=sampling or SamplingOptions())

        async def text() -> AsyncIterator[str]:
            try:
                reader = iter(pieces)
                while (piece := await asyncio.to_thread(next, reader, None)) is not None:
                    yield piece
            except Exception as error:
                raise Failure("invalid", "The text could not be read.", "input") from error

        return self._iterate(self._engine.speak(request, text()))

    def convert(self, samples: np.ndarray, sample_rate: int, voice: str | Voice, *, speed: float = 1.0) -> Audio:
        """Voice conversion: speak the content of `samples` (float32 mono [n], 1 to 30 s) with `voice`.

        Returns int16 [samples] at 24 kHz. Raises AudioError or InputError for audio that can't be used.
        """
        check_audio(samples, sample_rate)  # first, because invalid samples may not fit into a file
        request = SpeechRequest(id=uuid.uuid4().hex, voice=voice, speed=speed, streaming=False)
        return _joined(self._iterate(self._engine.convert(request, recording_file(samples, sample_rate))))

    def audio_of(self, request: SpeechRequest) -> Audio:
        """Speak a request with a text. Returns and raises like `speak`."""
        return _joined(self._iterate(self._engine.speak(request)))

    def _iterate(self, audio: AsyncGenerator[bytes, None]) -> Iterator[Audio]:
        """Iterate over `audio` in the caller's thread, while it runs on the event loop."""
        pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        async def pump() -> None:
            async with aclosing(audio):
                async for piece in audio:
                    pieces.put(piece)

        future = self._call(pump())
        future.add_done_callback(lambda _: pieces.put(None))
        if self._closed:  # in the meantime
            future.cancel()
        try:
            while (piece := pieces.get()) is not None:
                yield np.frombuffer(bytearray(piece), np.int16)
            future.result()
        except Failure as failure:
            if failure.__cause__:  # an exception of the caller's `pieces`
                raise failure.__cause__ from None
            if failure.kind == "invalid":
                raise InputError(failure.param or "input", str(failure)) from None
            raise
        finally:
            future.cancel()

    def _call(self, work: Coroutine[None, None, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _joined(pieces: Iterable[Audio]) -> Audio:
    return np.concatenate([*pieces, np.zeros(0, np.int16)])
