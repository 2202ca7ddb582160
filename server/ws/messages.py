"""What clients and the server say on `WS /v1/audio/speech/stream`: vllm-omni's messages, and `input.cancel`."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import SkipJsonSchema

from server.http.audio_format import ResponseFormat
from server.http.errors import CODE, ApiError, what_is_wrong
from server.http.speech_body import SpeechBody
from vllm_cosyvoice.config import DEFAULT_VOICE
from vllm_cosyvoice.failure import Failure

Message = dict[str, object]


class SessionConfig(SpeechBody):
    """How to speak: the first message, and again between utterances.

    It also has the fields of `POST /v1/audio/speech` but `input`; none is needed. Unknown fields are ignored.
    """

    type: Literal["session.config"] = "session.config"
    input: SkipJsonSchema[Literal[""]] = ""  # arrives
    response_format: ResponseFormat = "wav"
    """The format of the binary messages."""

    split_granularity: Literal["none", "sentence", "clause"] = "none"
    """Speak text as it comes, or sentence by sentence or clause by clause, each when it is complete."""

    stream_audio: bool = True
    """Audio as it is made; false: a sentence's audio at once, in one message if that is at most 1 MiB."""

    @classmethod
    def of(cls, message: dict[str, Any]) -> Self:
        """The configuration in a message; raises ApiError, and InputError for a value that can't be used."""
        try:
            config = cls.model_validate(message)
        except ValidationError as error:
            problems = [problem | {"loc": ("session.config", *problem["loc"])} for problem in error.errors()]
            text, param = what_is_wrong(problems)
            raise ApiError(400, text, param=param, code="invalid_value") from error
        if config.voice is None and config.ref_audio is None:
            config.voice = DEFAULT_VOICE
        if config.instructions and config.split_granularity == "none":
            text = "instructions can't be followed word by word: set split_granularity to 'sentence'."
            raise ApiError(400, text, param="instructions", code="invalid_value")
        config.packing()
        config.request("", config.input, DEFAULT_VOICE, streaming=True)  # which checks the values
        return config


class _Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class InputText(_Described):
    """The next piece of an utterance, cut anywhere. The first one begins the utterance."""

    type: Literal["input.text"]
    text: str
    """At most 131072 characters; an utterance has at most 4096, or what `--max_input_chars` says."""


class InputDone(_Described):
    """The utterance is complete."""

    type: Literal["input.done"]


class InputCancel(_Described):
    """Stop: nothing more is heard of any utterance that has begun."""

    type: Literal["input.cancel"]


class SessionClose(_Described):
    """Finish what is being spoken, then close. Text of an utterance that has begun is complete with this."""

    type: Literal["session.close"]


class AudioStart(_Described):
    """A sentence begins; with `split_granularity` "none" an utterance is one sentence. Its audio follows."""

    type: Literal["audio.start"]
    utterance_index: int
    """Counts the utterances of the connection, from 0."""
    sentence_index: int
    """Counts the sentences of the utterance, from 0."""
    sentence_text: str
    """The sentence's text, or, when it is still arriving, its first piece."""
    format: ResponseFormat
    """The format of the audio."""
    sample_rate: int
    """In Hz."""
    channels: Literal[1]
    """Of the audio."""


class AudioDone(_Described):
    """A sentence has ended."""

    type: Literal["audio.done"]
    utterance_index: int
    """As in audio.start."""
    sentence_index: int
    """As in audio.start."""
    total_bytes: int
    """The sum of the sentence's binary messages."""
    error: bool
    """An error ended it."""
    cancelled: bool
    """input.cancel ended it."""


class SessionDone(_Described):
    """An utterance has ended. Comes once for each input.done, and for each utterance that was cancelled."""

    type: Literal["session.done"]
    utterance_index: int
    """As in audio.start."""
    total_sentences: int
    """How many sentences were spoken to their end."""
    cancelled: bool
    """input.cancel ended it."""


class SessionError(_Described):
    """Something went wrong. The connection stays open once there is a configuration."""

    type: Literal["error"]
    message: str
    """What went wrong, and how to mend it."""
    code: str
    """As in errors over HTTP."""
    param: str | None
    """The field at fault, if one is."""
    utterance_index: int | None = None
    """As in audio.start. Here if the error ends a sentence, which its audio.done follows."""
    sentence_index: int | None = None
    """As in audio.start. Here if the error ends a sentence."""
    partial_audio: Literal[True] | None = None
    """Here if some of the sentence's audio was sent."""
    action: Literal["discard"] | None = None
    """What to do with that audio. Here if some was sent."""


FROM_CLIENT = (SessionConfig, InputText, InputDone, InputCancel, SessionClose)
FROM_SERVER = (AudioStart, AudioDone, SessionDone, SessionError)  # and binary messages, which are audio


def audio_start(utterance: int, sentence: int, text: str, config: SessionConfig) -> Message:
    """`text` is the sentence's, or, when it is still arriving, what is there of it."""
    return AudioStart(
        type="audio.start",
        utterance_index=utterance,
        sentence_index=sentence,
        sentence_text=text,
        format=config.response_format,
        sample_rate=config.sample_rate,
        channels=1,
    ).model_dump()


def audio_done(utterance: int, sentence: int, size: int, *, error: bool = False, cancelled: bool = False) -> Message:
    """`size` is the sum of the binary messages."""
    return AudioDone(
        type="audio.done",
        utterance_index=utterance,
        sentence_index=sentence,
        total_bytes=size,
        error=error,
        cancelled=cancelled,
    ).model_dump()


def session_done(utterance: int, sentences: int, *, cancelled: bool = False) -> Message:
    """The end of an utterance."""
    return SessionDone(
        type="session.done", utterance_index=utterance, total_sentences=sentences, cancelled=cancelled
    ).model_dump()


def error(problem: Exception, **place: Any) -> Message:  # noqa: ANN401 - as SessionError has them
    """`place` says which utterance and sentence it ends, if it does."""
    code, param = "invalid_value", None
    if isinstance(problem, Failure):
        code, param = CODE.get(problem.kind, problem.kind), problem.param
    elif isinstance(problem, ApiError):
        code, param = problem.code or code, problem.param
    told = SessionError(type="error", message=str(problem), code=code, param=param, **place)
    return told.model_dump(exclude_unset=True)
