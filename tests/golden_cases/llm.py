"""The language model inside vLLM's engine: full logits, and the shipped generator's greedy speech tokens."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from vllm import SamplingParams
from vllm.inputs import tokens_input

from tests.golden_cases import Case, errors
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.cosyvoice3 import COSYVOICE3
from vllm_cosyvoice.config import LLM_FILE, LanguageModelConfig, ModelConfig
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, FILL, HEAD_SIZE, SPEECH_TOKENS, UNUSED

FILE = "llm_small.npz"
HEADS = 4  # not to be seen in the shapes
COSYVOICE3_CONTROL = (6562, 6565, 6564)  # its end of speech, an unused row and its fill
LARGEST_ERROR = 1e-3  # of the logits, relative


def cases(data: Path, salt: str) -> Iterator[Case]:
    """Logits and greedy tokens of every prompt, greedy tokens of every text stream."""
    shapes: dict[str, list[int]] = json.loads((data / "manifest.json").read_text())["llm.small"]
    family = COSYVOICE2 if "llm_embedding.weight" in shapes else COSYVOICE3
    with tempfile.TemporaryDirectory() as directory:
        torch.save(seeded_state(shapes, salt), Path(directory, LLM_FILE))
        model = ModelDirectory(Path(directory), ModelConfig(sizes(shapes)), family)
        yield from asyncio.run(_results(model, np.load(data / FILE)))


def sizes(shapes: dict[str, list[int]]) -> LanguageModelConfig:
    """The sizes of the model whose tensors have these shapes."""
    layer = "llm.model.model.layers.{}."
    rows, hidden = shapes["llm.model.model.embed_tokens.weight"]
    return LanguageModelConfig(
        hidden_size=hidden,
        intermediate_size=shapes[layer.format(0) + "mlp.gate_proj.weight"][0],
        num_layers=sum(name.endswith(".input_layernorm.weight") for name in shapes),
        num_heads=HEADS,
        num_kv_heads=shapes[layer.format(0) + "self_attn.k_proj.weight"][0] // (hidden // HEADS),
        text_vocab_size=rows,
    )


async def _results(model: ModelDirectory, data: dict[str, np.ndarray]) -> list[Case]:
    generator = SpeechTokenGenerator(model, EngineOptions(data_type="float32"))
    # The ids whose logits the data has, in the order of our head.
    control = (END_OF_SPEECH, UNUSED, FILL) if model.family == COSYVOICE2 else COSYVOICE3_CONTROL
    head = [*range(SPEECH_TOKENS), *control]
    results = []
    try:
        for name in sorted({key.split(".")[0] for key in data if "." in key}):
            text, prompt_text, prompt_speech = (
                data[f"{name}.{part}"].tolist() for part in ("text", "prompt_text", "prompt_speech_token")
            )
            greedy = data[f"{name}.greedy"].tolist()
            if f"{name}.logits" in data:
                segment = Segment.of(text, prompt_text, prompt_speech)
                options = SamplingOptions(temperature=0, max_tokens=len(greedy))
                tokens = generator.generate(name, segment, options)
                results.append(_logits_case(name, await _logits(generator, segment), data[f"{name}.logits"][head]))
            else:
                pieces = np.split(np.array(text), np.cumsum(data[f"{name}.pieces"])[:-1])
                options = SamplingOptions(temperature=0, min_tokens=0, max_tokens=len(greedy))
                instruction: list[int] = []
                if "end_of_prompt" in data:
                    end = prompt_text.index(int(data["end_of_prompt"])) + 1
                    instruction, prompt_text = prompt_text[:end], prompt_text[end:]
                tokens = generator.generate_from_text_stream(
                    name, prompt_text, prompt_speech, _arriving(pieces), options, instruction
                )
            results.append(_greedy_case(name, [token async for piece in tokens for token in piece], greedy))
    finally:
        generator.shutdown()
    return results


async def _arriving(pieces: Sequence[np.ndarray]) -> AsyncIterator[list[int]]:
    for piece in pieces:
        yield piece.tolist()


async def _logits(generator: SpeechTokenGenerator, segment: Segment) -> np.ndarray:
    """The engine's raw logits for the token after the prompt, float32 [6564]."""
    params = SamplingParams(max_tokens=1, logprobs=-1, detokenize=False)
    outputs = generator.engine.generate(tokens_input(segment.prompt), params, "logits")
    [output] = [output async for output in outputs]
    [by_token] = output.outputs[0].logprobs
    return np.array([by_token[token].logprob for token in range(HEAD_SIZE)], np.float32)


def _logits_case(name: str, actual: np.ndarray, expected: np.ndarray) -> Case:
    largest, relative = errors(actual, expected)
    return Case(FILE, f"{name}.logits", largest, relative, relative <= LARGEST_ERROR)


def _greedy_case(name: str, actual: list[int], expected: list[int]) -> Case:
    if expected[-1] >= SPEECH_TOKENS:
        expected = expected[:-1]  # which the generator keeps to itself
    wrong = sum(a != b for a, b in zip(actual, expected, strict=False)) + abs(len(actual) - len(expected))
    return Case(FILE, f"{name}.greedy", wrong, wrong / len(expected), wrong == 0, f"wrong tokens of {len(expected)}")
