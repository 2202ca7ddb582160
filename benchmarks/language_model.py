"""Times the language model alone, in vLLM's engine: speech tokens for many requests at a time.

    python -m benchmarks.language_model [--model_dir DIR | --size full] [--sampling ours|vllm] [--json FILE]

All requests of a round start together, with a prompt of their own, and have the same length.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import vllm
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind

from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import TOKEN_RATE
from vllm_cosyvoice.random_checkpoint import SIZES, write_random_checkpoint
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.speech_token_generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

HOPS = (13, 28)  # tokens that a first hop may wait for
ROUNDS = 4  # of which the first is not counted


@dataclass(frozen=True)
class Figures:
    """One concurrency: medians over the rounds and, for times of a request, over the requests."""

    concurrency: int
    step_ms: float  # between two tokens of a request
    tokens_per_s: float  # of all requests, prompts included in the time
    audio_s_per_s: float
    first_token_ms: float
    hops_ms: tuple[float, ...]  # until there are HOPS tokens
    host_us: float  # CPU time of this process for each token, which the engine's own process does not see


class Load:
    """Requests of one kind."""

    def __init__(self, generator: SpeechTokenGenerator, prompt: int, tokens: int, sampling: str) -> None:
        self._generator = generator
        self._prompt = prompt
        self._tokens = tokens
        self._ours = sampling == "ours"
        self._options = SamplingOptions(min_tokens=tokens, max_tokens=tokens)
        self._number = 0

    async def measure(self, concurrency: int) -> Figures:
        """Some rounds of as many requests as `concurrency` says."""
        rounds = [await self._round(concurrency) for _ in range(ROUNDS)][1:]
        medians = [statistics.median(values) for values in zip(*(figures[1] for figures in rounds), strict=True)]
        speed = self._tokens * concurrency / statistics.median(figures[0] for figures in rounds)
        host = statistics.median(figures[2] for figures in rounds) / (self._tokens * concurrency)
        step, first, *hops = (1000 * seconds for seconds in medians)
        return Figures(concurrency, step, speed, speed / TOKEN_RATE, first, tuple(hops), 1e6 * host)

    async def _round(self, concurrency: int) -> tuple[float, list[float], float]:
        """Seconds of the round; a request's seconds for a step and until certain tokens; CPU seconds."""
        start, start_cpu = time.perf_counter(), time.process_time()
        times = await asyncio.gather(*(self._times() for _ in range(concurrency)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        requests = [
            [(own[-1] - own[0]) / (len(own) - 1), *(own[hop - 1] - start for hop in (1, *HOPS))] for own in times
        ]
        return seconds, [statistics.median(values) for values in zip(*requests, strict=True)], cpu

    async def _times(self) -> list[float]:
        """When each token of one request came."""
        self._number += 1
        ids = np.random.default_rng(self._number).integers(0, SPEECH_TOKENS, self._prompt).tolist()
        name = f"request {self._number}"
        times: list[float] = []
        async for tokens in self._by_us(name, ids) if self._ours else self._by_vllm(name, ids):
            times += [time.perf_counter()] * len(tokens)
        return times

    def _by_us(self, name: str, ids: list[int]) -> AsyncIterator[list[int]]:
        return self._generator.generate(name, Segment(ids, 1, self._tokens, self._tokens), self._options)

    async def _by_vllm(self, name: str, ids: list[int]) -> AsyncIterator[list[int]]:
        params = SamplingParams(
            top_k=self._options.top_k,
            top_p=self._options.top_p,
            ignore_eos=True,
            max_tokens=self._tokens,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        async for output in self._generator.engine.generate(tokens_input(ids), params, name):
            yield output.outputs[0].token_ids


async def run(model: Path, arguments: argparse.Namespace) -> None:
    """Start the engine, print a line for each concurrency, write them all."""
    most, length = max(arguments.concurrency), arguments.prompt + arguments.tokens
    options = EngineOptions(max_total_token_num=most * (length + 32), max_num_seqs=most)
    begun = time.perf_counter()
    generator = SpeechTokenGenerator(open_model(model), options)
    try:
        start_s = time.perf_counter() - begun
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        print(f"{device}, vLLM {vllm.__version__}, torch {torch.__version__}, start {start_s:.1f} s")
        print(f"prompt {arguments.prompt}, {arguments.tokens} tokens each, drawn by {arguments.sampling}")
        print(f"requests | ms/step | tokens/s | a-s/s | first token, tokens {HOPS} after ms | host µs/token")
        load = Load(generator, arguments.prompt, arguments.tokens, arguments.sampling)
        results = []
        for concurrency in arguments.concurrency:
            figures = await load.measure(concurrency)
            hops = " ".join(f"{hop:7.1f}" for hop in (figures.first_token_ms, *figures.hops_ms))
            print(
                f"{concurrency:8} | {figures.step_ms:7.2f} | {figures.tokens_per_s:8,.0f} | "
                f"{figures.audio_s_per_s:5,.0f} | {hops} | {figures.host_us:.1f}",
                flush=True,
            )
            results.append(asdict(figures))
    finally:
        generator.shutdown()
    if arguments.json:
        about = {"device": device, "vllm": vllm.__version__, "torch": torch.__version__, "start_s": start_s}
        settings = {name: getattr(arguments, name) for name in ("prompt", "tokens", "sampling")}
        arguments.json.write_text(json.dumps({**about, **settings, "figures": results}, indent=1))


def main() -> None:
    """Find or make a model, and time it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path, help="a model directory; without one, random weights are made")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the random weights")
    parser.add_argument("--sampling", choices=["ours", "vllm"], default="ours", help="vllm: its own top-k and top-p")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128, 256])
    parser.add_argument("--prompt", type=int, default=180)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        model = arguments.model_dir
        if model is None:
            model = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
            write_random_checkpoint(model, SIZES[arguments.size], seed=0)
        asyncio.run(run(model, arguments))


if __name__ == "__main__":
    main()
