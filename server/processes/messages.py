"""What the processes say to each other: the stages' messages, and those about the processes themselves.

    http     ── Ping ─────────────────────▶ everyone    ── Pong ──────────────────────────────▶ http
    everyone ── Starting…, Ready ─────────▶ supervisor  ── StageUp, StageDown ────────────────▶ everyone
    supervisor ── Ping ───────────────────▶ everyone    ── Pong ──────────────────────────────▶ supervisor

The engine of `vllm_cosyvoice.stages.messages` is an http worker here.
"""

from typing import Literal

import msgspec
import numpy as np

from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Audio,
    Convert,
    Converted,
    DeleteVoice,
    Failed,
    Generate,
    GenerateFromText,
    ListVoices,
    Message,
    Open,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StreamPrepared,
    Text,
    Tokens,
    VoiceData,
    Voices,
    VoiceWanted,
)

__all__ = ["Address", "Message"]

Kind = Literal["http", "encode", "generate", "decode"]


class Ping(Message, frozen=True):
    """Are you there, and how much do you hold?"""

    nonce: int
    reply_to: Address


class Pong(Message, frozen=True):
    """The answer to Ping: the sender's gauges and counters."""

    nonce: int
    sender: Address
    numbers: dict[str, int | float]


class Starting(Message, frozen=True):
    """What the sender does at the moment, before it takes work."""

    address: Address
    step: str


class Ready(Message, frozen=True):
    """The sender has started and takes work."""

    address: Address


class StageUp(Message, frozen=True):
    """A process takes work at `address`."""

    kind: Kind
    name: str
    address: Address


class StageDown(Message, frozen=True):
    """The process at `address` has died: whatever it owed will not come, whatever it owned is to be dropped."""

    name: str
    address: Address


AnyMessage = (
    Prepare
    | Prepared
    | StreamPrepared
    | Convert
    | Converted
    | ListVoices
    | RegisterVoice
    | DeleteVoice
    | Voices
    | Release
    | VoiceWanted
    | VoiceData
    | Open
    | Generate
    | GenerateFromText
    | Text
    | Abort
    | Tokens
    | Audio
    | Failed
    | Ping
    | Pong
    | Starting
    | Ready
    | StageUp
    | StageDown
)


def _from_array(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _to_array(_: type[np.ndarray], parts: tuple[str, tuple[int, ...], bytes]) -> np.ndarray:
    dtype, shape, data = parts
    return np.frombuffer(bytearray(data), dtype).reshape(shape)  # bytearray: torch wants arrays it may write to


_encoder = msgspec.msgpack.Encoder(enc_hook=_from_array)
_decoder = msgspec.msgpack.Decoder(AnyMessage, dec_hook=_to_array)


def encode(message: Message) -> bytes:
    """A message as msgpack."""
    return _encoder.encode(message)


def decode(data: bytes) -> AnyMessage:
    """The message in `data`; raises msgspec.DecodeError for anything else."""
    message: AnyMessage = _decoder.decode(data)
    return message
