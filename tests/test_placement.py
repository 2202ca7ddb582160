"""Which GPU each process uses, and who shares one."""

import sys
from pathlib import Path
from typing import cast

import pytest
import torch

from server.arguments import read
from server.gpu_list import memory_of_gpus
from server.processes.gpus import LARGE_CARD, Placement, nth_gpu
from server.processes.messages import Kind
from server.processes.nvidia_mps import Service
from tests.test_supervisor import FakeService

SMALL = LARGE_CARD - 1
SERVICE = cast(Service, FakeService(takes=1))


def placed(*flags: str, memory: list[int], with_mps: bool = True) -> Placement:
    return Placement.of(read(flags, {}, lambda: len(memory))[0], memory, with_mps=with_mps)


def users(placement: Placement, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The GPU of each decode process, and whether it shares it through the service."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    variables = [placement.variables("decode", index, SERVICE) for index in range(placement.decoders)]
    return [(values["CUDA_VISIBLE_DEVICES"], "SHARED" in values) for values in variables]


def test_a_large_card_has_two_decode_processes_and_no_other_card_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    both = placed(memory=[LARGE_CARD, LARGE_CARD])
    assert users(both, monkeypatch) == [("0", True), ("0", True)]
    assert [both.decoders_beside(index) for index in range(2)] == [2, 2]
    assert placed("--decode_gpu", "1", memory=[SMALL, LARGE_CARD]) == Placement(1, 1, 2)


@pytest.mark.parametrize(
    ("memory", "with_mps"),
    [([], True), ([SMALL], True), ([SMALL, LARGE_CARD], True), ([LARGE_CARD], False)],
    ids=["CPU", "small card", "small first card", "without MPS"],
)
def test_elsewhere_there_is_one(memory: list[int], with_mps: bool) -> None:
    assert placed(memory=memory, with_mps=with_mps).decoders == 1


@pytest.mark.parametrize(
    ("flags", "cards", "expected"),
    [
        (["--decode_process_num", "1"], 1, [("0", True)]),
        (["--decode_process_num", "2"], 1, [("0", True), ("0", True)]),
        (["--decode_process_num", "2"], 2, [("0", True), ("1", False)]),
        (["--decode_process_num", "3"], 2, [("0", True), ("1", False), ("0", True)]),
        (["--decode_process_num", "4"], 2, [("0", True), ("1", True), ("0", True), ("1", True)]),
        (["--decode_process_num", "1", "--decode_gpu", "1"], 2, [("1", False)]),
        (["--decode_process_num", "2", "--decode_gpu", "1"], 2, [("1", True), ("1", True)]),
        (["--decode_process_num", "2", "--decode_gpu", "1"], 3, [("1", False), ("2", False)]),
    ],
)
def test_a_given_number_is_spread_over_the_gpus(
    flags: list[str], cards: int, expected: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = placed(*flags, memory=[LARGE_CARD] * cards)
    assert users(placement, monkeypatch) == expected
    of_gpu = [gpu for gpu, _ in expected]
    assert [placement.decoders_beside(index) for index in range(len(expected))] == list(map(of_gpu.count, of_gpu))
    first_is_shared = "0" in of_gpu
    assert placement.shares("generate", 0) == first_is_shared
    assert placement.any_shares == (first_is_shared or any(shared for _, shared in expected))


@pytest.mark.parametrize("kind", ["http", "encode"])
def test_other_processes_use_no_gpu(kind: Kind) -> None:
    placement = placed(memory=[LARGE_CARD])
    assert not placement.shares(kind, 0)
    assert placement.variables(kind, 0, SERVICE) == {}


@pytest.mark.parametrize(
    ("index", "visible", "name"),
    [(1, None, "1"), (1, "2,3", "3"), (0, "GPU-4f,GPU-7a", "GPU-4f"), (0, "", ""), (2, "5", "")],
)
def test_a_decode_process_gets_the_nth_of_the_gpus_that_the_server_may_see(
    index: int, visible: str | None, name: str
) -> None:
    assert nth_gpu(index, visible) == name


@pytest.mark.parametrize(
    ("prints", "status", "expected", "says"),
    [
        ("137\n24\n", 0, [137, 24], None),
        ("", 0, [], None),
        ("", "CUDA's driver reports error 802.", [], "The GPUs can't be listed: CUDA's driver reports error 802."),
        ("hello\n", 0, [], "The GPUs can't be listed: invalid literal for int()"),
    ],
)
def test_a_driver_that_fails_is_reported(
    prints: str,
    status: int | str,
    expected: list[int],
    says: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The program that asks the driver is a stand-in, as the driver needs a GPU."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!{sys.executable}\nimport sys\nprint({prints!r}, end='')\nsys.exit({status!r})\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr("server.gpu_list.CUDA", None)  # this program, as a library that is there
    monkeypatch.setattr("sys.executable", str(stand_in))
    memory_of_gpus.cache_clear()
    try:
        assert memory_of_gpus() == memory_of_gpus() == expected
    finally:
        memory_of_gpus.cache_clear()
    assert [record.levelname for record in caplog.records] == (["WARNING"] if says else []), "it is asked once"
    assert says is None or says in caplog.text


def test_the_list_of_gpus_is_that_of_pytorch() -> None:
    devices = range(torch.cuda.device_count())
    assert memory_of_gpus() == [torch.cuda.get_device_properties(device).total_memory for device in devices]
