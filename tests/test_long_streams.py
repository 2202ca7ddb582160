"""Long speech over the WebSockets, by the documents' example and by LightTTS's client: all of it arrives."""

import asyncio
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import websockets

from server.http.websocket import LARGEST_AUDIO
from tests.server_process import ServerProcess, eventually
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.voice.store import BUILT_IN

CLIENTS = Path(__file__).parents[1] / "docs" / "clients.md"
BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
DEFAULT_LIMIT = 1 << 20  # bytes of a message that the library takes: 22 s of speech
# While text arrives, a group of text tokens makes a group of speech tokens, so the speech has a least length.
WORDS = [f"Sentence {number} of a story that goes on. " for number in range(24)]


def run_the_example(server: ServerProcess, directory: Path) -> bytes:
    """Run the block of docs/clients.md as it stands there, but for the server's address, the words and the file."""
    page = CLIENTS.read_text()
    [block] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "speech/stream" in block]
    changes = {
        "ws://localhost:8080": f"ws://127.0.0.1:{server.port}",
        '["Hello ", "from my ", "own machine."]': repr(WORDS),
        '"hello.pcm"': repr(str(directory / "hello.pcm")),
    }
    for shown, ours in changes.items():
        assert shown in block
        block = block.replace(shown, ours)
    (directory / "example.py").write_text(block)
    runpy.run_path(str(directory / "example.py"))
    return (directory / "hello.pcm").read_bytes()


async def speak_as_lighttts_does(server: ServerProcess) -> bytes:
    """The messages of its own test script for text that arrives."""
    transcript = (BUILT_IN / "default.txt").read_text()
    pcm = b""
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/inference_zero_shot_bistream") as connection:
        await connection.send(json.dumps({"prompt_text": transcript, "tts_model_name": "default"}))
        await connection.send((BUILT_IN / "default.wav").read_bytes())
        for words in WORDS:
            await connection.send(json.dumps({"tts_text": words}))
        await connection.send(json.dumps({"finish": True}))
        async for message in connection:
            assert isinstance(message, bytes), message
            pcm += message
    return pcm


async def test_all_of_it_arrives_in_messages_that_ordinary_clients_take(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is spoken than the library takes in one message, and a limit of 64 KiB shows that no message is larger.

    An hour would come in the same small messages, so more than this shows nothing new.
    """
    limits: list[int] = []

    class Connect(websockets.connect):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert "max_size" not in options, "the example takes the library's limits"
            limits.append(LARGEST_AUDIO)
            super().__init__(*arguments, max_size=LARGEST_AUDIO, **options)

    def generated() -> int:
        return server.numbers()["speech_tokens_total"]["generate-0"]

    monkeypatch.setattr(websockets, "connect", Connect)
    before = generated()
    example, lighttts = await asyncio.gather(
        asyncio.to_thread(run_the_example, server, tmp_path), speak_as_lighttts_does(server)
    )
    assert len(limits) == 2
    assert min(len(example), len(lighttts)) > DEFAULT_LIMIT
    assert len(example) + len(lighttts) == (generated() - before) * BYTES_PER_TOKEN, "all of it has come"
    await eventually(server.idle, "nothing is left")
