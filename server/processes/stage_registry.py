"""The server's processes as one HTTP worker sees them: which are up, their load, and whether they answer."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from server.observe.metrics import Numbers
from server.processes.channel import Channel
from server.processes.messages import Address, Kind, Ping, Pong, StageUp
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.request_lifecycle import RequestsInFlight

SECONDS_TO_ANSWER = 1.0  # in which a process must send its Pong
SECONDS_HEALTH_HOLDS = 1.0  # in which the result of a health check is reused
WORKING_STAGES: tuple[Kind, ...] = ("encode", "generate", "decode")


class Stages:
    """Picks stages for new work, and pings all processes."""

    def __init__(self, channel: Channel, worker: int = 0) -> None:
        """`worker`: number of this HTTP worker. Of equally busy stages, each worker prefers another."""
        self._worker = worker
        self._channel = channel
        self._names: dict[Kind, dict[Address, str]] = {"http": {}, "encode": {}, "generate": {}, "decode": {}}
        self._load: Counter[Address] = Counter()  # requests of this worker at each stage
        self._pongs: dict[int, dict[Address, asyncio.Future[Numbers]]] = {}
        self._pings = 0
        self._changed = asyncio.Event()  # set when a process starts or dies
        self._looked = float("-inf")
        self._look: asyncio.Task[list[str]] | None = None

    def add(self, up: StageUp) -> None:
        """Add a process that takes work."""
        self._names[up.kind][up.address] = up.name
        self._on_change()

    def drop(self, address: Address, in_flight: RequestsInFlight) -> None:
        """Forget the dead process at `address`. Requests to which it still owes something fail at once."""
        names = [names.pop(address) for names in self._names.values() if address in names]
        self._on_change()
        for answers in self._pongs.values():
            if answer := answers.get(address):
                answer.cancel()  # a health check need not wait for it
        message = f"{names[0] if names else 'A stage'} has died and is being restarted; try again in a few seconds."
        in_flight.fail_owed_by(address, Failure("unavailable", message))

    @contextlib.contextmanager
    def using(self, kind: Kind) -> Iterator[Address]:
        """Choose the stage of this kind with the fewest requests of this worker; one more counts inside the context.

        Raises Failure when none is up.
        """
        addresses = list(self._names[kind])
        if not addresses:
            raise Failure("unavailable", f"No {kind} process is up: it is starting or restarting; try again later.")
        preferred = self._worker % len(addresses)
        address = min(addresses[preferred:] + addresses[:preferred], key=lambda address: self._load[address])
        self._load[address] += 1
        try:
            yield address
        finally:
            self._load[address] -= 1
            if not self._load[address]:
                del self._load[address]

    async def until(self, *, complete: bool) -> None:
        """Return when a stage of each kind is up, or, if not `complete`, when one kind has none left."""
        while bool(self._absent()) == complete:
            await self._changed.wait()

    async def missing(self) -> list[str]:
        """The reasons why the server can't serve requests now; empty if it can.

        The result is reused for a second, or until a stage starts or dies.
        """
        if self._look is None or time.monotonic() - self._looked > SECONDS_HEALTH_HOLDS:
            self._looked = time.monotonic()
            self._look = asyncio.create_task(self._missing())
        return await asyncio.shield(self._look)

    async def numbers_of_all(self) -> dict[str, Numbers]:
        """The metrics of every process that answers, by process name."""
        names = {address: name for names in self._names.values() for address, name in names.items()}
        answers = await self._ping(names)
        return {names[address]: numbers for address, numbers in answers.items()}

    def answered(self, pong: Pong) -> None:
        """Handle the answer to a Ping."""
        answer = self._pongs.get(pong.nonce, {}).get(pong.sender)
        if answer and not answer.done():
            answer.set_result(pong.numbers)

    def _on_change(self) -> None:
        self._looked = float("-inf")
        self._changed.set()
        self._changed = asyncio.Event()

    def _absent(self) -> list[Kind]:
        return [kind for kind in WORKING_STAGES if not self._names[kind]]

    async def _missing(self) -> list[str]:
        pinged = self._working()
        answers = await self._ping(pinged)
        absent = [f"no {kind} process is up" for kind in self._absent()]
        running = self._working()
        silent = [name for address, name in pinged.items() if address in running and address not in answers]
        return absent + [f"{name} does not answer" for name in silent]

    def _working(self) -> dict[Address, str]:
        return {address: name for kind in WORKING_STAGES for address, name in self._names[kind].items()}

    async def _ping(self, addresses: Iterable[Address]) -> dict[Address, Numbers]:
        """The answers that arrive in time, by address."""
        self._pings += 1
        nonce, loop = self._pings, asyncio.get_running_loop()
        answers = self._pongs[nonce] = {address: loop.create_future() for address in addresses}
        try:
            for address in answers:
                self._channel.send(address, Ping(nonce, self._channel.address))
            if answers:
                await asyncio.wait(answers.values(), timeout=SECONDS_TO_ANSWER)
            answered = [address for address, answer in answers.items() if answer.done() and not answer.cancelled()]
            return {address: answers[address].result() for address in answered}
        finally:
            del self._pongs[nonce]
