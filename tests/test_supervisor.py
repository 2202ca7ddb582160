import pytest

from server.supervisor import nth_gpu


@pytest.mark.parametrize(
    ("index", "visible", "name"),
    [(1, None, "1"), (1, "2,3", "3"), (0, "GPU-4f,GPU-7a", "GPU-4f"), (0, "", ""), (2, "5", "")],
)
def test_a_decode_process_gets_the_nth_of_the_gpus_that_the_server_may_see(
    index: int, visible: str | None, name: str
) -> None:
    assert nth_gpu(index, visible) == name
