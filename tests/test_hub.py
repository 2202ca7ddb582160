"""Finding a model by path or by name, and downloading it: whole, resumed, again, and not at all."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_stand_in import HubStandIn, serve
from vllm_cosyvoice.checkpoint import CheckpointError, find
from vllm_cosyvoice.config import ModelConfig
from vllm_cosyvoice.random_checkpoint.settings import yaml_text

MODEL = "someone/CosyVoice2"
OTHER_FAMILY = "someone/CosyVoice3"
WEIGHTS = bytes(range(256)) * 100_000
CUT_AFTER = 15_000_000  # the hub's client keeps what it has in steps of 10 MiB

# Where the hub is, is read when its package is imported, so each of these runs in a process of its own.
FIND = """
import json, sys
from vllm_cosyvoice.checkpoint import CheckpointError, find
for arguments in json.loads(sys.argv[1]):
    try:
        print(json.dumps({"path": str(find(*arguments))}))
    except CheckpointError as error:
        print(json.dumps({"error": str(error)}))
"""


def find_in_child(endpoint: str, home: Path, *calls: tuple[str, ...]) -> list[dict[str, str]]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    command = [sys.executable, "-c", FIND, json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    files = {
        "cosyvoice2.yaml": yaml_text(ModelConfig()).encode(),
        "llm.pt": WEIGHTS,
        "CosyVoice-BlankEN/vocab.json": b"{}",
        "CosyVoice-BlankEN/model.safetensors": b"not wanted",
        "flow.decoder.estimator.fp32.onnx": b"not wanted",
    }
    with serve({MODEL: files, OTHER_FAMILY: {"cosyvoice3.yaml": b"llm: 1", "llm.pt": WEIGHTS}}) as hub:
        hub.cut_after[f"{MODEL}/llm.pt"] = CUT_AFTER
        yield hub


@pytest.fixture(scope="module")
def online(hub: HubStandIn, home: Path) -> list[dict[str, str]]:
    """The model twice, over a connection that breaks once; then two that cannot be had."""
    return find_in_child(hub.endpoint, home, (MODEL,), (MODEL,), ("someone/else",), (OTHER_FAMILY,))


def test_a_name_is_downloaded_from_the_hub(online: list[dict[str, str]]) -> None:
    directory = Path(online[0]["path"])
    assert (directory / "llm.pt").read_bytes() == WEIGHTS
    assert (directory / "CosyVoice-BlankEN" / "vocab.json").is_file()


def test_files_nobody_reads_are_not_downloaded(online: list[dict[str, str]], hub: HubStandIn) -> None:
    assert not hub.requested(f"{MODEL}/CosyVoice-BlankEN/model.safetensors")
    assert not hub.requested(f"{MODEL}/flow.decoder.estimator.fp32.onnx")


def test_a_broken_download_goes_on_where_it_stopped(online: list[dict[str, str]], hub: HubStandIn) -> None:
    first, second = hub.requested(f"{MODEL}/llm.pt")
    assert first == 0
    assert 0 < second <= CUT_AFTER


def test_a_second_call_downloads_nothing(online: list[dict[str, str]], hub: HubStandIn) -> None:
    assert online[1] == online[0]
    assert hub.requested(f"{MODEL}/cosyvoice2.yaml") == [0]


def test_an_unknown_name_says_so(online: list[dict[str, str]], hub: HubStandIn) -> None:
    assert "neither a directory someone/else nor a public model" in online[2]["error"]
    assert hub.endpoint in online[2]["error"]


def test_without_a_network_the_cache_answers_and_the_rest_is_an_error(online: list[dict[str, str]], home: Path) -> None:
    nobody = "http://127.0.0.1:1"
    cached, unknown = find_in_child(nobody, home, (MODEL,), ("someone/else",))
    assert cached == online[0]
    assert f"someone/else could not be downloaded from {nobody}" in unknown["error"]
    assert "check the network" in unknown["error"]


def test_another_family_is_refused_before_its_weights_are_downloaded(
    online: list[dict[str, str]], hub: HubStandIn
) -> None:
    assert "another family" in online[3]["error"]
    assert not hub.requested(f"{OTHER_FAMILY}/llm.pt")


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("model", ["/no/such/directory", "./models/mine", "mine", "a/b/c", ""])
def test_what_is_neither_directory_nor_name_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError, match="give a model directory or a hub name"):
        find(model)


def test_an_unknown_hub_is_refused() -> None:
    with pytest.raises(CheckpointError, match="choose one of huggingface, modelscope"):
        find(MODEL, hub="elsewhere")


def test_modelscope_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", None)
    with pytest.raises(CheckpointError, match="pip install modelscope"):
        find(MODEL, hub="modelscope")
