"""What a request for speech may say, over HTTP and over a WebSocket."""

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
    """`text`, unless it holds half a character: JSON lets that through, and no message between processes carries it."""
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
    """OpenAI's other way to name a voice."""

    model_config = ConfigDict(strict=True)

    id: Text


class SpeechBody(BaseModel):
    """The body of `POST /v1/audio/speech`: OpenAI's fields, then our own. Fields it does not know are ignored."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    model: Text = OPENAI_MODELS[0]
    """One of `GET /v1/models`; without it, the served model."""
    input: Text
    """The text to speak. How long it may be is the server's to say; as with OpenAI, 4096 characters if it does not."""
    voice: Text | VoiceId | None = None
    """The name of a voice, or an object with it as `id`. Needed unless there is a `ref_audio`."""
    instructions: Instructions | None = None
    """How to speak, as in: Speak slowly and softly."""
    response_format: ResponseFormat = "mp3"
    language: str | None = None
    """Code or English name of the text's language, such as en or zh; without it, or with auto, the text tells it."""
    normalize: bool = True
    """Read numbers, dates and abbreviations out; false: speak the text as it stands."""
    pronunciations: Annotated[dict[Word, Spelling], Field(max_length=MOST_PRONUNCIATIONS)] = {}
    """Words and how to spell them for the model, for whole words in any language."""
    speed: Speed = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    """Plain audio, or server-sent events that carry it."""

    stream: bool | None = None
    """False: all of the audio at once, when it is complete, with its length."""
    sample_rate: SampleRate = 24000

    ref_audio: Text | None = None
    """Speak with the voice of this recording of 1 to 30 s: a data: URI, or a URL of a host that the server trusts."""
    ref_text: ReferenceText = ""
    """What the recording says; without it, the language model does not hear the recording (cross-lingual mode)."""

    seed: int | None = None
    """Equal seeds draw equal random numbers."""
    temperature: float = SamplingOptions.temperature
    top_p: float = SamplingOptions.top_p
    top_k: int = SamplingOptions.top_k
    repetition_aware: bool = SamplingOptions.repetition_aware
    """Avoid tokens that the last ones repeat (repetition-aware sampling)."""
    min_tokens: int | None = None
    """Speech tokens of each segment of the text, 25 a second."""
    max_tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        """A field that is null has its default, as one that is missing."""
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    def packing(self) -> AudioFormat:
        """The format of the audio; raises ApiError for a sample rate that it does not have."""
        packing = FORMATS[self.response_format]
        if self.sample_rate not in packing.sample_rates:
            rates = ", ".join(map(str, packing.sample_rates))
            message = f"{self.response_format} has the sample rates {rates}, not {self.sample_rate}."
            raise ApiError(400, message, param="sample_rate", code="invalid_value")
        return packing

    def request(self, id: str, text: str | None, voice: str | Recording, *, streaming: bool) -> SpeechRequest:
        """What this asks the engine for; raises InputError for a value that can't be used."""
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
    """Raise ApiError if `name` is none of `models`."""
    if name not in models:
        message = f"There is no model {name!r}. Models here: {', '.join(models)}."
        raise ApiError(404, message, param="model", code="model_not_found")


def check_length(body: SpeechBody, longest: int) -> None:
    """Raise ApiError if the text of `body` has more than `longest` characters."""
    if len(body.input) > longest:
        raise ApiError(400, too_long("input", len(body.input), longest), param="input", code="invalid_value")


async def voice_of(body: SpeechBody, ref_audio_hosts: Sequence[str]) -> str | Recording:
    """The voice to speak with; raises ApiError when none is given, or a recording that can't be had."""
    if body.ref_audio is not None:
        return Recording(await reference_audio.read(body.ref_audio, ref_audio_hosts), body.ref_text)
    if body.voice is None:
        raise ApiError(400, "voice is missing.", param="voice", code="invalid_value")
    return body.voice if isinstance(body.voice, str) else body.voice.id
