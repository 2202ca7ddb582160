"""The common part of all child processes: start, report it, serve the inbox, and end when the supervisor ends."""

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol, Self

import msgspec

from server.arguments import Arguments
from server.observe.metrics import Numbers
from server.processes import process_group
from server.processes.channel import Channel
from server.processes.messages import Address, AnyMessage, Kind, Ping, Pong, StageDown, Starting
from server.served_model import ServedModel

log = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True):
    """What a process gets from the supervisor at its start."""

    kind: Kind
    index: int  # among processes of the same kind
    name: str
    address: Address
    supervisor: Address
    secret: bytes
    run_directory: Path
    arguments: Arguments
    model: ServedModel
    decoders: int  # of a decode process: how many use its GPU
    listener: int | None = None  # file descriptor of the listening socket, for HTTP workers

    def line(self) -> bytes:
        """Return the settings as a line of JSON, for the stdin of the process."""
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Parse a line that `line` returned."""
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, text: kind(text))  # only Path needs the hook


class Stage(Protocol):
    """The work of a process. Methods must not block: long work runs in tasks and threads."""

    def handle(self, message: AnyMessage) -> None:
        """Handle a message."""

    def drop(self, address: Address) -> None:
        """The process at `address` has died: release what it owned, and fail what waits for it."""

    def numbers(self) -> Numbers:
        """Return the numbers for /metrics, see `server.observe.metrics`."""


async def serve(stage: Stage, channel: Channel) -> NoReturn:
    """Handle messages forever."""
    # Objects made during the start stay alive. Scanning them for garbage would block the process for 0.3 s each time.
    gc.collect()
    gc.freeze()
    while True:
        message = await channel.receive()
        match message:
            case Ping():
                channel.send(message.reply_to, Pong(message.nonce, channel.address, dict(stage.numbers())))
            case StageDown():
                channel.bury(message.address)
                stage.drop(message.address)
            case _:
                stage.handle(message)


@contextlib.contextmanager
def timed(work: str) -> Iterator[None]:
    """Log the duration of a step of the start."""
    start = time.perf_counter()
    yield
    log.info("%s took %.1f s.", work, time.perf_counter() - start)


@contextlib.contextmanager
def step(settings: Settings, channel: Channel, work: str) -> Iterator[None]:
    """Like `timed`, and tell the supervisor, which reports what is still starting."""
    channel.send(settings.supervisor, Starting(channel.address, work))
    with timed(work):
        yield


def configure_logging(name: str) -> None:
    """Log to stderr with the process name in each line: our own messages from INFO on, others' from WARNING on."""
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s {name}: %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("server").setLevel(logging.INFO)
    logging.getLogger("vllm_cosyvoice").setLevel(logging.INFO)
    requests = logging.getLogger("server.requests")  # one JSON line each; nothing else is written to stdout
    requests.addHandler(logging.StreamHandler(sys.stdout))
    requests.propagate = False


def main(module: str, listener: int | None) -> None:
    """Run the stage in `module` with the settings from stdin, until SIGTERM or the end of the supervisor.

    listener: file descriptor of the listening socket, for an HTTP worker.
    """
    settings = msgspec.structs.replace(Settings.read(sys.stdin.buffer.readline()), listener=listener)
    threading.Thread(target=_end_with_supervisor, args=(settings.run_directory,), daemon=True).start()
    configure_logging(settings.name)
    try:
        asyncio.run(_run(module, settings))
    except asyncio.CancelledError:
        log.debug("Stopped.")


async def _run(module: str, settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # an HTTP worker replaces it
    channel = Channel(settings.address, settings.secret)
    try:
        await importlib.import_module(module).run(settings, channel)
    finally:
        channel.close()


def _end_with_supervisor(run_directory: Path) -> None:
    """End this process with the supervisor, which never writes to stdin again: reading returns when it ends."""
    os.read(0, 1)
    shutil.rmtree(run_directory, ignore_errors=True)
    process_group.end_own()
