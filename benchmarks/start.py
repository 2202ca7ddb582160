"""Times the server from its start to its first audio, with cold and warm caches, and after a process dies.

    python -m benchmarks.start --model_dir DIR [--flags FLAGS]

The caches are those of compiled kernels: Triton's, vLLM's and TorchInductor's, which are put in a temporary directory.
The caches of Python's modules, of the driver and of PyTorch's own kernels are not touched.
"""

import argparse
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from benchmarks.table import table
from server.demo import free_port
from server.processes.fork_server import TITLE

CACHES = ("TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR")
VICTIMS = ("decode", "generate", "encode")
LONGEST = 600.0  # seconds


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--flags", default="", help="other flags of the server")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "server", "--model_dir", arguments.model_dir, *shlex.split(arguments.flags)]
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {variable: str(Path(directory) / variable) for variable in CACHES}
        for state in ("empty", "warm"):
            port = free_port()
            with subprocess.Popen([*command, "--port", str(port)], env=environment) as server:
                try:
                    rows.append((f"start to healthy, {state} caches", f"{until_healthy(server, port):.1f}"))
                    rows.append((f"then to first audio, {state} caches", f"{until_audio(server, port):.1f}"))
                    for victim in VICTIMS if state == "warm" else ():
                        kill(server.pid, victim)
                        rows.append(
                            (f"kill -9 of every {victim} process to first audio", f"{until_audio(server, port):.1f}")
                        )
                finally:
                    server.send_signal(signal.SIGTERM)
                    server.wait()
    print(table(("what", "s"), rows))
    return 0


def until_healthy(server: "subprocess.Popen[bytes]", port: int) -> float:
    """Seconds from now until /health succeeds."""
    begin = time.monotonic()
    while server.poll() is None and time.monotonic() - begin < LONGEST:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5):
                return time.monotonic() - begin
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError("the server has not become ready; its output above says why")


def until_audio(server: "subprocess.Popen[bytes]", port: int) -> float:
    """Seconds from now until a caller, who retries until it works, receives audio."""
    body = json.dumps({"model": "tts-1", "voice": "default", "input": "Hello.", "response_format": "pcm"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://localhost:{port}/v1/audio/speech", body, headers)
    begin = time.monotonic()
    while server.poll() is None and time.monotonic() - begin < LONGEST:
        try:
            with urllib.request.urlopen(request, timeout=LONGEST) as response:
                if response.read(1):
                    return time.monotonic() - begin
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    raise RuntimeError("the server does not speak; its output above says why")


def kill(server: int, kind: str) -> None:
    """Kill the server's processes of this kind, like the kernel when it is out of memory."""
    for child in psutil.Process(server).children():
        if child.name().startswith(f"{TITLE}{kind}-"):
            child.kill()


if __name__ == "__main__":
    sys.exit(main())
