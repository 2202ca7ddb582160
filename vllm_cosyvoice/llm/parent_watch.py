"""Ends processes when their parent process ends for any reason."""

import ctypes
import multiprocessing
import os
import signal
import threading
from functools import cache

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Send this process SIGTERM when its `multiprocessing` parent ends; without such a parent, do nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


@cache
def end_forks_with_this_process() -> None:
    """Make every process that is forked from this one's main thread receive SIGTERM when this process ends.

    The fork also drops the signal wakeup descriptor that it inherits, so that its signals do not reach this process's
    event loop.
    """
    libc = ctypes.CDLL(None)
    parent = 0

    def before_fork() -> None:
        nonlocal parent
        parent = os.getpid()

    def in_fork() -> None:
        signal.set_wakeup_fd(-1)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the line above took effect
            os.kill(os.getpid(), signal.SIGTERM)

    os.register_at_fork(before=before_fork, after_in_child=in_fork)
