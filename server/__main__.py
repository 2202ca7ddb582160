"""`python -m server`: check everything that can be checked, then start the processes."""

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from server.arguments import Arguments, parse
from server.processes.process import configure_logging, timed
from server.processes.supervisor import supervise
from vllm_cosyvoice.checkpoint import CheckpointError, find, open_model
from vllm_cosyvoice.checkpoint.vllm_directory import cache_directory

log = logging.getLogger("server")


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 after SIGTERM, 1 when the server could not go on, 2 when it was asked for what can't be."""
    arguments, notes = parse(argv)
    configure_logging("server")
    for note in notes:
        log.info(note)
    try:
        with timed("Checking the model"):
            model = find(arguments.model_dir, arguments.hub)
            open_model(model)
    except CheckpointError as error:
        return _refuse(str(error))
    try:
        arguments = _with_voices_dir(arguments)
    except OSError as error:
        return _refuse(f"{error.filename} can't be made ({error.strerror}); name a directory for voices, --voices_dir")
    try:
        listener = _listen(arguments)
    except OSError as error:
        return _refuse(f"{arguments.host}:{arguments.port} can't be listened on: {error.strerror or error}")
    return supervise(arguments, model.resolve(), Path(arguments.model_dir).resolve().name, listener)


def _with_voices_dir(arguments: Arguments) -> Arguments:
    """With the directory in the user's cache, unless one was named."""
    if arguments.voices_dir is not None:
        return arguments
    voices_dir = cache_directory() / "voices"
    voices_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return replace(arguments, voices_dir=voices_dir)


def _listen(arguments: Arguments) -> socket.socket:
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    listener = socket.create_server((arguments.host, arguments.port), family=family, backlog=1024)
    listener.setblocking(False)
    return listener


def _refuse(reason: str) -> int:
    sys.stderr.write(f"python -m server: {reason.rstrip('.')}.\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
