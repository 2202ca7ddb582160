"""Kernels of a decode step of a Qwen2 decoder, five for a layer, in Triton.

A decode step has one input for each request. Its products are small, so that the number of kernels bounds its time:
each kernel here does what would be two or three. Matrix products take operands in the dtype of the weights and
accumulate in float32, and results are rounded where vLLM's modules round them.
"""

from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from vllm_cosyvoice.gpu.kernel_launch import launch
from vllm_cosyvoice.gpu.kernel_shape import Shape, let_next_in, wait_for_inputs


class Cache(NamedTuple):
    """The KV cache of a layer, and where in it the requests of a step are."""

    keys: Tensor  # [blocks, tokens of a block, heads, width of a head]
    values: Tensor  # the same, with equal strides
    slots: Tensor  # [requests] int64: where the key and the value of this step go; below 0: nowhere
    table: Tensor  # [requests, blocks] int32
    lengths: Tensor  # [requests] int32, tokens with this step's; 0: none


def project(
    x: Tensor, squares: Tensor, weight: Tensor, bias: Tensor, rotation: Tensor, positions: Tensor, cache: Cache,
    eps: float, shape: Shape,
) -> Tensor:  # fmt: skip
    """Normalise x, project it to queries, keys and values, and rotate queries and keys.

    Keys and values go to the cache. The weight of the norm is folded into `weight`, also in `gate`.

    x: [requests, width].
    squares: [requests, parts] float32, sums of the squares of parts of each row of x, which its norm needs.
    weight: [(query heads + 2 · heads) · width of a head, width]; bias: its outputs.
    rotation: [positions, width of a head]: cosines, then sines.
    positions: [requests] int64.

    Returns: queries, [requests, query heads · width of a head].
    """
    heads, head = cache.keys.shape[2:]
    queries = len(weight) // head - 2 * heads
    out = x.new_empty(len(x), queries * head)
    pairs = min(shape.columns, head // 2)
    launch(
        _project, ((queries + 2 * heads) * (head // 2 // pairs), cdiv(len(x), shape.rows)),
        x, squares, weight, bias, rotation, positions, cache.keys, cache.values, cache.slots, out, len(x), eps,
        *cache.keys.stride()[:3],
        QUERIES=queries, HEADS=heads, HEAD=head, INPUTS=x.shape[1], PARTS=squares.shape[1], BLOCK=cache.keys.shape[1],
        ROWS=shape.rows, PAIRS=pairs, DEPTH=shape.depth, **shape.options,
    )  # fmt: skip
    return out


def attend(queries: Tensor, cache: Cache, scale: float, shape: Shape) -> Tensor:
    """Attention of one query per request over its tokens in the cache: [requests, query heads · width of a head]."""
    heads, head = cache.keys.shape[2:]
    group = queries.shape[1] // heads // head
    out = torch.empty_like(queries)
    launch(
        _attend, (len(queries), heads),
        queries, cache.keys, cache.values, cache.table, cache.lengths, out, cache.table.stride(0), scale,
        *cache.keys.stride()[:3],
        GROUP=group, HEADS=heads, HEAD=head, BLOCK=cache.keys.shape[1], ROWS=max(16, triton.next_power_of_2(group)),
        KEYS=shape.columns, **shape.options,
    )  # fmt: skip
    return out


def add_product(residual: Tensor, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """Add x @ weightᵀ to `residual`, [requests, outputs], in place, and return the `squares` of the result."""
    outputs, inputs = weight.shape
    columns = gcd(shape.columns, outputs)
    squares = torch.empty(len(x), outputs // columns, device=x.device)
    launch(
        _add_product, (outputs // columns, cdiv(len(x), shape.rows)),
        residual, x, weight, squares, len(x),
        INPUTS=inputs, OUTPUTS=outputs, ROWS=shape.rows, COLUMNS=columns, DEPTH=shape.depth, **shape.options,
    )  # fmt: skip
    return squares


def gate(x: Tensor, squares: Tensor, weight: Tensor, eps: float, shape: Shape) -> Tensor:
    """SiLU(gate) · up of the normalised x, [requests, outputs].

    weight: [2 · outputs, inputs], gate, then up.
    """
    outputs, inputs = len(weight) // 2, weight.shape[1]
    columns = gcd(shape.columns, outputs)
    out = x.new_empty(len(x), outputs)
    launch(
        _gate, (outputs // columns, cdiv(len(x), shape.rows)),
        x, squares, weight, out, len(x), eps,
        INPUTS=inputs, OUTPUTS=outputs, PARTS=squares.shape[1], ROWS=shape.rows, COLUMNS=columns, DEPTH=shape.depth,
        **shape.options,
    )  # fmt: skip
    return out


@triton.jit
def _scale(squares, row, inside, WIDTH: tl.constexpr, PARTS: tl.constexpr, eps):
    """By which the norm multiplies each row, [rows, 1].

    The kernel before sums the squares: Triton gives an operand of a product too few buffers if it has another use.
    """
    part = tl.arange(0, triton.next_power_of_2(PARTS))
    known = inside[:, None] & (part < PARTS)[None, :]
    sums = tl.sum(tl.load(squares + row[:, None] * PARTS + part[None, :], known, 0.0), 1)
    return tl.rsqrt(sums / WIDTH + eps)[:, None]


@triton.jit(do_not_specialize=["rows"])  # a form for all numbers of requests
def _project(
    x, squares, weight, bias, rotation, positions, keys, values, slots, out, rows, eps,
    block_stride, token_stride, head_stride,
    QUERIES: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, INPUTS: tl.constexpr, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr, DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = HEAD // 2
    head = tl.program_id(0) // (HALF // PAIRS)
    half = tl.program_id(0) % (HALF // PAIRS) * PAIRS + tl.arange(0, PAIRS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    depth = tl.arange(0, DEPTH)
    first_column = weight + (head * HEAD + half)[None, :] * INPUTS + depth[:, None]
    first_bias = tl.load(bias + head * HEAD + half).to(tl.float32)[None, :]
    second_bias = tl.load(bias + head * HEAD + HALF + half).to(tl.float32)[None, :]
    turn = rotation + tl.load(positions + row, inside, 0)[:, None] * HEAD + half[None, :]
    cos, sin = tl.load(turn).to(tl.float32), tl.load(turn + HALF).to(tl.float32)
    slot = tl.load(slots + row, inside, -1)
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    scale = _scale(squares, row, inside, INPUTS, PARTS, eps)
    x_row = x + row[:, None] * INPUTS + depth[None, :]
    first = tl.zeros((ROWS, PAIRS), tl.float32)
    second = tl.zeros((ROWS, PAIRS), tl.float32)
    for step in range(0, INPUTS, DEPTH):
        known = (step + depth < INPUTS) | (INPUTS % DEPTH == 0)
        part = tl.load(x_row + step, inside[:, None] & known[None, :], 0.0)
        first = tl.dot(part, tl.load(first_column + step, known[:, None], 0.0), first, input_precision="ieee")
        column = tl.load(first_column + HALF * INPUTS + step, known[:, None], 0.0)
        second = tl.dot(part, column, second, input_precision="ieee")
    first = (first * scale + first_bias).to(out.dtype.element_ty).to(tl.float32)
    second = (second * scale + second_bias).to(out.dtype.element_ty).to(tl.float32)
    if head < QUERIES + HEADS:
        first, second = first * cos - second * sin, second * cos + first * sin
    if head < QUERIES:
        place = out + row[:, None] * (QUERIES * HEAD) + head * HEAD + half[None, :]
        tl.store(place, first.to(out.dtype.element_ty), inside[:, None])
        tl.store(place + HALF, second.to(out.dtype.element_ty), inside[:, None])
    else:
        kept = (slot >= 0)[:, None]
        is_value = head >= QUERIES + HEADS
        cache = tl.where(is_value, values, keys)
        cache_head = head - QUERIES - tl.where(is_value, HEADS, 0)
        place = cache + (slot // BLOCK * block_stride + slot % BLOCK * token_stride + cache_head * head_stride)[:, None]
        place += half[None, :]
        tl.store(place, first.to(keys.dtype.element_ty), kept)
        tl.store(place + HALF, second.to(keys.dtype.element_ty), kept)


@triton.jit(do_not_specialize=["table_stride"])
def _attend(
    queries, keys, values, table, lengths, out, table_stride, scale, block_stride, token_stride, head_stride,
    GROUP: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    request, head = tl.program_id(0), tl.program_id(1)
    member = tl.arange(0, ROWS)
    column = tl.arange(0, HEAD)
    of_group = (member < GROUP)[:, None]
    place = (request * HEADS * GROUP + head * GROUP + member)[:, None] * HEAD + column[None, :]
    # The newest token's key and value come from `_project`, so all others are loaded while that still runs.
    newest = tl.load(lengths + request) - 1
    table += request * table_stride
    keys += head * head_stride
    values += head * head_stride
    token = tl.arange(0, KEYS)
    key, value = _cached(keys, values, table, token, newest, block_stride, token_stride, HEAD, BLOCK)
    block = tl.load(table + tl.maximum(newest, 0) // BLOCK).to(tl.int64)
    place_of_newest = block * block_stride + newest % BLOCK * token_stride + column
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    query = tl.load(queries + place, of_group, 0.0)
    newest_key = tl.load(keys + place_of_newest, newest >= 0, 0.0).to(tl.float32)
    newest_value = tl.load(values + place_of_newest, newest >= 0, 0.0).to(tl.float32)
    highest = tl.sum(query.to(tl.float32) * newest_key[None, :], 1) * scale
    weights = tl.full((ROWS,), 1.0, tl.float32)
    mixed = tl.zeros((ROWS, HEAD), tl.float32) + newest_value[None, :]
    for start in range(0, newest, KEYS):
        score = tl.dot(query, key, input_precision="ieee") * scale
        score = tl.where((start + token < newest)[None, :], score, -float("inf"))
        higher = tl.maximum(highest, tl.max(score, 1))
        faded = tl.exp(highest - higher)
        weight = tl.exp(score - higher[:, None])
        weights = weights * faded + tl.sum(weight, 1)
        mixed = tl.dot(weight.to(value.dtype), value, mixed * faded[:, None], input_precision="ieee")
        highest = higher
        following = start + KEYS + token
        key, value = _cached(keys, values, table, following, newest, block_stride, token_stride, HEAD, BLOCK)
    tl.store(out + place, (mixed / weights[:, None]).to(out.dtype.element_ty), of_group)


@triton.jit
def _cached(
    keys, values, table, token, end, block_stride, token_stride, HEAD: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The keys, [HEAD, tokens], and values, [tokens, HEAD], of a request's tokens; zeros from `end` on."""
    column = tl.arange(0, HEAD)
    known = token < end
    block = tl.load(table + token // BLOCK, known, 0).to(tl.int64)
    cell = block * block_stride + token % BLOCK * token_stride
    key = tl.load(keys + cell[None, :] + column[:, None], known[None, :], 0.0)
    value = tl.load(values + cell[:, None] + column[None, :], known[:, None], 0.0)
    return key, value


@triton.jit(do_not_specialize=["rows"])  # a form for all numbers of requests
def _add_product(
    residual, x, weight, squares, rows,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    depth = tl.arange(0, DEPTH)
    w_column = weight + column[None, :] * INPUTS + depth[:, None]
    x_row = x + row[:, None] * INPUTS + depth[None, :]
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    y = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, INPUTS, DEPTH):
        known = (step + depth < INPUTS) | (INPUTS % DEPTH == 0)
        part = tl.load(x_row + step, inside & known[None, :], 0.0)
        y = tl.dot(part, tl.load(w_column + step, known[:, None], 0.0), y, input_precision="ieee")
    place = residual + row[:, None] * OUTPUTS + column[None, :]
    y = y.to(residual.dtype.element_ty).to(tl.float32) + tl.load(place, inside, 0.0).to(tl.float32)
    y = y.to(residual.dtype.element_ty)
    tl.store(place, y, inside)
    sums = tl.sum(y.to(tl.float32) * y.to(tl.float32), 1)
    tl.store(squares + row * (OUTPUTS // COLUMNS) + tl.program_id(0), sums, row < rows)


@triton.jit(do_not_specialize=["rows"])  # a form for all numbers of requests
def _gate(
    x, squares, weight, out, rows, eps,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    depth = tl.arange(0, DEPTH)
    w_column = weight + column[None, :] * INPUTS + depth[:, None]
    x_row = x + row[:, None] * INPUTS + depth[None, :]
    wait_for_inputs(EARLY)
    let_next_in(EARLY)
    scale = _scale(squares, row, row < rows, INPUTS, PARTS, eps)
    opened = tl.zeros((ROWS, COLUMNS), tl.float32)
    passed = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, INPUTS, DEPTH):
        known = (step + depth < INPUTS) | (INPUTS % DEPTH == 0)
        part = tl.load(x_row + step, inside & known[None, :], 0.0)
        opened = tl.dot(part, tl.load(w_column + step, known[:, None], 0.0), opened, input_precision="ieee")
        second = tl.load(w_column + OUTPUTS * INPUTS + step, known[:, None], 0.0)
        passed = tl.dot(part, second, passed, input_precision="ieee")
    opened = (opened * scale).to(out.dtype.element_ty).to(tl.float32)
    passed = (passed * scale).to(out.dtype.element_ty).to(tl.float32)
    y = opened / (1 + tl.exp(-opened)) * passed
    tl.store(out + row[:, None] * OUTPUTS + column[None, :], y.to(out.dtype.element_ty), inside)
