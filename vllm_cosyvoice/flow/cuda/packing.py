"""Where the tokens and frames of many rows lie when they are put one behind the other."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS

HEARD = LOOKAHEAD_TOKENS + 1  # a token and those that the encoder looks ahead to
TILE_FIELDS = 5  # of a tile: see `Table.token_tiles`
Ints = npt.NDArray[np.int32]


class PackedRow(NamedTuple):
    """What packing must know of a row."""

    tokens: Sequence[int]
    spoken: int  # how many of `tokens` become mel; those behind are heard only
    prompt_frames: int
    streaming: bool


class Table(NamedTuple):
    """Index arrays for a call of one size: int32 views into one buffer, an array or a tensor.

    A tile is some neighbouring queries of one row and the keys they may see: the first query's place among all and in
    its row, the place of the row's first position, how many positions the row has (0: the tile has no work), and the
    chunk's length: a query sees its own chunk and all before it.
    """

    heard: Any  # [tokens, 4], ids of each token and the three behind it, `silence` where there is none
    token_positions: Any  # [tokens], place in the row, or -1 between rows
    frame_positions: Any  # [frames]
    row: Any  # [frames], which row a frame is of
    prompt: Any  # [frames], 1 + its place among all prompts' frames, or 0
    token_tiles: Any  # [tiles, 5]
    frame_tiles: Any

    @staticmethod
    def shapes(frames: int, queries: int) -> list[tuple[int, ...]]:
        """The arrays' shapes for a call of `frames`, with tiles of so many queries."""
        tokens = frames // FRAMES_PER_TOKEN
        tiles = [(length // queries + most_rows(frames), TILE_FIELDS) for length in (tokens, frames)]
        return [(tokens, HEARD), (tokens,), (frames,), (frames,), (frames,), *tiles]

    @classmethod
    def length(cls, frames: int, queries: int) -> int:
        """Numbers in the whole buffer."""
        return sum(map(prod, cls.shapes(frames, queries)))

    @classmethod
    def of(cls, buffer: Any, frames: int, queries: int) -> "Table":  # noqa: ANN401 - array or tensor
        """The table that is, or is to be, in `buffer`."""
        shapes = cls.shapes(frames, queries)
        bounds = pairwise(accumulate(map(prod, shapes), initial=0))
        return cls(*(buffer[start:end].reshape(shape) for shape, (start, end) in zip(shapes, bounds, strict=True)))


def packed_tokens(spoken: Sequence[int]) -> int:
    """Tokens that rows of so many tokens take: one more each, see `fill`."""
    return sum(spoken) + len(spoken)


def most_rows(frames: int) -> int:
    """Rows that a call of `frames` may have."""
    return max(4, frames // 128)


def fill(table: Table, rows: Sequence[PackedRow], silence: int, queries: int) -> list[int]:
    """Write `rows` into `table`, one behind the other; returns the frame at which each begins.

    In front of each row stays a token, two frames, free: what convolutions find there are zeros. The table must have
    room for the `packed_tokens`, and for `most_rows` of its size.
    """
    for array in table:
        array[...] = 0
    table.heard[...] = silence
    table.token_positions[...] = table.frame_positions[...] = -1
    starts, start, prompt = [], FRAMES_PER_TOKEN, 0
    token_tile = frame_tile = 0
    for index, row in enumerate(rows):
        length = FRAMES_PER_TOKEN * row.spoken
        tokens = slice(start // FRAMES_PER_TOKEN, start // FRAMES_PER_TOKEN + row.spoken)
        frames = slice(start, start + length)
        ids = np.full(row.spoken + LOOKAHEAD_TOKENS, silence, np.int32)
        ids[: len(row.tokens)] = row.tokens
        table.heard[tokens] = np.lib.stride_tricks.sliding_window_view(ids, HEARD)
        table.token_positions[tokens] = np.arange(row.spoken)
        table.frame_positions[frames] = np.arange(length)
        table.row[frames] = index
        table.prompt[start : start + row.prompt_frames] = np.arange(prompt + 1, prompt + row.prompt_frames + 1)
        chunk = CHUNK_TOKENS if row.streaming else row.spoken
        token_tile += _tile(table.token_tiles[token_tile:], tokens.start, row.spoken, chunk, queries)
        frame_tile += _tile(table.frame_tiles[frame_tile:], start, length, FRAMES_PER_TOKEN * chunk, queries)
        starts.append(start)
        start += length + FRAMES_PER_TOKEN
        prompt += row.prompt_frames
    return starts


def _tile(tiles: Ints, start: int, length: int, chunk: int, queries: int) -> int:
    """Write the tiles of one row; returns how many."""
    positions = np.arange(0, length, queries)
    mine = tiles[: len(positions)]
    mine[:, 0], mine[:, 1] = start + positions, positions
    mine[:, 2:] = start, length, chunk
    return len(positions)
