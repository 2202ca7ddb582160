"""Replicas of Ray Serve as `server.ray` makes them, but their stages are those of `benchmarks.replayed_stage`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ray import serve
from ray.serve import Application

from server.processes.messages import Kind
from server.processes.supervisor import MODULES
from server.ray import Replica, Speech, texts


class ReplayedReplica(Replica):
    """No model is loaded, no GPU used."""

    modules: ClassVar[Mapping[Kind, str]] = dict.fromkeys(MODULES, "benchmarks.replayed_stage")


def app(flags: dict[str, Any]) -> Application:
    """As `server.ray.app`."""
    return Speech.options(func_or_class=serve.ingress()(ReplayedReplica)).bind(texts(flags))
