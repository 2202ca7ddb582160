"""CosyVoice2's language model in vLLM: a Qwen2 decoder over a joint id space, with a head over the speech tokens."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix

from vllm_cosyvoice.checkpoint.tensors import named_tensors

# The tables of llm.pt in the order of the joint id space, see `vocabulary`.
EMBEDDING_TABLES = ("speech_embedding.weight", "llm_embedding.weight", "llm.model.model.embed_tokens.weight")
TEXT_HEAD = "llm.model.lm_head.weight"  # predicts text; unused


class CosyVoice2ForCausalLM(Qwen2ForCausalLM):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """vLLM's Qwen2 with two changes. It can be sharded and quantised like any other model.

    The embedding has `config.embedding_rows` rows, one per id that a prompt may contain. The head has
    `config.vocab_size` rows and a bias: it generates only speech tokens and their control tokens.
    """

    allow_patterns_overrides: ClassVar[list[str]] = ["llm.pt"]  # the file that vLLM's loader reads

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config, quant_config = self.config, vllm_config.quant_config
        if get_pp_group().is_first_rank:
            self.model.embed_tokens = VocabParallelEmbedding(
                config.embedding_rows,
                config.hidden_size,
                quant_config=quant_config,
                prefix=maybe_prefix(prefix, "model.embed_tokens"),
            )
        if get_pp_group().is_last_rank:
            self.lm_head = ParallelLMHead(
                config.vocab_size,
                config.hidden_size,
                bias=True,
                quant_config=quant_config,
                prefix=maybe_prefix(prefix, "lm_head"),
            )

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits over the speech and control tokens, [rows, 6564]; None on a rank that does not gather them."""
        logits: torch.Tensor | None = self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)
        return logits

    @staticmethod
    def get_model_state_cls() -> type:
        """The model state with which vLLM's V2 model runner (on a GPU) samples."""
        from vllm_cosyvoice.llm.model_state import SpeechModelState  # late: it imports Triton

        return SpeechModelState

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the tensors of llm.pt and return the names of the loaded parameters."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(_engine_weights(weights))
        return loaded


def _engine_weights(content: Iterable[tuple[str, object]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of llm.pt under vLLM's names, with the three embedding tables concatenated."""
    weights = named_tensors(dict(content))
    yield "model.embed_tokens.weight", torch.cat([weights.pop(name) for name in EMBEDDING_TABLES])
    for name, tensor in weights.items():
        if name != TEXT_HEAD:
            yield name.replace("llm_decoder.", "lm_head.").removeprefix("llm.model."), tensor
