"""The WebSockets in `/openapi.json`: OpenAPI can't describe WebSockets, so they are in an extension, `x-websockets`.

It lists the messages of the client and of the server for each path. JSON messages are schemas of the components; a
binary message is a string of the format `binary`, like a file.
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
    """The messages of one WebSocket."""

    description: str
    from_client: Messages
    from_server: Messages
    binary_from_client: str  # description of the binary messages; empty: there are none
    binary_from_server: str


PROTOCOLS = {
    "/v1/audio/speech/stream": Protocol(
        "Send text as it is written; the server sends speech as it is generated. Send `session.config` first, then for "
        "each utterance any number of `input.text` and one `input.done`.",
        session_messages.FROM_CLIENT,
        session_messages.FROM_SERVER,
        "",
        "Audio of the current sentence, in the configured format; at most 64 KiB, or 1 MiB if `stream_audio` is false.",
    ),
    "/inference_zero_shot_bistream": Protocol(
        "LightTTS's. Send the prompt, the recording, then text as it is written. The server sends speech as it is "
        "generated and then closes the connection.",
        bistream.FROM_CLIENT,
        bistream.FROM_SERVER,
        "The audio file of the recording, at most 10 MiB: the second message.",
        "Headerless PCM, int16, little endian, mono, 24 kHz; at most 64 KiB.",
    ),
}


def describe(app: FastAPI) -> None:
    """Add the WebSockets to the OpenAPI description of `app`."""
    without_websockets = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            api = without_websockets()
            api["components"]["schemas"] |= _schemas()
            api["x-websockets"] = {path: _described(protocol) for path, protocol in PROTOCOLS.items()}
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way FastAPI documents


def _schemas() -> dict[str, Any]:
    messages = [
        message for protocol in PROTOCOLS.values() for message in (*protocol.from_client, *protocol.from_server)
    ]
    _, definitions = models_json_schema([(message, "validation") for message in messages], ref_template=REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
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
