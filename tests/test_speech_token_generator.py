"""Speech tokens out of vLLM's engine: one real engine for all of these tests, with room for few tokens."""

import asyncio
import itertools
import json
import os
import random
import sys
import weakref
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch
from vllm import SamplingParams
from vllm.inputs import tokens_input

from tests import second_model_runner
from tests.golden_cases.ras import chi_square_p
from tests.logits_processor import by_definition
from tools.random_checkpoint import TINY
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.llm.scheduler import GROUP
from vllm_cosyvoice.llm.text_stream import small_pieces
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.text import ArrivingText
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.vocabulary import HEAD_SIZE, SPEECH_TOKENS

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAPACITY = 1600  # tokens in the KV cache
LONGEST = 1024  # tokens of one request
AT_ONCE = 256  # tokens that a step reads
AT_FIRST = 53  # tokens that come one by one
# More tokens than repetition-aware sampling looks back on.
GREEDY = SamplingOptions(temperature=0, min_tokens=15, max_tokens=15)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def generator(tiny_model: Path) -> AsyncIterator[SpeechTokenGenerator]:
    options = EngineOptions(
        max_total_token_num=CAPACITY, max_req_total_len=LONGEST, max_num_seqs=8, max_num_batched_tokens=AT_ONCE
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for a tiny model, threads would mostly wait for each other
        generator = SpeechTokenGenerator(open_model(tiny_model), options)
    yield generator
    engine = weakref.ref(generator.engine)
    generator.shutdown()
    assert engine() is None, "its finalizer would fail as the interpreter ends"


def segment(number: int, prompt_speech: int = 30) -> Segment:
    """Another text and voice for each number; with `prompt_speech` tokens of the voice."""
    draw = np.random.default_rng(number)
    text, prompt_text = draw.integers(0, 4000, 3), draw.integers(0, 4000, 11)
    return Segment.of(text.tolist(), prompt_text.tolist(), draw.integers(0, 6561, prompt_speech).tolist())


async def collect(pieces: AsyncIterator[list[int]]) -> list[int]:
    return [token async for piece in pieces for token in piece]


async def speak(
    generator: SpeechTokenGenerator, number: int, options: SamplingOptions, name: str | None = None
) -> list[int]:
    return await collect(generator.generate(name or f"request {number}", segment(number), options))


async def test_the_cache_holds_what_was_asked_for(generator: SpeechTokenGenerator) -> None:
    cache = generator.engine.vllm_config.cache_config
    assert (cache.num_gpu_blocks - 1) * cache.block_size == CAPACITY
    await generator.check_health()


async def test_limits_on_the_number_of_tokens_are_kept(generator: SpeechTokenGenerator) -> None:
    exact = await speak(generator, 1, SamplingOptions(min_tokens=17, max_tokens=17))
    assert len(exact) == 17
    spoken = await speak(generator, 1, SamplingOptions(seed=1))
    assert segment(1).min_tokens <= len(spoken) <= segment(1).max_tokens
    assert all(0 <= token < SPEECH_TOKENS for token in spoken)


async def test_concurrent_requests_speak_as_if_alone(generator: SpeechTokenGenerator) -> None:
    """More requests than may run at once, of which some are cancelled on the way."""
    alone = [await speak(generator, number, GREEDY) for number in range(10)]

    async def leave_early(number: int) -> None:
        options = SamplingOptions(min_tokens=900, max_tokens=900)
        async with aclosing(generator.generate(f"leaver {number}", segment(number), options)) as pieces:
            async for _ in pieces:
                return

    async with asyncio.TaskGroup() as group:
        together = [group.create_task(speak(generator, number, GREEDY)) for number in range(10)]
        for number in range(20, 26):
            group.create_task(leave_early(number))
    assert [task.result() for task in together] == alone
    assert len({tuple(tokens) for tokens in alone}) == 10
    assert generator.running == 0


async def test_requests_that_outgrow_the_cache_together_lose_nothing(generator: SpeechTokenGenerator) -> None:
    """8 × 235 tokens can't be held at once: vLLM puts some aside, takes them up again and reads them anew."""
    options = [
        SamplingOptions(seed=number, temperature=number % 4 / 2, min_tokens=60, max_tokens=60) for number in range(8)
    ]

    async def speak(number: int) -> list[int]:
        prompt = segment(number, prompt_speech=158)
        return await collect(generator.generate(f"large {number}", prompt, options[number]))

    alone = [await speak(number) for number in range(8)]
    assert await asyncio.gather(*map(speak, range(8))) == alone


async def test_tokens_come_at_once_at_first_and_later_in_groups(generator: SpeechTokenGenerator) -> None:
    """Several may come together earlier if this process is slow, but none is held back at the end."""
    options = SamplingOptions(seed=1, min_tokens=AT_FIRST + 3 * GROUP + 2, max_tokens=AT_FIRST + 3 * GROUP + 2)
    lengths = [len(tokens) async for tokens in generator.generate("grouped", segment(6), options, AT_FIRST)]
    counts = set(itertools.accumulate(lengths))
    ends = {AT_FIRST + GROUP * groups for groups in range(4)} | {options.max_tokens}
    assert max(counts) == options.max_tokens
    assert counts <= {*range(AT_FIRST), *ends}
    assert len(counts) > len(ends)


async def test_a_name_can_be_used_again_after_an_abort(generator: SpeechTokenGenerator) -> None:
    """Nothing of the first request, whose last tokens were held back, is heard in the second."""
    alone = await speak(generator, 6, GREEDY)
    spoken = 0
    async with aclosing(generator.generate("again", segment(7), replace(GREEDY, max_tokens=900), AT_FIRST)) as pieces:
        async for tokens in pieces:
            spoken += len(tokens)
            if spoken >= AT_FIRST + GROUP:
                break
    assert await speak(generator, 6, GREEDY, "again") == alone


@pytest.mark.parametrize("options", [GREEDY, SamplingOptions(seed=4, min_tokens=15, max_tokens=15)])
async def test_a_prompt_that_is_read_in_parts_is_spoken_as_if_read_at_once(
    generator: SpeechTokenGenerator, options: SamplingOptions
) -> None:
    """The second time it is in the cache."""
    speech = np.random.default_rng(options.seed).integers(0, SPEECH_TOKENS, 3 * AT_ONCE).tolist()
    prompt = Segment([*segment(9).prompt, *speech], 1, 2, 20)
    in_parts, at_once = [await collect(generator.generate(f"part {run}", prompt, options)) for run in range(2)]
    assert in_parts == at_once


async def test_a_seed_repeats_and_another_does_not(generator: SpeechTokenGenerator) -> None:
    first, again, other, one, another = [
        await speak(generator, 3, SamplingOptions(seed=seed, min_tokens=10, max_tokens=10))
        for seed in (5, 5, 6, None, None)
    ]
    assert first == again
    assert len({tuple(tokens) for tokens in (first, other, one, another)}) == 4


async def test_options_of_one_request_leave_its_neighbours_alone(generator: SpeechTokenGenerator) -> None:
    mixed = [
        GREEDY,
        SamplingOptions(seed=1, top_k=1, repetition_aware=False, min_tokens=15, max_tokens=15),
        SamplingOptions(seed=2, top_p=0.1, temperature=0.3, min_tokens=15, max_tokens=15),
        SamplingOptions(temperature=0, repetition_aware=False, min_tokens=15, max_tokens=15),
    ]
    alone = [await speak(generator, 4, option, f"alone {row}") for row, option in enumerate(mixed)]
    together = await asyncio.gather(*(speak(generator, 4, option, f"mixed {row}") for row, option in enumerate(mixed)))
    assert together == alone
    assert together[1] == together[3]


async def test_repetition_awareness_is_on_until_it_is_turned_off(generator: SpeechTokenGenerator) -> None:
    def repeats(tokens: list[int]) -> bool:
        return any(token in tokens[max(0, place - 10) : place] for place, token in enumerate(tokens))

    plain = SamplingOptions(temperature=0, repetition_aware=False, min_tokens=40, max_tokens=40)
    aware = SamplingOptions(temperature=0, min_tokens=40, max_tokens=40)
    assert repeats(await speak(generator, 5, plain))
    assert not repeats(await speak(generator, 5, aware))


async def test_a_cancelled_request_leaves_the_engine(generator: SpeechTokenGenerator) -> None:
    options = SamplingOptions(min_tokens=900, max_tokens=900)
    pieces = generator.generate("cancelled", segment(0), options)
    assert await anext(pieces)
    assert generator.running == 1
    assert not await generator.engine.reset_prefix_cache()  # vLLM refuses while a request holds part of the cache
    await pieces.aclose()
    assert generator.running == 0
    assert await generator.engine.reset_prefix_cache()


async def test_draws_follow_the_models_distribution(generator: SpeechTokenGenerator) -> None:
    """First tokens of many requests, by chi-square against the engine's own logits."""
    prompt = segment(7)
    params = SamplingParams(max_tokens=1, logprobs=-1, detokenize=False)
    [output] = [output async for output in generator.engine.generate(tokens_input(prompt.prompt), params, "logits")]
    [by_token] = output.outputs[0].logprobs
    logits = torch.tensor([by_token[token].logprob for token in range(HEAD_SIZE)])
    options = SamplingOptions(temperature=0.5, top_k=8, min_tokens=1, max_tokens=1)
    logits[SPEECH_TOKENS:] = -torch.inf
    expected = by_definition(logits, options, []).numpy()

    draws = await asyncio.gather(
        *(collect(generator.generate(f"draw {number}", prompt, options)) for number in range(300))
    )
    counts = np.bincount([token for [token] in draws], minlength=HEAD_SIZE).astype(np.float64)
    assert chi_square_p(counts, expected * len(draws)) > 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="the generator has the second model runner itself")
