"""`python -m server`: check the arguments and the model, then start the processes."""

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
    """Return the exit status: 0 after SIGTERM, 1 after a fatal failure, 2 if the server can't start as requested."""
    arguments, notes = parse(argv)
    configure_logging("server")
    for note in notes:
        log.info(note)
    try:
        arguments, model = check(arguments)
    except CannotServe as error:
        return _refuse(str(error))
    try:
        listener = reserve(arguments) if arguments.listen_when_ready else listen(arguments)
    except OSError as error:
        return _refuse(f"Can't listen on {arguments.host}:{arguments.port}: {error.strerror or error}")
    return supervise(arguments, model, listener)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {reason.rstrip('.')}.\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
