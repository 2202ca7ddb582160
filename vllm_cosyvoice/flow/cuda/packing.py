"""Layout of the tokens and frames of many rows, packed one after another.

The encoder sees rows from their start on, the solver only the frames that are not remembered. So they have tables of
their own, and a row has another place in each.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS

HEARD = LOOKAHEAD_TOKENS + 1  # a token and its look-ahead tokens
ENCODER_TILE, SOLVER_TILE = 5, 7  # fields of a tile
NOTHING = -1  # no page, no tail
GAP = FRAMES_PER_TOKEN  # frames of zeros in front of a row
Ints = npt.NDArray[np.int32]


class EncoderRow(NamedTuple):
    """The properties of a row that the encoder's table needs."""

    tokens: Sequence[int]
    spoken: int  # how many of `tokens` become mel; the rest is look-ahead
    prompt_frames: int
    chunk_mask: bool


class SolverRow(NamedTuple):
    """The properties of a row that the solver's table needs."""

    source: int  # index of the row's first frame in the encoder's call
    frames: int  # of the whole row
    chunk_mask: bool
    past: Sequence[int] = ()  # the pages of the chunks that are remembered, from the start of the row on
    kept: Sequence[int] = ()  # for each chunk from there on, the page where it is kept; `NOTHING`: nowhere

    @property
    def start(self) -> int:
        """The first frame to compute."""
        return CHUNK_FRAMES * len(self.past)


class EncoderTable(NamedTuple):
    """Index arrays for an encoder's call of one size: int32 views into one buffer, an array or a tensor.

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
        tiles = [(length // queries + most_rows(frames), ENCODER_TILE) for length in (tokens, frames)]
        return [(tokens, HEARD), (tokens,), (frames,), (frames,), (frames,), *tiles]

    @classmethod
    def of(cls, buffer: Any, frames: int, queries: int) -> "EncoderTable":  # noqa: ANN401 - array or tensor
        """View `buffer` as a table."""
        return cls(*_views(buffer, cls.shapes(frames, queries)))


class SolverTable(NamedTuple):
    """Index arrays for a solver's call of one size: int32 views into one buffer, an array or a tensor.

    A tile has the fields of an `EncoderTable`'s, for positions that are counted from the row's first frame in this
    call; then the index in `past` of the row's first page, and the number of frames in its pages, which all see.
    """

    positions: Any  # [frames], position in the row, or -1 between rows
    sources: Any  # [frames], index of the frame in the encoder's call
    noise: Any  # [frames], index in the noise table
    pages: Any  # [frames], the page where the frame is kept, or `NOTHING`
    tails: Any  # [frames], see `fill_solver`
    tiles: Any  # [tiles, 7]
    past: Any  # [chunks], pages of all rows

    @staticmethod
    def shapes(frames: int, queries: int, chunks: int) -> list[tuple[int, ...]]:
        """The arrays' shapes for a call of `frames` with up to `chunks` remembered ones; see `EncoderTable.shapes`."""
        return [*[(frames,)] * 5, (frames // queries + most_rows(frames), SOLVER_TILE), (chunks,)]

    @classmethod
    def of(cls, buffer: Any, frames: int, queries: int, chunks: int) -> "SolverTable":  # noqa: ANN401
        """View `buffer` as a table."""
        return cls(*_views(buffer, cls.shapes(frames, queries, chunks)))


def length(shapes: Iterable[tuple[int, ...]]) -> int:
    """Number of elements of all arrays of `shapes`."""
    return sum(map(prod, shapes))


def gap(past: Sequence[int], tail: int) -> int:
    """Number of frames in front of a row: the last `tail` ones of the pages `past`, or zeros."""
    return tail if past else GAP


def most_rows(frames: int) -> int:
    """The largest number of rows in a call of `frames`."""
    return max(4, frames // CHUNK_FRAMES)  # a stream whose past is remembered often has one chunk


def fill_encoder(table: EncoderTable, rows: Sequence[EncoderRow], silence: int, queries: int) -> list[int]:
    """Pack `rows` into `table`, one after another, and return the first frame of each.

    One token (two frames) in front of each row stays free, so that convolutions read zeros there. The table must have
    room for that, and its size must allow as many rows, see `most_rows`.
    """
    for array in table:
        array[...] = 0
    table.heard[...] = silence
    table.token_positions[...] = table.frame_positions[...] = -1
    starts, start, prompt = [], GAP, 0
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
        chunk = CHUNK_TOKENS if row.chunk_mask else row.spoken
        token_tile += _tile(table.token_tiles[token_tile:], tokens.start, row.spoken, chunk, queries)
        frame_tile += _tile(table.frame_tiles[frame_tile:], start, length, FRAMES_PER_TOKEN * chunk, queries)
        starts.append(start)
        start += length + GAP
        prompt += row.prompt_frames
    return starts


def fill_solver(table: SolverTable, rows: Sequence[SolverRow], queries: int, tail: int) -> list[int]:
    """Pack the frames to compute of `rows` into `table`, and return the first one of each; see `fill_encoder`.

    What convolutions need of a chunk is its tail: its last `tail` frames. Those of a row's last remembered chunk are in
    front of the row. There, `tails` has the indices at which they are read; in rows, those at which frames are written.
    """
    for array in table:
        array[...] = 0
    table.positions[...] = table.pages[...] = table.tails[...] = NOTHING
    starts, end, tile, past = [], 0, 0, 0
    for row in rows:
        start, length = end + gap(row.past, tail), row.frames - row.start
        end = start + length
        positions = np.arange(row.start, row.frames)
        table.positions[start:end] = table.noise[start:end] = positions
        table.sources[start:end] = row.source + positions
        pages = np.repeat(np.asarray(row.kept, np.int32), CHUNK_FRAMES)[:length]
        table.pages[start : start + len(pages)] = pages
        frames = np.arange(len(pages)) % CHUNK_FRAMES - (CHUNK_FRAMES - tail)
        kept = (pages != NOTHING) & (frames >= 0)
        table.tails[start : start + len(pages)] = np.where(kept, tail * pages + frames, NOTHING)
        if row.past:
            table.noise[start - tail : start] = np.arange(row.start - tail, row.start)
            table.tails[start - tail : start] = tail * row.past[-1] + np.arange(tail)
        table.past[past : past + len(row.past)] = row.past
        tiles = table.tiles[tile:]
        count = _tile(tiles, start, length, CHUNK_FRAMES if row.chunk_mask else length, queries)
        tiles[:count, ENCODER_TILE:] = past, row.start
        starts.append(start)
        tile, past = tile + count, past + len(row.past)
    return starts


def _tile(tiles: Ints, start: int, length: int, chunk: int, queries: int) -> int:
    """Write the tiles of one row and return their number."""
    positions = np.arange(0, length, queries)
    row_tiles = tiles[: len(positions)]
    row_tiles[:, 0], row_tiles[:, 1] = start + positions, positions
    row_tiles[:, 2:ENCODER_TILE] = start, length, chunk
    return len(positions)


def _views(buffer: Any, shapes: Sequence[tuple[int, ...]]) -> Iterable[Any]:  # noqa: ANN401 - array or tensor
    bounds = pairwise(accumulate(map(prod, shapes), initial=0))
    return (buffer[start:end].reshape(shape) for shape, (start, end) in zip(shapes, bounds, strict=True))
