"""What deploy/ asks of Ray Serve and of Kubernetes, checked without a cluster: nothing in it is misspelt."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeDeploySchema

from server.arguments import FLAGS, read
from server.ray import texts

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = "1.34"
# KubeRay's own kinds are not among the schemas; these are the fields of its API version ray.io/v1 that we use.
RAY_SERVICE = {"upgradeStrategy", "serveConfigV2", "rayClusterConfig"}
RAY_CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "authOptions", "autoscalerOptions", "headGroupSpec"}
RAY_CLUSTER |= {"workerGroupSpecs"}
GROUP = {"groupName", "minReplicas", "maxReplicas", "replicas", "rayStartParams", "template"}


def known(settings: dict[str, Any], schema: type[BaseModel]) -> None:
    """Raise ValueError for what Serve would ignore."""
    if strange := set(settings) - set(schema.model_fields):
        raise ValueError(f"there is no {strange}")


def check_serve(config: dict[str, Any]) -> None:
    """Raise ValueError for what Serve or the server would not understand."""
    ServeDeploySchema.model_validate(config)
    known(config["http_options"], HTTPOptionsSchema)
    for application in config["applications"]:
        for deployment in application["deployments"]:
            known(deployment, DeploymentSchema)
            known(deployment["autoscaling_config"], AutoscalingConfig)
            AutoscalingConfig(**deployment["autoscaling_config"])
        flags = texts(application["args"]) | {"voices_dir": "/"}  # the folder need not be here
        read([f"--{flag}={value}" for flag, value in flags.items()], {})


def manifests() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())}


def check_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def pods(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    return [head | group["template"] for group in groups]


def serve_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "ray.yaml").read_text())
    return config


def test_ray_and_the_server_understand_the_settings() -> None:
    check_serve(serve_config())


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["http_options"].update(prot=8000),
        lambda config: config["applications"][0]["args"].update(gpt_parallel_num=2),
        lambda config: config["applications"][0]["args"].update(gpt_paral_num="many"),
        lambda config: config["applications"][0]["deployments"][0].update(max_ongoing_request=2),
        lambda config: config["applications"][0]["deployments"][0]["autoscaling_config"].update(min_replica=2),
    ],
)
def test_misspelt_settings_are_refused(change: Any) -> None:
    config = copy.deepcopy(serve_config())
    change(config)
    with pytest.raises(ValueError):
        check_serve(config)


def test_kubernetes_understands_the_manifests() -> None:
    found = manifests()
    for kind in ("Secret", "PersistentVolumeClaim"):
        check_kubernetes(found[kind])
    service = found["RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    assert set(service["spec"]) <= RAY_SERVICE
    assert set(cluster) <= RAY_CLUSTER
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for pod in pods(service):
        check_kubernetes(pod)


def test_a_misspelt_manifest_is_noticed() -> None:
    pod = pods(manifests()["RayService"])[1]
    pod["spec"]["containers"][0]["resorces"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check_kubernetes(pod)


def test_the_manifests_of_ray_and_kubernetes_say_the_same() -> None:
    service = manifests()["RayService"]["spec"]
    config = yaml.safe_load(service["serveConfigV2"])
    assert config == serve_config()
    deployment = config["applications"][0]["deployments"][0]
    scaling, (workers,) = deployment["autoscaling_config"], service["rayClusterConfig"]["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (scaling["min_replicas"], scaling["max_replicas"])
    container = workers["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == deployment["ray_actor_options"]["num_gpus"]
    assert int(container["resources"]["requests"]["cpu"]) >= deployment["ray_actor_options"]["num_cpus"]
    variables = {variable["name"] for variable in container["env"] if variable["name"].startswith("COSYVOICE_")}
    assert {variable.removeprefix("COSYVOICE_").lower() for variable in variables} <= set(FLAGS)
    image = re.search(r"ray\[serve\]==([\d.]+)", (DEPLOY / "ray.Dockerfile").read_text())
    assert image
    assert service["rayClusterConfig"]["rayVersion"] == image[1]
