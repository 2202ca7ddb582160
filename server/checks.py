"""Checks of the model and the voices directory, before any process is started."""

from dataclasses import replace
from pathlib import Path

from server.arguments import Arguments
from server.processes.process import timed
from server.served_model import ServedModel
from vllm_cosyvoice.checkpoint import CheckpointError, find, open_model
from vllm_cosyvoice.checkpoint.vllm_directory import cache_directory


class CannotServe(Exception):
    """The model or the voices directory can't be used; the message gives the reason."""


def check(arguments: Arguments) -> tuple[Arguments, ServedModel]:
    """Return the arguments with `voices_dir` set, and the model.

    Download the model if it is not on this machine.

    Raises:
        CannotServe: the model can't be found or served, or the voices directory can't be created.
    """
    try:
        with timed("Checking the model"):
            path = find(arguments.model_dir, arguments.hub, arguments.llm_file)
            family = open_model(path, arguments.llm_file).family.name
    except CheckpointError as error:
        raise CannotServe(str(error)) from error
    model = ServedModel(path.resolve(), Path(arguments.model_dir).resolve().name, family)
    return _with_voices_dir(arguments), model


def _with_voices_dir(arguments: Arguments) -> Arguments:
    """Use a directory in the user's cache unless `voices_dir` is set."""
    if arguments.voices_dir is not None:
        return arguments
    voices_dir = cache_directory() / "voices"
    try:
        voices_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"Can't create {error.filename} ({error.strerror}); set --voices_dir to a writable directory"
        raise CannotServe(message) from error
    return replace(arguments, voices_dir=voices_dir)
