"""Layout of the tokens and frames of many rows, packed one after another."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS

HEARD = LOOKAHEAD_TOKENS + 1  # a token and its look-ahead tokens
TILE_FIELDS = 5  # of a tile, see `Table`
Ints = npt.NDArray[np.int32]


class PackedRow(NamedTuple):
    """The properties of a row that packing needs."""

    tokens: Sequence[int]
    spoken: int  # how many of `tokens` become mel; the rest is look-ahead
    prompt_frames: int
    streaming: bool


class Table(NamedTuple):
    """Index arrays for a call of one size: int32 views into one buffer, an array or a tensor.

    A tile describes adjacent queries of one row and the keys they may see. Its fields: the index of the first query
    among all positions, and in its row; the index of the row's first position; the row's length in positions (0: the
    tile is empty); the chunk length. A query sees its own chunk and all earlier ones.
    """

    heard: Any  # [tokens, 4], ids of each token and the next three, `silence` after the last one
    token_positions: Any  # [tokens], position in the row, or -1 between rows
    frame_positions: Any  # [frames]
    row: Any  # [frames], index of the frame's row
    prompt: Any  # [frames], 1 + index among the frames of all prompts, or 0
    token_tiles: Any  # [tiles, 5]
    frame_tiles: Any

    @staticmethod
    def shapes(frames: int, queries: int) -> list[tuple[int, ...]]:
        """The arrays' shapes for a call of `frames`, with tiles of `queries` queries."""
        tokens = frames // FRAMES_PER_TOKEN
        tiles = [(length // queries + most_rows(frames), TILE_FIELDS) for length in (tokens, frames)]
        return [(tokens, HEARD), (tokens,), (frames,), (frames,), (frames,), *tiles]

    @classmethod
    def length(cls, frames: int, queries: int) -> int:
        """Number of elements in the whole buffer."""
        return sum(map(prod, cls.shapes(frames, queries)))

    @classmethod
    def of(cls, buffer: Any, frames: int, queries: int) -> "Table":  # noqa: ANN401 - array or tensor
        """View `buffer` as a table."""
        shapes = cls.shapes(frames, queries)
        bounds = pairwise(accumulate(map(prod, shapes), initial=0))
        return cls(*(buffer[start:end].reshape(shape) for shape, (start, end) in zip(shapes, bounds, strict=True)))


def packed_tokens(spoken: Sequence[int]) -> int:
    """The number of tokens that packed rows take: one more per row than spoken, see `fill`."""
    return sum(spoken) + len(spoken)


def most_rows(frames: int) -> int:
    """The largest number of rows in a call of `frames`."""
    return max(4, frames // 128)


def fill(table: Table, rows: Sequence[PackedRow], silence: int, queries: int) -> list[int]:
    """Pack `rows` into `table`, one after another, and return the first frame of each.

    One token (two frames) before each row stays free, so that convolutions read zeros there. The table must have room
    for the `packed_tokens`, and its size must allow as many rows, see `most_rows`.
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
    """Write the tiles of one row and return their number."""
    positions = np.arange(0, length, queries)
    row_tiles = tiles[: len(positions)]
    row_tiles[:, 0], row_tiles[:, 1] = start + positions, positions
    row_tiles[:, 2:] = start, length, chunk
    return len(positions)
