"""Generates speech tokens from text: the language model in vLLM's engine, shared by all requests of the process."""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.limits import MAX_SPEECH_PER_TEXT
from vllm_cosyvoice.llm.engine_arguments import EngineOptions, engine_arguments
from vllm_cosyvoice.llm.environment import THREADS
from vllm_cosyvoice.llm.parent_watch import end_forks_with_this_process
from vllm_cosyvoice.llm.repetition_aware_sampling import extra_args
from vllm_cosyvoice.llm.scheduler import SENT_AT_ONCE
from vllm_cosyvoice.llm.silence_limit import SilenceLimit
from vllm_cosyvoice.llm.text_stream import TextStream
from vllm_cosyvoice.llm.token_draw import WINDOW
from vllm_cosyvoice.sampling import SEED_LIMIT, SamplingOptions
from vllm_cosyvoice.segment import MIN_SPEECH_PER_TEXT, Segment
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, SPEECH_TOKENS, TEXT_OFFSET

LONGEST_SILENCE = 30.0  # seconds without output before an engine with requests counts as hung
LONGEST_SILENCE_ON_CPU = 300.0  # on a CPU, a step that reads a long prompt takes minutes

__all__ = ["EngineDeadError", "EngineOptions", "SpeechTokenGenerator"]


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class SpeechTokenGenerator:
    """vLLM's engine for one model. It runs in separate processes; this object belongs to the running event loop."""

    def __init__(
        self,
        model: ModelDirectory,
        options: EngineOptions,
        *,
        sockets: Path | None = None,
        fork: bool = False,
        **others: object,
    ) -> None:
        """Start the engine, which takes half a minute, or a few seconds with a fork.

        sockets: directory for vLLM's sockets, which vLLM leaves there; None: one that `shutdown` removes.
        fork: fork the engine's process instead of spawning it. Use this only in the main thread of a process that has
            not computed yet and whose other threads, if any, are idle. The engine ends with the process.
        others: vLLM arguments that override those of `engine_arguments`, for benchmarks.

        Raises RuntimeError if vLLM does not know the model because this package is not installed.
        """
        self._config = model.config.language_model
        self._silent_tokens = model.family.silent_tokens
        self._max_length = min(options.max_req_total_len, options.max_total_token_num, self._config.max_position)
        self._ids = TEXT_OFFSET + self._config.text_vocab_size
        self._seeds = Random(options.seed)
        self.running = 0  # requests in flight
        self._in_engine = 0  # requests in flight, except those that wait for more text
        self._progress = 0.0  # time of the engine's last output, or of its first request after it was idle
        arguments = engine_arguments(model, options, self._max_length, **others)
        config = arguments.create_engine_config()
        if fork:
            end_forks_with_this_process()
        self._own_sockets = None if sockets else TemporaryDirectory(prefix="vllm-")
        # Set these only here, because the config of a CPU engine sets the first one, too.
        settings = {
            "VLLM_WORKER_MULTIPROC_METHOD": "fork" if fork else "spawn",
            "VLLM_RPC_BASE_PATH": self._own_sockets.name if self._own_sockets else str(sockets),
        }
        if current_platform.is_cpu():
            settings["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(THREADS))
        with _environment(settings):
            self.engine = AsyncLLM.from_vllm_config(config, disable_log_stats=arguments.disable_log_stats)

    async def generate(
        self, request_id: str, segment: Segment, sampling: SamplingOptions, sent_at_once: int | None = None
    ) -> AsyncGenerator[list[int], None]:
        """Stream the speech tokens (0 … 6560) of `segment`. Closing the iterator aborts the request.

        `sent_at_once`: the number of tokens that come as soon as the host has them; later ones come in groups. None: no
        token waits for a group.

        Raises ValueError, before any output, for an invalid prompt or options, and vLLM's EngineDeadError if the
        engine has died.
        """
        shortest, longest = _limits(sampling, segment.min_tokens, segment.max_tokens)
        _check_ids(segment.prompt, self._ids, "prompt id")
        silence = SilenceLimit(self._silent_tokens)
        with self._counted():
            run = self._run(request_id, segment.prompt, sampling, shortest, longest, sent_at_once)
            async with aclosing(run) as pieces:
                async for tokens in pieces:
                    if audible := silence.shorten(tokens):
                        yield audible

    async def generate_from_text_stream(
        self,
        request_id: str,
        prompt_text: Sequence[int],
        prompt_speech: Sequence[int],
        text: AsyncIterator[Sequence[int]],
        sampling: SamplingOptions,
        instruction: Sequence[int] = (),
        sent_at_once: int | None = None,
    ) -> AsyncGenerator[list[int], None]:
        """Like `generate`, for text that is still arriving. Speech starts after the first 5 text tokens.

        `instruction`, `prompt_text` and the pieces of `text` are tokenizer ids, `prompt_speech` speech tokens. The
        instruction precedes the interleave of text and speech. The speech depends on how the text is split into pieces,
        but not on when they arrive. Split long pieces with `small_pieces`.
        """
        _check_ids([*instruction, *prompt_text], self._config.text_vocab_size, "text token")
        _check_ids(prompt_speech, SPEECH_TOKENS, "speech token")
        stream = TextStream(prompt_text, prompt_speech, instruction)
        silence = SilenceLimit(self._silent_tokens)
        number = 0
        with self._counted():
            async with aclosing(stream.turns(self._checked(text))) as turns:
                async for turn in turns:
                    shortest, longest = self._turn_limits(stream, turn.max_tokens, sampling)
                    pieces = self._run(
                        f"{request_id}-{number}",
                        turn.prompt,
                        sampling,
                        shortest,
                        longest,
                        sent_at_once,
                        earlier=stream.generated[-WINDOW:],
                        turn=number,
                    )
                    async with aclosing(pieces):
                        async for tokens in pieces:
                            stream.spoke(tokens)
                            if audible := silence.shorten(tokens):
                                yield audible
                    number += 1
                    if sampling.max_tokens is not None and stream.speech_tokens >= sampling.max_tokens:
                        return

    async def check_health(self) -> None:
        """Raise vLLM's EngineDeadError if the engine has died or hangs."""
        await self.engine.check_health()
        longest = LONGEST_SILENCE_ON_CPU if current_platform.is_cpu() else LONGEST_SILENCE
        if self._in_engine and time.monotonic() - self._progress > longest:
            raise EngineDeadError(f"It has requests, but had no output for {longest:.0f} s.")

    def shutdown(self) -> None:
        """Stop the engine's processes; requests in flight fail."""
        self.engine.shutdown()
        del self.engine  # vLLM's finalizer fails if it runs at interpreter exit
        if self._own_sockets:
            self._own_sockets.cleanup()

    async def _run(
        self,
        request_id: str,
        prompt: list[int],
        sampling: SamplingOptions,
        min_tokens: int,
        max_tokens: int,
        sent_at_once: int | None,
        *,
        earlier: Sequence[int] = (),
        turn: int = 0,
    ) -> AsyncGenerator[list[int], None]:
        """Run one request in the engine, with a complete prompt and limits in speech tokens."""
        room = self._max_length - len(prompt)
        if room < max(1, min_tokens):
            raise ValueError(
                f"the prompt is {len(prompt)} tokens long and at least {max(1, min_tokens)} must follow, but a request "
                f"may have {self._max_length}: use a shorter text or prompt recording, or raise max_req_total_len "
                f"and max_total_token_num (this model can read {self._config.max_position})"
            )
        seed = self._seeds.randrange(SEED_LIMIT) if sampling.seed is None else sampling.seed
        options = extra_args(replace(sampling, seed=(seed + turn) % SEED_LIMIT), earlier, min_tokens)
        params = SamplingParams(
            temperature=0.0,  # on a CPU, vLLM's sampler takes the argmax of our one-hot logits
            max_tokens=min(max_tokens, room),
            stop_token_ids=[END_OF_SPEECH],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=options | {SENT_AT_ONCE: sent_at_once},
        )
        if not self._in_engine:
            self._progress = time.monotonic()
        self._in_engine += 1
        try:
            async with aclosing(self.engine.generate(tokens_input(prompt), params, request_id)) as outputs:
                async for output in outputs:
                    self._progress = time.monotonic()
                    if output.outputs[0].finish_reason == "abort":  # incomplete: the engine received a signal
                        raise EngineDeadError
                    if tokens := [token for token in output.outputs[0].token_ids if token < SPEECH_TOKENS]:
                        yield tokens
        finally:
            self._in_engine -= 1

    def _turn_limits(self, stream: TextStream, until_fill: int | None, sampling: SamplingOptions) -> tuple[int, int]:
        """Minimum and maximum of a text stream's next turn, in speech tokens. Speech can't end before the text."""
        if until_fill is None:
            shortest, longest = _limits(
                sampling, MIN_SPEECH_PER_TEXT * stream.text_tokens, MAX_SPEECH_PER_TEXT * stream.text_tokens
            )
            return max(0, shortest - stream.speech_tokens), longest - stream.speech_tokens
        limit = (
            until_fill if sampling.max_tokens is None else min(until_fill, sampling.max_tokens - stream.speech_tokens)
        )
        return limit, limit

    async def _checked(self, text: AsyncIterator[Sequence[int]]) -> AsyncIterator[Sequence[int]]:
        """Pass `text` on; raise ValueError for an invalid id or if it is empty."""
        empty = True
        async for piece in text:
            _check_ids(piece, self._config.text_vocab_size, "text token")
            if piece:
                empty = False
                yield piece
        if empty:
            raise ValueError("there is nothing to speak: the text ended before its first token")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


def _check_ids(ids: Sequence[int], limit: int, kind: str) -> None:
    """Raise ValueError for an id out of range, which would crash vLLM's engine, and with it all requests."""
    if ids and not 0 <= min(ids) <= max(ids) < limit:
        raise ValueError(
            f"{kind}s must be between 0 and {limit - 1} for this model, not {min(ids)} to {max(ids)}: "
            "use its own tokenizer and speech tokenizer"
        )


def _limits(sampling: SamplingOptions, shortest: int, longest: int) -> tuple[int, int]:
    """Minimum and maximum number of speech tokens: those in `sampling`, else the given ones, adjusted to fit."""
    if sampling.max_tokens is not None:
        longest = sampling.max_tokens
        shortest = min(shortest, longest)
    if sampling.min_tokens is not None:
        shortest = sampling.min_tokens
        longest = max(shortest, longest)
    return shortest, longest
