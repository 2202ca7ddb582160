"""Does the chunk mask make whole utterances worse? The same speech tokens, decoded with full attention and with it.

    python -m training.compare_masks [--model_dir DIR] [--seeds 0 1 2 3] [--out FILE]

Speaks the forty development sentences with each preset voice and compares pairs of audio: wrong words, heard by
pocketsphinx, likeness of the speaker to the voice's recording, and the CPU time of the decoder, on one thread.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from training.corpus import PRESETS
from training.evaluate import Listener, VoiceJudge, prompt_recording, word_errors
from training.sentences import DEVELOPMENT
from training.texts import plain
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import DEMO_MODEL
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.sampling import SamplingOptions

RESAMPLES = 10_000


class Case(NamedTuple):
    """What is spoken."""

    sentence: int  # index
    voice: str
    seed: int


class Outcome(NamedTuple):
    """What is measured of one piece of audio."""

    wrong_words: float
    likeness: float
    seconds: float  # of CPU


async def generate(model: ModelDirectory, preparation: Preparation, cases: Sequence[Case]) -> list[list[int]]:
    """The speech tokens of each case."""
    generator = SpeechTokenGenerator(model, EngineOptions())

    async def speak(case: Case) -> list[int]:
        (segment,), _ = preparation.prepare(DEVELOPMENT[case.sentence], case.voice)
        speech = generator.generate(str(case), segment, SamplingOptions(seed=case.seed))
        async with aclosing(speech) as pieces:
            return [token async for piece in pieces for token in piece]

    try:
        return await asyncio.gather(*map(speak, cases))
    finally:
        generator.shutdown()


def decode(decoder: SpeechDecoder, prompt: FlowPrompt, tokens: Sequence[int], seed: int) -> tuple[np.ndarray, float]:
    """The audio of a whole utterance, float32 [n], and the CPU seconds that it took."""
    started = time.process_time()
    utterance = decoder.begin(Utterance(streaming=False, seed=seed), prompt)
    utterance.push(tokens)
    utterance.finish()
    cut = utterance.next_cut()
    assert cut
    (samples,) = decoder.decode([(utterance, cut)])
    return samples.astype(np.float32) / 32768, time.process_time() - started


def interval(differences: np.ndarray, sentences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of `differences`, by bootstrap: whole sentences are drawn, with all their cases."""
    cases = [differences[sentences == sentence] for sentence in np.unique(sentences)]
    sums, counts = np.array([part.sum() for part in cases]), np.array([len(part) for part in cases])
    drawn = np.random.default_rng(0).integers(0, len(cases), (RESAMPLES, len(cases)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def report(cases: Sequence[Case], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    """Print the means of both masks, their difference with its interval, and in how many cases it has which sign."""
    sentences = np.array([case.sentence for case in cases])
    words = np.mean([len(plain(DEVELOPMENT[sentence]).split()) for sentence in sentences])
    full, chunks = (np.array(outcomes[mask]) for mask in ("full", "chunks"))
    for index, (name, scale) in enumerate((("wrong words of 100", 100 / words), ("likeness", 1), ("CPU seconds", 1))):
        before, after = scale * full[:, index], scale * chunks[:, index]
        change = after - before
        low, high = interval(change, sentences)
        print(
            f"{name}: {before.mean():.4f} full, {after.mean():.4f} chunks, difference {change.mean():+.4f}"
            f" [{low:+.4f}, {high:+.4f}], less in {(change < 0).sum()} and more in {(change > 0).sum()}"
            f" of {len(change)}",
            flush=True,
        )


def main() -> None:
    """Generate, decode, listen, and print a report after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=DEMO_MODEL, help="default: the demo model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--out", type=Path, help="keep the figures of each case here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model_dir)
    preparation = Preparation(model)
    cases = [Case(n, voice, seed) for seed in arguments.seeds for n in range(len(DEVELOPMENT)) for voice in PRESETS]
    tokens = asyncio.run(generate(model, preparation, cases))
    decoders = {mask: SpeechDecoder(model, "cpu", full_attention=mask == "full") for mask in ("full", "chunks")}
    prompts = {voice: decoders["full"].prompt(preparation.voice(voice)) for voice in PRESETS}
    recordings = {voice: prompt_recording(voice) for voice in PRESETS}
    judge, listener = VoiceJudge(model), Listener()
    outcomes: dict[str, list[Outcome]] = {mask: [] for mask in decoders}
    for number, (case, speech) in enumerate(zip(cases, tokens, strict=True), start=1):
        for mask, decoder in decoders.items():
            samples, seconds = decode(decoder, prompts[case.voice], speech, case.seed)
            wrong = word_errors(DEVELOPMENT[case.sentence], listener.transcribe(samples))
            outcomes[mask].append(Outcome(wrong, judge.likeness(samples, recordings[case.voice]), seconds))
        if number % (len(DEVELOPMENT) * len(PRESETS)) == 0:
            print(f"{number} cases, up to seed {case.seed}:")
            report(cases[:number], outcomes)
    if arguments.out:
        lines = [
            case._asdict() | {mask: outcomes[mask][index]._asdict() for mask in outcomes}
            for index, case in enumerate(cases)
        ]
        arguments.out.write_text(json.dumps(lines, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
