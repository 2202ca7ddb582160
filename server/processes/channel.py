"""The message channel of a process: its own inbox, and connections to the inboxes of others."""

import hmac
import logging

import msgspec
import zmq
import zmq.asyncio

from server.processes import messages
from server.processes.messages import Address, AnyMessage, Message

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 64 << 20  # bytes; a voice of 30 s has half a million, a piece of audio less than five million


class Channel:
    """ZeroMQ PUSH to every peer, PULL from all of them.

    Messages between two processes arrive in the order they were sent. `send` never blocks, so a state change and its
    message are one step; queues stay short because stages refuse work. Every message contains the secret of the run,
    so that other users of this machine can't send messages to a TCP inbox.
    """

    def __init__(self, address: Address, secret: bytes) -> None:
        self.address = address
        self._secret = secret
        self._context = zmq.asyncio.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.set(zmq.RCVHWM, 0)
        self._inbox.set(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        self._inbox.bind(address)
        self._outboxes: dict[Address, zmq.Socket[bytes]] = {}
        self._dead: set[Address] = set()

    def send(self, to: Address, message: Message) -> None:
        """Queue `message` for `to`; drop it if that process is known to be dead."""
        if to in self._dead:
            return
        outbox = self._outboxes.get(to)
        if outbox is None:
            outbox = self._outboxes[to] = self._context.socket(zmq.PUSH, socket_class=zmq.Socket)
            outbox.set(zmq.SNDHWM, 0)
            outbox.connect(to)
        outbox.send_multipart((self._secret, messages.encode(message)), zmq.DONTWAIT, copy=False)

    async def receive(self) -> AnyMessage:
        """Return the next message."""
        while True:
            frames = await self._inbox.recv_multipart()
            if len(frames) != 2 or not hmac.compare_digest(frames[0], self._secret):
                log.warning("Dropped a message without the secret of this run.")
                continue
            try:
                return messages.decode(frames[1])
            except msgspec.DecodeError:
                log.exception("Dropped a message that can't be decoded.")

    def is_dead(self, address: Address) -> bool:
        """Return whether `bury` was called for this address."""
        return address in self._dead

    def bury(self, address: Address) -> None:
        """Mark the process at `address` as dead and drop its queued messages."""
        self._dead.add(address)
        if outbox := self._outboxes.pop(address, None):
            outbox.close(linger=0)

    def close(self) -> None:
        """Close all sockets; queued messages are dropped."""
        self._inbox.close(linger=0)
        for outbox in self._outboxes.values():
            outbox.close(linger=0)
        self._context.term()
