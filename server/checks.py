"""What can be checked before any process is started."""

from dataclasses import replace
from pathlib import Path

from server.arguments import Arguments
from server.processes.process import timed
from vllm_cosyvoice.checkpoint import CheckpointError, find, open_model
from vllm_cosyvoice.checkpoint.vllm_directory import cache_directory


class CannotServe(Exception):
    """The model or the voices can't be used; the message says why."""


def check(arguments: Arguments) -> tuple[Arguments, Path, str]:
    """The arguments with a directory for voices, the model's directory, and what the model is called.

    A model that is not on this machine is downloaded.

    Raises:
        CannotServe: the model is not there, or can't be served; the directory for voices can't be made.
    """
    try:
        with timed("Checking the model"):
            model = find(arguments.model_dir, arguments.hub)
            open_model(model)
    except CheckpointError as error:
        raise CannotServe(str(error)) from error
    return _with_voices_dir(arguments), model.resolve(), Path(arguments.model_dir).resolve().name


def _with_voices_dir(arguments: Arguments) -> Arguments:
    """With the directory in the user's cache, unless one was named."""
    if arguments.voices_dir is not None:
        return arguments
    voices_dir = cache_directory() / "voices"
    try:
        voices_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"{error.filename} can't be made ({error.strerror}); name a directory for voices, --voices_dir"
        raise CannotServe(message) from error
    return replace(arguments, voices_dir=voices_dir)
