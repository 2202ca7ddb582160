"""One computation captured once for each of a few sizes, and replayed without the cost of its launches."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

WARM_UPS = 2  # runs before a capture: the first compiles and allocates, which a capture must not


class CudaGraphs:
    """CUDA graphs of one computation, one for each size.

    All of them share one memory pool, so they must be replayed one after the other on one stream; what is to outlive
    a replay belongs in buffers that the computation writes to, allocated outside of it.
    """

    def __init__(
        self,
        prepare: Callable[[int], None],
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

    @torch.inference_mode()
    def capture(self) -> None:
        """Compile and capture every size, the largest first: the smaller ones then fit in its memory."""
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        for size in reversed(self.sizes):
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self.rehearse(size)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                self._compute(size)
            self._graphs[size] = graph
        torch.cuda.current_stream(self._device).wait_stream(stream)

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Compute a call of `size` that has no rows, whatever the call before was.

        What that call left may be laid out for another size, and its numbers reach too far as indices of this one.
        """
        self._prepare(size)
        self._compute(size)

    def size_for(self, amount: int) -> int:
        """The smallest size that holds `amount`.

        Raises:
            ValueError: none does.
        """
        index = bisect_left(self.sizes, amount)
        if index == len(self.sizes):
            raise ValueError(f"{amount} is more than the largest captured size, {self.sizes[-1]}; split the call")
        return self.sizes[index]

    def replay(self, size: int) -> None:
        """Compute `size` on the current stream."""
        self._graphs[size].replay()
