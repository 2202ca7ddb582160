"""Starts the processes of the server, restarts those that die or hang, and ends them all."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from server.arguments import Arguments
from server.gpu_list import memory_of_gpus
from server.processes import process_group
from server.processes.addresses import Addresses, RunDirectory
from server.processes.channel import Channel
from server.processes.fork_server import ForkedProcess, ForkError, ForkServer, Order
from server.processes.gpus import Placement
from server.processes.messages import Address, Kind, Message, Ping, Pong, Ready, StageDown, StageUp, Starting
from server.processes.nvidia_mps import Service, service_if_possible
from server.processes.process import Settings
from server.served_model import ServedModel

log = logging.getLogger(__name__)

MODULES: dict[Kind, str] = {  # in the order of starting: the fastest imports first
    "http": "server.processes.http_worker",
    "encode": "server.processes.encode",
    "decode": "server.processes.decode",
    "generate": "server.processes.generate",
}
MOST_FAILURES = 10  # of one process within SECONDS_REMEMBERED; one more ends the server
SECONDS_REMEMBERED = 1800.0
LONGEST_PAUSE = 30.0  # seconds before a restart; the first restart has no pause
SECONDS_TO_START = 900.0
SECONDS_BETWEEN_PINGS = 2.5
MOST_UNANSWERED = 3  # pings in a row, after which a process counts as hung
SECONDS_BETWEEN_REPORTS = 5.0  # of what is still starting
SECONDS_FOR_SERVICE = 20.0  # for the Multi-Process Service to accept clients again after one has died
MOST_FAILED_STARTS = 2  # in a row, of a process with the Multi-Process Service; after one more it goes on without
SECONDS_TO_DIE = 60.0  # after SIGKILL, also on an overloaded machine; a process blocked in a driver may never die
SECONDS_TO_STOP = 10.0  # for an idle stage to end by itself


@dataclass(eq=False)
class Child:
    """A process of the server, across its restarts."""

    kind: Kind
    index: int
    address: Address = ""
    process: ForkedProcess | None = None
    begun: float = 0.0  # time when its start, or the wait for it, began; 0: neither
    step: str = ""  # of the start
    ready: bool = False
    told_to_stop: bool = False
    unanswered: int = 0  # pings since its last answer
    failed_starts: int = 0  # since it was last ready
    failures: deque[float] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """The name in its log lines."""
        return f"{self.kind}-{self.index}"

    def begin(self, address: Address, step: str) -> None:
        """Note that it starts, or waits to start."""
        self.address, self.begun, self.step, self.ready, self.unanswered = address, time.monotonic(), step, False, 0

    def succeed(self) -> None:
        """Note that it is ready."""
        self.ready, self.begun, self.failed_starts = True, 0.0, 0

    def end(self) -> None:
        """Note that it has ended: its address is no longer valid."""
        self.failed_starts += not self.ready
        self.address, self.begun, self.ready = "", 0.0, False

    def fail(self, now: float) -> int:
        """Note a failure; returns the number of recent failures."""
        self.failures.append(now)
        while self.failures[0] < now - SECONDS_REMEMBERED:
            self.failures.popleft()
        return len(self.failures)


class Supervisor:
    """Owns the listening socket, the run directory and the child processes."""

    def __init__(
        self,
        arguments: Arguments,
        model: ServedModel,
        listener: socket.socket | None,
        run_directory: RunDirectory,
        placement: Placement,
        service: Service | None,
        modules: Mapping[Kind, str] | None = None,
    ) -> None:
        """Start nothing yet.

        listener: the listening socket of the HTTP workers; None: this process does their work, see `join`.
        service: lets processes share a GPU.
        modules: the module that each kind of process runs, in place of MODULES.
        """
        self._arguments = arguments
        self._model = model
        self._listener = listener
        self._run_directory = run_directory.path
        self._placement = placement
        self._service = service
        self._addresses = Addresses(arguments.zmq_mode, run_directory.path)
        self._secret = secrets.token_bytes(32)
        self._channel = Channel(self._addresses.new("supervisor"), self._secret)
        self._fork_server = ForkServer()
        self._modules = modules or MODULES
        self._front: Address | None = None
        counts: dict[Kind, int] = {
            "http": arguments.httpserver_workers if listener else 0,
            "encode": arguments.encode_process_num,
            "decode": placement.decoders,
            "generate": 1,
        }
        self._children = [Child(kind, index) for kind in self._modules for index in range(counts[kind])]
        self._sharing = [child for child in self._children if placement.shares(child.kind, child.index)]
        self._stopping = False
        self._announced = False
        self._outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def join(self) -> Channel:
        """Make this process the only HTTP worker; returns its channel, which gets the messages about all stages."""
        channel = Channel(self._addresses.new("http-0"), self._secret)
        self._front = channel.address
        self._tell("http", StageUp("http", "http-0", self._front))
        return channel

    def obey_signals(self) -> None:
        """Stop at SIGTERM, end at once at SIGINT or a second SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGINT, self._end, 128 + signal.SIGINT)

    async def run(self) -> int:
        """Run the server until it is stopped or can't go on; returns the exit status."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work) for work in (self._listen(), self._report(), *map(self._keep, self._children))]
        for task in tasks:
            task.add_done_callback(self._end_on_error)
        try:
            return await self._outcome
        finally:
            self._stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._fork_server.close()
            await asyncio.gather(*map(self._kill, self._children))
            self._channel.close()

    def _on_sigterm(self) -> None:
        if self._stopping:
            self._end(128 + signal.SIGTERM)
        else:
            self.stop()

    def stop(self) -> None:
        """Let `run` return when all requests in flight are finished."""
        log.info("Stopping: finishing the requests in flight.")
        self._stopping = True
        self._draining = asyncio.create_task(self._drain())
        self._draining.add_done_callback(self._end_on_error)

    def _end(self, status: int) -> None:
        if not self._outcome.done():
            self._outcome.set_result(status)

    def _end_on_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._outcome.done():
            self._outcome.set_exception(error)

    async def _drain(self) -> None:
        """Stop accepting, let the HTTP workers finish, then stop the stages; `run` kills what does not stop."""
        if self._listener:
            self._listener.close()
        await self._stop([child for child in self._children if child.kind == "http"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_TO_STOP):
                await self._stop([child for child in self._children if child.kind != "http"])
        self._end(0)

    async def _stop(self, children: list[Child]) -> None:
        processes = [child.process for child in children if child.ready and child.process]
        for child in children:
            child.told_to_stop = True
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))

    async def _keep(self, child: Child) -> None:
        """Start a process, and restart it whenever it ends."""
        while True:
            problem = await self._start(child) or await self._end_of(child)
            address, was_ready = child.address, child.ready
            child.end()
            # First tell the processes that wait for it: ending its child processes can take seconds.
            self._tell("everyone", StageDown(child.name, address))
            self._channel.bury(address)
            if not await self._kill(child):
                log.error("%s can't be killed. The server ends.", child.name)
                self._end(1)
                return
            if self._stopping:
                return
            if not was_ready and not self._announced:
                log.error("%s %s. It failed to start, so the server ends; see above.", child.name, problem)
                if self._service and child in self._sharing:
                    log.error("If the Multi-Process Service is the cause, turn it off with --mps False.")
                self._end(1)
                return
            failures = child.fail(time.monotonic())
            if failures > MOST_FAILURES:
                minutes = SECONDS_REMEMBERED / 60
                log.error("%s has failed %d times in %d minutes. The server ends.", child.name, failures, minutes)
                self._end(1)
                return
            pause = pause_after(failures)
            log.error("%s %s. Restarting it%s.", child.name, problem, f" in {pause:.0f} s" if pause else "")
            await asyncio.sleep(pause)
            if child in self._sharing:
                await self._check_service(child)
            if self._stopping:
                return

    async def _end_of(self, child: Child) -> str:
        """Wait until the process has ended or hangs; returns what happened."""
        assert child.process is not None
        ended = asyncio.ensure_future(child.process.wait())
        while not (await asyncio.wait([ended], timeout=SECONDS_BETWEEN_PINGS))[0]:
            if child.told_to_stop and child.kind != "http":
                continue  # it need not answer pings while it stops
            if not child.ready:
                if time.monotonic() - child.begun > SECONDS_TO_START:
                    return f"was not ready after {SECONDS_TO_START:.0f} s"
            elif child.unanswered >= MOST_UNANSWERED:
                return f"hangs: it has not answered {child.unanswered} pings"
            else:
                child.unanswered += 1
                self._channel.send(child.address, Ping(0, self._channel.address))
        status = ended.result()
        return f"died (signal {-status})" if status < 0 else f"ended (status {status})"

    async def _kill(self, child: Child) -> bool:
        """Kill the process and all processes that it started; returns whether they have ended."""
        if child.process is None:
            return True
        try:
            async with asyncio.timeout(SECONDS_TO_DIE):
                await asyncio.to_thread(process_group.kill, child.process.pid)
                await child.process.wait()
                await asyncio.to_thread(process_group.reap, child.process.pid)
        except TimeoutError:
            return False
        child.process = None
        return True

    async def _check_service(self, child: Child) -> None:
        """Wait until the Multi-Process Service accepts a new client; if it does not, go on without it."""
        child.begin("", "waiting for the Multi-Process Service")
        deadline = time.monotonic() + SECONDS_FOR_SERVICE
        while service := self._service:
            if child.failed_starts > MOST_FAILED_STARTS:
                reason = f"{child.name} has failed to start {child.failed_starts} times with it"
            elif await asyncio.to_thread(service.takes_clients, self._variables(child)):
                return
            elif time.monotonic() < deadline:
                await asyncio.sleep(1.0)
                continue
            else:
                reason = "it no longer accepts clients"
            if self._service:  # another process may have logged it meanwhile
                log.warning("Going on without NVIDIA's Multi-Process Service: %s.", reason)
            self._service = None

    async def _start(self, child: Child) -> str:
        """Start the process; returns what went wrong, or an empty string."""
        child.begin(self._addresses.new(child.name), "importing")
        order = Order(self._modules[child.kind], child.name, self._variables(child))
        listener = self._listener.fileno() if self._listener and child.kind == "http" else None
        try:
            child.process = await self._fork_server.fork(order, listener)
        except ForkError as error:
            return f"could not be started: {error}"
        settings = Settings(
            kind=child.kind,
            index=child.index,
            name=child.name,
            address=child.address,
            supervisor=self._channel.address,
            secret=self._secret,
            run_directory=self._run_directory,
            arguments=self._arguments,
            model=self._model,
            decoders=self._placement.decoders_beside(child.index) if child.kind == "decode" else 0,
        )
        child.process.tell(settings.line())
        return ""

    def _variables(self, child: Child) -> dict[str, str]:
        return self._placement.variables(child.kind, child.index, self._service)

    async def _listen(self) -> None:
        while True:
            message = await self._channel.receive()
            match message:
                case Ready() if child := self._at(message.address):
                    self._on_ready(child)
                case Starting() if child := self._at(message.address):
                    child.step = message.step
                case Pong() if child := self._at(message.sender):
                    child.unanswered = 0

    def _at(self, address: Address) -> Child | None:
        """Return the process at `address`; None if it has died meanwhile."""
        return next((child for child in self._children if child.address == address), None)

    async def _report(self) -> None:
        """Log what is still starting, so that a long start does not look like a hang."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_REPORTS)
            now = time.monotonic()
            starting = [f"{c.name} ({c.step}, {now - c.begun:.0f} s)" for c in self._children if c.begun]
            if starting and not self._stopping:
                log.info("Starting: %s.", ", ".join(starting))

    def _on_ready(self, child: Child) -> None:
        child.succeed()
        self._tell("http", StageUp(child.kind, child.name, child.address))
        if child.kind == "http":
            for other in self._children:
                if other.ready and other is not child:
                    self._channel.send(child.address, StageUp(other.kind, other.name, other.address))
        if not self._announced and all(other.ready for other in self._children):
            self._announced = True
            address = f"http://{self._arguments.host}:{self._arguments.port}"
            status = f"answers at {address}/v1/audio/speech" if self._listener else "has all of its stages"
            log.info("Ready: %s %s", self._model.name, status)
            if service := self._service:
                self._telling = asyncio.create_task(_tell_whether_in_use(service))

    def _tell(self, audience: str, message: Message) -> None:
        for child in self._children:
            if child.ready and audience in ("everyone", child.kind):
                self._channel.send(child.address, message)
        if self._front:
            self._channel.send(self._front, message)


