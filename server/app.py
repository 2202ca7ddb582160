"""The ASGI app of an HTTP worker."""

from typing import Any, cast

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from server import websocket_description
from server.arguments import Arguments
from server.http import errors, pages
from server.http.access import ApiKeys, CrossSite
from server.http.compatibility import HeadRequests, OldClients
from server.http.guards import LARGEST_UPLOAD, BodyLimit, RequestId
from server.http.speech_response import USAGE_HEADERS
from server.http.websocket import Connections
from server.lighttts import routes as lighttts
from server.observe.metrics import render
from server.observe.request_log import RequestLog
from server.openai import batch, voices
from server.openai import speech as openai
from server.processes.engine import StagedEngine
from server.served_model import ServedModel
from server.ws import routes as ws
from vllm_cosyvoice.failure import Failure

ABOUT = """The OpenAI speech API with extensions, and the LightTTS API.

Two WebSockets speak text while it is being written: `/v1/audio/speech/stream`, and `/inference_zero_shot_bistream` for
LightTTS clients. OpenAPI can't describe WebSockets; `x-websockets` in `/openapi.json` lists their messages."""
LARGEST_BODY = 4 << 20  # bytes: holds the longest text in any script, so a longer text gets an error about its length
LARGER_BODIES = {
    "/v1/audio/speech": LARGEST_BODY + LARGEST_UPLOAD * 4 // 3,  # ref_audio in base64
    "/v1/audio/speech/batch": LARGEST_BODY + LARGEST_UPLOAD * 4 // 3,
    "/v1/audio/voices": LARGEST_BODY + LARGEST_UPLOAD,
    "/v1/audio/voice-conversion": LARGEST_BODY + 2 * LARGEST_UPLOAD,
    "/inference_zero_shot": LARGEST_BODY + LARGEST_UPLOAD,
}


def create(
    engine: StagedEngine,
    connections: Connections,
    model: ServedModel,
    arguments: Arguments,
    *,
    trust_request_id: bool = False,
) -> ASGIApp:
    """Return the app: all routes, inside the middleware that they share.

    `trust_request_id`: accept `x-request-id` from any client, not only from --forwarded_allow_ips.
    """
    app = FastAPI(
        title="CosyVoice2 speech server",
        description=ABOUT,
        docs_url=None,  # replaced by our own page: FastAPI's loads files from other servers
        redoc_url=None,
        responses=errors.RESPONSES,
    )
    errors.install(app)
    app.include_router(pages.router(arguments))
    app.include_router(openai.router(engine, model.name, arguments))
    app.include_router(batch.router(engine, model.name, arguments))
    app.include_router(voices.router(engine))
    app.include_router(ws.router(engine, connections, model.name, arguments))
    lighttts.install(app, engine, connections, model, arguments.max_input_chars)
    websocket_description.describe(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server can serve requests; if not, the error gives the reason."""
        if missing := await engine.stages.missing():
            raise Failure("unavailable", f"Not ready: {'; '.join(missing)}.")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """The metrics of every process, in Prometheus' text format."""
        numbers = await engine.stages.numbers_of_all()
        return PlainTextResponse(render(numbers), media_type="text/plain; version=0.0.4")

    served: ASGIApp = OldClients(HeadRequests(BodyLimit(app, LARGEST_BODY, LARGER_BODIES)))
    if arguments.api_key_digests:
        served = ApiKeys(served, arguments.api_key_digests, arguments.public_paths)
    served = CrossSite(served, arguments.cors_origins)
    if arguments.cors_origins:
        served = CORSMiddleware(
            served,
            allow_origins=arguments.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", *USAGE_HEADERS.values()],
        )
    proxies = arguments.forwarded_allow_ips
    served = RequestLog(served, engine.answers)
    forwarded = ProxyHeadersMiddleware(cast(Any, served), "*" if "*" in proxies else list(proxies))
    trusted = forwarded.trusted_hosts
    return RequestId(cast(ASGIApp, forwarded), lambda address: trust_request_id or address in trusted)
