"""Processes that end when the process that started them does, however that one died."""

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """Send this process SIGTERM when its `multiprocessing` parent is gone; without such a parent, do nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
