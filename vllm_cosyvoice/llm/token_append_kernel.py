"""Appends a token to each request, on a GPU: the inputs of vLLM's model runner move on by one position."""

import torch
import triton
import triton.language as tl


def append(
    tokens: torch.Tensor,
    slots: torch.Tensor,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    lengths: torch.Tensor,
    all_tokens: torch.Tensor,
) -> None:
    """Append a token to each request, and make it the model's input.

    tokens: [requests, 1] int64.
    slots: [requests] int64, the slot of each request.
    input_ids, positions: [requests or more], of the input of each request; these become the token and its position.
    lengths: [requests or more] int32, number of tokens of each request, with the input; these grow by one.
    all_tokens: [slots, longest] int32, prompt and speech; these get the token at its position.
    """
    _append[(len(tokens),)](tokens, slots, input_ids, positions, lengths, all_tokens, all_tokens.stride(0), num_warps=1)


@triton.jit
def _append(tokens, slots, input_ids, positions, lengths, all_tokens, stride):
    row = tl.program_id(0)
    token = tl.load(tokens + row)
    length = tl.load(lengths + row)
    tl.store(all_tokens + tl.load(slots + row).to(tl.int64) * stride + length, token.to(tl.int32))
    tl.store(input_ids + row, token.to(tl.int32))
    tl.store(positions + row, length.to(tl.int64))
    tl.store(lengths + row, length + 1)
