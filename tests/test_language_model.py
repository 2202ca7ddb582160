"""How llm.pt becomes the parameters of vLLM's model."""

from pathlib import Path

import pytest
import torch

from tests.savers import SAVERS
from vllm_cosyvoice.llm.model import _engine_weights


def test_the_three_tables_become_one_and_what_training_left_is_dropped() -> None:
    speech, control, text = (torch.full((rows, 4), float(rows)) for rows in (6564, 2, 10))
    checkpoint = {
        "epoch": 3,
        "speech_embedding.weight": speech,
        "llm_embedding.weight": control,
        "llm.model.model.embed_tokens.weight": text,
        "llm.model.lm_head.weight": text,
        "llm.model.model.norm.weight": torch.ones(4),
        "llm_decoder.bias": torch.zeros(6564),
    }
    weights = dict(_engine_weights(checkpoint.items()))
    assert set(weights) == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.bias"}
    assert torch.equal(weights["model.embed_tokens.weight"], torch.cat([speech, control, text]))


@pytest.mark.parametrize("saved", SAVERS)
def test_the_engine_gets_the_same_weights_whatever_saved_them(tiny_model: Path, saved: str) -> None:
    checkpoint = torch.load(tiny_model / "llm.pt", weights_only=True)
    expected = dict(_engine_weights(checkpoint.items()))
    weights = dict(_engine_weights(SAVERS[saved](checkpoint).items()))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
