"""The app of an http worker."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from server.http import errors, openai
from server.http.guards import BodyLimit, RequestId
from server.http.pipeline import Failure, Pipeline
from server.metrics import render

LARGEST_BODY = 4 << 20  # bytes: more than the longest text in any script, so that it is told about the text


def create(pipeline: Pipeline, model_id: str) -> ASGIApp:
    """All routes, and what holds for every one of them."""
    app = FastAPI(title="CosyVoice2 speech server")
    errors.install(app)
    app.include_router(openai.router(pipeline, model_id))

    @app.get("/health")
    async def health() -> Response:
        if missing := await pipeline.missing():
            raise Failure("unavailable", f"Not ready: {'; '.join(missing)}.")
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        numbers = await pipeline.numbers_of_all()
        return PlainTextResponse(render(numbers), media_type="text/plain; version=0.0.4")

    return RequestId(BodyLimit(app, LARGEST_BODY))
