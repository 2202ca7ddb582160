"""A Ray cluster of this machine only, for measurements and tests: Serve with its HAProxy, on ports of its own."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.demo import free_port

SECONDS = 300.0  # that anything may take
SECONDS_TO_STOP = 30.0
SERVER_UP = re.compile(r'^haproxy_server_status\{.*server="SERVE_REPLICA_[^"]*-(\w+)",state="UP"\} 1', re.MULTILINE)
OBJECT_STORE = 80 << 20  # bytes: nearly the least that Ray takes; the server does not use it


@dataclass(frozen=True)
class Actor:
    """A replica as Serve knows it."""

    name: str
    process_id: int
    state: str  # STARTING, RUNNING, STOPPING, …


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    port: int  # of HAProxy
    metrics_port: int  # of HAProxy's own figures
    dashboard: str
    folder: Path  # of Ray's logs and sockets
    process: "subprocess.Popen[bytes]"  # `ray start`

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, application: Mapping[str, Any]) -> None:
        """What `serve deploy` does with a config of this one application."""
        http = {"host": "127.0.0.1", "port": self.port}
        config = {"proxy_location": "EveryNode", "http_options": http, "applications": [application]}
        wait_until(lambda: self._takes(config), "Serve takes the config")

    def application(self) -> dict[str, Any]:
        """What `serve status` shows of the one application."""
        answer = httpx.get(self._applications, timeout=60).raise_for_status().json()
        return next(iter(answer["applications"].values()), {"status": "NOT_STARTED", "message": "", "deployments": {}})

    def replicas(self, state: str = "RUNNING") -> list[Actor]:
        """Those in this state."""
        return [
            Actor(replica["replica_id"], replica["pid"], replica["state"])
            for deployment in self.application()["deployments"].values()
            for replica in deployment["replicas"]
            if replica["state"] == state
        ]

    def wait_for(self, replicas: int) -> None:
        """Return when that many replicas run, no more and no fewer, and HAProxy gives work to each of them."""

        def there() -> bool:
            application = self.application()
            if application["status"] == "DEPLOY_FAILED":
                raise RuntimeError(f"the application can't be deployed: {application['message']}")
            states = [r["state"] for d in application["deployments"].values() for r in d["replicas"]]
            return application["status"] == "RUNNING" and states == ["RUNNING"] * replicas

        wait_until(there, f"{replicas} replicas run")
        wait_until(lambda: self.balanced() == {r.name for r in self.replicas()}, "HAProxy knows all replicas")

    def balanced(self) -> set[str]:
        """The replicas that HAProxy gives work to."""
        figures = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60).text
        return set(SERVER_UP.findall(figures))

    def _takes(self, config: Mapping[str, Any]) -> bool:
        """Whether Serve has taken it; on a slow machine its controller is not there in time for the first attempt."""
        answer = httpx.put(self._applications, json=config, timeout=120)
        if 400 <= answer.status_code < 500:
            raise RuntimeError(f"Serve refuses the config: {answer.text}")
        return answer.is_success

    @property
    def _applications(self) -> str:
        return f"{self.dashboard}/api/serve/applications/"


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until `condition` holds. Raises RuntimeError if it never does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: still not so after {SECONDS:.0f} s")
        time.sleep(0.2)


@contextlib.contextmanager
def ray_cluster(cpus: int = 8, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster that says it has so many processors and GPUs; nothing of it is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # its sockets' paths have to be short
    ports = [free_port() for _ in range(5)]
    gcs, dashboard, http, metrics, statistics = ports
    environment = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "haproxy" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy" / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_AUTH_MODE": "disabled",  # only this machine reaches it, and nothing is left in the home directory
        "RAY_prestart_worker_first_driver": "0",  # else a process for each processor, for tasks that never come
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.0.1", "--port", str(gcs), "--temp-dir", str(folder)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
    command += ["--num-cpus", str(cpus), "--num-gpus", str(gpus), "--object-store-memory", str(OBJECT_STORE)]
    with (folder / "start").open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    cluster = Cluster(http, metrics, f"http://127.0.0.1:{dashboard}", folder, process)
    try:
        wait_until(lambda: process.poll() is not None or _is_up(cluster), "Ray starts")
        if process.poll() is not None:
            raise RuntimeError(f"Ray did not start: {(folder / 'start').read_text()}")
        yield cluster
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End all of Ray's processes at once; the server's notice that their replica has ended, and tidy up."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for member in family:
        with contextlib.suppress(psutil.Error):
            if not any("server." in word for word in member.cmdline()[:3]):
                member.kill()
    process.kill()
    process.wait()
    for left in psutil.wait_procs(family, SECONDS_TO_STOP)[1]:
        left.kill()


def _is_up(cluster: Cluster) -> bool:
    try:
        return httpx.get(f"{cluster.dashboard}/api/serve/applications/", timeout=10).status_code == 200
    except httpx.TransportError:
        return False
