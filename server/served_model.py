"""The model that a server serves."""

from pathlib import Path

import msgspec


class ServedModel(msgspec.Struct, frozen=True):
    """What processes that do not load the model know of it."""

    path: Path
    name: str  # its id in OpenAI's API: the name of its directory
    family: str  # "CosyVoice2" or "CosyVoice3"
