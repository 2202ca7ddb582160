"""The end of the server and of the engine that other tests share. `conftest` runs this file last."""

import signal
import threading
from contextlib import nullcontext
from pathlib import Path

import httpx
import psutil
import pytest

from tests.server_process import ServerProcess, alive, belongings, eventually, wait_until
from tests.test_batch import samples, short, write
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.__main__ import main
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

ENGINE = "VLLM::EngineCore"


async def test_a_second_sigterm_ends_it_at_once(server: ServerProcess) -> None:
    family, files = server.family(), belongings(server)
    assert files
    async with server.speaking(6000) as answer:
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "Stopping" in server.log.read_text(), "the first signal has arrived")
        assert server.process.poll() is None, "a request is in flight"
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in answer.extensions["body"]:
                pass
    await eventually(lambda: server.process.poll() is not None, "the supervisor has ended")
    assert server.process.returncode == 128 + signal.SIGTERM
    assert alive(family) == []
    assert not [path for path in files if path.exists()]


def test_speech_that_the_engine_gave_up_is_not_taken_for_whole(
    synthesizer: Synthesizer,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command `batch`, whose engine gets a signal after the first line."""
    lines = [short(f"Line {number}.", 10 if number < 4 else 2000, id=str(number)) for number in range(12)]
    source, out = write(tmp_path / "lines.jsonl", *lines), tmp_path / "out"

    def end_engine() -> None:
        wait_until(lambda: list(out.glob("*.wav")), "the first line is spoken")
        engine = next(child for child in psutil.Process().children() if child.cmdline()[0] == ENGINE)
        engine.send_signal(signal.SIGINT)

    monkeypatch.setattr("vllm_cosyvoice.synthesizer.Synthesizer", lambda *_, **__: nullcontext(synthesizer))
    monkeypatch.setattr("sys.argv", ["vllm-cosyvoice", "batch", str(source), str(out), "--model_dir", str(tiny_model)])
    ending = threading.Thread(target=end_engine)
    ending.start()
    assert main() == 1
    ending.join()
    assert "engine has died" in capsys.readouterr().err
    for line in lines:
        if (path := out / f"{line['id']}.wav").exists():
            assert len(samples(path)) == line["max_tokens"] * SAMPLES_PER_TOKEN
