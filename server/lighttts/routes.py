"""The routes of LightTTS."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket

from server.http import errors
from server.http.errors import STATUS, ApiError, retry_after, too_long, what_is_wrong
from server.http.speech_response import SpeechResponse
from server.http.uploads import Transcript, read_upload
from server.http.websocket import Connection, Connections
from server.lighttts.bistream import Bistream
from server.processes.engine import StagedEngine
from server.served_model import ServedModel
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.limits import SPEEDS
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.request import SpeechRequest

ONE_OF_SEVERAL = "cosyvoice"  # what newer versions of LightTTS, which serve several models, call the first
CANNOT_BE_SPOKEN = 417  # LightTTS's status for a text that can't be spoken


class Problem(BaseModel):
    """The body of an error, as in LightTTS."""

    message: str


# For the description of the API
PCM: dict[int | str, dict[str, Any]] = {200: {"description": "Headerless PCM without a content type."}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: errors.RESPONSES["4XX"],
    "4XX": errors.RESPONSES["4XX"] | {"model": Problem},
    "5XX": errors.RESPONSES["5XX"] | {"model": Problem},
}


class _Refused(Exception):
    """An error that is answered as in LightTTS, with only `message`."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class _Route(APIRoute):
    """Answers errors of the request in LightTTS's format, with status 422 for an invalid form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _Refused(422, what_is_wrong(error.errors())[0]) from error
            except ApiError as error:
                raise _Refused(error.status, str(error)) from error
            except HTTPException as error:
                raise _Refused(error.status_code, str(error.detail)) from error

        return answer


def install(
    app: FastAPI, engine: StagedEngine, connections: Connections, model: ServedModel, longest_text: int
) -> None:
    """Add the routes and their error handler, for this model. `longest_text`: maximum characters."""
    routes = APIRouter(route_class=_Route, responses=PROBLEMS)
    models = {"default", ONE_OF_SEVERAL, model.family, model.name}

    @app.exception_handler(_Refused)
    async def refused(_: Request, error: _Refused) -> JSONResponse:
        return JSONResponse({"message": str(error)}, error.status, error.headers)

    @routes.post("/inference_zero_shot", response_class=Response, responses=PCM)
    async def inference_zero_shot(
        request: Request,
        tts_text: Annotated[str, Form()],
        prompt_text: Transcript,
        prompt_wav: Annotated[UploadFile, File()],
        stream: Annotated[bool, Form()] = False,
        tts_model_name: Annotated[str, Form()] = "default",
        speed: Annotated[float, Form(ge=SPEEDS[0], le=SPEEDS[1], allow_inf_nan=False)] = 1.0,
    ) -> Response:
        """Headerless PCM, int16, little endian, mono, 24 kHz, sent as it is generated or when it is complete."""
        if stream and speed != 1:
            raise _Refused(400, "speed requires stream=false; /v1/audio/speech streams at any speed.")
        if len(tts_text) > longest_text:
            raise _Refused(422, too_long("tts_text", len(tts_text), longest_text))
        if tts_model_name not in models:
            raise _Refused(400, f"There is no tts_model_name {tts_model_name!r}; use {', '.join(sorted(models))}.")
        recording = Recording(await read_upload(prompt_wav, "prompt_wav"), prompt_text)
        pieces = engine.speak(
            SpeechRequest(id=request.state.request_id, text=tts_text, voice=recording, speed=speed, streaming=stream)
        )
        return SpeechResponse(_refusing(pieces if stream else _complete(pieces)), media_type=None)  # as LightTTS

    @routes.websocket("/inference_zero_shot_bistream")
    async def inference_zero_shot_bistream(websocket: WebSocket) -> None:
        async def session(connection: Connection) -> None:
            await Bistream(connection, engine, websocket.state.request_id, models, longest_text).run()

        await connections.serve(websocket, session)

    @routes.get("/query_tts_model")
    @routes.post("/query_tts_model")
    async def query_tts_model() -> dict[str, list[str]]:
        """The model."""
        return {"tts_models": [model.family]}

    @routes.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the server can serve requests, like `/health`."""
        missing = await engine.stages.missing()
        return JSONResponse({"message": "Error" if missing else "Ok"}, 503 if missing else 200)

    @routes.get("/liveness")
    async def liveness() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @routes.get("/readiness")
    async def readiness() -> JSONResponse:
        """Whether the server can serve requests."""
        if missing := await engine.stages.missing():
            return JSONResponse({"status": "not ready", "message": "; ".join(missing)}, 503)
        return JSONResponse({"status": "ok"})

    app.include_router(routes)


async def _complete(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield all audio as one piece."""
    async with aclosing(pieces):
        yield b"".join([piece async for piece in pieces])


async def _refusing(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the audio; a failure before the first piece is answered in LightTTS's format."""
    begun = False
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                begun = True
    except Failure as failure:
        if begun:
            raise
        status = STATUS[failure.kind]
        if failure.kind == "invalid":
            status = 400 if failure.param in ("ref_audio", "ref_text") else CANNOT_BE_SPOKEN
        raise _Refused(status, str(failure), retry_after(failure)) from failure
