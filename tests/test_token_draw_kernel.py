"""The Triton kernel that draws speech tokens, on a GPU or, where there is none, in Triton's interpreter."""

import numpy as np
import pytest
import torch
from vllm import SamplingParams

from tests.interpreter import DEVICE, runs_here
from vllm_cosyvoice.llm import token_draw
from vllm_cosyvoice.llm.repetition_aware_sampling import extra_args, record
from vllm_cosyvoice.llm.token_draw import WINDOW
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, HEAD_SIZE, SPEECH_TOKENS

ROWS = 64
PROMPT = 20  # tokens of each request's prompt, which are no speech
LEFT_TO_VLLM = 5  # a row

pytest.importorskip("triton")


@runs_here
def test_the_kernel_draws_what_pytorch_draws() -> None:
    """Many kinds of rows in one call."""
    from vllm_cosyvoice.llm import token_draw_kernel

    draw = np.random.default_rng(0)
    logits = torch.from_numpy(draw.standard_normal((ROWS, HEAD_SIZE), np.float32))
    logits *= torch.tensor([0.5, 3.0, 8.0, 20.0]).repeat(ROWS // 4)[:, None]
    logits[::6, 7] = 60.0
    logits[::5, END_OF_SPEECH] = -torch.inf
    logits[2::5, END_OF_SPEECH] = 60.0
    logits = logits.bfloat16()

    positions = [row // 4 if row % 2 else int(draw.integers(500)) for row in range(ROWS)]
    slots = draw.permutation(ROWS)
    lengths = np.array([PROMPT + position for position in positions])
    tokens = np.zeros((ROWS, 600), int)
    before, now = [np.empty((ROWS, token_draw.WORDS), np.int32) for _ in range(2)]
    for row, position in enumerate(positions):
        likeliest = logits[row, :SPEECH_TOKENS].topk(WINDOW).indices.numpy()[: 3 if row % 4 else WINDOW]
        past = draw.permuted(np.resize(likeliest, WINDOW + position)).tolist()  # so that many draws repeat
        earlier, generated = past[:WINDOW], past[WINDOW:]
        options = SamplingOptions(
            seed=int(draw.integers(2**63)),
            temperature=0.0 if row % 5 == 4 else draw.uniform(0.5, 2.0),
            top_p=float(draw.choice([0.3, 0.8, 1.0])),
            top_k=int(draw.choice([1, 25, SPEECH_TOKENS])),
            repetition_aware=bool(row % 7),
        )
        arguments = extra_args(options, earlier, min_tokens=int(draw.choice([0, 8, 600])))
        params = SamplingParams(extra_args=None if row == LEFT_TO_VLLM else arguments)
        slot = slots[row]
        before[slot], now[slot] = record(params), record(params, generated)
        tokens[slot, : lengths[row]] = [*likeliest[:1]] * PROMPT + generated

    expected = logits.float()
    places = np.delete(np.stack([np.arange(ROWS), slots, positions], 1), LEFT_TO_VLLM, 0)
    token_draw.draw(expected, torch.from_numpy(now), torch.from_numpy(places).int())
    prompt_lengths = np.full(ROWS, PROMPT)
    known_lengths = lengths[np.argsort(slots)] + np.arange(ROWS) % 3 - 1  # of each slot: one less, as many, one more
    inputs = before, slots, lengths, prompt_lengths, known_lengths, tokens
    where = [torch.from_numpy(values).int().to(DEVICE) for values in inputs]
    drawn = expected.argmax(1)
    drawn[LEFT_TO_VLLM] = -1
    by_kernel, gained = token_draw_kernel.draw(logits.to(DEVICE), *where)
    assert torch.equal(by_kernel.cpu(), drawn)
    assert gained.tolist() == [int(slot % 3 < 2) for slot in slots]  # nothing in the middle of what it reads


@runs_here
def test_ties_go_to_the_lowest_ids() -> None:
    from vllm_cosyvoice.llm import token_draw_kernel

    logits = torch.zeros(ROWS, HEAD_SIZE, device=DEVICE)
    logits[:, 100:110] = 1.0
    arguments = [
        extra_args(SamplingOptions(top_p=1.0, top_k=3, repetition_aware=False, seed=seed), [], min_tokens=0)
        for seed in range(ROWS)
    ]
    records = torch.from_numpy(np.stack([record(SamplingParams(extra_args=row)) for row in arguments])).to(DEVICE)
    slots, ones = (make(ROWS, dtype=torch.int32, device=DEVICE) for make in (torch.arange, torch.ones))
    drawn, _ = token_draw_kernel.draw(logits, records, slots, ones, ones, ones, ones[:, None])
    assert sorted(set(drawn.tolist())) == [100, 101, 102]
