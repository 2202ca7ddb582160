"""Which flows the fused kernels take.

Tiles are powers of two wide, so what a program holds whole must be, too: the channels of a head, those of a frame in
the estimator, and the sums that a norm adds up, one for each tile of a frame's channels. A matrix product has at least
16 on each side, and a tile of a whole head or frame fits on the chip up to the released model's sizes.
"""

from vllm_cosyvoice.config import FlowConfig

SMALLEST = 16  # side of a matrix product
WIDEST_HEAD = 64
WIDEST_ESTIMATOR = 256


def misfits(config: FlowConfig) -> list[str]:
    """The sizes that the fused kernels don't take, each with what they would take; none if they compute `config`."""
    powers_of_two = (
        ("encoder width", config.width, None),
        ("encoder head width", config.width // config.heads, WIDEST_HEAD),
        ("estimator width", config.estimator_channels, WIDEST_ESTIMATOR),
        ("estimator head width", config.estimator_head_dim, WIDEST_HEAD),
    )
    found = [
        f"{what} {size} (a power of two from {SMALLEST}{f' to {largest}' if largest else ''})"
        for what, size, largest in powers_of_two
        if size < SMALLEST or size.bit_count() > 1 or size > (largest or size)
    ]
    if config.feed_forward % SMALLEST:
        found.append(f"encoder feed-forward width {config.feed_forward} (a multiple of {SMALLEST})")
    return found
