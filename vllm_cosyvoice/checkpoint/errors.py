"""The one error of a model directory that cannot be used."""


class CheckpointError(Exception):
    """A model cannot be found, downloaded or used. The message says what is wrong and how to mend it."""
