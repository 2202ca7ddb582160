"""A demo of the whole server: start it, speak a sentence through the `openai` client, stop it.

`python -m server.demo --output demo.wav`
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from pathlib import Path

from openai import OpenAI

from vllm_cosyvoice.config import DEMO_MODEL, SAMPLE_RATE

SENTENCE = "Hello! This sentence came the whole way from text to sound on your own machine."
START_SECONDS = 600.0


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    """Return when `/health` answers 200; raise RuntimeError if the server ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}; its output above says why")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.25)
    raise RuntimeError(f"the server was not ready after {START_SECONDS:.0f} s")


def speak(url: str, sentence: str, output: Path) -> None:
    """Stream `sentence` into the WAV file `output` and print the figures."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    started = time.perf_counter()
    first = 0.0
    pcm = bytearray()
    request = client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="default", input=sentence, response_format="pcm"
    )
    with request as response:
        for chunk in response.iter_bytes():
            first = first or time.perf_counter() - started
            pcm += chunk
    elapsed = time.perf_counter() - started
    with wave.open(str(output), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(bytes(pcm))
    seconds = len(pcm) / 2 / SAMPLE_RATE
    print(f"said:                 {sentence}")
    print(f"saved:                {output}")
    print(f"audio:                {seconds:.2f} s")
    print(f"time to first audio:  {first * 1000:.0f} ms")
    print(f"real-time factor:     {elapsed / seconds:.3f} ({seconds / elapsed:.1f} s of audio a second)")


def main() -> int:
    """Start, speak, stop."""
    parser = argparse.ArgumentParser(prog="python -m server.demo", description="Speak one sentence through the server.")
    parser.add_argument("--model_dir", default=str(DEMO_MODEL))
    parser.add_argument("--output", type=Path, default=Path("demo.wav"))
    parser.add_argument("--text", default=SENTENCE)
    arguments = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "server", "--model_dir", arguments.model_dir]
    with subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)]) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(server, url)
            speak(url, arguments.text, arguments.output)
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(timeout=60)
    return status


if __name__ == "__main__":
    sys.exit(main())
