"""The error for models that can't be used."""


class CheckpointError(Exception):
    """A model can't be found, downloaded or used. The message says what is wrong and how to fix it."""
