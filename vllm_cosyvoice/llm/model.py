"""CosyVoice's language models in vLLM: a Qwen2 decoder over a joint id space, with a head over the speech tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix
from vllm.platforms import current_platform
from vllm.sequence import IntermediateTensors

from vllm_cosyvoice.checkpoint.tensors import named_tensors
from vllm_cosyvoice.llm.prompt_step import in_one_graph
from vllm_cosyvoice.vocabulary import HEAD_SIZE, SPEECH_TOKENS

if TYPE_CHECKING:
    from vllm_cosyvoice.llm.decode_step import DecodeStep

SPEECH_TABLE, TEXT_TABLE = "speech_embedding.weight", "llm.model.model.embed_tokens.weight"
HEAD, HEAD_BIAS = "llm_decoder.weight", "llm_decoder.bias"
TEXT_HEAD = "llm.model.lm_head.weight"  # predicts text; unused

Weights = dict[str, torch.Tensor]

READERS = {  # of the output of each norm
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def fold_norms(weights: Weights) -> None:
    """Multiply the weight of each layer's norms into the matrices that follow, which computes the same.

    Then `FusedDecode` need not scale what it multiplies.
    """
    for name in list(weights):
        layer, _, norm = name.removesuffix(".weight").rpartition(".")
        for reader in READERS.get(norm, ()):
            matrix = f"{layer}.{reader}.weight"
            weights[matrix] = weights[matrix].float() * weights[name].float()
        if norm in READERS:
            weights[name] = torch.ones_like(weights[name])


class SpeechForCausalLM(Qwen2ForCausalLM):  # type: ignore[misc]  # mypy does not follow vLLM (pyproject.toml)
    """vLLM's Qwen2 with a few changes. It can be sharded and quantised like any other model.

    The embedding has `config.embedding_rows` rows, one per id that a prompt may contain. The head has
    `config.vocab_size` rows: it generates only speech tokens and their control tokens. Subclasses say where the rows
    are in their family's llm.pt.
    """

    allow_patterns_overrides: ClassVar[list[str]] = ["llm.pt"]  # the file that vLLM's loader reads
    head_has_bias: ClassVar[bool]

    @classmethod
    def joint_tables(cls, weights: Weights) -> Weights:
        """Take the tables out of `weights`: the embedding and the head in the order of the joint id space."""
        raise NotImplementedError

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
                bias=self.head_has_bias,
                quant_config=quant_config,
                prefix=maybe_prefix(prefix, "lm_head"),
            )
        self._decode_step: DecodeStep | None = None
        if current_platform.is_cuda():
            from vllm_cosyvoice.llm import decode_step  # late: it needs Triton

            if decode_step.DecodeStep.fits(vllm_config, self.model):
                self._decode_step = decode_step.DecodeStep(self.model, config.rms_norm_eps)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        """Run the decoder: hidden states, [tokens, width]. A step in which requests only generate has fused kernels."""
        hidden: torch.Tensor | IntermediateTensors
        if self._decode_step is None or input_ids is None:
            hidden = super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)
            return hidden
        tokens = len(input_ids)
        decodes = self._decode_step.takes(tokens)
        if not (decodes and torch.cuda.is_current_stream_capturing()):
            # Outside a capture, both run: vLLM warms up with the same batch for graphs of both kinds, and Triton can't
            # load a kernel in a capture. In service, such a step replays a graph.
            with in_one_graph(tokens):
                hidden = super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)
        if decodes:
            hidden = self._decode_step(input_ids, positions)
        return hidden

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits over the speech and control tokens, [rows, 6564]; None on a rank that does not gather them."""
        logits: torch.Tensor | None = self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)
        return logits

    def compile_steps(self) -> None:
        """Compile the kernels of steps in which requests only generate, if there are any."""
        if self._decode_step:
            self._decode_step.compile()

    @staticmethod
    def get_model_state_cls() -> type:
        """The model state with which vLLM's V2 model runner (on a GPU) samples."""
        from vllm_cosyvoice.llm.model_state import SpeechModelState  # late: it imports Triton

        return SpeechModelState

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the tensors of llm.pt and return the names of the loaded parameters."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(self.engine_weights(weights))
        return loaded

    @classmethod
    def engine_weights(cls, content: Iterable[tuple[str, object]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of llm.pt under vLLM's names."""
        weights = named_tensors(dict(content))
        fold_norms(weights)
        yield from cls.joint_tables(weights).items()
        for name, tensor in weights.items():
            if name != TEXT_HEAD:
                yield name.removeprefix("llm.model."), tensor


class CosyVoice2ForCausalLM(SpeechForCausalLM):
    """CosyVoice2: the tables are in the order of the joint id space, in three parts."""

    head_has_bias: ClassVar[bool] = True

    @classmethod
    def joint_tables(cls, weights: Weights) -> Weights:  # noqa: D102 - see SpeechForCausalLM
        parts = [weights.pop(name) for name in (SPEECH_TABLE, "llm_embedding.weight", TEXT_TABLE)]
        return {
            "model.embed_tokens.weight": torch.cat(parts),
            "lm_head.weight": weights.pop(HEAD),
            "lm_head.bias": weights.pop(HEAD_BIAS),
        }


class CosyVoice3ForCausalLM(SpeechForCausalLM):
    """CosyVoice3: the speech table also has the rows for start and task, and 200 control rows in another order."""

    head_has_bias: ClassVar[bool] = False
    START, END, TASK, FILL, UNUSED = range(SPEECH_TOKENS, SPEECH_TOKENS + 5)  # rows of the speech table and of the head

    @classmethod
    def joint_tables(cls, weights: Weights) -> Weights:  # noqa: D102 - see SpeechForCausalLM
        rows = torch.tensor([*range(SPEECH_TOKENS), cls.END, cls.UNUSED, cls.FILL, cls.START, cls.TASK])
        return {
            "model.embed_tokens.weight": torch.cat([weights.pop(SPEECH_TABLE)[rows], weights.pop(TEXT_TABLE)]),
            "lm_head.weight": weights.pop(HEAD)[rows[:HEAD_SIZE]],
        }
