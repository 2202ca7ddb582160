"""How llm.pt becomes the parameters of vLLM's model."""

from pathlib import Path

import pytest
import torch

from tests.savers import SAVERS
from vllm_cosyvoice import vocabulary
from vllm_cosyvoice.llm.model import CosyVoice2ForCausalLM, CosyVoice3ForCausalLM


def test_the_three_tables_become_one_and_what_training_left_is_dropped() -> None:
    speech, control, text = (torch.full((rows, 4), float(rows)) for rows in (6564, 2, 10))
    checkpoint = {
        "epoch": 3,
        "speech_embedding.weight": speech,
        "llm_embedding.weight": control,
        "llm.model.model.embed_tokens.weight": text,
        "llm.model.lm_head.weight": text,
        "llm.model.model.norm.weight": torch.ones(4),
        "llm_decoder.weight": torch.ones(6564, 4),
        "llm_decoder.bias": torch.zeros(6564),
    }
    weights = dict(CosyVoice2ForCausalLM.engine_weights(checkpoint.items()))
    assert set(weights) == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "lm_head.bias"}
    assert torch.equal(weights["model.embed_tokens.weight"], torch.cat([speech, control, text]))


def test_rows_of_cosyvoice3_are_put_into_the_order_of_the_joint_ids() -> None:
    speech, text = torch.arange(6761.0)[:, None], torch.full((10, 1), -1.0)
    checkpoint = {
        "speech_embedding.weight": speech,
        "llm.model.model.embed_tokens.weight": text,
        "llm_decoder.weight": 10 * speech,
    }
    weights = dict(CosyVoice3ForCausalLM.engine_weights(checkpoint.items()))
    embedding, head = weights["model.embed_tokens.weight"].flatten(), weights["lm_head.weight"].flatten()
    assert len(weights) == 2, "its head has no bias"
    assert embedding[: vocabulary.SPEECH_TOKENS].tolist() == list(range(6561))
    rows = {"END_OF_SPEECH": 6562, "FILL": 6564, "START": 6561, "TASK": 6563}
    assert {name: embedding[getattr(vocabulary, name)] for name in rows} == rows
    assert embedding[vocabulary.TEXT_OFFSET :].tolist() == [-1.0] * 10
    assert torch.equal(head, 10 * embedding[: vocabulary.HEAD_SIZE])


def test_norms_are_folded_into_the_matrices_that_follow(tiny_model: Path) -> None:
    checkpoint = torch.load(tiny_model / "llm.pt", weights_only=True)
    torch.manual_seed(0)
    for name, weight in checkpoint.items():
        if "norm" in name:
            checkpoint[name] = torch.rand_like(weight) + 0.5
    weights = dict(CosyVoice2ForCausalLM.engine_weights(dict(checkpoint).items()))
    before = {name.removeprefix("llm.model."): weight for name, weight in checkpoint.items()}
    layer = "model.layers.0."
    folded = {
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    }
    for norm, matrices in folded.items():
        weight = before[f"{layer}{norm}.weight"]
        assert (weights[f"{layer}{norm}.weight"] == 1).all()
        for matrix in matrices:
            name = f"{layer}{matrix}.weight"
            assert torch.equal(weights[name], before[name] * weight)
    for name in (f"{layer}self_attn.o_proj.weight", f"{layer}mlp.down_proj.weight", "model.norm.weight"):
        assert torch.equal(weights[name], before[name])


@pytest.mark.parametrize("saved", SAVERS)
def test_the_engine_gets_the_same_weights_whatever_saved_them(tiny_model: Path, saved: str) -> None:
    checkpoint = torch.load(tiny_model / "llm.pt", weights_only=True)
    expected = dict(CosyVoice2ForCausalLM.engine_weights(checkpoint.items()))
    weights = dict(CosyVoice2ForCausalLM.engine_weights(SAVERS[saved](checkpoint).items()))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
