"""What a packed flow remembers of finished chunks, in pages on the GPU, so that CUDA graphs can read and write it.

A page holds what later chunks need of one chunk at all steps, with the condition and without it: the keys and values of
every attention layer, and the chunk's tail, that is, its last frames before every convolution. A call writes the pages
of the chunks that it finishes. What it reads was written by earlier calls.
"""

import weakref
from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from vllm_cosyvoice.config import CHUNK_FRAMES, MEL_BINS
from vllm_cosyvoice.flow.cache import FlowCache
from vllm_cosyvoice.flow.cuda.kernels import Pages, Tail
from vllm_cosyvoice.flow.cuda.packing import SolverTable
from vllm_cosyvoice.gpu.device import GIB, GpuMemoryError

COPIES = 2  # of each frame: with the condition and without
DECODER_BYTES = 11 * GIB // 2  # of a further process that decodes: its networks and their graphs
MOST_PAGES = 512  # of the default budget; with 370 pages, 128 streams of 10 s had no stalls


class PageLayout(NamedTuple):
    """The sizes of a network that decide how large a page is."""

    steps: int
    attentions: int
    attention_width: int
    convolutions: int
    convolution_width: int
    tail: int  # frames before a frame that a convolution sees

    @property
    def keys_values(self) -> int:
        """Numbers in a page's keys and values."""
        return self.steps * self.attentions * COPIES * CHUNK_FRAMES * 2 * self.attention_width

    @property
    def tails(self) -> int:
        """Numbers in a page's tails but those of x."""
        return self.steps * self.convolutions * COPIES * self.tail * self.convolution_width

    def page_bytes(self, data_type: torch.dtype) -> int:
        """The memory of a page."""
        x = self.steps * self.tail * MEL_BINS * torch.float32.itemsize
        return (self.keys_values + self.tails) * data_type.itemsize + x


class PagedState:
    """Finished chunks that follow one another, each in a page; the pages are free when nobody refers to this object."""

    def __init__(self, pages: list[int], page_bytes: int, free: list[int]) -> None:
        self.pages = pages
        self.frames = CHUNK_FRAMES * len(pages)
        self.nbytes = page_bytes * len(pages)
        weakref.finalize(self, free.extend, pages).atexit = False


class StepMemory:
    """The memory of one step, for the frames of one call. It knows a layer by its turn, which is always the same.

    Without tensors, nothing is remembered.
    """

    def __init__(
        self,
        table: SolverTable,
        keys_values: Iterable[Tensor | None] = repeat(None),
        tails: Iterable[Tensor | None] = repeat(None),
        next_x: Tensor | None = None,
    ) -> None:
        """`next_x`: the tails of x after the step."""
        self._table = table
        self._keys_values, self._tails, self._next_x = iter(keys_values), iter(tails), next_x

    def pages(self) -> Pages | None:
        """The pages of the next attention layer."""
        memory = next(self._keys_values)
        return None if memory is None else Pages(memory, self._table.pages, self._table.past)

    def tail(self) -> Tail | None:
        """The tails before the next convolution."""
        return self._tail(next(self._tails))

    def next_x(self) -> Tail | None:
        """The tails of x after the step."""
        return self._tail(self._next_x)

    def _tail(self, memory: Tensor | None) -> Tail | None:
        return None if memory is None else Tail(memory, self._table.tails)


def gpu_budget(
    device: torch.device, page_bytes: int, *, wanted: int | None = None, others: int = 0, decoders: int = 1
) -> int:
    """The bytes for the pages of one of `decoders` processes that share a GPU.

    wanted: bytes for all of them; None: half of the GPU's memory that nothing else needs, but at most `MOST_PAGES`.
    others: bytes that the language model and one decoder need. They stay free even if other programs use the GPU.
    """
    if wanted is not None:
        return wanted // decoders
    free, total = torch.cuda.mem_get_info(device)
    unused = total - others - (decoders - 1) * DECODER_BYTES
    pages = min(unused // 2 // page_bytes, MOST_PAGES) // decoders
    return page_bytes * max(0, min(pages, (free - others) // page_bytes))


class FlowMemory:
    """As many pages as fit into `budget` bytes, at least one, and the cache of what is in them."""

    def __init__(self, layout: PageLayout, budget: int, data_type: torch.dtype, device: torch.device) -> None:
        """Allocate the pages.

        Raises:
            GpuMemoryError: `device` has too little free memory.
        """
        self._page_bytes = layout.page_bytes(data_type)
        count = max(1, budget // self._page_bytes)
        self.cache = FlowCache(count * self._page_bytes)
        self._free = list(range(count))
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        try:
            self._keys_values = torch.zeros(
                layout.steps, layout.attentions, count, COPIES, CHUNK_FRAMES, 2 * layout.attention_width,
                dtype=data_type, device=device,
            )  # fmt: skip
            self._tails = torch.zeros(
                layout.steps, layout.convolutions, layout.tail * count, COPIES, layout.convolution_width,
                dtype=data_type, device=device,
            )  # fmt: skip
            self._x = torch.zeros(layout.steps, layout.tail * count, MEL_BINS, device=device)  # of step 0: of no use
        except torch.OutOfMemoryError as error:
            raise GpuMemoryError(
                f"the flow's cache needs {self.cache.budget / GIB:.1f} GiB of GPU memory, but {free / GIB:.1f} GiB are"
                " free: choose a smaller flow_cache_gib"
            ) from error

    def take(self, count: int) -> PagedState | None:
        """Take free pages, after dropping unused prompts from the cache if necessary; None if there are too few."""
        is_room = self.cache.make_room(count * self._page_bytes, free=len(self._free) * self._page_bytes)
        if not is_room or len(self._free) < count:  # another thread may still look at a state that was dropped
            return None
        return PagedState([self._free.pop() for _ in range(count)], self._page_bytes, self._free)

    def at(self, step: int, table: SolverTable) -> StepMemory:
        """The memory of the solver's `step`."""
        return StepMemory(table, self._keys_values[step], self._tails[step], self._x[(step + 1) % len(self._x)])
