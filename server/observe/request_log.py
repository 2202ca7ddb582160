"""The request log, one JSON line per request on stdout, and the counter of answers by outcome."""

import datetime
import json
import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.websocket import FAILED, NORMAL
from server.observe.delivery import Account, Answers, account

log = logging.getLogger("server.requests")

PROBES = {"/health", "/healthz", "/liveness", "/readiness", "/metrics"}  # logged only when they fail
LEFT = 499  # nginx's status for a client that disconnected before the answer


class _Answer:
    """Watches an answer while it is sent."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.status: int | None = None
        self.bytes = 0
        self.complete = False

    async def receive(self) -> Message:
        """Return the client's next message; a client that closes its WebSocket normally has a complete answer."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and message.get("code") == NORMAL:
            self.complete = True
        return message

    async def send(self, message: Message) -> None:
        """Record `message` and pass it on."""
        kind = message["type"].removeprefix("websocket.")
        if kind == "http.response.start":
            self.status = message["status"]
        elif kind == "accept":
            self.status = 101
        elif kind == "close":
            self.status = self.status or 403
            self.complete = message.get("code", NORMAL) != FAILED
        self.bytes += len(message.get("body") or message.get("bytes") or message.get("text") or b"")
        await self._send(message)
        if kind == "http.response.body":
            self.complete = not message.get("more_body", False)

    def outcome(self) -> str:
        """Return the outcome as one word, see the metric `answers_total`."""
        if self.status is None or not self.complete:
            return "left"
        if self.status in (429, 503):
            return "refused"
        return "ok" if self.status < 400 else "invalid" if self.status < 500 else "failed"


class RequestLog:
    """Logs each request at its end, without its text and its key."""

    def __init__(self, app: ASGIApp, answers: Answers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        entry, answer, started = Account(), _Answer(receive, send), time.monotonic()
        token = account.set(entry)
        outcome = "failed"
        try:
            await self._app(scope, answer.receive, answer.send)
            outcome = "failed" if entry.failure else answer.outcome()
        finally:
            account.reset(token)
            self._conclude(scope, entry, answer, outcome, time.monotonic() - started)

    def _conclude(self, scope: Scope, entry: Account, answer: _Answer, outcome: str, seconds: float) -> None:
        headers = Headers(scope=scope)
        retry = headers.get("x-stainless-retry-count", "0")
        status = answer.status or LEFT
        route = getattr(scope.get("route"), "path", "none")
        self._answers.count(route, status, outcome, retried=retry != "0")
        if scope["path"] in PROBES and outcome in ("ok", "refused"):
            return
        line: dict[str, object] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "request_id": scope["state"]["answer_id"],
            "client": scope["client"][0] if scope.get("client") else None,
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope["path"],
            "status": status,
            "outcome": outcome,
            "seconds": round(seconds, 4),
            "bytes": answer.bytes,
        }
        if entry.failure:
            line["failure"] = entry.failure
        if retry != "0":
            line["retry"] = retry
        if entry.voice is not None:
            line |= {"voice": entry.voice, "characters": entry.characters}
        if entry.first_audio_seconds is not None:
            line |= {
                "first_audio_seconds": round(entry.first_audio_seconds, 4),
                "audio_seconds": round(entry.audio_seconds, 4),
                "underrun_seconds": round(entry.underrun_seconds, 4),
            }
            if scope["type"] == "http":  # a WebSocket also waits for its client
                line["real_time_factor"] = round(seconds / entry.audio_seconds, 4)
        log.info(json.dumps(line, ensure_ascii=False))
