"""The fused decode step against the Qwen2 of transformers, with a KV cache in blocks as vLLM's is."""

from itertools import cycle, islice
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from tests.cards import A100
from tests.interpreter import DEVICE, runs_here
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.llm.decode_kernels import Cache
from vllm_cosyvoice.llm.fused_decode import DecoderLayer, FusedDecode

BLOCK, HEAD = 16, 64
# The interpreter multiplies no bfloat16, and tiles in float32 do not fit in a GPU's shared memory.
PRECISE = (torch.bfloat16, 0.02) if DEVICE == "cuda" else (torch.float32, 1e-5)
CONFIG = Qwen2Config(
    vocab_size=50,
    hidden_size=192,
    intermediate_size=320,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=256,
)


def layers_of(model: Any) -> list[DecoderLayer]:
    def of(layer: Any) -> DecoderLayer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        return DecoderLayer(
            torch.cat([part.weight for part in parts]) * layer.input_layernorm.weight,
            torch.cat([part.bias for part in parts]),
            attention.o_proj.weight,
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight,
            mlp.down_proj.weight,
        )

    return [of(layer) for layer in model.layers]


def rotation_of(model: Any) -> Tensor:
    cos, sin = model.rotary_emb(torch.zeros(1), torch.arange(CONFIG.max_position_embeddings)[None])
    return torch.cat([cos[0, :, : HEAD // 2], sin[0, :, : HEAD // 2]], 1)


def gpu() -> Gpu:
    return Gpu.of() if DEVICE == "cuda" else A100.gpu  # the interpreter has no early launch


@runs_here
@pytest.mark.parametrize("requests", [4, 20, 66])  # tiles of 16, 32 and 64 requests
@pytest.mark.parametrize(("data_type", "most"), [PRECISE, (torch.float16, 0.02)])
@torch.inference_mode()
def test_a_step_is_the_step_of_qwen2(requests: int, data_type: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = Qwen2Model(CONFIG).eval()
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * (0.1 if weight.dim() == 2 else 0.5) + (weight.dim() == 1))
        model.to(data_type)
        fused = FusedDecode(layers_of(model), rotation_of(model), HEAD**-0.5, CONFIG.rms_norm_eps, gpu())
        lengths = list(islice(cycle([1, 15, 16, 70]), requests))  # of what came before
        cells = [torch.full((5 * requests, 1, BLOCK, 2 * HEAD), torch.nan, dtype=data_type) for _ in model.layers]
        table = torch.randperm(5 * requests).view(requests, 5).int()
        ids, expected = [], []
        for request, length in enumerate(lengths):
            tokens = torch.randint(CONFIG.vocab_size, (1, length + 1))
            past = DynamicCache(config=CONFIG)
            model(tokens[:, :-1], past_key_values=past)
            for number, cell in enumerate(cells):
                keys, values = past.layers[number].keys[0], past.layers[number].values[0]  # [heads, tokens, head]
                for position in range(length):
                    place = table[request, position // BLOCK], slice(None), position % BLOCK
                    cell[place] = torch.cat([keys[:, position], values[:, position]], 1)
            ids.append(int(tokens[0, -1]))
            expected.append(model(tokens[:, -1:], past_key_values=past).last_hidden_state[0, 0])
        slots = [int(table[row, at // BLOCK]) * BLOCK + at % BLOCK for row, at in enumerate(lengths)]
        padded = [0, 0]  # rows of a graph that no request has
        where = Cache(
            *(torch.empty(0), torch.empty(0)),  # of each layer, below
            torch.tensor([*slots, -1, -1]),
            torch.cat([table, torch.zeros(2, 5).int()]),
            torch.tensor([*[length + 1 for length in lengths], *padded]).int(),
        )

        def cache_of(number: int) -> Cache:
            keys, values = cells[number].transpose(1, 2).chunk(2, dim=-1)
            return where._replace(keys=keys, values=values)

        x = model.embed_tokens(torch.tensor([*ids, *padded]))
        hidden = model.norm(fused(x, torch.tensor([*lengths, *padded]), cache_of))
    error = hidden[:requests] - torch.stack(expected)
    assert error.norm() < most * hidden[:requests].norm()
    assert hidden.isfinite().all()
