"""What every process under the supervisor does: start, say so, answer its inbox, and end when the supervisor ends."""

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

log = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True):
    """What the supervisor tells a process when it starts it."""

    kind: Kind
    index: int  # among the processes of its kind
    name: str
    address: Address
    supervisor: Address
    secret: bytes
    run_directory: Path
    arguments: Arguments
    model: Path
    model_id: str
    listener: int | None = None  # file descriptor of the listening socket, for http

    def line(self) -> bytes:
        """As the line that the process reads on its stdin."""
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """What `line` made."""
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, text: kind(text))  # Path is the one such kind


class Stage(Protocol):
    """A process's work, told one message at a time. Nothing here waits: long work runs in tasks and threads."""

    def handle(self, message: AnyMessage) -> None:
        """Act on a message."""

    def drop(self, address: Address) -> None:
        """The process at `address` has died: let go of what it owned, fail what it owed."""

    def numbers(self) -> Numbers:
        """What /metrics is to show of it, see `server.observe.metrics`."""


async def serve(stage: Stage, channel: Channel) -> NoReturn:
    """Answer the inbox for ever."""
    # What the start has left stays. To search it for garbage, now and then, stops all else for 0.3 s.
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
    """Log how long a step of the start took."""
    start = time.perf_counter()
    yield
    log.info("%s took %.1f s.", work, time.perf_counter() - start)


@contextlib.contextmanager
def step(settings: Settings, channel: Channel, work: str) -> Iterator[None]:
    """`timed`, and told to the supervisor, who reports what is still starting."""
    channel.send(settings.supervisor, Starting(channel.address, work))
    with timed(work):
        yield


def configure_logging(name: str) -> None:
    """Log to stderr, each line with the process's name: what goes on here, and what others warn of."""
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s {name}: %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("server").setLevel(logging.INFO)
    logging.getLogger("vllm_cosyvoice").setLevel(logging.INFO)
    requests = logging.getLogger("server.requests")  # a line each, for programs to read: nothing else is on stdout
    requests.addHandler(logging.StreamHandler(sys.stdout))
    requests.propagate = False


def main(module: str, listener: int | None) -> None:
    """Run the stage of `module` by the settings on stdin, until SIGTERM or the supervisor's end.

    listener: file descriptor of the listening socket, for an http worker.
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
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # an http worker takes it over
    channel = Channel(settings.address, settings.secret)
    try:
        await importlib.import_module(module).run(settings, channel)
    finally:
        channel.close()


def _end_with_supervisor(run_directory: Path) -> None:
    """The supervisor holds the other end of stdin and never writes again, so reading ends when it does."""
    os.read(0, 1)
    shutil.rmtree(run_directory, ignore_errors=True)
    process_group.end_own()
