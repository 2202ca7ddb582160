"""Times the language model alone, in vLLM's engine, with many concurrent requests.

    python -m benchmarks.language_model [--model_dir DIR | --size full] [--sampling ours|vllm] [--json FILE]
        [--profile FILE] [--vllm '{"async_scheduling": false}']

All requests of a round start together, with different prompts and the same length. `benchmarks.roofline` gives the
attainable time of a step; `--profile` shows where the time of a step goes.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import vllm
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind

from benchmarks import model, step_profile
from benchmarks.roofline import Roofline
from benchmarks.step_profile import StepProfile
from benchmarks.table import spread, table
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import TOKEN_RATE
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

HOPS = (13, 28)  # tokens that a first hop may need
ROUNDS = 4  # the first is not counted
PROFILED = (1, 64)  # concurrent requests
PROFILE_FROM, PROFILE_TO = 20, 60  # tokens of a request: after the prompts have been read, and short enough for a trace
COLUMNS = (
    *("requests", "ms/step", "attainable ms", "attained %", "tokens/s", "a-s/s", "first token ms"),
    *(f"{hop} tokens ms" for hop in HOPS),
    "host µs/token",
)


@dataclass(frozen=True)
class Figures:
    """Results for one concurrency: medians over the rounds and, for times of a request, over the requests."""

    concurrency: int
    step_ms: float  # between two tokens of a request
    tokens_per_s: float  # of all requests; the time includes reading the prompts
    audio_s_per_s: float
    first_token_ms: float
    hops_ms: tuple[float, ...]  # until there are HOPS tokens
    host_us: float  # CPU time of this process per token, without the engine's own process
    attainable_ms: float | None  # of a step, see `roofline`

    def cells(self) -> list[str]:
        """The cells for `COLUMNS`."""
        attained = 100 * self.attainable_ms / self.step_ms if self.attainable_ms else None
        return [
            *(str(self.concurrency), f"{self.step_ms:.2f}", spread([self.attainable_ms], ".2f")),
            *(spread([attained], ".1f"), f"{self.tokens_per_s:,.0f}", f"{self.audio_s_per_s:,.0f}"),
            *(f"{hop:.1f}" for hop in (self.first_token_ms, *self.hops_ms)),
            f"{self.host_us:.1f}",
        ]


class Load:
    """Runs requests of one kind."""

    def __init__(
        self, generator: SpeechTokenGenerator, roofline: Roofline, prompt: int, tokens: int, sampling: str
    ) -> None:
        self._generator = generator
        self._roofline = roofline
        self._prompt = prompt
        self._tokens = tokens
        self._ours = sampling == "ours"
        self._options = SamplingOptions(min_tokens=tokens, max_tokens=tokens)
        self._number = 0

    async def measure(self, concurrency: int) -> Figures:
        """Measure `ROUNDS` rounds of `concurrency` requests."""
        rounds = [await self._round(concurrency) for _ in range(ROUNDS)][1:]
        medians = [statistics.median(values) for values in zip(*(figures[1] for figures in rounds), strict=True)]
        speed = self._tokens * concurrency / statistics.median(figures[0] for figures in rounds)
        host = statistics.median(figures[2] for figures in rounds) / (self._tokens * concurrency)
        step, first, *hops = (1000 * seconds for seconds in medians)
        attainable = self._roofline.language_model(concurrency, self._prompt + self._tokens / 2)
        return Figures(concurrency, step, speed, speed / TOKEN_RATE, first, tuple(hops), 1e6 * host, attainable)

    async def profile(self, concurrency: int, directory: Path) -> StepProfile:
        """Profile some steps in one round of `concurrency` requests; `directory` is vLLM's trace directory."""
        begin, end = asyncio.Event(), asyncio.Event()

        async def watched() -> None:
            async for count in self._counts():
                if count >= PROFILE_FROM:
                    begin.set()
                if count >= PROFILE_TO:
                    end.set()

        step_ms = (await self.measure(concurrency)).step_ms
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(watched())
            await begin.wait()
            await self._generator.engine.start_profile()
            await end.wait()
            await self._generator.engine.stop_profile()
        return step_profile.take(directory, step_ms)

    async def _round(self, concurrency: int) -> tuple[float, list[float], float]:
        """Return the seconds of the round, a request's seconds per step and until certain tokens, and CPU seconds."""
        start, start_cpu = time.perf_counter(), time.process_time()
        times = await asyncio.gather(*(self._times() for _ in range(concurrency)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        requests = [
            [(own[-1] - own[0]) / (len(own) - 1), *(own[hop - 1] - start for hop in (1, *HOPS))] for own in times
        ]
        return seconds, [statistics.median(values) for values in zip(*requests, strict=True)], cpu

    async def _times(self) -> list[float]:
        """Run one request and return the time of each token."""
        times: list[float] = []
        async for count in self._counts():
            times += [time.perf_counter()] * (count - len(times))
        return times

    async def _counts(self) -> AsyncIterator[int]:
        """Run one request and yield the number of tokens so far."""
        self._number += 1
        ids = np.random.default_rng(self._number).integers(0, SPEECH_TOKENS, self._prompt).tolist()
        name, count = f"request {self._number}", 0
        async for tokens in self._by_us(name, ids) if self._ours else self._by_vllm(name, ids):
            count += len(tokens)
            yield count

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


def device_name() -> str:
    """The name of the GPU, or "CPU"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


async def run(directory: Path, arguments: argparse.Namespace, traces: Path) -> None:
    """Start the engine, print a line for each concurrency and write all results; `traces` is an empty directory."""
    profiled = PROFILED if arguments.profile else ()
    most, length = max([*arguments.concurrency, *profiled]), arguments.prompt + arguments.tokens
    options = EngineOptions(max_total_token_num=most * (length + 32), max_num_seqs=most)
    others = dict(arguments.vllm)
    if arguments.profile:
        os.environ["VLLM_CUSTOM_SCOPES_FOR_PROFILING"] = "1"
        others["profiler_config"] = step_profile.config(traces)
    begun, opened = time.perf_counter(), open_model(directory)
    generator = SpeechTokenGenerator(opened, options, **others)
    gc.freeze()  # as in every process of the server
    try:
        start_s = time.perf_counter() - begun
        about = {"device": device_name(), "vllm": vllm.__version__, "torch": torch.__version__, "start_s": start_s}
        settings = {name: getattr(arguments, name) for name in ("prompt", "tokens", "sampling", "vllm")}
        print(f"{about['device']}, vLLM {vllm.__version__}, torch {torch.__version__}, start {start_s:.1f} s")
        print(f"prompt {arguments.prompt}, {arguments.tokens} tokens each, drawn by {arguments.sampling}")
        roofline = Roofline.here(opened.config)
        load = Load(generator, roofline, arguments.prompt, arguments.tokens, arguments.sampling)
        results, profiles = [], {}
        for concurrency in arguments.concurrency:
            results.append(await load.measure(concurrency))
            print("; ".join(results[-1].cells()), flush=True)
        print(table(COLUMNS, [figures.cells() for figures in results]), flush=True)
        for concurrency in profiled:
            profiles[concurrency] = await load.profile(concurrency, traces)
            print(f"\n{concurrency} at a time: {step_profile.show(profiles[concurrency])}", flush=True)
    finally:
        generator.shutdown()
    if arguments.json:
        figures_of = [asdict(figures) for figures in results]
        arguments.json.write_text(json.dumps({**about, **settings, "figures": figures_of}, indent=1))
    if arguments.profile:
        profiles_of = {concurrency: asdict(profile) for concurrency, profile in profiles.items()}
        arguments.profile.write_text(json.dumps({**about, **settings, "profiles": profiles_of}, indent=1))


def main() -> None:
    """Open or create a model, and time it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model.add_arguments(parser)
    parser.add_argument("--sampling", choices=["ours", "vllm"], default="ours", help="vllm: its own top-k and top-p")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128, 256])
    parser.add_argument("--prompt", type=int, default=180)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help=f"also profile a step with {' and '.join(map(str, PROFILED))} requests, and write the result as JSON",
    )
    parser.add_argument(
        "--vllm", type=json.loads, default={}, metavar="JSON", help="vLLM arguments that override ours, for comparison"
    )
    arguments = parser.parse_args()
    if arguments.profile and arguments.tokens < PROFILE_TO:
        parser.error(f"--profile needs requests of at least {PROFILE_TO} tokens: raise --tokens")
    with model.model_directory(arguments) as directory, tempfile.TemporaryDirectory() as traces:
        asyncio.run(run(directory, arguments, Path(traces)))


if __name__ == "__main__":
    main()
