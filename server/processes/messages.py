"""The messages between processes: those of the stages, and those about the processes themselves.

    http     ── Ping ─────────────────────▶ everyone    ── Pong ──────────────────────────────▶ http
    everyone ── Starting…, Ready ─────────▶ supervisor  ── StageUp, StageDown ────────────────▶ everyone
    supervisor ── Ping ───────────────────▶ everyone    ── Pong ──────────────────────────────▶ supervisor

An HTTP worker is the engine of `vllm_cosyvoice.stages.messages`.
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
    """Health check and request for metrics; answered with Pong."""

    nonce: int
    reply_to: Address


class Pong(Message, frozen=True):
    """The answer to Ping: the sender's gauges and counters."""

    nonce: int
    sender: Address
    numbers: dict[str, int | float]


class Starting(Message, frozen=True):
    """The step of its start-up that the sender has begun."""

    address: Address
    step: str


class Ready(Message, frozen=True):
    """The sender has started and accepts work."""

    address: Address


class StageUp(Message, frozen=True):
    """A process accepts work at `address`."""

    kind: Kind
    name: str
    address: Address


class StageDown(Message, frozen=True):
    """The process at `address` has died: its answers will not come, and what it owned must be dropped."""

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
    return np.frombuffer(bytearray(data), dtype).reshape(shape)  # bytearray: torch needs writable arrays


_encoder = msgspec.msgpack.Encoder(enc_hook=_from_array)
_decoder = msgspec.msgpack.Decoder(AnyMessage, dec_hook=_to_array)


def encode(message: Message) -> bytes:
    """Encode a message as msgpack."""
    return _encoder.encode(message)


def decode(data: bytes) -> AnyMessage:
    """Decode a message; raises msgspec.DecodeError for invalid data."""
    message: AnyMessage = _decoder.decode(data)
    return message
