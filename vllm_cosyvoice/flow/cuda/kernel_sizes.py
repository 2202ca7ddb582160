"""Sizes that the fused kernels support.

Tile widths are powers of two, so any dimension that a program holds as a whole must be a power of two as well: the
channels of a head, the channels of a frame in the estimator, and the partial sums of a norm (one per tile of a frame's
channels). Matrix products need at least 16 on each side, and a tile of a whole head or frame fits into on-chip memory
up to the released model's sizes.
"""

from vllm_cosyvoice.config import FlowConfig

SMALLEST = 16  # smallest side of a matrix product
WIDEST_HEAD = 64
WIDEST_ESTIMATOR = 256


def misfits(config: FlowConfig) -> list[str]:
    """The sizes in `config` that the fused kernels don't support, each with the supported range."""
    powers_of_two = (
        ("encoder width", config.width, None),
        ("encoder head width", config.width // config.heads, WIDEST_HEAD),
        ("estimator width", config.estimator_channels, WIDEST_ESTIMATOR),
        ("estimator head width", config.estimator_head_dim, WIDEST_HEAD),
    )
    unsupported = [
        f"{name} {size} (a power of two from {SMALLEST}{f' to {largest}' if largest else ''})"
        for name, size, largest in powers_of_two
        if size < SMALLEST or size.bit_count() > 1 or size > (largest or size)
    ]
    if config.feed_forward % SMALLEST:
        unsupported.append(f"encoder feed-forward width {config.feed_forward} (a multiple of {SMALLEST})")
    return unsupported
