"""OpenAI's routes: speech and models."""

from dataclasses import asdict, fields
from time import time
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from server.audio_format import FORMATS
from server.http.errors import ApiError
from server.http.pipeline import Pipeline
from server.http.speech_response import SpeechResponse
from vllm_cosyvoice.sampling import SamplingOptions

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")  # names that clients have built in
LONGEST_TEXT = 4096  # characters, OpenAI's limit

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class VoiceId(BaseModel):
    """OpenAI's other way to name a voice."""

    model_config = ConfigDict(strict=True)

    id: str


class SpeechRequest(BaseModel):
    """The body of `POST /v1/audio/speech`: OpenAI's fields, then our own. Fields it does not know are ignored."""

    model_config = ConfigDict(strict=True)

    model: str
    input: Text
    voice: str | VoiceId
    instructions: Text | None = None
    response_format: str = "wav"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    stream_format: str = "audio"
    stream: bool | None = None  # false: the audio is wanted as a whole, which costs less

    seed: int | None = None
    temperature: float = SamplingOptions.temperature
    top_p: float = SamplingOptions.top_p
    top_k: int = SamplingOptions.top_k
    repetition_aware: bool = SamplingOptions.repetition_aware
    min_tokens: int | None = None  # speech tokens of each segment
    max_tokens: int | None = None

    def sampling(self) -> SamplingOptions:
        """The sampling fields; raises ApiError for a value that can't be used."""
        options = SamplingOptions(**{field.name: getattr(self, field.name) for field in fields(SamplingOptions)})
        try:
            options.validate()
        except ValueError as error:
            param = next(name for name in asdict(options) if str(error).startswith(name))
            raise ApiError(400, f"{error}.", param=param, code="invalid_value") from error
        return options


def router(pipeline: Pipeline, model_id: str) -> APIRouter:
    """The routes, for the model called `model_id`."""
    routes = APIRouter(prefix="/v1")
    created = int(time())
    models = {
        name: {"id": name, "object": "model", "created": created, "owned_by": "vllm-cosyvoice"}
        for name in (model_id, *OPENAI_MODELS)
    }

    def check_model(name: str) -> None:
        if name not in models:
            known = ", ".join(models)
            message = f"There is no model {name!r}. Models here: {known}."
            raise ApiError(404, message, param="model", code="model_not_found")

    @routes.post("/audio/speech", response_class=Response)
    async def speech(request: Request, body: SpeechRequest) -> Response:
        check_model(body.model)
        if body.response_format not in FORMATS:
            known = " and ".join(FORMATS)
            message = f"This server makes {known}, not {body.response_format!r}."
            raise ApiError(400, message, param="response_format", code="invalid_value")
        if body.stream_format != "audio":
            message = f"This server streams audio as it is, not {body.stream_format!r}."
            raise ApiError(400, message, param="stream_format", code="invalid_value")
        voice = body.voice if isinstance(body.voice, str) else body.voice.id
        pieces = pipeline.speak(
            request.state.request_id,
            body.input,
            voice,
            body.instructions,
            body.speed,
            body.sampling(),
            streaming=body.stream is not False,
        )
        return SpeechResponse(pieces, FORMATS[body.response_format])

    @routes.get("/models")
    async def list_models() -> dict[str, object]:
        return {"object": "list", "data": list(models.values())}

    @routes.get("/models/{name:path}")
    async def one_model(name: str) -> dict[str, object]:
        check_model(name)
        return dict(models[name])

    return routes
