"""Prompt renderer for vLLM: prompts are ids of the joint id space, see `vocabulary`."""

from collections.abc import Sequence
from typing import NoReturn

from vllm.renderers import BaseRenderer


class TokenRenderer(BaseRenderer):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """Accepts only prompts of token ids.

    vLLM limits prompt ids to the config's `vocab_size`, which is the head's here: the model reads more ids than it
    generates. Before 0.32, vLLM checks ids only if it has a tokenizer, and does not call this method.
    """

    def validate_token_ids(self, token_ids: Sequence[int], *, parameter: str | None = None) -> None:
        """Raise ValueError for an id that the embedding has no row for."""
        rows = self.model_config.hf_config.embedding_rows
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < rows:
            raise ValueError(f"prompt ids must be between 0 and {rows - 1}, not {min(token_ids)} to {max(token_ids)}")

    def render_messages(self, messages: object, params: object) -> NoReturn:
        """Not supported."""
        raise NotImplementedError("this model takes token ids, not chat messages")
