"""Ray Serve for real, behind its HAProxy, with the settings of deploy/ray.yaml: two replicas with the demo model, then
two whose stages are stand-ins, which start soon and can be killed.

The tests run in their order.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from websockets.exceptions import InvalidStatus

from benchmarks.ray_cluster import Actor, Cluster, ray_cluster
from server.processes.fork_server import TITLE
from server.ray import texts
from tests.server_process import BODY, ServerProcess, alive, eventually, exactly
from tests.stream_client import calling, unconfigured
from tests.test_audio import tone, wav
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.llm.environment import THREADS

SETTINGS = Path(__file__).parents[1] / "deploy" / "ray.yaml"
MOST_REQUESTS = 4  # of a replica with stand-ins
BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
LONG = 3000  # speech tokens: seconds for a stand-in


def application(replicas: int, voices: Path, **changes: object) -> dict[str, Any]:
    """That of deploy/ray.yaml with the demo model, without a GPU, and with changed flags."""
    settings: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())["applications"][0]
    del settings["args"]["model_dir"]
    limits = {"max_total_token_num": 16384, "max_req_total_len": 8192, "gpt_paral_num": 50, "encode_process_num": 1}
    settings["args"] |= {"voices_dir": str(voices), "load_trt": False} | limits | changes
    deployment = settings["deployments"][0]
    del deployment["autoscaling_config"]
    # Ray sets OMP_NUM_THREADS to num_cpus
    deployment |= {"num_replicas": replicas, "ray_actor_options": {"num_gpus": 0, "num_cpus": THREADS + 1}}
    return settings


def replayed(replicas: int, voices: Path) -> dict[str, Any]:
    """The application with stand-ins for stages."""
    settings = application(replicas, voices, encode_paral_num=MOST_REQUESTS, max_websockets=1)
    return settings | {"name": "replayed", "import_path": "benchmarks.replayed_replica:app"}


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def speaking(cluster: Cluster, voices: Path) -> Cluster:
    """Two replicas with the demo model."""
    cluster.deploy(application(2, voices))
    cluster.wait_for(2)
    return cluster


@pytest.fixture(scope="module")
def standing_in(cluster: Cluster, voices: Path) -> Cluster:
    """Two replicas with stand-ins, in place of the others."""
    cluster.deploy(replayed(2, voices))
    cluster.wait_for(2)
    return cluster


@pytest.fixture
def server(cluster: Cluster) -> ServerProcess:
    """The ingress, as a client sees it; its processes are all of Ray's."""
    return ServerProcess(cluster.process, cluster.port, cluster.folder / "start")


def directly(replica: Actor) -> ServerProcess:
    """A replica without the ingress."""
    process = psutil.Process(replica.process_id)
    listening = [c.laddr.port for c in process.net_connections("tcp4") if c.status == psutil.CONN_LISTEN]
    return ServerProcess(process, next(port for port in listening if 30000 <= port < 31000), Path())


def family(replica: Actor) -> list[psutil.Process]:
    process = psutil.Process(replica.process_id)
    return [process, *process.children(recursive=True)]


def stage(replica: Actor, name: str) -> psutil.Process:
    return next(process for process in family(replica) if process.name() == TITLE + name)


def run_directories(replica: Actor) -> list[Path]:
    return list(Path("/tmp").glob(f"cosyvoice_{replica.name}_*"))


def requests(replica: Actor) -> int:
    return directly(replica).numbers()["requests"]["http-0"]


@contextlib.asynccontextmanager
async def streams(server: ServerProcess, number: int, tokens: int) -> AsyncIterator[list[httpx.Response]]:
    """Requests whose first audio has come."""
    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(server.speaking(tokens)) for _ in range(number))
        yield await asyncio.gather(*opening)


async def is_whole(answer: httpx.Response) -> bool:
    try:
        async for _ in answer.extensions["body"]:
            pass
    except httpx.RemoteProtocolError:
        return False
    return True


def held(replicas: Iterable[Actor]) -> int:
    numbers = [directly(replica).numbers() for replica in replicas]
    return sum(sum(of[name].values()) for of in numbers for name in ("requests", "segments", "streams", "voices_held"))


# With the demo model


