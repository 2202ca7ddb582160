"""The flow as fused kernels in CUDA graphs. Rows are packed one after another, without padding."""
