"""Times the decode stage alone (flow and vocoder): complete speech tokens to audio.

    python -m benchmarks.decode [--model_dir DIR | --size full] [--batch 1 8 …] [--tokens 250] [--flow_cache_gib 8]

Utterances have a 5 s prompt. "whole" is the time to all audio, "hop 14" the time to the first audio of streams with a
first hop of 14 tokens, "in N hops" the time of all calls that decode streams by the server's schedule, while 1,000
tokens a second of each arrive. All include the copy to the host. A flow that remembers has the prompt from the first
round.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

import numpy as np
import torch

from benchmarks.measurement import Measurement, parser, report
from benchmarks.model import model_directory
from benchmarks.roofline import Roofline
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM, TOKEN_RATE
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.hops import Cut
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.voice import Voice

PROMPT = 125  # tokens
ROUNDS, ROUNDS_OF_STREAMS = 5, 3  # of which one more is not counted
FIRST_HOPS = (10, 14, 25)  # tokens
MOST_STREAMED = 16  # utterances
TOKENS_A_SECOND, GROUP = 1000.0, 8  # of each stream, as with up to 16 requests on an H200; tokens that arrive at a time


def a_voice() -> Voice:
    """A random voice with a recording of 5 s."""
    random = np.random.default_rng(0)
    return Voice(
        transcript="",
        speech_tokens=random.integers(SPEECH_TOKENS, size=PROMPT, dtype=np.int32),
        mel=random.standard_normal((FRAMES_PER_TOKEN * PROMPT, MEL_BINS), np.float32),
        embedding=random.standard_normal(SPEAKER_DIM, np.float32),
        key="benchmark",
    )


def utterances(
    decoder: SpeechDecoder, prompt: FlowPrompt, count: int, tokens: int, *, first_hop: int | None
) -> list[Utterance]:
    """Create utterances with all their tokens. With `first_hop` (tokens), they are streams."""
    random = np.random.default_rng(count)
    created = []
    for _ in range(count):
        utterance = decoder.begin(Utterance(streaming=first_hop is not None), prompt, first_hop)
        utterance.push(random.integers(SPEECH_TOKENS, size=tokens).tolist())
        utterance.finish()
        created.append(utterance)
    return created


class TimedDecoder(SpeechDecoder):
    """A decoder that measures the seconds of its calls."""

    seconds = 0.0

    def decode(self, work: Sequence[tuple[Utterance, Cut]]) -> list[np.ndarray]:
        """See `SpeechDecoder.decode`."""
        begun = time.perf_counter()
        pieces = super().decode(work)
        self.seconds += time.perf_counter() - begun
        return pieces


def seconds_of_call(decoder: TimedDecoder, live: list[Utterance]) -> float:
    """Measure the seconds until the next audio of each utterance is on the host."""
    decoder.seconds = 0.0
    decoder.decode([(utterance, cut) for utterance in live if (cut := utterance.next_cut())])
    return decoder.seconds


async def rounds_of_streams(
    decoder: TimedDecoder, prompt: FlowPrompt, count: int, tokens: int
) -> AsyncGenerator[tuple[float, int], None]:
    """Decode `count` streams while their tokens arrive, round after round: the seconds of all calls, and the most hops.

    The schedule of the server learns in each round how long calls take.
    """
    loop = DecodeLoop(decoder)
    arriving = np.random.default_rng(count).integers(SPEECH_TOKENS, size=(count, tokens)).tolist()
    ended: asyncio.Queue[BaseException | None] = asyncio.Queue()
    running = asyncio.create_task(loop.run())
    running.add_done_callback(lambda task: None if task.cancelled() else ended.put_nowait(task.exception()))
    try:
        while True:
            decoder.seconds = 0.0
            streams = [Utterance() for _ in range(count)]
            for utterance in streams:
                loop.add(utterance, lambda audio: None if isinstance(audio, np.ndarray) else ended.put_nowait(audio))
                loop.begin(utterance, prompt, loop.first_hop)
            begun = time.monotonic()
            for first in range(0, tokens, GROUP):
                await asyncio.sleep(begun + first / TOKENS_A_SECOND - time.monotonic())
                for utterance, all_tokens in zip(streams, arriving, strict=True):
                    loop.push(utterance, all_tokens[first : first + GROUP], last=first + GROUP >= tokens)
            for _ in streams:
                if error := await ended.get():
                    raise error
            yield decoder.seconds, max(utterance.hops for utterance in streams)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def decodes(decoder: TimedDecoder, roofline: Roofline, batch: list[int], tokens: list[int]) -> Iterator[Measurement]:
    """Measure every case once."""
    prompt = decoder.prompt(a_voice())
    for count in batch:
        for speech in tokens:
            for first_hop in (None, *(FIRST_HOPS if count <= MOST_STREAMED else ())):
                (utterance,) = utterances(decoder, prompt, 1, speech, first_hop=first_hop)
                cut = utterance.next_cut()
                assert cut is not None
                if first_hop is not None and cut.last:
                    continue  # too short to be cut
                rounds = [
                    seconds_of_call(decoder, utterances(decoder, prompt, count, speech, first_hop=first_hop))
                    for _ in range(ROUNDS + 1)
                ]
                frames = utterance.frames(cut)
                spoken = FRAMES_PER_TOKEN * cut.tokens - (0 if cut.last else decoder.hold_back)
                attainable = roofline.decode([frames] * count, count * spoken, chunk_mask=utterance.chunk_mask)
                how = "whole" if first_hop is None else f"hop {first_hop}"
                audio = count * spoken / FRAMES_PER_TOKEN / TOKEN_RATE
                ms = 1000 * float(np.median(rounds[1:]))
                yield Measurement("decode", f"{count} × {speech} tokens, {how}", ms, audio, attainable)
            if count <= MOST_STREAMED:
                yield asyncio.run(_in_hops(decoder, prompt, count, speech))


async def _in_hops(decoder: TimedDecoder, prompt: FlowPrompt, count: int, speech: int) -> Measurement:
    async with aclosing(rounds_of_streams(decoder, prompt, count, speech)) as rounds:
        measured = [await anext(rounds) for _ in range(ROUNDS_OF_STREAMS + 1)][1:]
    seconds, hops = (float(np.median(values)) for values in zip(*measured, strict=True))
    case = f"{count} × {speech} tokens, in {hops:g} hops"
    return Measurement("decode", case, 1000 * seconds, count * speech / TOKEN_RATE)


def main() -> None:
    """Print a table."""
    options = parser(__doc__)
    options.add_argument("--flow_cache_gib", type=float, help="see docs/flags.md")
    arguments = options.parse_args()
    with model_directory(arguments) as directory:
        begun = time.perf_counter()
        model = open_model(directory)
        decoder = TimedDecoder(model, flow_cache_gib=arguments.flow_cache_gib)
        print(f"decoder: ready after {time.perf_counter() - begun:.1f} s")
        while decoder.capture_next():  # as a server does when nobody asks
            pass
        report(lambda: decodes(decoder, Roofline.here(model.config), arguments.batch, arguments.tokens), arguments)
    if torch.cuda.is_available():
        print(f"GPU memory {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
