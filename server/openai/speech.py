"""The OpenAI routes of speech and models."""

from time import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from server.arguments import Arguments
from server.http.audio_format import packed
from server.http.speech_body import OPENAI_MODELS, SpeechBody, check_length, check_model, voice_of
from server.http.speech_response import AUDIO, EVENTS, KNOWN_AHEAD, USAGE_HEADERS, SpeechResponse, events
from vllm_cosyvoice.engine import Engine, Usage

AUDIO_OR_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        **AUDIO[200],
        "content": AUDIO[200]["content"] | {EVENTS: {}},
        "headers": {
            header: {
                "description": "Tokens of the text." if count in KNOWN_AHEAD else "Only if `stream` is false.",
                "schema": {"type": "integer"},
            }
            for count, header in USAGE_HEADERS.items()
        },
    }
}


def router(engine: Engine, model_id: str, arguments: Arguments) -> APIRouter:
    """Return the routes, for the model called `model_id`."""
    routes = APIRouter(prefix="/v1")
    created = int(time())
    models = {
        name: {"id": name, "object": "model", "created": created, "owned_by": "vllm-cosyvoice"}
        for name in (model_id, *OPENAI_MODELS)
    }

    @routes.post("/audio/speech", response_class=Response, responses=AUDIO_OR_EVENTS)
    async def speech(request: Request, body: SpeechBody) -> Response:
        """Audio of `input`, sent as it is generated."""
        check_model(body.model, models)
        check_length(body, arguments.max_input_chars)
        packing, usage, whole = body.packing(), Usage(), body.stream is False
        voice = await voice_of(body, arguments.ref_audio_hosts)
        audio = engine.speak(
            body.request(request.state.request_id, body.input, voice, streaming=not whole), usage=usage
        )
        audio = packed(audio, packing, body.sample_rate, whole=whole)
        if body.stream_format == "sse":
            return SpeechResponse(events(audio, usage), EVENTS)
        return SpeechResponse(audio, packing.media_type, whole=whole, usage=usage)

    @routes.get("/models/", include_in_schema=False)
    async def without_slash() -> RedirectResponse:
        return RedirectResponse("/v1/models")

    @routes.get("/models")
    async def list_models() -> dict[str, object]:
        """The model of this server, and OpenAI's names for it."""
        return {"object": "list", "data": list(models.values())}

    @routes.get("/audio/models")
    async def list_audio_models() -> dict[str, object]:
        """The models, in the format that Open WebUI expects."""
        return {"models": [{"id": name, "name": name} for name in models]}

    @routes.get("/models/{name:path}")
    async def one_model(name: str) -> dict[str, object]:
        """The model called `name`, which may contain slashes."""
        check_model(name, models)
        return dict(models[name])

    return routes
