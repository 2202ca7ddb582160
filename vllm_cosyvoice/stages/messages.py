"""What the stages say to each other, and the engine to them.

A request is one call of a caller; it has a request id, and each of its segments a segment id. An address is where a
stage's inbox is, and is never used twice: a process that is started again gets a new one, so a message for a dead
process can't reach its successor.

    engine   ── Prepare, Release ─────────▶ encode      ── Prepared | StreamPrepared | Failed ▶ engine
    engine   ── Convert, Release ─────────▶ encode      ── Converted | Failed ────────────────▶ engine
    engine   ── ListVoices, RegisterVoice, DeleteVoice, Release ─▶ encode ── Voices | Failed ─▶ engine
    engine   ── Generate, Abort ──────────▶ generate    ── Open, Tokens…, Abort | Failed ─────▶ decode
    engine   ── GenerateFromText, Text…, Abort ▶ generate ── the same ────────────────────────▶ decode
    engine   ── Open, Tokens, Abort ──────▶ decode      (voice conversion: nothing is to be generated)
    decode   ── VoiceWanted ──────────────▶ encode      ── VoiceData ─────────────────────────▶ decode
    decode   ── Audio… | Failed ──────────▶ engine
"""

from typing import Literal, Protocol

import msgspec

from vllm_cosyvoice.failure import FailureKind
from vllm_cosyvoice.recording import Recording, StoredVoice, Voice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Prompt, Segment

Address = str
StageKind = Literal["encode", "generate", "decode"]


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the tag is the class's name."""


class OfRequest(Message, frozen=True):
    """Base of what needs the whole request."""

    request: SpeechRequest
    reply_to: Address

    @property
    def request_id(self) -> str:
        """The request's."""
        return self.request.id


class Prepare(OfRequest, frozen=True):
    """Make segments and a voice of this request, and hold the voice for it until Release.

    Of a request without a text, which is yet to arrive, make what goes ahead of the text.
    """


class Prepared(Message, frozen=True):
    """The answer to Prepare with a text."""

    request_id: str
    segments: list[Segment]
    voice_key: str


class StreamPrepared(Message, frozen=True):
    """The answer to Prepare for a request without a text, which is still arriving."""

    request_id: str
    prompt: Prompt
    voice_key: str


class Convert(OfRequest, frozen=True):
    """Make speech tokens of `audio` and a voice to speak them again, and hold the voice until Release."""

    audio: bytes  # a file of any format


class Converted(Message, frozen=True):
    """The answer to Convert."""

    request_id: str
    tokens: list[int]
    voice_key: str


class ListVoices(Message, frozen=True):
    """Which voices can be asked for by name?"""

    request_id: str
    reply_to: Address


class RegisterVoice(Message, frozen=True):
    """Judge this recording, and keep the voice it makes under `name`."""

    request_id: str
    reply_to: Address
    name: str
    recording: Recording


class DeleteVoice(Message, frozen=True):
    """Forget the registered voice `name`."""

    request_id: str
    reply_to: Address
    name: str


class Voices(Message, frozen=True):
    """The answer to ListVoices, and to RegisterVoice and DeleteVoice, with the voice that came or went."""

    request_id: str
    voices: list[StoredVoice]


class Release(Message, frozen=True):
    """The request has ended, however: stop working for it, let go of its voice. Sent once for each asked of encode."""

    request_id: str


class VoiceWanted(Message, frozen=True):
    """The voice held for this request is needed at `reply_to`."""

    request_id: str
    reply_to: Address


class VoiceData(Message, frozen=True):
    """The answer to VoiceWanted. No answer comes once the request is released: its Abort is on the way then."""

    request_id: str
    voice: Voice


class Open(Message, frozen=True):
    """A segment's tokens are to come from `generator`: make audio of them for `reply_to`.

    In voice conversion they come from the http worker itself.
    """

    segment_id: str
    request_id: str
    reply_to: Address
    generator: Address
    encoder: Address  # who holds the voice
    voice_key: str
    speed: float
    seed: int
    streaming: bool = True  # the audio is wanted in pieces, as soon as they can be made; otherwise in one


class Generate(Message, frozen=True):
    """Generate `segment` and have `decoder` make audio of it."""

    segment: Segment
    sampling: SamplingOptions
    decoder: Address
    open: Open
    refusable: bool  # when too much is waiting; only a request's first segment is, so speech never breaks off for load


class GenerateFromText(Message, frozen=True):
    """Generate speech for the Text that follows, as it comes, and have `decoder` make audio of it."""

    prompt: Prompt
    sampling: SamplingOptions
    decoder: Address
    open: Open
    refusable: bool  # see Generate


class Text(Message, frozen=True):
    """The next piece of a segment's text, cut anywhere."""

    segment_id: str
    text: str
    last: bool


class Abort(Message, frozen=True):
    """Nobody wants this segment any more. Generate passes it on to `decoder`, behind whatever it sent there."""

    segment_id: str
    decoder: Address


class Tokens(Message, frozen=True):
    """New speech tokens of one step, for every segment that got some: id, tokens, and whether they are the last."""

    new: list[tuple[str, list[int], bool]]


class Audio(Message, frozen=True):
    """The next piece of a segment's audio."""

    segment_id: str
    pcm: bytes  # int16, little endian, mono, 24 kHz
    tokens: int  # speech tokens that reached the decoder so far
    last: bool


class Failed(Message, frozen=True):
    """The end of a request (from encode, by request id) or a segment (from generate and decode, by segment id)."""

    id: str
    kind: FailureKind
    message: str
    param: str | None = None


class Post(Protocol):
    """How a stage reaches the others. Messages from one to another arrive in the order they were sent."""

    address: Address  # of this stage

    def send(self, to: Address, message: Message) -> None:
        """Send, and never wait."""

    def is_dead(self, address: Address) -> bool:
        """Whether the stage at `address` has died, so that nothing sent there arrives."""
