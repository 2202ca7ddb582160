"""`python -m server`: check everything that can be checked, then start the processes."""

import logging
import sys
from collections.abc import Sequence

from server.arguments import PROGRAM, parse
from server.checks import CannotServe, check
from server.listener import listen, reserve
from server.processes.process import configure_logging
from server.processes.supervisor import supervise

log = logging.getLogger("server")


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 after SIGTERM, 1 when the server could not go on, 2 when it was asked for what can't be."""
    arguments, notes = parse(argv)
    configure_logging("server")
    for note in notes:
        log.info(note)
    try:
        arguments, model, model_id = check(arguments)
    except CannotServe as error:
        return _refuse(str(error))
    try:
        listener = reserve(arguments) if arguments.listen_when_ready else listen(arguments)
    except OSError as error:
        return _refuse(f"{arguments.host}:{arguments.port} can't be listened on: {error.strerror or error}")
    return supervise(arguments, model, model_id, listener)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {reason.rstrip('.')}.\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
