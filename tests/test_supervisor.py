import pytest

from server.supervisor import LONGEST_PAUSE, SECONDS_REMEMBERED, Child, nth_gpu, pause_after


@pytest.mark.parametrize(
    ("index", "visible", "name"),
    [(1, None, "1"), (1, "2,3", "3"), (0, "GPU-4f,GPU-7a", "GPU-4f"), (0, "", ""), (2, "5", "")],
)
def test_a_decode_process_gets_the_nth_of_the_gpus_that_the_server_may_see(
    index: int, visible: str | None, name: str
) -> None:
    assert nth_gpu(index, visible) == name


def test_pauses_grow_to_half_a_minute() -> None:
    assert [pause_after(failures) for failures in range(1, 9)] == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]


def test_old_failures_are_forgotten() -> None:
    child = Child("decode", 0)
    assert [child.fail(now) for now in (0.0, 1.0, 2.0)] == [1, 2, 3]
    assert child.fail(SECONDS_REMEMBERED + 1.5) == 2


def test_starts_that_fail_are_counted_until_one_succeeds() -> None:
    child = Child("decode", 0)
    child.fail(0.0)
    child.fail(1.0)
    assert child.failed_starts == 2
    child.ready, child.failed_starts = True, 0
    child.fail(2.0)
    assert child.failed_starts == 0