async def _tell_whether_in_use(service: Service) -> None:
    in_use = await asyncio.to_thread(service.in_use)
    log.info("NVIDIA's Multi-Process Service runs and is %s.", "in use" if in_use else "not used")


def pause_after(failures: int) -> float:
    """Return the seconds to wait before a restart after `failures` recent failures: 0, 1, 2, 4, …"""
    return min(2.0 ** (failures - 2), LONGEST_PAUSE) if failures > 1 else 0.0


@contextmanager
def surroundings(arguments: Arguments, server: int | str) -> Iterator[tuple[RunDirectory, Placement, Service | None]]:
    """Create a run directory named after the server, choose GPUs and, if possible, run the Multi-Process Service."""
    parent = Path("/tmp") if arguments.zmq_mode == "tcp://" else Path(arguments.zmq_mode.removeprefix("ipc://"))
    memory = memory_of_gpus()
    placement = Placement.of(arguments, memory, with_mps=arguments.mps)
    with RunDirectory(parent, server) as run_directory, contextlib.ExitStack() as stack:
        service = None
        if arguments.mps and placement.any_shares:
            service = stack.enter_context(service_if_possible(run_directory.path))
            placement = Placement.of(arguments, memory, with_mps=service is not None)
        yield run_directory, placement, service


def supervise(arguments: Arguments, model: ServedModel, listener: socket.socket) -> int:
    """Run the whole server; returns the exit status."""

    async def run(run_directory: RunDirectory, placement: Placement, service: Service | None) -> int:
        supervisor = Supervisor(arguments, model, listener, run_directory, placement, service)
        supervisor.obey_signals()
        return await supervisor.run()

    with surroundings(arguments, arguments.port) as surrounding:
        return asyncio.run(run(*surrounding))
