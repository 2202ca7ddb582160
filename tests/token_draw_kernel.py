"""Draws the same tokens with the Triton kernel and in PyTorch: `python -m tests.token_draw_kernel`.

Where there is no GPU, set TRITON_INTERPRET=1. The exit status is 1 if a token differs.
"""

import sys

import numpy as np
import torch

from vllm_cosyvoice import token_draw, token_draw_kernel
from vllm_cosyvoice.token_draw import RECORD, RING, WORDS
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, HEAD_SIZE, SPEECH_TOKENS

ROWS = 64


def main() -> int:
    """Compare many kinds of rows in one call."""
    draw, device = np.random.default_rng(0), "cuda" if torch.cuda.is_available() else "cpu"
    row = np.arange(ROWS)
    logits = torch.from_numpy(draw.standard_normal((ROWS, HEAD_SIZE), np.float32))
    logits *= torch.tensor([0.5, 3.0, 8.0, 20.0]).repeat(ROWS // 4)[:, None]
    logits[::6, 7] = 60.0
    logits[::5, END_OF_SPEECH] = -torch.inf

    records = np.zeros(ROWS, RECORD)
    records["recent"] = logits[:, :SPEECH_TOKENS].topk(RING).indices.numpy()  # so that many draws repeat
    records["recent"][::4, 3:] = 0
    records["temperature"] = np.where(row % 5 == 4, 0.0, draw.uniform(0.5, 2.0, ROWS))
    records["top_p"] = draw.choice([0.3, 0.8, 1.0], ROWS)
    records["top_k"] = draw.choice([1, 25, SPEECH_TOKENS], ROWS)
    records["window"] = draw.choice([0, 10], ROWS, p=[0.2, 0.8])
    records["seed"] = draw.integers(0, 2**63, ROWS)
    words = torch.from_numpy(records.view(np.int32).reshape(ROWS, WORDS))
    # One row of vLLM's own; the others, their records and their positions are in no order.
    places = np.stack([draw.permutation(ROWS), draw.permutation(ROWS), draw.integers(0, 500, ROWS)], 1)[1:]
    placed = torch.from_numpy(places.astype(np.int32))

    expected, actual = (logits.clone(), words.clone()), (logits.to(device), words.to(device))
    token_draw.draw(*expected, placed)
    token_draw_kernel.draw(*actual, placed.to(device))
    wrong = sum(not torch.equal(a, b.cpu()) for a, b in zip(expected[0], actual[0], strict=True))
    wrong += sum(not torch.equal(a, b.cpu()) for a, b in zip(expected[1], actual[1], strict=True))

    tied = torch.zeros(1, HEAD_SIZE)
    tied[0, 100:110] = 1.0
    record = np.array((np.zeros(RING), 1.0, 1.0, 3, 0, 0), RECORD)
    tied_words = torch.from_numpy(np.repeat(record, ROWS).view(np.int32).reshape(ROWS, WORDS))
    tied_places = torch.tensor([[place, place, place] for place in range(ROWS)], dtype=torch.int32)
    tied = tied.repeat(ROWS, 1).to(device)
    token_draw_kernel.draw(tied, tied_words.to(device), tied_places.to(device))
    lowest = sorted(set(tied.argmax(1).tolist())) == [100, 101, 102]

    print(f"{device}: {wrong} of {2 * ROWS} rows and records differ; ties go to the lowest ids: {lowest}")
    return int(wrong > 0 or not lowest)


if __name__ == "__main__":
    sys.exit(main())
