"""Captures a computation once per size and replays it without launch overhead."""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import torch

log = logging.getLogger(__name__)


class CudaGraphs:
    """CUDA graphs of one computation, one per size.

    All graphs share one memory pool, so they must be replayed one after another on one stream. Results that must
    outlive a replay belong in buffers allocated outside the computation. More sizes may be captured between replays.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[int], object],
        compute: Callable[[int], None],
        sizes: Sequence[int],
        device: torch.device | str,
    ) -> None:
        """Set up the graphs without capturing any.

        Args:
            name: of the computation, for the log.
            prepare: `prepare(size)` writes the indices that `compute(size)` reads, for a call without rows.
            compute: `compute(size)` reads and writes buffers at fixed addresses and never waits for the device.
        """
        self.sizes = sorted(sizes)
        self._name = name
        self._prepare = prepare
        self._compute = compute
        self._device = torch.device(device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._padding: Counter[int] = Counter()  # that calls had because a size is missing, by that size

    @property
    def padding(self) -> int:
        """How much padding of calls the most wanted missing size would have saved."""
        return max(self._padding.values(), default=0)

    def capture(self, sizes: Collection[int]) -> None:
        """Capture `sizes`, largest first so that smaller ones fit in its memory, and log the progress."""
        for number, size in enumerate(sorted(sizes, reverse=True), start=1):
            self._capture(size)
            log.info("Captured the %s for %d frames, %d of %d sizes.", self._name, size, number, len(sizes))

    def capture_next(self) -> bool:
        """Capture the most wanted missing size, if there is one, and return whether more are missing."""
        missing = [size for size in self.sizes if size not in self._graphs]
        if missing:
            size = max(missing, key=lambda size: self._padding[size])
            self._padding.pop(size, None)
            self._capture(size)
        return len(missing) > 1

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Compute a call of `size` without rows.

        The buffers are prepared first: an earlier call of another size may have left indices that are out of range.
        """
        self._prepare(size)
        self._compute(size)

    def size_for(self, amount: int) -> int:
        """The smallest captured size that holds `amount`; if none is captured yet, the smallest of all sizes.

        Raises:
            ValueError: `amount` exceeds the largest size.
        """
        sizes = sorted(self._graphs) or self.sizes
        index = bisect_left(sizes, amount)
        if index == len(sizes):
            raise ValueError(f"{amount} is more than the largest captured size, {sizes[-1]}; split the call")
        wanted = self.sizes[bisect_left(self.sizes, amount)]
        if wanted != sizes[index]:
            self._padding[wanted] += sizes[index] - wanted
        return sizes[index]

    def run(self, size: int) -> None:
        """Compute `size` on the current stream, with its graph if it is captured."""
        if graph := self._graphs.get(size):
            graph.replay()
        else:
            self._compute(size)

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """The stream of all captures. A block of the pool can be reused only on its own stream."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _capture(self, size: int) -> None:
        stream, current = self._stream, torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self.rehearse(size)  # loads kernels and allocates memory, which is not allowed during a capture
        pool = next((graph.pool() for graph in self._graphs.values()), None)
        graph = torch.cuda.CUDAGraph()
        # Thread-local, because another thread may use the device at the same time.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._compute(size)
        current.wait_stream(stream)
        self._graphs[size] = graph
