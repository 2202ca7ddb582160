"""The fields of a speech request, over HTTP and over a WebSocket."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.http import reference_audio
from server.http.audio_format import FORMATS, AudioFormat, ResponseFormat, SampleRate
from server.http.errors import ApiError, too_long
from server.http.uploads import LONGEST_TRANSCRIPT
from vllm_cosyvoice.limits import SPEEDS
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text.characters import check_characters

OPENAI_MODELS = (  # names that clients have built in
    *("tts-1", "tts-1-1106", "tts-1-hd", "tts-1-hd-1106"),
    *("gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-03-20", "gpt-4o-mini-tts-2025-12-15"),
)


def _whole(text: str) -> str:
    """Refuse lone surrogates: JSON allows them, but messages between processes can't carry them."""
    try:
        check_characters(text)
    except ValueError as error:
        raise PydanticCustomError("string_unicode", "{reason}", {"reason": str(error).rstrip(".")}) from error
    return text


MOST_PRONUNCIATIONS = 1000
LONGEST_WORD = 100  # characters, of a word and of its spelling
LONGEST_INSTRUCTIONS = 4096  # characters, OpenAI's limit
Speed = Annotated[float, Field(ge=SPEEDS[0], le=SPEEDS[1], allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_whole)]
Word = Annotated[str, Field(min_length=1, max_length=LONGEST_WORD), AfterValidator(_whole)]
Spelling = Annotated[str, Field(max_length=LONGEST_WORD), AfterValidator(_whole)]
Instructions = Annotated[str, Field(max_length=LONGEST_INSTRUCTIONS), AfterValidator(_whole)]
ReferenceText = Annotated[str, Field(max_length=LONGEST_TRANSCRIPT), AfterValidator(_whole)]


class VoiceId(BaseModel):
    """A voice as an object, as OpenAI allows."""

    model_config = ConfigDict(strict=True)

    id: Text


class SpeechBody(BaseModel):
    """The body of `POST /v1/audio/speech`: OpenAI's fields, then our own. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    model: Text = OPENAI_MODELS[0]
    """A model of `GET /v1/models`. Default: the served model."""
    input: Text
    """The text to speak, at most 4096 characters unless the server sets another limit (`--max_input_chars`)."""
    voice: Text | VoiceId | None = None
    """The name of a voice, or an object with the name as `id`. Required unless `ref_audio` is given."""
    instructions: Instructions | None = None
    """How to speak, for example: Speak slowly and softly."""
    response_format: ResponseFormat = "mp3"
    language: str | None = None
    """Code or English name of the text's language, such as en or zh. Without it, or with auto, it is detected."""
    normalize: bool = True
    """Write out numbers, dates and abbreviations. False: speak the text unchanged."""
    pronunciations: Annotated[dict[Word, Spelling], Field(max_length=MOST_PRONUNCIATIONS)] = {}
    """Words and their spelling for the model. Matches whole words, in any language."""
    speed: Speed = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    """Plain audio, or audio in server-sent events."""

    stream: bool | None = None
    """False: send the audio when it is complete, with its length."""
    sample_rate: SampleRate = 24000

    ref_audio: Text | None = None
    """A recording of 1 to 30 s whose voice to use: a data: URI, or a URL of a host that the server trusts."""
    ref_text: ReferenceText = ""
    """The transcript of the recording. Without it, the language model ignores the recording (cross-lingual mode)."""

    seed: int | None = None
    """Equal seeds draw equal random numbers."""
    temperature: float = SamplingOptions.temperature
    top_p: float = SamplingOptions.top_p
    top_k: int = SamplingOptions.top_k
    repetition_aware: bool = SamplingOptions.repetition_aware
    """Repetition-aware sampling: avoid tokens that repeat one of the last tokens."""
    min_tokens: int | None = None
    """Minimum speech tokens of each segment of the text, 25 a second."""
    max_tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Treat null as a missing field."""
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    def packing(self) -> AudioFormat:
        """Return the audio format; raises ApiError if it does not support the sample rate."""
        packing = FORMATS[self.response_format]
        if self.sample_rate not in packing.sample_rates:
            rates = ", ".join(map(str, packing.sample_rates))
            message = f"{self.response_format} supports the sample rates {rates}, not {self.sample_rate}."
            raise ApiError(400, message, param="sample_rate", code="invalid_value")
        return packing

    def request(self, id: str, text: str | None, voice: str | Recording, *, streaming: bool) -> SpeechRequest:
        """Return the request for the engine; raises InputError for an invalid value."""
        return SpeechRequest(
            id=id,
            text=text,
            voice=voice,
            instructions=self.instructions,
            language=None if (self.language or "auto").lower() == "auto" else self.language,
            normalize=self.normalize,
            pronunciations=self.pronunciations,
            speed=self.speed,
            sampling=SamplingOptions.of(self),
            streaming=streaming,
        )


def check_model(name: str, models: Iterable[str]) -> None:
    """Raise ApiError if `name` is not one of `models`."""
    if name not in models:
        message = f"There is no model {name!r}. Available models: {', '.join(models)}."
        raise ApiError(404, message, param="model", code="model_not_found")


def check_length(body: SpeechBody, longest: int) -> None:
    """Raise ApiError if the text of `body` has more than `longest` characters."""
    if len(body.input) > longest:
        raise ApiError(400, too_long("input", len(body.input), longest), param="input", code="invalid_value")


async def voice_of(body: SpeechBody, ref_audio_hosts: Sequence[str]) -> str | Recording:
    """Return the voice to speak with; raises ApiError if there is none or the recording can't be read."""
    if body.ref_audio is not None:
        return Recording(await reference_audio.read(body.ref_audio, ref_audio_hosts), body.ref_text)
    if body.voice is None:
        raise ApiError(400, "voice is missing.", param="voice", code="invalid_value")
    return body.voice if isinstance(body.voice, str) else body.voice.id
