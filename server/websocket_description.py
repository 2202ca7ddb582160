"""The WebSockets in the description of the API: OpenAPI has no place for them, so they get one of its extensions.

`x-websockets` lists, for each path, the messages of the client and of the server. JSON messages are schemas among the
others; a binary message is a string of the format binary, as files are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.lighttts import bistream
from server.ws import messages as session_messages

REFERENCE = "#/components/schemas/{model}"
Messages = Sequence[type[BaseModel]]


@dataclass(frozen=True)
class Protocol:
    """What is said on one WebSocket."""

    description: str
    from_client: Messages
    from_server: Messages
    binary_from_client: str  # what a binary message is; empty: there are none
    binary_from_server: str


PROTOCOLS = {
    "/v1/audio/speech/stream": Protocol(
        "Text comes in as it is written, and speech goes out as it is made. Send `session.config` first, then for each "
        "utterance `input.text` as often as you like and `input.done`.",
        session_messages.FROM_CLIENT,
        session_messages.FROM_SERVER,
        "",
        "Audio of the sentence that has begun, in the format of the configuration; at most 64 KiB, or 1 MiB when "
        "`stream_audio` is false.",
    ),
    "/inference_zero_shot_bistream": Protocol(
        "LightTTS's. Send the prompt, the recording, then text as it is written. Speech comes as it is made, and the "
        "server closes the connection behind it.",
        bistream.FROM_CLIENT,
        bistream.FROM_SERVER,
        "The recording's file, at most 10 MiB: the second message.",
        "Headerless PCM, int16, little endian, mono, 24 kHz; at most 64 KiB.",
    ),
}


def describe(app: FastAPI) -> None:
    """Add the WebSockets to what `app` says of itself."""
    without = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            api = without()
            api["components"]["schemas"] |= _schemas()
            api["x-websockets"] = {path: _described(protocol) for path, protocol in PROTOCOLS.items()}
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way


def _schemas() -> dict[str, Any]:
    messages = [
        message for protocol in PROTOCOLS.values() for message in (*protocol.from_client, *protocol.from_server)
    ]
    _, found = models_json_schema([(message, "validation") for message in messages], ref_template=REFERENCE)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _described(protocol: Protocol) -> dict[str, object]:
    return {
        "description": protocol.description,
        "client": _messages(protocol.from_client, protocol.binary_from_client),
        "server": _messages(protocol.from_server, protocol.binary_from_server),
    }


def _messages(messages: Messages, binary: str) -> list[dict[str, str]]:
    described = [{"$ref": REFERENCE.format(model=message.__name__)} for message in messages]
    return described + ([{"type": "string", "format": "binary", "description": binary}] if binary else [])
