"""How llm.pt becomes the parameters of vLLM's model."""

import torch

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
    weights = dict(_engine_weights(checkpoint.items()))  # type: ignore[arg-type]  # what a real file may hold
    assert set(weights) == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.bias"}
    assert torch.equal(weights["model.embed_tokens.weight"], torch.cat([speech, control, text]))
