"""The language model in batches and CUDA graphs draws the tokens that it draws alone, step by step."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import pytest
import pytest_asyncio

from training.sentences import HELD_OUT
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import DEMO_MODEL
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.sampling import SamplingOptions

pytestmark = pytest.mark.asyncio(loop_scope="module")

VOICES = ("rms", "slt", "awb")
TOKENS = 40  # of each request
COMPARED = 10  # of them: bfloat16 rounds differently in another batch, and one other token changes all that follow
LONGEST_DELAY = 0.2  # seconds: some prompts are read in the steps in which others generate

Request = Callable[[SpeechTokenGenerator, str], AsyncIterator[list[int]]]


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return Preparation(open_model(DEMO_MODEL))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def generators() -> AsyncIterator[tuple[SpeechTokenGenerator, SpeechTokenGenerator]]:
    """As the server runs it, and without CUDA graphs."""
    options = EngineOptions(max_num_seqs=len(VOICES) * len(HELD_OUT))
    model = open_model(DEMO_MODEL)
    usual, eager = SpeechTokenGenerator(model, options), SpeechTokenGenerator(model, options, enforce_eager=True)
    yield usual, eager
    for generator in (usual, eager):
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
    generators: tuple[SpeechTokenGenerator, SpeechTokenGenerator],
    preparation: Preparation,
    kind: str,
    figure: Callable[[str], None],
) -> None:
    usual, eager = generators
    requests = [KINDS[kind](preparation, text, voice) for voice in VOICES for text in HELD_OUT]
    draw = random.Random(0)

    async def collect(generator: SpeechTokenGenerator, number: int) -> list[int]:
        pieces = requests[number](generator, f"{kind} {number}")
        return [token async for piece in pieces for token in piece][:COMPARED]

    async def delayed(work: Awaitable[list[int]]) -> list[int]:
        await asyncio.sleep(draw.uniform(0, LONGEST_DELAY))
        return await work

    alone = [await collect(eager, number) for number in range(len(requests))]
    together = await asyncio.gather(*(delayed(collect(usual, number)) for number in range(len(requests))))
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    figure(f"{kind}: {same} of {len(requests)} requests have the same first {COMPARED} tokens at once in graphs")
    assert same >= 0.75 * len(requests)
