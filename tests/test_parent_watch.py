"""What an engine process does when its parent is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SPAWNED = """
import multiprocessing, time
from vllm_cosyvoice.llm.parent_watch import end_with_parent

def child(ready):
    end_with_parent()
    ready.set()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=child, args=(ready,))
    process.start()
    ready.wait()
    print(process.pid, flush=True)
    time.sleep(60)
"""

FORKED = """
import os, time
from vllm_cosyvoice.llm.parent_watch import end_forks_with_this_process

end_forks_with_this_process()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("program", [SPAWNED, FORKED])
def test_a_child_ends_when_its_parent_is_killed(program: str) -> None:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        try:
            deadline = time.monotonic() + 20
            while _runs(child) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not _runs(child)
        finally:
            if _runs(child):
                os.kill(child, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
