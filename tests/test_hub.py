"""Finding a model by path or by name, and downloading it from either hub: whole, resumed, again, and not at all."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.hub_stand_in import HubStandIn, serve
from tools.random_checkpoint.settings import yaml_text
from vllm_cosyvoice.checkpoint import CheckpointError, find, open_model
from vllm_cosyvoice.config import DEMO_MODEL, ModelConfig

MODEL = "someone/CosyVoice2"
OTHER_FAMILY = "someone/CosyVoice"
OUT_OF_LUCK = "someone/CosyVoice2.1"
WEIGHTS = bytes(range(256)) * 100_000
CUT_AFTER = 15_000_000  # Hugging Face's client keeps what it has in steps of 10 MiB

# Where a hub is, is read when its package is imported, so the downloads run in a process of their own.
FIND = """
import json, sys
from vllm_cosyvoice.checkpoint import CheckpointError, find
def outcome(model, hub):
    try:
        return {"path": str(find(model, hub))}
    except CheckpointError as error:
        return {"error": str(error)}
hubs, models = json.loads(sys.argv[1])
print(json.dumps({hub: [outcome(model, hub) for model in models] for hub in hubs}))
"""

HUBS = ("huggingface", "modelscope")
NOWHERE = "http://127.0.0.1:1"
Found = list[dict[str, str]]


def find_in_child(endpoints: Mapping[str, str], home: Path, *models: str) -> dict[str, Found]:
    """What came of each of `models` on each hub."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoints["huggingface"],
        "HF_HOME": str(home / "huggingface"),
        "MODELSCOPE_ENDPOINT": endpoints["modelscope"],
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "MODELSCOPE_HOME": str(home / "modelscope"),
        # Left to itself it waits 30 s before it gives a file up, and 7 s before it gives a hub up.
        "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
        "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
    }
    command = [sys.executable, "-c", FIND, json.dumps([HUBS, models])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hubs() -> Iterator[dict[str, HubStandIn]]:
    files = {
        "cosyvoice2.yaml": yaml_text(ModelConfig()).encode(),
        "llm.pt": WEIGHTS,
        "CosyVoice-BlankEN/vocab.json": b"{}",
        "CosyVoice-BlankEN/model.safetensors": b"not wanted",
        "flow.decoder.estimator.fp32.onnx": b"not wanted",
    }
    models = {MODEL: files, OTHER_FAMILY: {"cosyvoice.yaml": b"llm: 1", "llm.pt": WEIGHTS}}
    # Hugging Face's client cannot be kept from trying for half a minute before it gives up.
    with serve(models) as hugging_face, serve(models | {OUT_OF_LUCK: files}) as modelscope:
        modelscope.cut_after[f"{OUT_OF_LUCK}/llm.pt"] = [1000] * 1000
        for hub in (hugging_face, modelscope):
            hub.cut_after[f"{MODEL}/llm.pt"] = [CUT_AFTER]
        yield dict(zip(HUBS, (hugging_face, modelscope), strict=True))


@pytest.fixture(scope="module")
def online(hubs: dict[str, HubStandIn], home: Path) -> dict[str, Found]:
    """The model twice, over a connection that breaks once; then those that cannot be had."""
    endpoints = {name: hub.endpoint for name, hub in hubs.items()}
    return find_in_child(endpoints, home, MODEL, MODEL, "someone/else", OTHER_FAMILY, OUT_OF_LUCK)


@pytest.fixture(scope="module")
def offline(online: dict[str, Found], home: Path) -> dict[str, Found]:
    """Afterwards and without a network: the model, and one never seen."""
    return find_in_child(dict.fromkeys(HUBS, NOWHERE), home, MODEL, "someone/else")


@pytest.mark.parametrize("hub", HUBS)
def test_a_name_is_downloaded_from_the_hub(hub: str, online: dict[str, Found]) -> None:
    directory = Path(online[hub][0]["path"])
    assert (directory / "llm.pt").read_bytes() == WEIGHTS
    assert (directory / "CosyVoice-BlankEN" / "vocab.json").is_file()


@pytest.mark.parametrize("hub", HUBS)
def test_files_nobody_reads_are_not_downloaded(hub: str, online: dict[str, Found], hubs: dict[str, HubStandIn]) -> None:
    assert not hubs[hub].requested(f"{MODEL}/CosyVoice-BlankEN/model.safetensors")
    assert not hubs[hub].requested(f"{MODEL}/flow.decoder.estimator.fp32.onnx")


@pytest.mark.parametrize("hub", HUBS)
def test_a_broken_download_goes_on_where_it_stopped(
    hub: str, online: dict[str, Found], hubs: dict[str, HubStandIn]
) -> None:
    first, second = hubs[hub].requested(f"{MODEL}/llm.pt")
    assert first == 0
    assert 0 < second <= CUT_AFTER


def test_a_download_that_keeps_breaking_says_why(online: dict[str, Found]) -> None:
    error = online["modelscope"][4]["error"]
    assert f"{OUT_OF_LUCK} could not be downloaded from ModelScope" in error
    assert "IncompleteRead" in error


@pytest.mark.parametrize("hub", HUBS)
def test_a_second_call_downloads_nothing(hub: str, online: dict[str, Found], hubs: dict[str, HubStandIn]) -> None:
    assert online[hub][1] == online[hub][0]
    assert hubs[hub].requested(f"{MODEL}/cosyvoice2.yaml") == [0]


@pytest.mark.parametrize("hub", HUBS)
def test_an_unknown_name_says_so(hub: str, online: dict[str, Found], hubs: dict[str, HubStandIn]) -> None:
    asked = {"huggingface": hubs[hub].endpoint, "modelscope": "ModelScope"}[hub]
    assert f"neither a directory someone/else nor a public model of that name on {asked}" in online[hub][2]["error"]


@pytest.mark.parametrize("hub", HUBS)
def test_another_family_is_refused_before_its_weights_are_downloaded(
    hub: str, online: dict[str, Found], hubs: dict[str, HubStandIn]
) -> None:
    assert "another family" in online[hub][3]["error"]
    assert not hubs[hub].requested(f"{OTHER_FAMILY}/llm.pt")


@pytest.mark.parametrize("hub", HUBS)
def test_without_a_network_the_cache_answers(hub: str, online: dict[str, Found], offline: dict[str, Found]) -> None:
    assert offline[hub][0] == online[hub][0]


@pytest.mark.parametrize("hub", HUBS)
def test_without_a_network_the_rest_is_an_error(hub: str, offline: dict[str, Found]) -> None:
    asked = {"huggingface": NOWHERE, "modelscope": "ModelScope"}[hub]
    assert f"someone/else could not be downloaded from {asked}" in offline[hub][1]["error"]
    assert "check the network" in offline[hub][1]["error"]


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
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(CheckpointError, match="pip install modelscope"):
        find(MODEL, hub="modelscope")


def test_the_demo_model_is_found_and_said_to_be_one(caplog: pytest.LogCaptureFixture) -> None:
    model = open_model(find(str(DEMO_MODEL)))
    assert "FunAudioLLM/CosyVoice2-0.5B" in caplog.text
    assert sorted(model.preset_speakers()) == ["awb", "rms", "slt"]
    assert sum(file.stat().st_size for file in DEMO_MODEL.rglob("*") if file.is_file()) < 40e6
    caplog.clear()
    assert find(str(DEMO_MODEL.parent)) == DEMO_MODEL.parent
    assert not caplog.records
