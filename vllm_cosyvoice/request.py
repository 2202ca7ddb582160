"""What a caller asks for: every front end makes one of these, and every stage reads it."""

import msgspec

from vllm_cosyvoice.config import DEFAULT_VOICE
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.limits import SPEEDS
from vllm_cosyvoice.recording import Recording, Voice
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text.languages import language_code


class SpeechRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A text, or what will arrive of it, and how to speak it.

    Mode: `instructions` set: instruct; else a voice with a transcript: zero-shot; else cross-lingual, which for a
    preset speaker is the sft mode.

    Raises:
        InputError: a value can't be used. Whether there is such a voice, and what its recording is worth, the encode
            stage finds out.
    """

    id: str  # used once: segments and the stages' logs are named after it
    text: str | None = None  # None: it arrives in pieces, and is spoken as it stands, or there is audio to convert
    voice: str | Recording | Voice = DEFAULT_VOICE
    instructions: str | None = None
    cross_lingual: bool = False  # for text in another language than the recording's: its transcript is not used
    language: str | None = None  # of the text, a code such as "en"; None: told by its script and words
    normalize: bool = True  # read numbers, dates and abbreviations out; else the text is spoken as it stands
    pronunciations: dict[str, str] = {}  # words → how to spell them for the model, on top of the server's
    speed: float = 1.0  # 2 is twice as fast
    sampling: SamplingOptions = SamplingOptions()
    streaming: bool = True  # audio in pieces, the first of them soon; else each segment in one go, which costs less

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
            message = "instructions can't be followed while the text arrives: send whole sentences."
            raise InputError("instructions", message)
