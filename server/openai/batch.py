"""`POST /v1/audio/speech/batch`: many texts in one request, their audio in one answer, as in vllm-omni."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from server.arguments import Arguments
from server.http.audio_format import ResponseFormat, packed
from server.http.errors import ApiError, what_is_wrong
from server.http.speech_body import OPENAI_MODELS, SpeechBody, check_length, check_model, voice_of
from server.http.speech_response import SpeechResponse, counts
from vllm_cosyvoice.engine import Engine, Usage
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.recording import Recording

MOST_ITEMS = 32
TEXTS = 4  # all items together may have the characters of so many texts of maximum length
AT_ONCE = 16  # items of a batch in the stages at a time, so that other requests get their share

Item = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": "object",
            "description": "`input`, and any field of `POST /v1/audio/speech` that differs from the batch's.",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
        }
    ),
]


class BatchBody(SpeechBody):
    """The body: `items`, and the fields that they share."""

    input: SkipJsonSchema[Literal[""]] = ""  # each item has its own
    response_format: ResponseFormat = "wav"
    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    """Items are spoken independently: an invalid item does not fail the others."""

    def item(self, number: int) -> SpeechBody:
        """Return item `number`, with the fields of the batch as defaults; raises ApiError."""
        item = self.items[number]
        if not isinstance(item, dict):
            raise ApiError(400, "An item must be a JSON object with input.")
        own = {name: value for name, value in item.items() if value is not None}
        common = self.model_dump(exclude={"input", "items"}, exclude_none=True)
        if own.keys() & {"voice", "ref_audio"}:  # another voice, so not the recording of the batch
            common = {name: value for name, value in common.items() if name not in ("ref_audio", "ref_text")}
        try:
            return SpeechBody.model_validate(common | own)
        except ValidationError as error:
            message, param = what_is_wrong(
                [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
            )
            raise ApiError(400, message, param=param, code="invalid_value") from error


class ItemUsage(BaseModel):
    """The usage of an item: text tokens and speech tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Spoken(BaseModel):
    """An item that was spoken."""

    index: int
    status: Literal["success"] = "success"
    audio_data: str
    """The audio file in base64."""
    media_type: str
    usage: ItemUsage


class NotSpoken(BaseModel):
    """An item that failed, with the reason."""

    index: int
    status: Literal["error"] = "error"
    error: str


class BatchAnswer(BaseModel):
    """The results of the items, in the order of the request."""

    id: str
    results: list[Spoken | NotSpoken]
    total: int
    succeeded: int
    failed: int


class _Batch:
    """Speaks the items of one request."""

    def __init__(self, body: BatchBody, engine: Engine, request_id: str, models: Sequence[str], longest: int) -> None:
        """`longest`: maximum characters of a text."""
        self._body = body
        self._engine = engine
        self._id = request_id
        self._models = models
        self._longest = longest
        self._places = asyncio.Semaphore(AT_ONCE)

    async def answer(self, hosts: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Yield the answer as one piece. Closing the generator early ends the work on all items.

        `hosts`: see `reference_audio.read`. Raises ApiError if the recording of the whole batch can't be read.
        """
        recording = await voice_of(self._body, hosts) if self._body.ref_audio else None  # read once for all items
        async with asyncio.TaskGroup() as tasks:
            speaking = [
                tasks.create_task(self._result(number, recording, hosts)) for number in range(len(self._body.items))
            ]
        results = [task.result() for task in speaking]
        succeeded = sum(isinstance(result, Spoken) for result in results)
        numbers = {"total": len(results), "succeeded": succeeded, "failed": len(results) - succeeded}
        yield BatchAnswer(id=self._id, results=results, **numbers).model_dump_json().encode()

    async def _result(self, number: int, recording: str | Recording | None, hosts: Sequence[str]) -> Spoken | NotSpoken:
        async with self._places:
            try:
                return await self._spoken(number, recording, hosts)
            except (ApiError, Failure) as problem:
                return NotSpoken(index=number, error=str(problem))

    async def _spoken(self, number: int, recording: str | Recording | None, hosts: Sequence[str]) -> Spoken:
        body, usage = self._body.item(number), Usage()
        check_model(body.model, self._models)
        check_length(body, self._longest)
        packing = body.packing()
        if isinstance(recording, Recording) and body.ref_audio == self._body.ref_audio:
            voice: str | Recording = Recording(recording.data, body.ref_text)
        else:
            voice = await voice_of(body, hosts)
        request = body.request(f"{self._id}.{number}", body.input, voice, streaming=False)
        audio = packed(self._engine.speak(request, usage=usage), packing, body.sample_rate, whole=True)
        async with aclosing(audio) as pieces:
            data = b"".join([piece async for piece in pieces])
        return Spoken(
            index=number,
            audio_data=base64.b64encode(data).decode(),
            media_type=packing.media_type,
            usage=ItemUsage(**counts(usage)),
        )


def router(engine: Engine, model_id: str, arguments: Arguments) -> APIRouter:
    """Return the route, for the model called `model_id`."""
    routes = APIRouter(prefix="/v1")
    models, longest = (model_id, *OPENAI_MODELS), arguments.max_input_chars

    @routes.post("/audio/speech/batch", response_model=BatchAnswer)
    async def speech_batch(request: Request, body: BatchBody) -> SpeechResponse:
        """Audio of the `input` of every item, when all are complete. An item that fails has its error in its result."""
        inputs = [item.get("input") for item in body.items if isinstance(item, dict)]
        characters = sum(len(text) for text in inputs if isinstance(text, str))
        if characters > TEXTS * longest:
            message = f"The items have {characters} characters; split them into batches of at most {TEXTS * longest}."
            raise ApiError(400, message, param="items", code="invalid_value")
        batch = _Batch(body, engine, request.state.request_id, models, longest)
        return SpeechResponse(batch.answer(arguments.ref_audio_hosts), "application/json", whole=True)

    return routes
