"""Messages between the engine and the stages.

A request is one call by a client. It has a request id, and each of its segments has a segment id. An address identifies
a stage's inbox and is never reused: a restarted process gets a new one, so a message for a dead process can't reach its
successor.

    engine   ── Prepare, Release ─────────▶ encode      ── Prepared | StreamPrepared | Failed ▶ engine
    engine   ── Convert, Release ─────────▶ encode      ── Converted | Failed ────────────────▶ engine
    engine   ── ListVoices, RegisterVoice, DeleteVoice, Release ─▶ encode ── Voices | Failed ─▶ engine
    engine   ── Generate, Abort ──────────▶ generate    ── Open, Tokens…, Abort | Failed ─────▶ decode
    engine   ── GenerateFromText, Text…, Abort ▶ generate ── the same ────────────────────────▶ decode
    engine   ── Open, Tokens, Abort ──────▶ decode      (voice conversion: there is nothing to generate)
    decode   ── VoiceWanted ──────────────▶ encode      ── VoiceData ─────────────────────────▶ decode
    decode   ── Audio… | Failed ──────────▶ engine
"""

from typing import Literal, Protocol

import msgspec

from vllm_cosyvoice.failure import FailureKind
from vllm_cosyvoice.recording import Recording, StoredVoice, Voice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment

Address = str
StageKind = Literal["encode", "generate", "decode"]


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the tag is the class name."""


class OfRequest(Message, frozen=True):
    """Base of messages with the whole request."""

    request: SpeechRequest
    reply_to: Address

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.request.id


class Prepare(OfRequest, frozen=True):
    """Prepare the request's segments and voice, and hold the voice until Release.

    If the request has no text, because it is still to arrive, prepare the prompt that precedes it.
    """


class Prepared(Message, frozen=True):
    """The answer to Prepare for a request with a text."""

    request_id: str
    segments: list[Segment]
    voice_key: str


class StreamPrepared(Message, frozen=True):
    """The answer to Prepare for a request without a text: the prompt, in tokenizer ids and speech tokens."""

    request_id: str
    prompt_text: list[int]
    prompt_speech: list[int]
    voice_key: str


class Convert(OfRequest, frozen=True):
    """Convert `audio` to speech tokens, prepare the voice that speaks them again, and hold it until Release."""

    audio: bytes  # a file of any format


class Converted(Message, frozen=True):
    """The answer to Convert."""

    request_id: str
    tokens: list[int]
    voice_key: str


class ListVoices(Message, frozen=True):
    """List the voices that can be requested by name."""

    request_id: str
    reply_to: Address


class RegisterVoice(Message, frozen=True):
    """Check this recording, and register the voice made from it as `name`."""

    request_id: str
    reply_to: Address
    name: str
    recording: Recording


class DeleteVoice(Message, frozen=True):
    """Delete the registered voice `name`."""

    request_id: str
    reply_to: Address
    name: str


class Voices(Message, frozen=True):
    """The answer to ListVoices, and to RegisterVoice and DeleteVoice, with the registered or deleted voice."""

    request_id: str
    voices: list[StoredVoice]


class Release(Message, frozen=True):
    """The request has ended for any reason: stop its work and drop its voice. Sent once for each question to encode."""

    request_id: str


class VoiceWanted(Message, frozen=True):
    """Send the voice held for this request to `reply_to`."""

    request_id: str
    reply_to: Address


class VoiceData(Message, frozen=True):
    """The answer to VoiceWanted. After Release, there is no answer: the segment's Abort is on the way then."""

    request_id: str
    voice: Voice


class Open(Message, frozen=True):
    """Make audio for `reply_to` from the segment's tokens, which `generator` will send.

    In voice conversion, the engine sends them itself.
    """

    segment_id: str
    request_id: str
    reply_to: Address
    generator: Address
    encoder: Address  # holds the voice
    voice_key: str
    speed: float
    seed: int
    streaming: bool = True  # send audio in pieces, as soon as possible; otherwise in one


class Generate(Message, frozen=True):
    """Generate the speech tokens of `segment`, and have `decoder` make audio from them."""

    segment: Segment
    sampling: SamplingOptions
    decoder: Address
    open: Open
    refusable: bool  # on overload; only a request's first segment is refusable, so overload never cuts speech off


class GenerateFromText(Message, frozen=True):
    """Generate speech tokens for the Text messages that follow, and have `decoder` make audio from them."""

    prompt_text: list[int]
    prompt_speech: list[int]
    sampling: SamplingOptions
    decoder: Address
    open: Open
    refusable: bool  # see Generate


class Text(Message, frozen=True):
    """The next piece of a segment's text, split anywhere."""

    segment_id: str
    text: str
    last: bool


class Abort(Message, frozen=True):
    """The segment is no longer needed. The generate stage forwards this to `decoder` after its earlier messages."""

    segment_id: str
    decoder: Address


class Tokens(Message, frozen=True):
    """The new speech tokens of one step, by segment: id, tokens, and whether they are the last."""

    new: list[tuple[str, list[int], bool]]


class Audio(Message, frozen=True):
    """The next piece of a segment's audio."""

    segment_id: str
    pcm: bytes  # int16, little endian, mono, 24 kHz
    tokens: int  # speech tokens that reached the decoder so far
    last: bool


class Failed(Message, frozen=True):
    """A request (from encode, by request id) or a segment (from generate or decode, by segment id) has failed."""

    id: str
    kind: FailureKind
    message: str
    param: str | None = None


class Post(Protocol):
    """Sends a stage's messages to the others. Messages from one stage to another arrive in order."""

    address: Address  # of this stage

    def send(self, to: Address, message: Message) -> None:
        """Send without waiting."""

    def is_dead(self, address: Address) -> bool:
        """Whether the stage at `address` has died, so that messages to it are lost."""
