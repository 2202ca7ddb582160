"""Chunked attention within packed rows, without a matrix of all pairs (Dao 2023, FlashAttention-2)."""

from math import prod
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vllm_cosyvoice.flow.cuda.kernels.remembered import Pages
from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs

LOG2_E = 1.4426950408889634  # softmax is computed with powers of two
UNSEEN = tl.constexpr(-1e30)
LINE = tl.constexpr(128)  # bytes in a line of the L2 cache
INTERPRETED = triton.knobs.runtime.interpret  # the interpreter does not support the prefetch instruction


class Distances(NamedTuple):
    """Parameters of relative attention (Dai et al. 2019, Transformer-XL, section 3.3)."""

    content_bias: Tensor  # [heads, head_dim]
    position_bias: Tensor  # [heads, head_dim]
    keys: Tensor  # [2 · reach - 1, heads, head_dim], for the distances reach - 1 … -(reach - 1)


@triton.jit
def _attend(
    out, total, highest, query, shifted, keys_row, values_row, distance_keys, start, keys, seen, position, reach, past,
    HEADS: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, RELATIVE: tl.constexpr,
    MASKED: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Attend with all queries of a tile to the `KEYS` keys from `start` on.

    With a `PAGE` of so many frames, they are in the pages `past`; then there must be a mask.
    """
    dim = tl.arange(0, DIM)
    column = tl.arange(0, KEYS)
    if PAGE > 0:
        page = tl.load(past + (start + column) // PAGE, start + column < keys, 0)
        row = (2 * PAGE * page + (start + column) % PAGE) * (2 * HEADS * DIM)
    else:
        row = (start + column) * (3 * HEADS * DIM)
    if MASKED:
        valid = start + column < keys
        key = tl.load(keys_row + row[None, :] + dim[:, None], valid[None, :], 0.0)
    else:
        key = tl.load(keys_row + row[None, :] + dim[:, None])
    scores = tl.dot(query, key, input_precision="ieee")
    if RELATIVE:
        # Score the keys of all distances in this tile, then gather for query i and key j the one at distance i - j.
        window = tl.arange(0, QUERIES + KEYS)
        distance_index = reach - 1 - position + start - (QUERIES - 1) + window
        in_reach = (distance_index >= 0) & (distance_index < 2 * reach - 1)
        near = tl.load(distance_keys + distance_index[None, :] * (HEADS * DIM) + dim[:, None], in_reach[None, :], 0.0)
        index = column[None, :] - tl.arange(0, QUERIES)[:, None] + (QUERIES - 1)
        scores += tl.gather(tl.dot(shifted, near, input_precision="ieee"), index, 1)
    if MASKED:
        scores = tl.where((start + column)[None, :] < seen[:, None], scores, UNSEEN)
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.exp2(scores - new_highest[:, None])
    rescale = tl.exp2(highest - new_highest)
    total = total * rescale + tl.sum(weights, 1)
    if MASKED:
        value = tl.load(values_row + row[:, None] + dim[None, :], valid[:, None], 0.0)
    else:
        value = tl.load(values_row + row[:, None] + dim[None, :])
    out = tl.dot(weights.to(value.dtype), value, out * rescale[:, None], input_precision="ieee")
    return out, total, new_highest


@triton.jit
def _attention(
    qkv, tiles, out, half, scale, content_bias, position_bias, distance_keys, reach, memory, memory_frames, past,
    ahead, lines,
    HEADS: tl.constexpr, DIM: tl.constexpr, FIELDS: tl.constexpr, RELATIVE: tl.constexpr, PAGE: tl.constexpr,
    LINES: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    if LINES > 0:
        program = (tl.program_id(2) * HEADS + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
        line = ahead + tl.minimum(program * LINES + tl.arange(0, LINES), lines - 1) * LINE
        tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [line], tl.int32, False, 1)
    tile = tiles + tl.program_id(0) * FIELDS
    head = tl.program_id(1)
    shift = tl.program_id(2) * half
    first_query = tl.load(tile)
    position = tl.load(tile + 1)
    first_key = tl.load(tile + 2)
    keys = tl.load(tile + 3)
    chunk = tl.load(tile + 4)
    if PAGE > 0:
        past += tl.load(tile + 5)
        past_keys = tl.load(tile + 6)
    if keys == 0:
        return  # without waiting, to free its slot on the GPU
    wait_for_inputs(EARLY)

    width: tl.constexpr = HEADS * DIM
    dim = tl.arange(0, DIM)
    offset = tl.arange(0, QUERIES)
    place = position + offset
    inside = place[:, None] < keys
    query_row = (first_query + shift + offset)[:, None]
    qkv += head * DIM
    query = tl.load(qkv + query_row * (3 * width) + dim[None, :], inside, 0.0)
    shifted = query
    if RELATIVE:
        shifted = query + tl.load(position_bias + head * DIM + dim)[None, :]
        query = query + tl.load(content_bias + head * DIM + dim)[None, :]
        distance_keys += head * DIM
    query = (query * scale).to(qkv.dtype.element_ty)
    shifted = (shifted * scale).to(qkv.dtype.element_ty)

    keys_row = qkv + width + (first_key + shift) * (3 * width)
    values_row = keys_row + width
    seen = tl.minimum(keys, (place // chunk + 1) * chunk)
    seen_by_all = tl.minimum(keys, (position // chunk + 1) * chunk) // KEYS * KEYS
    seen_by_any = tl.minimum(keys, ((position + QUERIES - 1) // chunk + 1) * chunk)
    attended = tl.zeros((QUERIES, DIM), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    highest = tl.full((QUERIES,), UNSEEN, tl.float32)
    if PAGE > 0:
        memory += tl.program_id(2) * (PAGE * 2 * width) + head * DIM
        seen_in_past = tl.full((QUERIES,), 0, tl.int32) + past_keys
        for start in range(0, past_keys, KEYS):
            attended, total, highest = _attend(
                attended, total, highest, query, shifted, memory, memory + width, distance_keys, start, past_keys,
                seen_in_past, position, reach, past, HEADS, DIM, QUERIES, KEYS, RELATIVE, True, PAGE,
            )  # fmt: skip
    for start in range(0, seen_by_all, KEYS):
        attended, total, highest = _attend(
            attended, total, highest, query, shifted, keys_row, values_row, distance_keys, start, keys, seen, position,
            reach, past, HEADS, DIM, QUERIES, KEYS, RELATIVE, False, 0,
        )  # fmt: skip
    for start in range(seen_by_all, seen_by_any, KEYS):
        attended, total, highest = _attend(
            attended, total, highest, query, shifted, keys_row, values_row, distance_keys, start, keys, seen, position,
            reach, past, HEADS, DIM, QUERIES, KEYS, RELATIVE, True, 0,
        )  # fmt: skip
    let_next_in(EARLY)  # not earlier: this kernel fills the GPU, and waiting programs would take slots from it
    attended = attended / total[:, None]
    tl.store(out + query_row * width + head * DIM + dim[None, :], attended.to(out.dtype.element_ty), inside)
    if PAGE > 0:
        page = tl.load(memory_frames + first_query + offset, place < keys, -1)[:, None]
        kept = memory + (2 * PAGE * page + (place % PAGE)[:, None]) * (2 * width) + dim[None, :]
        new = qkv + width + query_row * (3 * width) + dim[None, :]
        tl.store(kept, tl.load(new, page >= 0, 0.0), page >= 0)
        tl.store(kept + width, tl.load(new + width, page >= 0, 0.0), page >= 0)


def attention(
    qkv: Tensor,
    tiles: Tensor,
    heads: int,
    shape: Shape,
    *,
    halves: int = 1,
    distances: Distances | None = None,
    pages: Pages | None = None,
    ahead: Tensor | None = None,
) -> Tensor:
    """Chunked self-attention within each row: [frames, 3 · heads · head_dim] to [frames, heads · head_dim].

    Args:
        qkv: queries, keys and values of the same rows, repeated `halves` times.
        tiles: int32 [n, fields] of `shape.rows` queries each, see `packing`.
        distances: parameters of relative attention, for scores that also depend on the distance.
        pages: remembered keys and values, which all queries of a row see; then there are two halves.
        ahead: weights of later kernels to prefetch into the L2 cache.
    """
    frames, triple = qkv.shape
    width = triple // 3
    dim = width // heads
    out = torch.empty(frames, width, dtype=qkv.dtype, device=qkv.device)
    content, position, keys = distances or (qkv, qkv, qkv)
    grid = len(tiles), heads, halves
    fetched = (qkv[:0] if ahead is None or INTERPRETED else ahead).view(torch.uint8)
    lines = triton.cdiv(len(fetched), LINE.value)
    launch(
        _attention, grid,
        qkv, tiles, out, frames // halves, LOG2_E * dim**-0.5, content, position, keys, (len(keys) + 1) // 2,
        *((qkv, tiles, tiles) if pages is None else pages), fetched, lines, heads, dim, tiles.shape[1],
        distances is not None, 0 if pages is None else pages.memory.shape[2],
        triton.next_power_of_2(triton.cdiv(lines, prod(grid))), shape.rows, shape.columns, **shape.options,
    )  # fmt: skip
    return out