async def test_audio_comes_as_it_is_made_in_every_way(speaking: Cluster, server: ServerProcess) -> None:
    async with server.speaking(60) as answer:
        assert answer.num_bytes_downloaded < 60 * BYTES_PER_TOKEN, "the first piece comes before the last is made"
        assert await is_whole(answer)
    async with server.client() as client:
        events = await client.post("/v1/audio/speech", json=BODY | exactly(40) | {"stream_format": "sse"})
        assert events.headers["content-type"].startswith("text/event-stream")
        last = json.loads(events.text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["type"] == "speech.audio.done"
    async with calling(server, voice="default", **exactly(40)) as client:
        await client.text("Good morning , my old friend !")
        await client.say("input.done")
        assert len((await client.utterance()).pcm) == 40 * BYTES_PER_TOKEN


async def test_a_client_that_leaves_frees_what_its_replica_held(speaking: Cluster, server: ServerProcess) -> None:
    async with server.speaking(2000):
        assert held(speaking.replicas()) >= 3
    await eventually(lambda: not held(speaking.replicas()), "nothing is held")


async def test_an_answer_has_one_request_id_that_of_serve(speaking: Cluster, server: ServerProcess) -> None:
    async with server.client() as client:
        for answer in (
            await client.get("/v1/models", headers={"x-request-id": "mine"}),
            await client.post("/v1/audio/speech", json={}, headers={"x-request-id": "mine"}),
        ):
            assert answer.headers.get_list("x-request-id") == ["mine"]
        without = await client.get("/v1/models")
        assert len(without.headers.get_list("x-request-id")) == 1
    async with unconfigured(server) as websocket:
        assert websocket.socket.response
        assert len(websocket.socket.response.headers.get_all("x-request-id")) == 1


def test_stages_have_the_threads_of_the_machine_not_those_of_ray(speaking: Cluster) -> None:
    for replica in speaking.replicas():
        stages = [process for process in family(replica) if process.name().startswith(TITLE.strip())]
        assert len(stages) == 3
        assert {stage.environ()["OMP_NUM_THREADS"] for stage in stages} == {str(THREADS)}


async def test_a_voice_registered_on_one_replica_speaks_on_all(speaking: Cluster, server: ServerProcess) -> None:
    form = {"name": "Anna", "ref_text": "It is a tone."}
    async with server.client() as client:
        answer = await client.post("/v1/audio/voices", data=form, files={"audio_sample": wav(tone(2))})
        assert answer.status_code == 200, answer.text
    for replica in speaking.replicas():
        async with directly(replica).client() as client:
            spoken = await client.post("/v1/audio/speech", json=BODY | exactly(10) | {"voice": "Anna"})
        assert len(spoken.content) == 10 * BYTES_PER_TOKEN


# With stand-ins for the stages


async def test_refusals_come_through_in_openais_envelope(standing_in: Cluster, server: ServerProcess) -> None:
    async with streams(server, 2 * MOST_REQUESTS, LONG), server.client() as client:
        assert [requests(replica) for replica in standing_in.replicas()] == [MOST_REQUESTS] * 2, "each has half"
        refused = await client.post("/v1/audio/speech", json=BODY)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "true")
    await eventually(lambda: not held(standing_in.replicas()), "all have left")
    async with unconfigured(server), unconfigured(server):
        with pytest.raises(InvalidStatus) as denied:
            async with unconfigured(server):
                pass
        assert denied.value.response.status_code == 429
        assert json.loads(denied.value.response.body)["error"]["code"] == "overloaded"


async def test_a_stage_that_dies_takes_its_replica_along_and_no_other(
    standing_in: Cluster, server: ServerProcess
) -> None:
    victim, other = standing_in.replicas()
    async with streams(server, 4, LONG) as opened:
        shares = requests(victim), requests(other)
        stage(victim, "generate-0").kill()
        ends = [asyncio.create_task(is_whole(answer)) for answer in opened]
        await eventually(lambda: not psutil.pid_exists(victim.process_id), "the replica has ended")
        async with server.client() as client:
            statuses = [(await client.post("/v1/audio/speech", json=BODY | exactly(5))).status_code for _ in range(20)]
        assert statuses.count(200) >= 19, statuses
        whole = [await end for end in ends]
    assert shares == (2, 2)
    assert (whole.count(False), whole.count(True)) == (2, 2)
    await asyncio.to_thread(standing_in.wait_for, 2)
    assert victim not in standing_in.replicas(), "there is another one"
    assert other in standing_in.replicas()


async def test_one_replica_fewer_loses_no_stream(standing_in: Cluster, server: ServerProcess, voices: Path) -> None:
    async with streams(server, 4, LONG) as opened:
        standing_in.deploy(replayed(1, voices))
        assert await asyncio.gather(*map(is_whole, opened)) == [True] * 4
    await asyncio.to_thread(standing_in.wait_for, 1)


async def test_a_stage_that_hangs_is_told_in_openais_envelope(standing_in: Cluster, server: ServerProcess) -> None:
    (replica,) = standing_in.replicas()
    decoder = stage(replica, "decode-0")
    decoder.suspend()
    try:
        await eventually(lambda: not server.healthy(), "it is noticed, when the last check's result is too old")
        async with server.client() as client:
            answer = await client.get("/health")
    finally:
        decoder.resume()
    assert answer.status_code == 503
    assert "decode-0 does not answer" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "5"
    await eventually(server.healthy, "it answers again")


async def test_nothing_is_left_of_a_replica_that_is_killed(standing_in: Cluster) -> None:
    """The last test with the cluster: it ends the only replica."""
    (replica,) = standing_in.replicas()
    processes = family(replica)
    assert len(processes) > 4
    assert run_directories(replica)
    processes[0].kill()
    await eventually(lambda: not alive(processes), "every process has ended")
    await eventually(lambda: not run_directories(replica), "its sockets are gone")
    await eventually(lambda: replica.name not in [r.name for r in standing_in.replicas()], "Serve notices")


# Settings


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"modle_dir": "m"}, "There is no flag 'modle_dir'; did you mean 'model_dir'?"),
        ({"num_replicas": 2}, "There is no flag 'num_replicas'"),
        ({"port": 8080}, "port: Ray Serve does this"),
        ({"model_dir": None}, "model_dir needs a value"),
    ],
)
def test_misspelt_flags_are_refused(flags: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("?", r"\?")):
        texts(flags)


def test_flags_are_written_as_on_a_command_line() -> None:
    assert texts({"gpt_paral_num": 256, "mps": False, "ref_audio_hosts": ["a", "b"]}) == {
        "gpt_paral_num": "256",
        "mps": "False",
        "ref_audio_hosts": "a,b",
    }
