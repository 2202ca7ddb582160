"""What several test modules share: one tiny model for the whole session."""

from pathlib import Path

import pytest

from vllm_cosyvoice.random_checkpoint import TINY, write_random_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with every file of the release, of small sizes and random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_random_checkpoint(directory, TINY, seed=0)
    return directory
