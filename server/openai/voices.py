"""The routes of voices: list, register, delete, and voice conversion."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from server.http.audio_format import FORMATS, ResponseFormat, packed
from server.http.errors import ApiError
from server.http.speech_response import AUDIO, SpeechResponse
from server.http.uploads import Transcript, Upload, read_upload, recording_is
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.limits import SPEEDS
from vllm_cosyvoice.recording import Recording, StoredVoice
from vllm_cosyvoice.request import SpeechRequest


def router(engine: Engine) -> APIRouter:
    """Return the voice routes below `/v1/audio`."""
    routes = APIRouter(prefix="/v1/audio")

    @routes.get("/voices")
    async def list_voices(request: Request) -> dict[str, object]:
        """All voices, as a list of OpenAI (`data`) and of Open WebUI (`voices`)."""
        voices = await engine.list_voices(request.state.request_id)
        return {
            "object": "list",
            "data": [_as_openai(voice) for voice in voices],
            "voices": [{"id": voice.name, "name": voice.name} for voice in voices],
        }

    @routes.post("/voices")
    async def register_voice(
        request: Request,
        name: Annotated[str, Form()],
        audio_sample: Upload,
        ref_text: Transcript = "",
        type: Annotated[Literal["audio_sample"], Form()] = "audio_sample",
        consent: Annotated[str | None, Form()] = None,
    ) -> dict[str, object]:
        """Register a voice. Without `ref_text` it speaks in cross-lingual mode. `consent` is accepted and ignored."""
        recording = Recording(await read_upload(audio_sample, "audio_sample"), ref_text)
        with recording_is("audio_sample"):
            return _as_openai(await engine.register_voice(request.state.request_id, name, recording))

    @routes.api_route("/voices/", methods=["GET", "POST"], include_in_schema=False)
    async def without_slash() -> RedirectResponse:
        return RedirectResponse("/v1/audio/voices")

    @routes.delete("/voices/{name:path}")
    async def delete_voice(request: Request, name: str) -> dict[str, object]:
        """Delete a registered voice. Requests that already use it go on."""
        await engine.delete_voice(request.state.request_id, name)
        return {"id": name, "object": "audio.voice.deleted", "deleted": True}

    @routes.post("/voice-conversion", response_class=Response, responses=AUDIO)
    async def convert_voice(
        request: Request,
        audio: Upload,
        voice: Annotated[str | None, Form()] = None,
        ref_audio: Upload | None = None,
        response_format: Annotated[ResponseFormat, Form()] = "mp3",
        speed: Annotated[float, Form(ge=SPEEDS[0], le=SPEEDS[1], allow_inf_nan=False)] = 1.0,
    ) -> Response:
        """Convert the speech in `audio` to the voice named `voice`, or to the voice of the recording `ref_audio`."""
        source = await read_upload(audio, "audio")
        target: str | Recording
        if voice is not None and ref_audio is None:
            target = voice
        elif voice is None and ref_audio is not None:
            target = Recording(await read_upload(ref_audio, "ref_audio"))
        else:
            message = "Send either voice (a name) or ref_audio (a recording of the target voice)."
            raise ApiError(400, message, param="voice", code="invalid_value")
        pieces = engine.convert(SpeechRequest(id=request.state.request_id, voice=target, speed=speed), source)
        audio_format = FORMATS[response_format]
        return SpeechResponse(packed(pieces, audio_format), audio_format.media_type)

    return routes


def _as_openai(voice: StoredVoice) -> dict[str, object]:
    return {
        "id": voice.name,
        "object": "audio.voice",
        "created_at": voice.created_at,
        "name": voice.name,
        "type": "audio_sample",
    }
