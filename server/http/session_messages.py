"""What clients and the server say on `WS /v1/audio/speech/stream`: vllm-omni's messages, and `input.cancel`.

client   session.config {…}     how to speak: first, and again between utterances
         input.text {text}      the next piece of an utterance, cut anywhere
         input.done             the utterance is complete
         input.cancel           stop: nothing more is heard of any utterance that has begun
         session.close          finish what is complete, then close
server   audio.start            a sentence begins; with split_granularity "none" an utterance is one sentence
         (binary)               its audio, in the configured format
         audio.done             it has ended
         session.done           an utterance has ended; comes once for each input.done, and each cancelled one
         error                  what went wrong; the connection stays open once there is a configuration
"""

from typing import Any, Literal, Self

from pydantic import ValidationError

from server.audio_format import ResponseFormat
from server.http.errors import CODE, ApiError, what_is_wrong
from server.http.openai import SpeechBody
from vllm_cosyvoice.config import DEFAULT_VOICE
from vllm_cosyvoice.failure import Failure

Message = dict[str, object]


class SessionConfig(SpeechBody):
    """What a speech request has but its input, which arrives; unknown fields are ignored."""

    input: Literal[""] = ""
    response_format: ResponseFormat = "wav"
    split_granularity: Literal["none", "sentence", "clause"] = "none"
    stream_audio: bool = True  # or each sentence's audio in one message, if that is at most 1 MiB

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


def audio_start(utterance: int, sentence: int, text: str, config: SessionConfig) -> Message:
    """`text` is the sentence's, or, when it is still arriving, what is there of it."""
    place = {"utterance_index": utterance, "sentence_index": sentence}
    sound = {"format": config.response_format, "sample_rate": config.sample_rate, "channels": 1}
    return {"type": "audio.start", **place, "sentence_text": text, **sound}


def audio_done(utterance: int, sentence: int, size: int, *, error: bool = False, cancelled: bool = False) -> Message:
    """`size` is the sum of the binary messages."""
    place = {"utterance_index": utterance, "sentence_index": sentence}
    return {"type": "audio.done", **place, "total_bytes": size, "error": error, "cancelled": cancelled}


def session_done(utterance: int, sentences: int, *, cancelled: bool = False) -> Message:
    """The end of an utterance."""
    return {
        "type": "session.done",
        "utterance_index": utterance,
        "total_sentences": sentences,
        "cancelled": cancelled,
    }


def error(problem: Exception, **place: object) -> Message:
    """`place` says which utterance and sentence it ends, if it does."""
    code, param = "invalid_value", None
    if isinstance(problem, Failure):
        code, param = CODE.get(problem.kind, problem.kind), problem.param
    elif isinstance(problem, ApiError):
        code, param = problem.code or code, problem.param
    return {"type": "error", "message": str(problem), "code": code, "param": param, **place}
