"""The messages of `WS /v1/audio/speech/stream`: those of vllm-omni, and `input.cancel`."""

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
    """How to speak. It must be the first message, and may be sent again between utterances.

    It also has the fields of `POST /v1/audio/speech` except `input`. All fields are optional; unknown ones are ignored.
    """

    type: Literal["session.config"] = "session.config"
    input: SkipJsonSchema[Literal[""]] = ""  # the text comes in input.text
    response_format: ResponseFormat = "wav"
    """The format of the binary messages."""

    split_granularity: Literal["none", "sentence", "clause"] = "none"
    """Speak text as it arrives, or each sentence or clause when it is complete."""

    stream_audio: bool = True
    """Send audio as it is generated. False: send a whole sentence at once, in one message if it is at most 1 MiB."""

    @classmethod
    def of(cls, message: dict[str, Any]) -> Self:
        """Parse a message; raises ApiError, and InputError for an invalid value."""
        try:
            config = cls.model_validate(message)
        except ValidationError as error:
            problems = [problem | {"loc": ("session.config", *problem["loc"])} for problem in error.errors()]
            text, param = what_is_wrong(problems)
            raise ApiError(400, text, param=param, code="invalid_value") from error
        if config.voice is None and config.ref_audio is None:
            config.voice = DEFAULT_VOICE
        if config.instructions and config.split_granularity == "none":
            text = "instructions need whole sentences: set split_granularity to 'sentence'."
            raise ApiError(400, text, param="instructions", code="invalid_value")
        config.packing()
        config.request("", config.input, DEFAULT_VOICE, streaming=True)  # checks the values
        return config


class _Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class InputText(_Described):
    """The next piece of an utterance, split anywhere. The first piece begins the utterance."""

    type: Literal["input.text"]
    text: str
    """At most 131072 characters; at most 4096 per utterance, or the value of `--max_input_chars`."""


class InputDone(_Described):
    """The utterance is complete."""

    type: Literal["input.done"]


class InputCancel(_Described):
    """Stop all utterances that have begun. The server sends no more of their audio."""

    type: Literal["input.cancel"]


class SessionClose(_Described):
    """Finish all utterances that have begun, then close the connection. This also ends an open utterance."""

    type: Literal["session.close"]


class AudioStart(_Described):
    """A sentence begins; its audio follows. With `split_granularity` "none" an utterance is one sentence."""

    type: Literal["audio.start"]
    utterance_index: int
    """Number of the utterance in the connection, from 0."""
    sentence_index: int
    """Number of the sentence in the utterance, from 0."""
    sentence_text: str
    """The text of the sentence, or its first piece if the text is still arriving."""
    format: ResponseFormat
    """The format of the audio."""
    sample_rate: int
    """In Hz."""
    channels: Literal[1]
    """Mono."""


class AudioDone(_Described):
    """A sentence has ended."""

    type: Literal["audio.done"]
    utterance_index: int
    """As in audio.start."""
    sentence_index: int
    """As in audio.start."""
    total_bytes: int
    """Total size of the sentence's binary messages."""
    error: bool
    """Whether an error ended the sentence."""
    cancelled: bool
    """Whether input.cancel ended the sentence."""


class SessionDone(_Described):
    """An utterance has ended. Sent once for each input.done, and for each cancelled utterance."""

    type: Literal["session.done"]
    utterance_index: int
    """As in audio.start."""
    total_sentences: int
    """Number of sentences that were spoken completely."""
    cancelled: bool
    """Whether input.cancel ended the utterance."""


class SessionError(_Described):
    """An error. The connection stays open if a session.config was accepted before."""

    type: Literal["error"]
    message: str
    """What is wrong, and how to fix it."""
    code: str
    """As in errors over HTTP."""
    param: str | None
    """The field at fault, if any."""
    utterance_index: int | None = None
    """As in audio.start. Present if the error ends a sentence; the sentence's audio.done follows."""
    sentence_index: int | None = None
    """As in audio.start. Present if the error ends a sentence."""
    partial_audio: Literal[True] | None = None
    """Present if part of the sentence's audio was sent."""
    action: Literal["discard"] | None = None
    """What to do with that audio. Present if part of it was sent."""


FROM_CLIENT = (SessionConfig, InputText, InputDone, InputCancel, SessionClose)
FROM_SERVER = (AudioStart, AudioDone, SessionDone, SessionError)  # and binary messages with audio


def audio_start(utterance: int, sentence: int, text: str, config: SessionConfig) -> Message:
    """`text`: the text of the sentence, or its first piece if the text is still arriving."""
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
    """`size`: total bytes of the binary messages."""
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
    """`place`: further fields of SessionError, such as the utterance and the sentence that the error ends."""
    code, param = "invalid_value", None
    if isinstance(problem, Failure):
        code, param = CODE.get(problem.kind, problem.kind), problem.param
    elif isinstance(problem, ApiError):
        code, param = problem.code or code, problem.param
    message = SessionError(type="error", message=str(problem), code=code, param=param, **place)
    return message.model_dump(exclude_unset=True)
