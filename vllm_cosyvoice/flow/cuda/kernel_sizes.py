"""Sizes that the fused kernels support.

Tile widths are powers of two, so any dimension that a program holds as a whole must be a power of two as well: the
channels of a head, the channels of a frame in the U-Net or of a group in the diffusion transformer's convolutions, and
the partial sums of a norm (one per tile of a frame's channels). Matrix products need at least 16 on each side, and a
tile of a whole head, frame or group fits into on-chip memory up to the released models' sizes.
"""

from vllm_cosyvoice.config import DiTFlowConfig, FlowConfig
from vllm_cosyvoice.flow.torch.dit import POSITION_GROUPS

SMALLEST = 16  # smallest side of a matrix product
WIDEST_HEAD = 64
WIDEST_ESTIMATOR = 256
WIDEST_GROUP = 64


def misfits(config: FlowConfig | DiTFlowConfig) -> list[str]:
    """The sizes in `config` that the fused kernels don't support, each with the supported range."""
    powers_of_two: list[tuple[str, int, int, int | None]]  # with the smallest and the largest
    if isinstance(config, DiTFlowConfig):
        feed_forward = "estimator feed-forward width"
        groups = (POSITION_GROUPS * SMALLEST, POSITION_GROUPS * WIDEST_GROUP)
        powers_of_two = [
            ("estimator width", config.width, *groups),
            ("estimator head width", config.head_dim, SMALLEST, WIDEST_HEAD),
        ]
    else:
        feed_forward = "encoder feed-forward width"
        powers_of_two = [
            ("encoder width", config.width, SMALLEST, None),
            ("encoder head width", config.width // config.heads, SMALLEST, WIDEST_HEAD),
            ("estimator width", config.estimator_channels, SMALLEST, WIDEST_ESTIMATOR),
            ("estimator head width", config.estimator_head_dim, SMALLEST, WIDEST_HEAD),
        ]
    unsupported = [
        f"{name} {size} (a power of two from {smallest}{f' to {largest}' if largest else ''})"
        for name, size, smallest, largest in powers_of_two
        if size < smallest or size.bit_count() > 1 or size > (largest or size)
    ]
    if config.feed_forward % SMALLEST:
        unsupported.append(f"{feed_forward} {config.feed_forward} (a multiple of {SMALLEST})")
    return unsupported
