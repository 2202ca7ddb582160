"""The request that every front end creates and every stage reads."""

import msgspec

from vllm_cosyvoice.config import DEFAULT_VOICE
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.limits import SPEEDS
from vllm_cosyvoice.recording import Recording, Voice
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text.languages import language_code


class SpeechRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A text and how to speak it.

    The mode is instruct with `instructions`, else zero-shot if the voice has a transcript, else cross-lingual (sft for
    a preset speaker).

    Raises:
        InputError: a value is invalid. The encode stage checks the voice and its recording later.
    """

    id: str  # unique; segment ids and log messages contain it
    text: str | None = None  # None: it arrives in pieces and is not normalised, or there is audio to convert
    voice: str | Recording | Voice = DEFAULT_VOICE
    instructions: str | None = None
    cross_lingual: bool = False  # ignore the voice's transcript, for text in another language than the recording
    language: str | None = None  # code of the text's language, such as "en"; None: detect it by script and words
    normalize: bool = True  # write out numbers, dates and abbreviations
    pronunciations: dict[str, str] = {}  # words → spellings for the model, in addition to the server's
    speed: float = 1.0  # 2 is twice as fast
    sampling: SamplingOptions = SamplingOptions()
    streaming: bool = True  # audio in pieces, at low latency; else each segment in one piece, which costs less

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        slowest, fastest = SPEEDS
        if not slowest <= self.speed <= fastest:
            raise InputError("speed", f"speed must be between {slowest} and {fastest:g}, not {self.speed}.")
        if self.language is not None:
            try:
                language_code(self.language)
            except ValueError as error:
                raise InputError("language", str(error)) from error
        if self.text is None and self.instructions:
            message = "instructions are not supported for text that arrives in pieces: send whole sentences."
            raise InputError("instructions", message)
