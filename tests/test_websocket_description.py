"""The WebSockets' messages are described as they are: in docs/websockets.md and in /openapi.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from server.lighttts import bistream
from server.websocket_description import PROTOCOLS
from server.ws import messages as session_messages
from server.ws.messages import FROM_CLIENT, FROM_SERVER
from tests.server_process import ServerProcess, exactly
from tests.stream_client import Client, calling

PAGE = Path(__file__).parents[1] / "docs" / "websockets.md"
MESSAGES = (*FROM_CLIENT, *FROM_SERVER, *bistream.FROM_CLIENT, *bistream.FROM_SERVER)


def kind(schema: dict[str, Any]) -> str:
    """A field's type, as the page has it."""
    if "anyOf" in schema:
        return " or ".join(kind(either) for either in schema["anyOf"])
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    return str(schema["type"])


def rows(message: type[BaseModel]) -> Iterator[str]:
    """The rows of a message's table: its fields, but for those of a speech request and the type."""
    inherited = set().union(*(base.__annotations__ for base in message.__mro__[1:] if issubclass(base, BaseModel)))
    for name, field in message.model_json_schema()["properties"].items():
        changed = name not in inherited or name in message.__annotations__
        if name != "type" and changed:
            default = f" Default: `{json.dumps(field['default'])}`." if field.get("default") is not None else ""
            yield f"| `{name}` | {kind(field)} | {field['description'].strip()}{default} |"


def type_of(message: type[BaseModel]) -> str:
    """What `type` says."""
    name: str = message.model_json_schema()["properties"]["type"]["const"]
    return name


def section(message: type[BaseModel]) -> str:
    """What the page says of a message."""
    title = type_of(message) if "type" in message.model_fields else next(iter(message.model_fields))
    about = " ".join((message.__doc__ or "").split())
    table = "\n".join(["| field | type | meaning |", "|---|---|---|", *rows(message)]) if [*rows(message)] else ""
    return "\n\n".join(part for part in (f"### `{title}`", about, table) if part) + "\n"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_the_page_describes_every_message_and_field(message: type[BaseModel]) -> None:
    assert section(message) in PAGE.read_text().replace("\n\n\n", "\n\n") + "\n"


def test_the_page_has_no_other_messages() -> None:
    assert PAGE.read_text().count("### `") == len(MESSAGES)


async def test_openapi_names_every_message_of_both_sockets(client: httpx.AsyncClient) -> None:
    api = (await client.get("/openapi.json")).json()
    sockets = api["x-websockets"]
    assert sockets.keys() == PROTOCOLS.keys()
    named = {
        message["$ref"].rpartition("/")[2]
        for socket in sockets.values()
        for message in (*socket["client"], *socket["server"])
        if "$ref" in message
    }
    assert named == {message.__name__ for message in MESSAGES} <= api["components"]["schemas"].keys()
    assert "SpeechBody" in api["components"]["schemas"], "and the others are still there"


async def test_a_session_speaks_as_described(server: ServerProcess) -> None:
    """Each message of the client is taken, and each that comes has all the fields of its kind, and no others."""
    said: list[dict[str, Any]] = []

    async def hear(client: Client, until: str) -> None:
        while not said or said[-1]["type"] != until:
            message = await client.next()
            if isinstance(message, dict):
                said.append(message)

    async with calling(server, split_granularity="sentence", **exactly(10)) as client:  # which sends a session.config
        for kind_of_message in FROM_CLIENT[1:]:
            fields = {"text": "Good morning."} if "text" in kind_of_message.model_fields else {}
            await client.say(type_of(kind_of_message), **fields)
            if type_of(kind_of_message) == "input.done":
                await hear(client, "session.done")
        assert await client.closed() == 1000
    async with calling(server, split_granularity="sentence") as client:
        await client.text("[pause:99s]")
        await client.say("input.done")
        await hear(client, "error")
    described = {type_of(message): message for message in FROM_SERVER}
    assert {message["type"] for message in said} == described.keys()
    for message in said:
        model = described[message["type"]]
        model.model_validate(message, extra="forbid")
        assert set(model.model_json_schema()["required"]) <= message.keys()


def test_an_error_has_no_field_that_is_not_described() -> None:
    place = {"utterance_index": 0, "sentence_index": 1, "partial_audio": True, "action": "discard"}
    told = session_messages.error(ValueError("why"), **place)
    assert told.keys() == session_messages.SessionError.model_fields.keys()
