"""The fused decode step against the Qwen2 of transformers, with a KV cache in blocks as vLLM's is."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from tests.cards import A100
from vllm_cosyvoice.llm.decode_kernels import Cache
from vllm_cosyvoice.llm.fused_decode import DecoderLayer, FusedDecode

BLOCK, HEAD = 16, 64
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
            layer.input_layernorm.weight,
            torch.cat([part.weight for part in parts]),
            torch.cat([part.bias for part in parts]),
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            mlp.down_proj.weight,
        )

    return [of(layer) for layer in model.layers]


def rotation_of(model: Any) -> Tensor:
    cos, sin = model.rotary_emb(torch.zeros(1), torch.arange(CONFIG.max_position_embeddings)[None])
    return torch.cat([cos[0, :, : HEAD // 2], sin[0, :, : HEAD // 2]], 1)


@torch.inference_mode()
def test_a_step_is_the_step_of_qwen2() -> None:
    torch.manual_seed(0)
    model = Qwen2Model(CONFIG).eval()
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 2 else 0.5) + (parameter.dim() == 1))
    fused = FusedDecode(layers_of(model), rotation_of(model), HEAD**-0.5, CONFIG.rms_norm_eps, A100.gpu)
    lengths = [1, 15, 16, 70]  # of what came before
    cells = [torch.full((20, 1, BLOCK, 2 * HEAD), torch.nan) for _ in model.layers]
    table = torch.randperm(20)[: 4 * 5].view(4, 5).int()
    steps, expected = [], []
    for request, length in enumerate(lengths):
        ids = torch.randint(CONFIG.vocab_size, (1, length + 1))
        past = DynamicCache(config=CONFIG)
        model(ids[:, :-1], past_key_values=past)
        for number, cell in enumerate(cells):
            keys, values = past.layers[number].keys[0], past.layers[number].values[0]  # [heads, tokens, head]
            for position in range(length):
                place = table[request, position // BLOCK], slice(None), position % BLOCK
                cell[place] = torch.cat([keys[:, position], values[:, position]], 1)
        steps.append(ids[0, -1])
        expected.append(model(ids[:, -1:], past_key_values=past).last_hidden_state[0, 0])
    padded = 2  # rows of a graph that no request has
    positions = torch.tensor([*lengths, *[0] * padded])
    slots = torch.tensor([int(table[row, at // BLOCK]) * BLOCK + at % BLOCK for row, at in enumerate(lengths)])

    def cache_of(number: int) -> Cache:
        keys, values = cells[number].transpose(1, 2).chunk(2, dim=-1)
        return Cache(
            keys,
            values,
            torch.cat([slots, torch.full((padded,), -1)]),
            torch.cat([table, torch.zeros(padded, 5).int()]),
            torch.tensor([*[length + 1 for length in lengths], *[0] * padded]).int(),
        )

    x = model.embed_tokens(torch.stack([*steps, *[torch.tensor(0)] * padded]))
    hidden = model.norm(fused(x.clone(), positions, cache_of))
    assert (hidden[:4] - torch.stack(expected)).abs().max() < 1e-4
    assert hidden.isfinite().all()