async def test_the_model_runner_of_a_gpu_draws_the_same_tokens(
    generator: SpeechTokenGenerator, tiny_model: Path
) -> None:
    command = [sys.executable, "-m", "tests.second_model_runner", str(tiny_model)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    running = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environment)
    printed, log = await running.communicate()
    assert running.returncode == 0, log.decode()
    assert b"further step" in log
    second = json.loads(printed.splitlines()[-1])
    for number, options in enumerate(second_model_runner.REQUESTS):
        pieces = generator.generate(f"first {number}", second_model_runner.segment(number), options)
        assert await collect(pieces) == second["together"][number]
    options = second_model_runner.REQUESTS[0]
    stream = generator.generate_from_text_stream("first", [1, 2, 3], [5, 6, 7], second_model_runner.text(), options)
    assert await collect(stream) == second["streamed"]


@pytest.mark.parametrize(
    ("prompt", "options", "complaint"),
    [
        ([6564, -1], SamplingOptions(), "prompt ids must be between"),
        ([6564, 6566 + TINY.language_model.text_vocab_size], SamplingOptions(), "prompt ids must be between"),
        ([6564] * LONGEST, SamplingOptions(), "shorter text"),
        ([6564] * 1000, SamplingOptions(min_tokens=25), "shorter text"),
    ],
)
async def test_what_cannot_be_spoken_is_refused_at_once(
    generator: SpeechTokenGenerator, prompt: list[int], options: SamplingOptions, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        await collect(generator.generate("refused", Segment(prompt, 1, 2, 20), options))
    await generator.check_health()
    assert generator.running == 0


async def test_a_request_ends_where_the_cache_does(generator: SpeechTokenGenerator) -> None:
    prompt = segment(1).prompt
    long = Segment([*prompt, *[5] * (LONGEST - 10 - len(prompt))], 1, 2, 200)
    assert len(await collect(generator.generate("long", long, SamplingOptions(min_tokens=10)))) == 10


async def arriving(pieces: Sequence[Sequence[int]], delay: float) -> AsyncIterator[Sequence[int]]:
    for piece in pieces:
        await asyncio.sleep(delay)
        yield piece
    await asyncio.sleep(delay)


@pytest.mark.parametrize("options", [GREEDY, SamplingOptions(seed=9, min_tokens=45, max_tokens=60)])
async def test_a_text_stream_sounds_the_same_however_fast_it_comes(
    generator: SpeechTokenGenerator, options: SamplingOptions
) -> None:
    words = [[10], [11, 12], [13, 14], [15], [16, 17, 18], [19], [20, 21], [22]]
    prompt = [1, 2, 3, 4, 5, 6, 7], [100, 200, 300, 400, 500, 600, 700]
    streams = [
        collect(generator.generate_from_text_stream(f"stream {delay}", *prompt, arriving(words, delay), options))
        for delay in (0.0, 0.02, 0.2)
    ]
    results = await asyncio.gather(*streams)
    assert results[0] == results[1] == results[2]
    assert options.min_tokens is not None
    assert options.max_tokens is not None
    assert options.min_tokens <= len(results[0]) <= options.max_tokens


async def test_a_text_stream_sounds_the_same_wherever_it_was_cut(
    generator: SpeechTokenGenerator, tiny_model: Path
) -> None:
    arriving = ArrivingText(load_tokenizer(open_model(tiny_model).tokenizer))
    text, draw = "Good morning, my friend! 今天天气很好，你们都好吗？ It's [breath] the 21.5th way.", random.Random(0)
    options = SamplingOptions(temperature=0.0, max_tokens=120)

    async def speak(name: str, pieces: Sequence[str]) -> list[int]:
        async def written() -> AsyncIterator[str]:
            for piece in pieces:
                await asyncio.sleep(draw.random() * 0.02)
                yield piece

        tokens = small_pieces(arriving.tokens(written()))
        return await collect(generator.generate_from_text_stream(name, [1, 2, 3], [100, 200], tokens, options))

    ways = [[text], list(text), *([text[:n], text[n:]] for n in range(7, len(text), 19))]
    whole, *others = await asyncio.gather(*(speak(f"cut {number}", way) for number, way in enumerate(ways)))
    assert all(heard == whole for heard in others)


async def test_speech_of_a_text_stream_does_not_wait_for_the_end_of_the_text(generator: SpeechTokenGenerator) -> None:
    more = asyncio.Event()

    async def text() -> AsyncIterator[list[int]]:
        yield [1, 2, 3, 4, 5]
        await more.wait()
        yield [6, 7]

    spoken: list[int] = []
    async for tokens in generator.generate_from_text_stream("waiting", [], [], text(), SamplingOptions(seed=1)):
        spoken += tokens
        if len(spoken) == 15:  # all that 5 text tokens give
            more.set()
    assert more.is_set()


async def test_a_text_stream_can_be_left_while_it_waits_for_text(generator: SpeechTokenGenerator) -> None:
    async def text() -> AsyncIterator[list[int]]:
        yield [1, 2, 3, 4, 5]
        await asyncio.Event().wait()

    listening = asyncio.create_task(
        collect(generator.generate_from_text_stream("left", [], [], text(), SamplingOptions(seed=1)))
    )
    await asyncio.sleep(0.5)
    assert generator.running == 1
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert generator.running == 0


@pytest.mark.parametrize(
    ("words", "speech", "complaint"),
    [
        ([], [], "nothing to speak"),
        ([[]], [], "nothing to speak"),
        ([[1, 2], [TINY.language_model.text_vocab_size]], [], "text tokens must be between"),
        ([[1, 2]], [SPEECH_TOKENS], "speech tokens must be between"),
        ([[1, 2]], [5] * LONGEST, "shorter text"),
    ],
)
async def test_a_text_stream_that_cannot_be_spoken_is_refused(
    generator: SpeechTokenGenerator, words: list[list[int]], speech: list[int], complaint: str
) -> None:
    pieces = generator.generate_from_text_stream("refused", [], speech, arriving(words, 0.0), SamplingOptions())
    with pytest.raises(ValueError, match=complaint):
        await collect(pieces)
    await generator.check_health()


async def test_the_turns_of_a_text_stream_share_what_they_computed(generator: SpeechTokenGenerator) -> None:
    prompt = tokens_input([*segment(8).prompt, *range(64)])
    cached = []
    for turn in range(2):
        params = SamplingParams(max_tokens=1, detokenize=False)
        [output] = [output async for output in generator.engine.generate(prompt, params, f"cached {turn}")]
        cached.append(output.num_cached_tokens)
    assert cached[0] == 0
    assert len(prompt["prompt_token_ids"]) - cached[1] <= 32
