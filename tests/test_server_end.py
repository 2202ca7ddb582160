"""The end of the server that other tests share. `conftest` runs this file last."""

import signal

import httpx
import pytest

from tests.server_process import ServerProcess, alive, belongings, eventually


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
