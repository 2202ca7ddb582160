"""One computation captured once for each of a few sizes, and replayed without the cost of its launches."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import torch

log = logging.getLogger(__name__)


class CudaGraphs:
    """CUDA graphs of one computation, one for each size.

    All of them share one memory pool, so they must be replayed one after the other on one stream; what is to outlive
    a replay belongs in buffers that the computation writes to, allocated outside of it. Whoever replays may capture
    more sizes in between.
    """

    def __init__(
        self,
        prepare: Callable[[int], object],
        compute: Callable[[int], None],
        sizes: Sequence[int],
        device: torch.device | str,
    ) -> None:
        """Capture nothing yet.

        Args:
            prepare: `prepare(size)` writes what `compute(size)` reads as indices, of a call that has no rows.
            compute: `compute(size)` reads and writes buffers that stay where they are, and never waits for the device.
        """
        self.sizes = sorted(sizes)
        self._prepare = prepare
        self._compute = compute
        self._device = torch.device(device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def capture(self, sizes: Collection[int]) -> None:
        """Capture `sizes`, the largest first: the smaller ones then fit in its memory. The log shows the progress."""
        for number, size in enumerate(sorted(sizes, reverse=True), start=1):
            self._capture(size)
            log.info("Captured calls of %d frames, %d of %d sizes.", size, number, len(sizes))

    def capture_next(self) -> bool:
        """Capture the smallest size that is not captured, if there is one; whether there is another."""
        missing = [size for size in self.sizes if size not in self._graphs]
        for size in missing[:1]:
            self._capture(size)
        return len(missing) > 1

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Compute a call of `size` that has no rows, whatever the call before was.

        What that call left may be laid out for another size, and its numbers reach too far as indices of this one.
        """
        self._prepare(size)
        self._compute(size)

    def size_for(self, amount: int) -> int:
        """The smallest captured size that holds `amount`; as long as none is captured, the smallest of all.

        Raises:
            ValueError: none does.
        """
        sizes = sorted(self._graphs) or self.sizes
        index = bisect_left(sizes, amount)
        if index == len(sizes):
            raise ValueError(f"{amount} is more than the largest captured size, {sizes[-1]}; split the call")
        return sizes[index]

    def run(self, size: int) -> None:
        """Compute `size` on the current stream, by its graph if it has one."""
        if graph := self._graphs.get(size):
            graph.replay()
        else:
            self._compute(size)

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """Of all captures: a block of the pool is used again on its own stream only."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _capture(self, size: int) -> None:
        stream, current = self._stream, torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self.rehearse(size)  # loads kernels and allocates, which a capture must not
        pool = next((graph.pool() for graph in self._graphs.values()), None)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: another thread may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._compute(size)
        current.wait_stream(stream)
        self._graphs[size] = graph
