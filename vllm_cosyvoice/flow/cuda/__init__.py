"""The flow in fused kernels and CUDA graphs: rows are packed one behind the other, without padding."""
