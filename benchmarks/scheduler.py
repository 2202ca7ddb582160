"""Times vLLM's scheduler and ours, without a model: CPU microseconds per request and step, with two steps in flight.

    python -m benchmarks.scheduler --requests 1 64 256

Both take turns, so that other work on the machine slows them alike.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vllm

from benchmarks.table import table
from tests.scheduler_history import KINDS, Arrival, Engine, engine_config, make_scheduler
from tools.random_checkpoint import TINY, write_random_checkpoint

PROMPT = 180  # tokens
TOKENS = 250  # of each request
WARM_UP = 4  # steps after the last prompt
DEPTH = 2  # steps in flight


@dataclass(frozen=True)
class Figures:
    """Of one round."""

    plan: float  # CPU seconds of `schedule`, mean of steps in which all requests generate
    finish: float  # CPU seconds of `update_from_output`, mean of all steps
    messages: float  # for each token


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """The CPU seconds of `call` in this thread, and its result."""
    begin = time.thread_time()
    result = call()
    return time.thread_time() - begin, result


def run(engine: Engine, requests: int) -> Figures:
    """Generate `TOKENS` tokens for each of `requests`."""
    for number in range(requests):
        name = f"request {number}"
        engine.add(Arrival.of(name, [(number * PROMPT + place) % 6561 for place in range(PROMPT)], TOKENS))
    planning, finishing = [], []
    while engine.scheduler.has_requests() or engine.in_flight:
        seconds, step = timed(engine.scheduler.schedule)
        engine.begin(step)
        if len(step.num_scheduled_tokens) == step.total_num_scheduled_tokens == requests:
            planning.append(seconds)
        if engine.in_flight and (engine.in_flight == DEPTH or not step.num_scheduled_tokens):
            output = engine.output()
            seconds, messages = timed(lambda: engine.scheduler.update_from_output(*output))  # noqa: B023 - called here
            engine.receive(messages)
            finishing.append(seconds)
    sent = engine.messages / (requests * TOKENS)
    return Figures(statistics.mean(planning[WARM_UP:]), statistics.mean(finishing), sent)


def measure(directory: Path, requests: int, rounds: int) -> dict[str, Figures]:
    """The round of each scheduler that other work on the machine disturbed least."""
    blocks = requests * (PROMPT + TOKENS) // 8  # more than are needed
    config = engine_config(directory, requests=requests, tokens_per_step=max(2048, requests))
    schedulers = {name: make_scheduler(kind, config, blocks=blocks, second_runner=True) for name, kind in KINDS.items()}
    figures: dict[str, list[Figures]] = {name: [] for name in schedulers}
    for _ in range(rounds):
        for name, scheduler in schedulers.items():
            figures[name].append(run(Engine(scheduler), requests))
    return {name: min(of_rounds, key=lambda one: one.plan) for name, of_rounds in figures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = []
    gc.freeze()  # as in vLLM's engine
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder) / "tiny", TINY, seed=0)
        for requests in options.requests:
            for name, one in measure(Path(folder) / "tiny", requests, options.rounds).items():
                times = (f"{1e6 * seconds / requests:.2f}" for seconds in (one.plan, one.finish))
                rows.append([str(requests), name, *times, f"{one.messages:.2f}"])
    print(f"vLLM {vllm.__version__}")
    print(table(["requests", "scheduler", "plan, µs", "finish, µs", "messages a token"], rows))


if __name__ == "__main__":
    main()
