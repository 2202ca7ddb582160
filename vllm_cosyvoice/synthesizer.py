"""The whole engine behind one object: text in, 24 kHz audio out.

vLLM runs its engine in processes of its own; everything else runs here, on an event loop in a background thread,
so that any number of threads may speak at once and share the batches.
"""

import asyncio
import queue
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from vllm_cosyvoice.checkpoint import ModelDirectory, find, open_model
from vllm_cosyvoice.config import DEFAULT_VOICE, DEMO_MODEL
from vllm_cosyvoice.decode_loop import DecodeLoop
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.speech_decoder import SpeechDecoder
from vllm_cosyvoice.text_stream import small_pieces
from vllm_cosyvoice.voice import Voice

SEGMENTS_AHEAD = 4  # pieces of one long text that are generated at the same time

Audio = np.ndarray  # int16 [samples], mono, 24 kHz
TokenSource = Callable[[str], AsyncIterator[list[int]]]  # request id → speech tokens as they come
Result = TypeVar("Result")


class Synthesizer:
    """CosyVoice2 in one process. `model` is a directory, a hub's name for one, or one that is open already.

    Raises checkpoint.CheckpointError when the model can't be used. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        model: str | Path | ModelDirectory = DEMO_MODEL,
        *,
        hub: str = "huggingface",
        voices_dir: Path | None = None,
        engine: EngineOptions | None = None,
    ) -> None:
        self._closed = False
        directory = model if isinstance(model, ModelDirectory) else open_model(find(str(model), hub))
        self._preparation = Preparation(directory, voices_dir)
        self._decoder = SpeechDecoder(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="synthesizer", daemon=True)
        self._thread.start()

        async def start() -> tuple[SpeechTokenGenerator, DecodeLoop, asyncio.Task[None]]:
            generator = SpeechTokenGenerator(directory, engine or EngineOptions())
            decode_loop = DecodeLoop(self._decoder)
            return generator, decode_loop, asyncio.create_task(decode_loop.run())

        try:
            self._generator, self._decode_loop, self._decoding = self._call(start()).result()
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
        """End vLLM's processes and this object's thread; whoever still waits for speech gets a CancelledError."""
        if self._closed:
            return
        self._closed = True

        async def stop() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._generator.shutdown()

        self._call(stop()).result()
        self._stop_loop()

    def voices(self) -> list[str]:
        """Names of the voices that can be asked for."""
        return self._preparation.voice_names()

    def clone(self, samples: np.ndarray, sample_rate: int, transcript: str = "") -> Voice:
        """A voice from a recording, see `Preparation.clone`; give it to `speak` or `stream`."""
        return self._preparation.clone(samples, sample_rate, transcript)

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
        """All of `text` as audio, int16 [samples] at 24 kHz, each segment decoded in one go with full attention.

        Raises InputError for text or a voice that can't be spoken.
        """
        pieces = self._speak(text, voice, instructions, cross_lingual, speed, sampling, streaming=False)
        return _joined(pieces)

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
        """As `speak`, in chunks from the first hop on. Closing the iterator ends the work on the rest."""
        return self._speak(text, voice, instructions, cross_lingual, speed, sampling, streaming=True)

    def stream_text(
        self,
        pieces: Iterable[str],
        voice: str | Voice = DEFAULT_VOICE,
        *,
        speed: float = 1.0,
        sampling: SamplingOptions | None = None,
    ) -> Iterator[Audio]:
        """Speak text that is still being written, as a chat model does: audio starts before the text ends.

        `pieces` is read in a thread of its own; its text is spoken as it stands, not normalised.
        """
        features = self._voice(voice)
        prompt_text, prompt_speech = self._preparation.prompt_text(features), self._preparation.prompt_speech(features)

        async def text() -> AsyncIterator[str]:
            reader = iter(pieces)
            while (piece := await asyncio.to_thread(next, reader, None)) is not None:
                yield piece

        def tokens(request_id: str) -> AsyncIterator[list[int]]:
            options = sampling or SamplingOptions()
            return self._generator.generate_from_text_stream(
                request_id, prompt_text, prompt_speech, small_pieces(self._preparation.arriving_tokens(text())), options
            )

        return self._iterate([self._play(tokens, features, speed, streaming=True)])

    def convert(self, samples: np.ndarray, sample_rate: int, voice: str | Voice, *, speed: float = 1.0) -> Audio:
        """Voice conversion: what `samples` (float32 mono, 1 to 30 s) say, spoken by `voice`.

        Int16 [samples] at 24 kHz. Raises AudioError for audio that can't be used.
        """
        speech: list[int] = self._preparation.source_tokens(samples, sample_rate).tolist()

        async def tokens(_: str) -> AsyncIterator[list[int]]:
            yield speech

        return _joined(self._iterate([self._play(tokens, self._voice(voice), speed, streaming=False)]))

    def _voice(self, voice: str | Voice) -> Voice:
        return voice if isinstance(voice, Voice) else self._preparation.voice(voice)

    def _speak(
        self,
        text: str,
        voice: str | Voice,
        instructions: str | None,
        cross_lingual: bool,
        speed: float,
        sampling: SamplingOptions | None,
        *,
        streaming: bool,
    ) -> Iterator[Audio]:
        features = self._voice(voice)
        segments = self._preparation.segments(text, features, instructions, cross_lingual=cross_lingual)
        options = sampling or SamplingOptions()

        def source(segment: Segment) -> TokenSource:
            return lambda request_id: self._generator.generate(request_id, segment, options)

        return self._iterate([self._play(source(segment), features, speed, streaming) for segment in segments])

    async def _play(
        self, source: TokenSource, voice: Voice, speed: float, streaming: bool
    ) -> AsyncGenerator[Audio, None]:
        """The audio of one token sequence, in pieces as they are decoded."""
        request_id = uuid.uuid4().hex
        stream = self._decoder.open(self._decoder.prompt(voice), streaming=streaming, speed=speed)
        pieces: asyncio.Queue[Audio | Exception | None] = asyncio.Queue()
        self._decode_loop.add(request_id, stream, pieces.put_nowait)

        async def feed() -> None:
            try:
                async for tokens in source(request_id):
                    self._decode_loop.push(request_id, tokens, last=False)
                self._decode_loop.push(request_id, [], last=True)
            except Exception as error:
                pieces.put_nowait(error)

        feeding = asyncio.create_task(feed())
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self._decode_loop.drop(request_id)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def _iterate(self, streams: list[AsyncGenerator[Audio, None]]) -> Iterator[Audio]:
        """The caller's side of `streams`: they run on the event loop, this waits for what comes out."""
        pieces: queue.SimpleQueue[Audio | None] = queue.SimpleQueue()

        async def pump() -> None:
            async with aclosing(in_order(streams, SEGMENTS_AHEAD)) as audio:
                async for piece in audio:
                    pieces.put(piece)

        pumping = self._call(pump())
        pumping.add_done_callback(lambda _: pieces.put(None))
        if self._closed:  # meanwhile
            pumping.cancel()
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            pumping.result()
        finally:
            pumping.cancel()

    def _call(self, work: Coroutine[None, None, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _joined(pieces: Iterable[Audio]) -> Audio:
    return np.concatenate([*pieces, np.zeros(0, np.int16)])
