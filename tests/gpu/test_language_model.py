"""The language model in batches and CUDA graphs draws the tokens that it draws alone, step by step."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import pytest_asyncio

from training.sentences import HELD_OUT
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import DEMO_MODEL
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.llm.scheduler import STEPS_AT_ONCE
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.sampling import SamplingOptions

pytestmark = pytest.mark.asyncio(loop_scope="module")

VOICES = ("rms", "slt", "awb")
TOKENS = 40  # of each request
COMPARED = 10  # of them: bfloat16 rounds differently in another batch, and one other token changes all that follow
LONG = 300  # tokens: attention's tiles of keys fill up several times, also within a plan of several steps
LONGEST_DELAY = 0.2  # seconds: some prompts are read in the steps in which others generate

Request = Callable[[SpeechTokenGenerator, str], AsyncIterator[list[int]]]


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return Preparation(open_model(DEMO_MODEL))


class Generators(NamedTuple):
    usual: SpeechTokenGenerator  # as the server runs it
    single_steps: SpeechTokenGenerator  # in CUDA graphs, too
    eager: SpeechTokenGenerator  # without CUDA graphs


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def generators() -> AsyncIterator[Generators]:
    options = EngineOptions(max_num_seqs=len(VOICES) * len(HELD_OUT))
    model = open_model(DEMO_MODEL)
    generators = Generators(
        SpeechTokenGenerator(model, options),
        SpeechTokenGenerator(model, options, additional_config={STEPS_AT_ONCE: 1}),
        SpeechTokenGenerator(model, options, enforce_eager=True),
    )
    yield generators
    for generator in generators:
        generator.shutdown()


SAMPLING = SamplingOptions(seed=0, min_tokens=TOKENS, max_tokens=TOKENS)


def whole(preparation: Preparation, text: str, voice: str, *, cross_lingual: bool) -> Request:
    (segment,) = preparation.segments(text, preparation.voice(voice), None, cross_lingual=cross_lingual)
    return lambda generator, name: generator.generate(name, segment, SAMPLING)


def arriving(preparation: Preparation, text: str, voice: str) -> Request:
    features = preparation.voice(voice)
    prompt_text, prompt_speech = preparation.prompt_text(features), preparation.prompt_speech(features)
    ids = preparation.tokens(text)

    async def one_by_one() -> AsyncIterator[Sequence[int]]:
        for token in ids:
            yield [token]

    return lambda generator, name: generator.generate_from_text_stream(
        name, prompt_text, prompt_speech, one_by_one(), SAMPLING
    )


KINDS: dict[str, Callable[[Preparation, str, str], Request]] = {
    "after a prompt": partial(whole, cross_lingual=False),
    "without a prompt": partial(whole, cross_lingual=True),
    "while the text arrives": arriving,
}


@pytest.mark.parametrize("kind", KINDS)
async def test_tokens_do_not_depend_on_the_batch_nor_on_graphs(
    generators: Generators,
    preparation: Preparation,
    kind: str,
    figure: Callable[[str], None],
) -> None:
    requests = [KINDS[kind](preparation, text, voice) for voice in VOICES for text in HELD_OUT]
    draw = random.Random(0)

    async def collect(generator: SpeechTokenGenerator, number: int) -> list[int]:
        pieces = requests[number](generator, f"{kind} {number}")
        return [token async for piece in pieces for token in piece][:COMPARED]

    async def delayed(work: Awaitable[list[int]]) -> list[int]:
        await asyncio.sleep(draw.uniform(0, LONGEST_DELAY))
        return await work

    alone = [await collect(generators.eager, number) for number in range(len(requests))]
    together = await asyncio.gather(*(delayed(collect(generators.usual, number)) for number in range(len(requests))))
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    figure(f"{kind}: {same} of {len(requests)} requests have the same first {COMPARED} tokens at once in graphs")
    assert same >= 0.75 * len(requests)


async def test_several_steps_at_once_give_the_tokens_of_single_steps(
    generators: Generators, preparation: Preparation, figure: Callable[[str], None]
) -> None:
    """One request at a time, so that all products are the same. Attention's may be put together in another order."""
    requests = [
        (voice, text, SamplingOptions(seed=number, min_tokens=LONG, max_tokens=LONG))
        for voice in VOICES
        for number, text in enumerate(HELD_OUT[:4])
    ]

    async def speak(generator: SpeechTokenGenerator, number: int) -> list[int]:
        voice, text, sampling = requests[number]
        (segment,) = preparation.segments(text, preparation.voice(voice), None)
        return [token async for piece in generator.generate(f"long {number}", segment, sampling) for token in piece]

    same = 0
    for number in range(len(requests)):
        several, single = [await speak(generator, number) for generator in generators[:2]]
        same += several == single
        # If tokens part, a speech may end sooner, as it became silent.
        shorter = min(len(several), len(single))
        assert several == single or several[:shorter] != single[:shorter], "a token at the end is lost or doubled"
    figure(
        f"{same} of {len(requests)} requests of {LONG} tokens have the same tokens four steps at once and one by one"
    )
    assert same >= 0.75 * len(requests)
